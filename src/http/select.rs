//! Finding a value in a request: the backend's id, the event key. Pure, and bounded by what it is given.
//!
//! A value that is there twice is not found: two programs that read the same request would not agree on it.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

use crate::config::Selector;
use crate::verify::{self, form, xml};

/// The parts of a request that a selector can point into.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub path_id: Option<&'a str>,
    pub query: &'a str,
    pub headers: &'a [(&'a str, &'a str)],
    pub body: &'a [u8],
    /// What the body holds sealed, opened; or why it is not. `None`: nothing can be opened here.
    pub opened: Option<&'a Result<Vec<u8>, &'static str>>,
}

/// Why a value was not found. Says where it was looked for, never what stands there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// Nothing is there.
    Nowhere(String),
    /// It is there more than once.
    Twice(String),
    /// It is there, but is no text and no whole number.
    NotText(String),
    /// The body is not what the selector reads.
    Unreadable(&'static str),
    /// It cannot be looked into; says why.
    Sealed(&'static str),
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nowhere(place) => write!(f, "there is no {place}"),
            Self::Twice(place) => write!(f, "there is more than one {place}"),
            Self::NotText(place) => write!(f, "{place} is neither a text nor a whole number"),
            Self::Unreadable(form) => write!(f, "the body is not {form}"),
            Self::Sealed(why) => f.write_str(why),
        }
    }
}

impl<'a> Parts<'a> {
    /// The value that `selector` points at.
    ///
    /// # Errors
    /// It is not there, is there twice, or cannot be read.
    pub fn select(&self, selector: &Selector) -> Result<Cow<'a, str>, Missing> {
        match selector {
            Selector::Path => {
                let place = || "id in the path".to_owned();
                let id = self.path_id.ok_or_else(|| Missing::Nowhere(place()))?;
                form_text(id.as_bytes(), false).ok_or_else(|| Missing::NotText(place()))
            }
            Selector::Query(name) => field(self.query.as_bytes(), name, || {
                format!("{name} in the query")
            }),
            Selector::Form(name) => field(self.readable()?, name, || format!("form field {name}")),
            Selector::Header(names) => self.header(names).map(Cow::Borrowed),
            Selector::Json(pointer) => json(self.readable()?, pointer).map(Cow::Owned),
            Selector::Xml(names) => element(self.readable()?, names).map(Cow::Owned),
            Selector::Opened(pointer) => match self.opened {
                Some(Ok(opened)) => json(opened, pointer).map(Cow::Owned),
                Some(Err(why)) => Err(Missing::Sealed(why)),
                None => Err(Missing::Sealed("nothing in the body can be opened")),
            },
            // Whoever checked the signature has it, or nobody has.
            Selector::OfSignature => Err(Missing::Nowhere("event in the signature".to_owned())),
        }
    }
}

impl<'a> Parts<'a> {
    /// The body without a byte order mark.
    fn readable(&self) -> Result<&'a [u8], Missing> {
        verify::body_text(self.headers, self.body).map_err(Missing::Sealed)
    }

    /// The value of the header that has one of `names`.
    fn header(&self, names: &[String]) -> Result<&'a str, Missing> {
        let place = || format!("header {}", names.join(" or "));
        let mut found = None;
        for name in names {
            let mut values = self.headers.iter();
            let mut values = values
                .by_ref()
                .filter(|(its, _)| its.eq_ignore_ascii_case(name))
                .map(|(_, value)| *value);
            match (values.next(), values.next()) {
                (Some(_), Some(_)) => return Err(Missing::Twice(place())),
                (Some(value), None) if found.is_some_and(|earlier| earlier != value) => {
                    return Err(Missing::Twice(place()));
                }
                (Some(value), None) => found = Some(value),
                (None, _) => {}
            }
        }
        found.ok_or_else(|| Missing::Nowhere(place()))
    }
}

fn one<T>(first: Option<T>, second: Option<T>, place: impl Fn() -> String) -> Result<T, Missing> {
    match (first, second) {
        (Some(value), None) => Ok(value),
        (None, _) => Err(Missing::Nowhere(place())),
        (Some(_), Some(_)) => Err(Missing::Twice(place())),
    }
}

/// The field called `name` of `application/x-www-form-urlencoded` bytes.
fn field<'a>(
    form: &'a [u8],
    name: &str,
    place: impl Fn() -> String,
) -> Result<Cow<'a, str>, Missing> {
    let mut values = form::fields(form)
        .filter(|(key, _)| form::decode(key).as_deref() == Some(name.as_bytes()))
        .map(|(_, value)| value);
    let value = one(values.next(), values.next(), &place)?;
    form_text(value, true).ok_or_else(|| Missing::NotText(place()))
}

/// Percent-decodes `bytes`; `None` if that gives no UTF-8, or a `%` stands alone.
fn form_text(bytes: &[u8], plus_is_space: bool) -> Option<Cow<'_, str>> {
    match form::percent_decode(bytes, plus_is_space)? {
        Cow::Borrowed(bytes) => std::str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
}

