//! Selectors: where in a request a value is found, and header names, which some of them hold.
//!
//! Finding the value is the business of whoever has the request.

use std::fmt;

use super::problem::{BadHeader, Problem};
use super::reader::Field;
use crate::request::Selector;

/// The longest name or pointer in a selector, in bytes.
const NAME_BYTES_MAX: usize = 256;

/// The most values of which an event key is made.
const EVENT_PARTS_MAX: usize = 8;

/// The longest header name, in bytes.
const HEADER_BYTES_MAX: usize = 128;

/// The most headers one route forwards.
const FORWARD_HEADERS_MAX: usize = 32;

/// Headers that RFC 9110 and its forebears give to one connection only.
const HOP_BY_HOP: [&str; 9] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Why a text is no selector, or not one that its route can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadSelector {
    /// None of the known kinds.
    Kind,
    /// Nothing after the colon, or too much, or a control character.
    Name,
    /// A JSON pointer that RFC 6901 does not know.
    Pointer,
    /// A header selector with something that is no header's name.
    Header,
    /// `path`, and the route's path has no `{id}`.
    NoIdInPath,
    /// Not `path`, and the route's path has `{id}`.
    IdInPath,
    /// `event = "path"`.
    EventFromPath,
    /// Not an element's name, or names, after `xml:`.
    Element,
    /// `opened:`, and the route has nothing to open it with.
    NothingToOpen,
    /// The signature does not cover it.
    Unsigned,
}

impl fmt::Display for BadSelector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kind => f.write_str(
                "allowed: \"path\", \"query:NAME\", \"form:NAME\", \"json:/pointer\", \"xml:NAME\", \"opened:/pointer\", \"header:NAME\"",
            ),
            Self::Name => write!(
                f,
                "a name of 1 to {NAME_BYTES_MAX} bytes without control characters must follow the colon"
            ),
            Self::Pointer => write!(
                f,
                "a JSON pointer (RFC 6901) must follow the colon: it begins with /, has ~ only as ~0 or ~1, \
                 and at most {NAME_BYTES_MAX} bytes"
            ),
            Self::Header => write!(
                f,
                "a header's name must follow the colon, or several with commas between them, each at most {HEADER_BYTES_MAX} bytes"
            ),
            Self::NoIdInPath => f.write_str(
                "the path has no {id} segment to take the backend's id from; \
                 add one, or set id to \"query:NAME\", \"form:NAME\", \"json:/pointer\", \"xml:NAME\", \"opened:/pointer\" \
                 or \"header:NAME\"",
            ),
            Self::IdInPath => f.write_str(
                "contradicts the {id} in the path, which is the backend's id; remove one of the two",
            ),
            Self::EventFromPath => f.write_str(
                "the path is the same for every notification of a backend, so all would be one event; \
                 allowed: \"none\", \"query:NAME\", \"form:NAME\", \"json:/pointer\", \"xml:NAME\", \"opened:/pointer\", \
                 \"header:NAME\"",
            ),
            Self::Element => write!(
                f,
                "an element's name must follow the colon, or names with / between them, at most {NAME_BYTES_MAX} bytes"
            ),
            Self::NothingToOpen => f.write_str(
                "only the resource of WeChat Pay v3 can be opened; set verify = \"wechatpay-v3\" and api_v3_key",
            ),
            Self::Unsigned => f.write_str(
                "the route's signature does not cover this, so whoever has one genuine callback could change it; \
                 take what is signed, or {id} in the path, or set allow_unsigned_id = true",
            ),
        }
    }
}

/// Reads an `id` or `event` key.
pub fn selector(field: &Field<'_>) -> Result<Selector, Problem> {
    parse(field.text("a string")?).map_err(Problem::Selector)
}

/// Reads an `event` key; `none` takes away what the preset has.
pub fn event(field: &Field<'_>) -> Result<Option<Selector>, Problem> {
    if let Ok(fields) = field.list("a list of strings", EVENT_PARTS_MAX) {
        let parts: Vec<_> = fields
            .iter()
            .filter_map(|field| field.read(event))
            .collect();
        let parts: Option<Vec<Selector>> = parts.into_iter().collect();
        return match parts.filter(|parts| !parts.is_empty()) {
            Some(parts) => Ok(Some(Selector::All(parts))),
            None => Err(Problem::Selector(BadSelector::EventFromPath)),
        };
    }
    match field.text("a string")? {
        "none" => Ok(None),
        text => match parse(text).map_err(Problem::Selector)? {
            Selector::Path => Err(Problem::Selector(BadSelector::EventFromPath)),
            other => Ok(Some(other)),
        },
    }
}

/// What a preset says where a file would; `None` if it says it wrongly, which a test would find.
pub fn of_preset(text: &str) -> Option<Selector> {
    match text.contains(' ') {
        true => text
            .split(' ')
            .map(of_preset)
            .collect::<Option<_>>()
            .map(Selector::All),
        false => parse(text).ok(),
    }
}

fn parse(text: &str) -> Result<Selector, BadSelector> {
    if text == "path" {
        return Ok(Selector::Path);
    }
    if let Some((outer, inner)) = text.rsplit_once(">/") {
        let inner = pointer(&format!("/{inner}"))?;
        return Ok(Selector::Inner(Box::new(parse(outer)?), inner));
    }
    let (kind, rest) = text.split_once(':').ok_or(BadSelector::Kind)?;
    match kind {
        "query" => name(rest).map(Selector::Query),
        "form" => name(rest).map(Selector::Form),
        "param" => name(rest).map(Selector::Param),
        "json" => pointer(rest).map(Selector::Json),
        "xml" => elements(rest).map(Selector::Xml),
        "opened" => pointer(rest).map(Selector::Opened),
        "header" => rest
            .split(',')
            .map(header_name)
            .collect::<Option<_>>()
            .map(Selector::Header)
            .ok_or(BadSelector::Header),
        _ => Err(BadSelector::Kind),
    }
}

