//! A request as it is looked into: forms, queries, JSON, XML and headers, and how a value is found in them by a selector: the
//! backend's id, the event key, what a signature is made of. Pure, and bounded by what it is given.
//!
//! A value that is there twice is not found: two programs that read the same request would not agree on it.

pub mod form;
pub mod json;
#[cfg(test)]
mod tests;
pub mod xml;

use std::borrow::Cow;
use std::fmt;

use self::json::Scalar;

/// The most fields of a form, a query or an object that are looked at together; providers send about forty.
pub const FIELDS_MAX: usize = 256;

/// Where in a request a value is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selector {
    /// `path`: the `{id}` segment.
    Path,
    /// `query:NAME`: a field of the query string.
    Query(String),
    /// `form:NAME`: a field of an `application/x-www-form-urlencoded` body.
    Form(String),
    /// `json:/pointer`: RFC 6901, cut at its slashes and unescaped.
    Json(Vec<String>),
    /// `xml:NAME`, or `xml:NAME/NAME` for an element in another: from the root's children down.
    Xml(Vec<String>),
    /// `param:NAME`: a field of the query if there is no body, else of the form in it.
    Param(String),
    /// `json:/pointer>/pointer` and the like: into the JSON text that another selector finds.
    Inner(Box<Selector>, Vec<String>),
    /// Several values, with `:` between them.
    All(Vec<Selector>),
    /// `opened:/pointer`: into the JSON that the body holds sealed.
    Opened(Vec<String>),
    /// `header:NAME`, in lower case.
    Header(Vec<String>),
    /// What the check of the signature itself found. No file says so; a preset may.
    OfSignature,
}

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
    /// It is there, but is no JSON object.
    NotObject(String),
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
            Self::NotObject(place) => write!(f, "{place} is no JSON object"),
            Self::Unreadable(form) => write!(f, "the body is not {form}"),
            Self::Sealed(why) => f.write_str(why),
        }
    }
}

impl<'a> Parts<'a> {
    /// The text that `selector` points at.
    ///
    /// # Errors
    /// It is not there, is there twice, or is no text and no whole number.
    pub fn select(&self, selector: &Selector) -> Result<Cow<'a, str>, Missing> {
        match selector {
            Selector::Json(pointer) => json_text(self.readable()?, pointer).map(Cow::Owned),
            Selector::Opened(pointer) => match self.opened {
                Some(Ok(opened)) => json_text(opened, pointer).map(Cow::Owned),
                Some(Err(why)) => Err(Missing::Sealed(why)),
                None => Err(Missing::Sealed("nothing in the body can be opened")),
            },
            Selector::Inner(outer, pointer) => {
                json_text(&self.value(outer)?, pointer).map(Cow::Owned)
            }
            Selector::All(all) => {
                let all: Result<Vec<_>, _> = all.iter().map(|one| self.select(one)).collect();
                Ok(Cow::Owned(all?.join(":")))
            }
            other => match self.value(other)? {
                Cow::Borrowed(bytes) => str::from_utf8(bytes).ok().map(Cow::Borrowed),
                Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
            }
            .ok_or_else(|| Missing::NotText(place(other))),
        }
    }

    /// The bytes that `selector` points at, once decoded: what a signature covers. A number is as it is written.
    ///
    /// # Errors
    /// It is not there, is there twice, or is an object or a list.
    pub fn value(&self, selector: &Selector) -> Result<Cow<'a, [u8]>, Missing> {
        let scalar = |found: Result<Option<Scalar>, Missing>| match found? {
            Some(scalar) => Ok(Cow::Owned(scalar.into_text().into_bytes())),
            None => Err(Missing::NotText(place(selector))),
        };
        match selector {
            Selector::Path => {
                let id = self
                    .path_id
                    .ok_or_else(|| Missing::Nowhere(place(selector)))?;
                form::percent_decode(id.as_bytes(), false)
                    .ok_or_else(|| Missing::NotText(place(selector)))
            }
            Selector::Query(name) => field(self.query.as_bytes(), name, selector),
            Selector::Param(name) if self.body.is_empty() => {
                field(self.query.as_bytes(), name, selector)
            }
            Selector::Form(name) | Selector::Param(name) => field(self.readable()?, name, selector),
            Selector::Header(names) => self.header(names).map(|value| value.as_bytes().into()),
            Selector::Json(pointer) => scalar(json::at(self.readable()?, pointer)),
            Selector::Xml(names) => {
                element(self.readable()?, names).map(|text| Cow::Owned(text.into_bytes()))
            }
            Selector::Inner(outer, pointer) => scalar(json::at(&self.value(outer)?, pointer)),
            Selector::Opened(_) | Selector::All(_) => self
                .select(selector)
                .map(|text| Cow::Owned(text.into_owned().into_bytes())),
            // Whoever checked the signature has it, or nobody has.
            Selector::OfSignature => Err(Missing::Nowhere(place(selector))),
        }
    }
}