/// The text of the one element with these `names` from the root's children down.
fn element(body: &[u8], names: &[String]) -> Result<String, Missing> {
    let (mut first, mut second) = (None, None);
    let read = xml::leaves(body, |leaf| {
        if leaf.path.get(1..) == Some(names) {
            second = first.replace(leaf.text.into_owned());
        }
        second.is_none()
    });
    let place = || format!("element {}", names.join("/"));
    if second.is_some() {
        return Err(Missing::Twice(place()));
    }
    read.map_err(|_| Missing::Unreadable("XML that can be read in one way only"))?;
    one(first, second, place)
}

/// The text or whole number at `pointer` (RFC 6901, unescaped) of a JSON body. The rest of the body is read past, not
/// built and without recursion, so that a large or deep one costs time but no memory.
fn json(body: &[u8], pointer: &[String]) -> Result<String, Missing> {
    let place = || format!("/{} in the JSON body", pointer.join("/"));
    let mut found = Search::default();
    let mut reader = serde_json::Deserializer::from_slice(body);
    let walk = Walk {
        pointer,
        found: &mut found,
    };
    let read = walk.deserialize(&mut reader).and_then(|()| reader.end());
    match (read, found) {
        (_, Search { times: 2.., .. }) => Err(Missing::Twice(place())),
        (Err(_), _) => Err(Missing::Unreadable("JSON")),
        (Ok(()), Search { times: 0, .. }) => Err(Missing::Nowhere(place())),
        (
            Ok(()),
            Search {
                text: Some(text), ..
            },
        ) => Ok(text),
        (Ok(()), Search { text: None, .. }) => Err(Missing::NotText(place())),
    }
}

#[derive(Default)]
struct Search {
    times: u8,
    text: Option<String>,
}

/// Follows `pointer` through whatever is being read.
struct Walk<'p, 'f> {
    pointer: &'p [String],
    found: &'f mut Search,
}

impl<'de> DeserializeSeed<'de> for Walk<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, reader: D) -> Result<(), D::Error> {
        reader.deserialize_any(self)
    }
}

impl Walk<'_, '_> {
    fn value(self, text: Option<String>) {
        if self.pointer.is_empty() {
            self.found.times = self.found.times.saturating_add(1);
            self.found.text = text;
        }
    }
}

