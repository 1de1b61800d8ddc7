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
            Shape::Xml => Fields::new(self.xml(parts)?.into_iter()),
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
        if others.clone().skip(there).any(|name| value(name).is_some()) {
            return Err(OTHERS);
        }
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

    fn xml<'r>(&self, parts: &Parts<'r>) -> Result<Vec<OneField<'r>>, Refused> {
        let mut leaves = Vec::new();
        let read = xml::leaves(parts.readable().map_err(missing)?, |leaf| match leaf.path {
            [_, name] if !leaf.has_attributes => {
                let value = leaf.text.into_owned().into_bytes();
                leaves.push(Ok((
                    Cow::Owned(name.clone().into_bytes()),
                    Cow::Owned(value),
                )));
                leaves.len() <= FIELDS_MAX
            }
            _ => false,
        });
        read.map_err(|bad| Refused::Malformed(bad.words()))?;
        Ok(leaves)
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