/// What `selector` is called in errors.
pub fn place(selector: &Selector) -> String {
    match selector {
        Selector::Path => "id in the path".to_owned(),
        Selector::Query(name) => format!("{name} in the query"),
        Selector::Form(name) => format!("form field {name}"),
        Selector::Param(name) => format!("parameter {name}"),
        Selector::Header(names) => format!("header {}", names.join(" or ")),
        Selector::Json(pointer) => format!("/{} in the JSON body", pointer.join("/")),
        Selector::Xml(names) => format!("element {}", names.join("/")),
        Selector::Opened(pointer) => format!("/{} in what was opened", pointer.join("/")),
        Selector::Inner(outer, pointer) => format!("/{} in {}", pointer.join("/"), place(outer)),
        Selector::All(all) => all.iter().map(place).collect::<Vec<_>>().join(" and "),
        Selector::OfSignature => "event in the signature".to_owned(),
    }
}

/// The text or whole number at `pointer`.
fn json_text(body: &[u8], pointer: &[String]) -> Result<String, Missing> {
    let is_whole = |raw: &str| {
        let digits = raw.strip_prefix('-').unwrap_or(raw);
        digits.bytes().all(|b| b.is_ascii_digit())
    };
    match json::at(body, pointer)? {
        Some(Scalar::Text(text)) => Ok(text),
        Some(Scalar::Raw(raw)) if is_whole(&raw) => Ok(raw),
        _ => Err(Missing::NotText(place(&Selector::Json(pointer.to_vec())))),
    }
}

impl<'a> Parts<'a> {
    /// The body without a byte order mark.
    pub fn readable(&self) -> Result<&'a [u8], Missing> {
        body_text(self.headers, self.body).map_err(Missing::Sealed)
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

/// The field called `name` of `application/x-www-form-urlencoded` bytes, decoded.
fn field<'a>(form: &'a [u8], name: &str, selector: &Selector) -> Result<Cow<'a, [u8]>, Missing> {
    let mut values = form::fields(form)
        .filter(|(key, _)| form::decode(key).as_deref() == Some(name.as_bytes()))
        .map(|(_, value)| value);
    let value = one(values.next(), values.next(), || place(selector))?;
    form::decode(value).ok_or_else(|| Missing::NotText(place(selector)))
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

/// `body` as selectors and engines read it: without a byte order mark.
///
/// # Errors
/// By its `headers` it is compressed, or in parts; says so.
pub fn body_text<'b>(headers: &[(&str, &str)], body: &'b [u8]) -> Result<&'b [u8], &'static str> {
    const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";
    for (name, value) in headers {
        let value = value.trim();
        if name.eq_ignore_ascii_case("content-encoding")
            && !value.is_empty()
            && !value.eq_ignore_ascii_case("identity")
        {
            return Err(
                "the body is compressed (Content-Encoding), and the relay does not unpack it; switch compression off \
                 where it is sent, or unpack it in the proxy before the relay",
            );
        }
        let is_multipart = value
            .get(..10)
            .is_some_and(|start| start.eq_ignore_ascii_case("multipart/"));
        if name.eq_ignore_ascii_case("content-type") && is_multipart {
            return Err(
                "the body is multipart, in which the relay looks for nothing; let the provider send a form \
                 (application/x-www-form-urlencoded) or JSON",
            );
        }
    }
    Ok(body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body))
}