impl<'de> Visitor<'de> for Walk<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        let text = self.pointer.is_empty().then(|| text.to_owned());
        self.value(text);
        Ok(())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.value(Some(number.to_string()));
        Ok(())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.value(Some(number.to_string()));
        Ok(())
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.value(None);
        Ok(())
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.value(None);
        Ok(())
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.value(None);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        let Some((head, tail)) = self.pointer.split_first() else {
            self.value(None);
            while items.next_element::<IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let wanted: Option<usize> = head.parse().ok();
        for at in 0.. {
            let more = if wanted == Some(at) {
                let walk = Walk {
                    pointer: tail,
                    found: self.found,
                };
                items.next_element_seed(walk)?.is_some()
            } else {
                items.next_element::<IgnoredAny>()?.is_some()
            };
            if !more {
                break;
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<(), A::Error> {
        let Some((head, tail)) = self.pointer.split_first() else {
            self.value(None);
            while entries.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
            return Ok(());
        };
        let mut passed = false;
        while let Some(key) = entries.next_key::<Cow<'_, str>>()? {
            if key == head.as_str() {
                if std::mem::replace(&mut passed, true) {
                    // Whichever of them has the value: another reader may look into the other.
                    self.found.times = 2;
                }
                entries.next_value_seed(Walk {
                    pointer: tail,
                    found: self.found,
                })?;
            } else {
                entries.next_value::<IgnoredAny>()?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parts<'a>(query: &'a str, body: &'a [u8]) -> Parts<'a> {
        Parts {
            path_id: Some("game%2D01"),
            query,
            headers: &[],
            body,
            opened: None,
        }
    }

    fn pointer(text: &str) -> Selector {
        Selector::Json(text.split('/').skip(1).map(str::to_owned).collect())
    }

    #[test]
    fn path_query_and_form_values_are_decoded() {
        let here = parts("a=1&id=x%20y+z&b", b"id=till%2D7&empty=&gbk=%C4%E3");
        let select = |selector| here.select(&selector);
        assert_eq!(select(Selector::Path).as_deref(), Ok("game-01"));
        assert_eq!(select(Selector::Query("id".into())).as_deref(), Ok("x y z"));
        assert_eq!(select(Selector::Query("b".into())).as_deref(), Ok(""));
        assert_eq!(select(Selector::Form("id".into())).as_deref(), Ok("till-7"));
        assert_eq!(select(Selector::Form("empty".into())).as_deref(), Ok(""));
        assert!(matches!(
            select(Selector::Form("gbk".into())),
            Err(Missing::NotText(_))
        ));
        assert!(matches!(
            select(Selector::Form("no".into())),
            Err(Missing::Nowhere(_))
        ));
    }

    #[test]
    fn a_value_that_is_there_twice_is_not_taken() {
        let here = parts("id=a&id=b", br#"{"a":{"id":1},"a":{"id":2}}"#);
        assert!(matches!(
            here.select(&Selector::Query("id".into())),
            Err(Missing::Twice(_))
        ));
        assert!(matches!(
            here.select(&pointer("/a/id")),
            Err(Missing::Twice(_))
        ));
        for body in [
            br#"{"a":{"id":1},"a":5}"#.as_slice(),
            br#"{"a":5,"a":{"id":1}}"#,
            br#"{"a":{"id":1},"\u0061":{}}"#,
        ] {
            assert!(matches!(
                parts("", body).select(&pointer("/a/id")),
                Err(Missing::Twice(_))
            ));
        }
        let escaped = parts("id=a&i%64=b", b"");
        assert!(matches!(
            escaped.select(&Selector::Query("id".into())),
            Err(Missing::Twice(_))
        ));
    }

    #[test]
    fn json_pointers_reach_texts_and_whole_numbers() {
        let body = br#" {"x":[{"id":"till-7"},{"id":88}],"n":-5,"f":1.5,"t":true,"e":"\u0061"} "#;
        let here = parts("", body);
        for (path, value) in [
            ("/x/0/id", "till-7"),
            ("/x/1/id", "88"),
            ("/n", "-5"),
            ("/e", "a"),
        ] {
            assert_eq!(here.select(&pointer(path)).as_deref(), Ok(value), "{path}");
        }
        for path in ["/f", "/t", "/x", ""] {
            assert!(
                matches!(here.select(&pointer(path)), Err(Missing::NotText(_))),
                "{path}"
            );
        }
        for path in ["/y", "/x/2/id", "/x/id", "/n/1"] {
            assert!(
                matches!(here.select(&pointer(path)), Err(Missing::Nowhere(_))),
                "{path}"
            );
        }
    }

    #[test]
    fn an_element_is_found_by_its_way_from_the_root() {
        let body = b"<xml>\n<a><![CDATA[till-7]]></a><b><a>x</a><c>1 &lt; 2</c></b><d/><e>1</e><e>2</e></xml>";
        let here = parts("", body);
        let select =
            |path: &str| here.select(&Selector::Xml(path.split('/').map(str::to_owned).collect()));
        assert_eq!(select("a").as_deref(), Ok("till-7"));
        assert_eq!(select("b/a").as_deref(), Ok("x"));
        assert_eq!(select("b/c").as_deref(), Ok("1 < 2"));
        assert_eq!(select("d").as_deref(), Ok(""));
        assert!(matches!(select("b"), Err(Missing::Nowhere(_))));
        assert!(matches!(select("xml/a"), Err(Missing::Nowhere(_))));
        assert!(matches!(select("e"), Err(Missing::Twice(_))));
        for body in [
            &b""[..],
            b"<xml><a>1</a>",
            b"<!DOCTYPE x><xml><a>1</a></xml>",
            b"<xml><a>1<!-- -->2</a></xml>",
        ] {
            let found = parts("", body).select(&Selector::Xml(vec!["a".into()]));
            assert!(matches!(found, Err(Missing::Unreadable(_))), "{found:?}");
        }
    }

    #[test]
    fn what_was_opened_is_looked_into_as_json() {
        let opened = Ok(br#"{"out_trade_no":"till-7"}"#.to_vec());
        let sealed = Err("no key");
        let select = |opened| {
            let parts = Parts {
                opened,
                ..parts("", b"")
            };
            parts.select(&Selector::Opened(vec!["out_trade_no".into()]))
        };
        assert_eq!(select(Some(&opened)).as_deref(), Ok("till-7"));
        assert_eq!(select(Some(&sealed)), Err(Missing::Sealed("no key")));
        assert!(matches!(select(None), Err(Missing::Sealed(_))));
    }

    #[test]
    fn a_body_that_is_no_json_is_refused() {
        for body in [&b""[..], b"{", b"{\"id\":\"a\"} x", b"\xff"] {
            let found = parts("", body).select(&pointer("/id"));
            assert_eq!(found, Err(Missing::Unreadable("JSON")));
        }
    }

    #[test]
    fn depth_beside_the_pointer_costs_no_stack() {
        let nest = |n| [b"[".repeat(n), b"]".repeat(n)].concat();
        let body = [b"{\"x\":".as_slice(), &nest(100_000), b",\"id\":\"a\"}"].concat();
        assert_eq!(parts("", &body).select(&pointer("/id")).as_deref(), Ok("a"));
        assert!(parts("", &nest(100_000)).select(&pointer("/id")).is_err());
    }
}
