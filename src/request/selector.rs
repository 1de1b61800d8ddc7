//! Selectors: how they are written, how a value is found by one, and what a signature of one covers.
//!
//! A value that is there twice is not found: two programs that read the same request would not agree on it.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};

use super::json::Scalar;
use super::{Missing, body_text, form, json, xml};
use crate::escape::percent_decode;

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

/// The longest name or pointer in a selector, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The longest header name, in bytes.
const HEADER_BYTES_MAX: usize = 128;

impl Selector {
    /// Reads what relay.toml says, such as `json:/data/id`.
    ///
    /// # Errors
    /// It is no selector: a sentence that says what is allowed.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "path" {
            return Ok(Self::Path);
        }
        if let Some((outer, inner)) = text.rsplit_once(">/") {
            let inner = pointer(&format!("/{inner}"))?;
            return Ok(Self::Inner(Box::new(Self::parse(outer)?), inner));
        }
        match text.split_once(':') {
            Some(("query", name)) => field_name(name).map(Self::Query),
            Some(("form", name)) => field_name(name).map(Self::Form),
            Some(("param", name)) => field_name(name).map(Self::Param),
            Some(("json", at)) => pointer(at).map(Self::Json),
            Some(("xml", names)) => elements(names).map(Self::Xml),
            Some(("opened", at)) => pointer(at).map(Self::Opened),
            Some(("header", names)) => header_names(names).map(Self::Header),
            _ => Err(
                "allowed: \"path\", \"query:NAME\", \"form:NAME\", \"json:/pointer\", \"xml:NAME\", \"opened:/pointer\", \"header:NAME\""
                    .to_owned(),
            ),
        }
    }

    /// Reads what a preset says: one selector, or several with spaces between them; `None` if it is none, which a test would find.
    pub fn of_preset(text: &str) -> Option<Self> {
        match text.contains(' ') {
            true => {
                let all = text.split(' ').map(Self::of_preset);
                all.collect::<Option<_>>().map(Self::All)
            }
            false => Self::parse(text).ok(),
        }
    }

    /// Whether it points into what the body holds sealed, or signed.
    pub fn is_opened(&self) -> bool {
        match self {
            Self::Opened(_) => true,
            Self::Inner(outer, _) => outer.is_opened(),
            Self::All(all) => all.iter().any(Self::is_opened),
            _ => false,
        }
    }

    /// Whether a signature of the value here covers what `other` finds: the same place, by the same names or some of them.
    pub fn covers(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Header(signed), Self::Header(names)) => {
                names.iter().all(|name| signed.contains(name))
            }
            (signed, other) => signed == other,
        }
    }
}

fn field_name(text: &str) -> Result<String, String> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(format!(
            "a name of 1 to {NAME_BYTES_MAX} bytes without control characters must follow the colon"
        ));
    }
    Ok(text.to_owned())
}

fn elements(text: &str) -> Result<Vec<String>, String> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "<>&\"'=".contains(c);
    if text.len() > NAME_BYTES_MAX || text.chars().any(odd) || text.split('/').any(str::is_empty) {
        return Err(format!(
            "an element's name must follow the colon, or names with / between them, at most {NAME_BYTES_MAX} bytes"
        ));
    }
    Ok(text.split('/').map(str::to_owned).collect())
}

fn pointer(text: &str) -> Result<Vec<String>, String> {
    let tokens = match text.strip_prefix('/') {
        Some(rest) if text.len() <= NAME_BYTES_MAX => rest.split('/').map(unescape).collect(),
        _ => None,
    };
    tokens.ok_or_else(|| {
        format!(
            "a JSON pointer (RFC 6901) must follow the colon: it begins with /, has ~ only as ~0 or ~1, \
             and at most {NAME_BYTES_MAX} bytes"
        )
    })
}

fn unescape(token: &str) -> Option<String> {
    let mut out = String::with_capacity(token.len());
    let mut rest = token.chars();
    while let Some(c) = rest.next() {
        out.push(match c {
            '~' => match rest.next()? {
                '0' => '~',
                '1' => '/',
                _ => return None,
            },
            c => c,
        });
    }
    Some(out)
}

fn header_names(text: &str) -> Result<Vec<String>, String> {
    let names: Option<_> = text.split(',').map(header_name).collect();
    names.ok_or_else(|| {
        format!(
            "a header's name must follow the colon, or several with commas between them, each at most {HEADER_BYTES_MAX} bytes"
        )
    })
}

/// `text` in lower case if it is an RFC 9110 token of at most 128 bytes.
pub fn header_name(text: &str) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let right = !text.is_empty() && text.len() <= HEADER_BYTES_MAX && text.bytes().all(token);
    right.then(|| text.to_ascii_lowercase())
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
                json_text(&document(self.value(outer)?), pointer).map(Cow::Owned)
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
                percent_decode(id.as_bytes(), false)
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
            Selector::Inner(outer, pointer) => {
                scalar(json::at(&document(self.value(outer)?), pointer))
            }
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

/// The JSON in a text: the text itself; what it is the base64 of (Google's `message.data`); or what a document signed in compact
/// form says (RFC 7515; Apple's `signedTransactionInfo`), whose signature is not looked at, for what is around it is signed.
fn document(text: Cow<'_, [u8]>) -> Cow<'_, [u8]> {
    if text.trim_ascii_start().starts_with(b"{") {
        return text;
    }
    let mut parts = text.split(|&b| b == b'.');
    let decoded = match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(_), Some(payload), Some(_), None) => URL_SAFE_NO_PAD.decode(payload),
        _ => STANDARD.decode(&text),
    };
    decoded.map_or(text, Cow::Owned)
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

#[cfg(test)]
mod tests;
