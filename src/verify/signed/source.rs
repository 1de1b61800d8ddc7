//! Where the fields of `{fields}` are, and how they are read.

use std::borrow::Cow;

use super::missing;
use crate::request::json::Scalar;
use crate::request::{FIELDS_MAX, Missing, Parts, Selector, form, json, xml};
use crate::verify::Refused;
use crate::verify::fields::{Fields, NameValue, Text};

/// Where the fields of `{fields}` are, and how they are written in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldSource {
    /// Where they are.
    pub from: Shape,
    /// Names that are left out.
    pub skip: Vec<String>,
    /// Fields without a value are left out.
    pub skips_empty: bool,
    /// What stands between them: `&`, or nothing.
    pub join: Box<str>,
    /// Only the values are in the text. Then every name that is signed is in `always` or, if it may be missing, in
    /// `free_text`.
    pub values_only: bool,
    /// Names that every notification has.
    pub always: Vec<String>,
    /// Names that some notifications have.
    pub sometimes: Vec<String>,
    /// Names whose values are somebody's own text.
    pub free_text: Vec<String>,
}

/// What the fields are fields of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Shape {
    /// The query.
    Query,
    /// The form in the body.
    Form,
    /// The query if there is no body, else the form.
    Param,
    /// The XML document in the body: the children of its root.
    Xml,
    /// The JSON object at this pointer in the body.
    Json(Vec<String>),
    /// The JSON object that another place holds as a text.
    Inner(Selector),
}

impl FieldSource {
    /// The fields of the request.
    pub fn read<'r>(&self, parts: &Parts<'r>) -> Result<Fields<'r>, Refused> {
        match &self.from {
            Shape::Query => Fields::new(decoded(parts.query.as_bytes())),
            Shape::Form => Fields::new(decoded(parts.readable().map_err(missing)?)),
            Shape::Param if parts.body.is_empty() => Fields::new(decoded(parts.query.as_bytes())),
            Shape::Param => Fields::new(decoded(parts.readable().map_err(missing)?)),
            Shape::Xml => elements(parts.readable().map_err(missing)?, None),
            Shape::Json(pointer) => {
                let body = parts.readable().map_err(missing)?;
                Fields::new(self.object(json::object(body, pointer))?.into_iter())
            }
            Shape::Inner(selector) => {
                let text = parts.value(selector).map_err(missing)?;
                Fields::new(self.object(json::object(&text, &[]))?.into_iter())
            }
        }
    }

    /// The values alone. Nothing in their text says whose they are, so the names must be those that are known, all of them
    /// must be there, and of the others each only if those before it are.
    pub fn values(&self, all: &Fields<'_>) -> Result<Text, Refused> {
        const OTHERS: Refused = Refused::Malformed(
            "its fields are not those that this provider signs, or one is missing",
        );
        const SEAM: Refused = Refused::Malformed("a value has in it what stands between values");
        let mut names: Vec<&str> = self.always.iter().map(String::as_str).collect();
        let value = |name: &str| all.get(name.as_bytes()).filter(|value| !value.is_empty());
        let others = self.free_text.iter().map(String::as_str);
        let there = others
            .clone()
            .take_while(|name| value(name).is_some())
            .count();
        names.extend(others.take(there));
        names.sort_unstable();
        let is_known = |name: &[u8]| {
            let named = |its: &&String| its.as_bytes() == name;
            self.skip.iter().any(|its| named(&its))
                || names.iter().any(|its| its.as_bytes() == name)
        };
        if all
            .iter()
            .any(|(name, value)| !value.is_empty() && !is_known(name))
        {
            return Err(OTHERS);
        }
        let values: Option<Vec<&[u8]>> = names.iter().map(|name| value(name)).collect();
        let values = values.ok_or(OTHERS)?;
        let join = self.join.as_bytes();
        if values
            .iter()
            .any(|value| value.windows(join.len()).any(|piece| piece == join))
        {
            return Err(SEAM);
        }
        Ok(Text::of_values(values.join(join)))
    }

    fn object<'r>(
        &self,
        read: Result<Vec<(String, Option<Scalar>)>, Missing>,
    ) -> Result<Vec<OneField<'r>>, Refused> {
        const NESTED: Refused = Refused::Malformed(
            "a field that is signed is an object or a list, of which nobody says how it is signed",
        );
        let mut all = Vec::new();
        for (name, value) in read.map_err(missing)? {
            let value = match value {
                Some(value) => value.into_text().into_bytes(),
                None if self.skip.contains(&name) => Vec::new(),
                None => return Err(NESTED),
            };
            all.push(Ok((Cow::Owned(name.into_bytes()), Cow::Owned(value))));
        }
        Ok(all)
    }

    /// Where the field called `name` is.
    pub fn selector(&self, name: &str) -> Selector {
        let name = name.to_owned();
        match &self.from {
            Shape::Query => Selector::Query(name),
            Shape::Form => Selector::Form(name),
            Shape::Param => Selector::Param(name),
            Shape::Xml => Selector::Xml(vec![name]),
            Shape::Json(pointer) => Selector::Json([&pointer[..], &[name]].concat()),
            Shape::Inner(outer) => Selector::Inner(Box::new(outer.clone()), vec![name]),
        }
    }

    pub fn covers(&self, selector: &Selector) -> bool {
        let signs = |name: &str| !self.skip.iter().any(|its| its == name);
        match (&self.from, selector) {
            (Shape::Query, Selector::Query(name))
            | (Shape::Form, Selector::Form(name))
            | (Shape::Param, Selector::Param(name)) => signs(name),
            (Shape::Xml, Selector::Xml(names)) => names.len() == 1 && signs(&names[0]),
            (Shape::Json(at), Selector::Json(pointer)) => match pointer.strip_prefix(&at[..]) {
                Some([name]) => signs(name),
                _ => false,
            },
            // All of the text must be signed for a value in it to be: what is skipped in it is not.
            (Shape::Inner(_), _) => false,
            _ => false,
        }
    }
}