fn name(text: &str) -> Result<String, BadSelector> {
    if text.is_empty() || text.len() > NAME_BYTES_MAX || text.chars().any(char::is_control) {
        return Err(BadSelector::Name);
    }
    Ok(text.to_owned())
}

fn elements(text: &str) -> Result<Vec<String>, BadSelector> {
    let odd = |c: char| c.is_control() || c.is_whitespace() || "<>&\"'=".contains(c);
    if text.len() > NAME_BYTES_MAX || text.chars().any(odd) || text.split('/').any(str::is_empty) {
        return Err(BadSelector::Element);
    }
    Ok(text.split('/').map(str::to_owned).collect())
}

fn pointer(text: &str) -> Result<Vec<String>, BadSelector> {
    let rest = text.strip_prefix('/').ok_or(BadSelector::Pointer)?;
    if text.len() > NAME_BYTES_MAX {
        return Err(BadSelector::Pointer);
    }
    rest.split('/').map(unescape).collect()
}

fn unescape(token: &str) -> Result<String, BadSelector> {
    let mut out = String::with_capacity(token.len());
    let mut rest = token.chars();
    while let Some(c) = rest.next() {
        out.push(match c {
            '~' => match rest.next() {
                Some('0') => '~',
                Some('1') => '/',
                _ => return Err(BadSelector::Pointer),
            },
            c => c,
        });
    }
    Ok(out)
}

/// Reads a `forward_headers` key.
pub fn headers(field: &Field<'_>) -> Result<Vec<String>, Problem> {
    let mut names: Vec<(String, usize)> = Vec::new();
    for field in field.list("a list of strings", FORWARD_HEADERS_MAX)? {
        let Some(name) = field.read(header) else {
            continue;
        };
        match names.iter().find(|(earlier, _)| *earlier == name) {
            Some(&(_, at)) => field.refuse(field.again(at)),
            None => names.push((name, field.at())),
        }
    }
    Ok(names.into_iter().map(|(name, _)| name).collect())
}

fn header(field: &Field<'_>) -> Result<String, Problem> {
    let name = header_name(field.text("a string")?).ok_or(Problem::Header(BadHeader::Name))?;
    let bad = match name.as_str() {
        hop if HOP_BY_HOP.contains(&hop) => BadHeader::HopByHop,
        "content-length" => BadHeader::Length,
        own if own.starts_with("x-payrelay-") => BadHeader::Own,
        _ => return Ok(name),
    };
    Err(Problem::Header(bad))
}

/// `text` in lower case if it is an RFC 9110 token.
pub fn header_name(text: &str) -> Option<String> {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let right = !text.is_empty() && text.len() <= HEADER_BYTES_MAX && text.bytes().all(token);
    right.then(|| text.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn selectors_name_one_place_each() {
        let json = |tokens: &[&str]| {
            Ok(Selector::Json(
                tokens.iter().map(|t| t.to_string()).collect(),
            ))
        };
        for (text, wanted) in [
            ("path", Ok(Selector::Path)),
            ("query:order", Ok(Selector::Query("order".into()))),
            ("query:订单:no", Ok(Selector::Query("订单:no".into()))),
            (
                "form:out_trade_no",
                Ok(Selector::Form("out_trade_no".into())),
            ),
            (
                "header:X-Order",
                Ok(Selector::Header(vec!["x-order".into()])),
            ),
            (
                "header:A,b",
                Ok(Selector::Header(vec!["a".into(), "b".into()])),
            ),
            ("header:a,", Err(BadSelector::Header)),
            ("json:/", json(&[""])),
            ("json:/data/0/id", json(&["data", "0", "id"])),
            ("json:/a~1b/~0~01", json(&["a/b", "~~1"])),
            ("", Err(BadSelector::Kind)),
            ("Path", Err(BadSelector::Kind)),
            ("body", Err(BadSelector::Kind)),
            ("cookie:x", Err(BadSelector::Kind)),
            ("query:", Err(BadSelector::Name)),
            ("form:a\u{7}", Err(BadSelector::Name)),
            (
                "xml:transaction_id",
                Ok(Selector::Xml(vec!["transaction_id".into()])),
            ),
            ("xml:a/b", Ok(Selector::Xml(vec!["a".into(), "b".into()]))),
            (
                "opened:/out_trade_no",
                Ok(Selector::Opened(vec!["out_trade_no".into()])),
            ),
            ("xml:", Err(BadSelector::Element)),
            ("xml:/a", Err(BadSelector::Element)),
            ("xml:a//b", Err(BadSelector::Element)),
            ("xml:a b", Err(BadSelector::Element)),
            ("opened:id", Err(BadSelector::Pointer)),
            ("json:", Err(BadSelector::Pointer)),
            ("json:id", Err(BadSelector::Pointer)),
            ("json:/a~2", Err(BadSelector::Pointer)),
            ("json:/a~", Err(BadSelector::Pointer)),
            ("header:", Err(BadSelector::Header)),
            ("header:a b", Err(BadSelector::Header)),
        ] {
            assert_eq!(parse(text), wanted, "{text}");
        }
        assert_eq!(
            parse(&format!("form:{}", "x".repeat(257))),
            Err(BadSelector::Name)
        );
        assert_eq!(
            parse(&format!("json:/{}", "x".repeat(256))),
            Err(BadSelector::Pointer)
        );
        assert_eq!(
            parse(&format!("header:{}", "x".repeat(129))),
            Err(BadSelector::Header)
        );
    }
}
