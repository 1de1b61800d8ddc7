//! A request as it is looked into: forms, queries, JSON, XML and headers, and how a value is found in them by a selector: the
//! backend's id, the event key, what a signature is made of. Pure, and bounded by what it is given.
//!
//! A value that is there twice is not found: two programs that read the same request would not agree on it.

pub mod form;
pub mod json;
mod selector;
#[cfg(test)]
mod tests;
pub mod xml;

use std::fmt;

pub use self::selector::{Parts, Selector, header_name, place};

/// The most fields of a form, a query or an object that are looked at together; providers send about forty.
pub const FIELDS_MAX: usize = 256;

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