/// The children of the root of an XML document that has nothing else in it; `root`: what the root must be called.
pub(in crate::verify) fn elements(
    body: &[u8],
    root: Option<&str>,
) -> Result<Fields<'static>, Refused> {
    let bytes = |text: String| Cow::Owned(text.into_bytes());
    let mut all = Vec::new();
    let read = xml::leaves(body, |leaf| match leaf.path {
        [its, name] if root.is_none_or(|root| its == root) && !leaf.has_attributes => {
            all.push(Ok((bytes(name.clone()), bytes(leaf.text.into_owned()))));
            // One more than are taken is enough to see that they are too many.
            all.len() <= FIELDS_MAX
        }
        _ => false,
    });
    read.map_err(|bad| Refused::Malformed(bad.words()))?;
    Fields::new(all.into_iter())
}

pub fn borrowed(names: &[String]) -> Vec<&str> {
    names.iter().map(String::as_str).collect()
}

/// A name and its value, if they can be read.
type OneField<'r> = Result<NameValue<'r>, Refused>;

fn decoded(form: &[u8]) -> impl Iterator<Item = OneField<'_>> {
    const BAD_ESCAPE: Refused = Refused::Malformed("a field has a % without two digits");
    form::fields(form).map(|(name, value)| {
        let name = form::decode(name).ok_or(BAD_ESCAPE)?;
        Ok((name, form::decode(value).ok_or(BAD_ESCAPE)?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(from: Shape) -> FieldSource {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        FieldSource {
            from,
            skip: names(&["sign"]),
            skips_empty: true,
            join: "#".into(),
            values_only: true,
            always: names(&["amount", "user"]),
            sometimes: Vec::new(),
            free_text: names(&["ext1", "ext2"]),
        }
    }

    /// The fields of a request with this query and body.
    fn read(source: &FieldSource, query: &str, body: &str) -> Result<String, Refused> {
        let parts = Parts {
            path_id: None,
            query,
            headers: &[],
            body: body.as_bytes(),
            opened: None,
        };
        let fields = source.read(&parts)?;
        let pieces = fields.iter().map(|(name, value)| {
            let [name, value] = [name, value].map(|bytes| String::from_utf8_lossy(bytes));
            format!("{name}={value}")
        });
        Ok(pieces.collect::<Vec<_>>().join("&"))
    }

    #[test]
    fn values_without_names_are_believed_where_no_other_fields_have_the_same_text() {
        let source = source(Shape::Form);
        let values = |form: &str| {
            let fields = Fields::new(decoded(form.as_bytes())).expect("fields");
            let text = source.values(&fields).map(|text| text.bytes);
            text.map_err(|refused| refused.word())
        };
        for (form, text) in [
            ("amount=600&user=u&sign=s", "600#u"),
            ("user=u&amount=600", "600#u"),
            ("amount=600&ext1=a&user=u", "600#a#u"),
            ("amount=600&ext1=a&ext2=b&user=u", "600#a#b#u"),
            // What is empty is in no text.
            ("amount=600&ext1=a&ext2=&user=u&other=", "600#a#u"),
        ] {
            assert_eq!(values(form), Ok(text.as_bytes().to_vec()), "{form}");
        }
        for form in [
            // One that is always there is not, or is empty.
            "amount=600",
            "amount=600&user=",
            // The second of the others without the first: the text is the first's.
            "amount=600&ext2=a&user=u",
            // One that nobody signs.
            "amount=600&user=u&other=1",
            // Two values are one.
            "amount=600%23a&user=u",
            "amount=600&user=u%23",
        ] {
            assert_eq!(values(form), Err("malformed"), "{form}");
        }
    }

    #[test]
    fn fields_are_read_from_where_they_are() {
        let json = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let inner = Shape::Inner(Selector::Form("data".to_owned()));
        for (from, query, body, wanted) in [
            (Shape::Query, "a=1&b=%26", "c=3", "a=1&b=&"),
            (Shape::Form, "a=1", "c=3", "c=3"),
            (Shape::Form, "", "&a=1&&c=3&", "a=1&c=3"),
            (Shape::Param, "a=1", "c=3", "c=3"),
            (Shape::Param, "a=1", "", "a=1"),
            (Shape::Xml, "", "<x><a>1</a><b/></x>", "a=1&b="),
            (
                Shape::Json(json(&["d"])),
                "",
                r#"{"d":{"a":1.50,"b":null,"sign":[]},"e":2}"#,
                "a=1.50&b=&sign=",
            ),
            (inner, "", "data=%7B%22a%22%3A%22x%22%7D", "a=x"),
        ] {
            assert_eq!(
                read(&source(from), query, body).as_deref(),
                Ok(wanted),
                "{body}"
            );
        }
        for (from, body) in [
            (Shape::Form, "a=%"),
            (Shape::Form, "a=1&a=2"),
            // Attributes are in no text, so they could say anything.
            (Shape::Xml, "<x><a t=\"1\">1</a></x>"),
            (Shape::Xml, "<x><a><b>1</b></a></x>"),
            (Shape::Xml, "<x><a>1</a><a>2</a></x>"),
            (Shape::Xml, "<x><a>1</a>"),
            (Shape::Json(json(&[])), r#"{"a":{}}"#),
            (Shape::Json(json(&[])), r#"{"a":1,"a":2}"#),
            (Shape::Json(json(&["d"])), r#"{"a":1}"#),
        ] {
            let refused = read(&source(from), "", body);
            assert!(refused.is_err(), "{body}: {refused:?}");
        }
        let many = |count: usize| -> String {
            let fields = (0..count).map(|n| format!("<a{n}>1</a{n}>"));
            format!("<x>{}</x>", fields.collect::<String>())
        };
        assert!(read(&source(Shape::Xml), "", &many(FIELDS_MAX)).is_ok());
        assert!(read(&source(Shape::Xml), "", &many(FIELDS_MAX + 1)).is_err());
    }

    #[test]
    fn what_is_signed_is_what_is_read_and_not_skipped() {
        let json = |names: &[&str]| Selector::Json(names.iter().map(|n| (*n).to_owned()).collect());
        let xml = |names: &[&str]| Selector::Xml(names.iter().map(|n| (*n).to_owned()).collect());
        let form = |name: &str| Selector::Form(name.to_owned());
        let at = || Shape::Json(vec!["d".to_owned()]);
        for (from, selector, covers) in [
            (Shape::Form, form("a"), true),
            (Shape::Form, form("sign"), false),
            (Shape::Form, Selector::Query("a".to_owned()), false),
            (Shape::Query, Selector::Query("a".to_owned()), true),
            (Shape::Param, Selector::Param("a".to_owned()), true),
            (Shape::Xml, xml(&["a"]), true),
            (Shape::Xml, xml(&["sign"]), false),
            (Shape::Xml, xml(&["a", "b"]), false),
            (at(), json(&["d", "a"]), true),
            (at(), json(&["d", "sign"]), false),
            (at(), json(&["d", "a", "b"]), false),
            (at(), json(&["d"]), false),
            (at(), json(&["a"]), false),
            (Shape::Inner(form("data")), form("data"), false),
        ] {
            assert_eq!(source(from).covers(&selector), covers, "{selector:?}");
        }
    }
}
