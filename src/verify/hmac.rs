//! The engine `hmac`: a secret that both sides have, and a message made of parts of the request.
//!
//! Each provider has its own header, message and spelling; all that differs is in [`Hmac`]'s fields. The expected signature
//! is written as the provider writes it and compared as text, so that there is one way to write it.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::keys::{MacKey, hex_lower, hex_upper};
use super::{Refused, Request, SIGNATURES_MAX, TimeUnit, Tolerance, check_time};

/// The most items of a signature header, signatures or not.
const ITEMS_MAX: usize = 64;

/// What such a route checks, and with what.
#[derive(Clone, Debug, PartialEq)]
pub struct Hmac {
    /// The header with the signature, in lower case; further ones are other names of it.
    pub headers: Vec<Box<str>>,
    /// What stands between the items of that header; `None`: it is one item.
    pub separator: Option<char>,
    /// What an item that is a signature begins with.
    pub prefix: Box<str>,
    /// How a signature is written.
    pub encoding: Encoding,
    /// What is signed.
    pub message: Message,
    /// Where `{timestamp}` comes from.
    pub timestamp: Option<Timestamp>,
    /// What the time counts.
    pub unit: TimeUnit,
    /// The header that `{id}` comes from, in lower case; further ones are other names of it.
    pub id_headers: Vec<Box<str>>,
    /// What `{url}` stands for.
    pub url: Option<Url>,
    /// How far `{timestamp}` may be from now.
    pub tolerance: Tolerance,
    /// Any of them may have signed.
    pub keys: Vec<MacKey>,
}

/// How a signature is written; there is one way for each, and no other is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Lower-case hex.
    Hex,
    /// Upper-case hex.
    HexUpper,
    /// Base64, padded.
    Base64,
}

/// The hash under the HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Digest {
    /// SHA-256
    Sha256,
    /// SHA-512
    Sha512,
}

impl Digest {
    /// The crypto crate's own.
    pub fn algorithm(self) -> hmac::Algorithm {
        match self {
            Self::Sha256 => hmac::HMAC_SHA256,
            Self::Sha512 => hmac::HMAC_SHA512,
        }
    }
}

/// Where the time of a signature stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Timestamp {
    /// In a header of its own, in lower case; further ones are other names of it.
    Header(Vec<Box<str>>),
    /// In the item of the signature header that begins so.
    Item(Box<str>),
}

/// The address that the provider was told, as it signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    before: Box<str>,
    /// What follows the id, if there is one in it.
    after: Option<Box<str>>,
}

impl Url {
    /// Takes `text`, in which `{id}` stands for the path's id.
    pub fn new(text: &str) -> Self {
        match text.split_once("{id}") {
            None => Self {
                before: text.into(),
                after: None,
            },
            Some((before, after)) => Self {
                before: before.into(),
                after: Some(after.into()),
            },
        }
    }

    /// Whether the path's id is in it.
    pub fn has_id(&self) -> bool {
        self.after.is_some()
    }

    fn ends_with_id(&self) -> bool {
        self.after.as_deref() == Some("")
    }
}

/// A message template: literal text and placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Literal(Box<str>),
    Timestamp,
    Id,
    Url,
    Body,
}

/// Why a text is no message template.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadMessage {
    /// Braces around something unknown.
    Unknown,
    /// `{body}` is not there, so nothing of the payment would be signed.
    NoBody,
    /// A placeholder is there twice.
    Twice,
    /// Where one part ends and the next begins cannot be told.
    Seam,
}

impl fmt::Display for BadMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Unknown => "the only braces in a message are {timestamp}, {id}, {url} and {body}",
            Self::NoBody => "{body} is missing, so nothing of the payment would be signed",
            Self::Twice => "each of {timestamp}, {id}, {url} and {body} may be there once",
            Self::Seam => {
                "where {id} or {timestamp} ends could not be told; put a separator between it and the next, no digit beside {timestamp}"
            }
        })
    }
}

impl std::error::Error for BadMessage {}

impl Message {
    /// Reads a template such as `{timestamp}.{body}`.
    ///
    /// # Errors
    /// It has no `{body}`, or could be the message of two different requests.
    pub fn parse(text: &str) -> Result<Self, BadMessage> {
        let mut parts = Vec::new();
        let mut rest = text;
        while !rest.is_empty() {
            let at = rest.find(['{', '}']).unwrap_or(rest.len());
            let (literal, after) = rest.split_at(at);
            if !literal.is_empty() {
                parts.push(Part::Literal(literal.into()));
            }
            rest = after;
            if rest.is_empty() {
                break;
            }
            let (name, after) = rest.split_once('}').ok_or(BadMessage::Unknown)?;
            let part = match name {
                "{timestamp" => Part::Timestamp,
                "{id" => Part::Id,
                "{url" => Part::Url,
                "{body" => Part::Body,
                _ => return Err(BadMessage::Unknown),
            };
            if parts.contains(&part) {
                return Err(BadMessage::Twice);
            }
            parts.push(part);
            rest = after;
        }
        if !parts.contains(&Part::Body) {
            return Err(BadMessage::NoBody);
        }
        let apart = parts.windows(2).all(|pair| seam_holds(&pair[0], &pair[1]));
        apart.then_some(Self(parts)).ok_or(BadMessage::Seam)
    }

    /// The template as it was written.
    pub fn words(&self) -> String {
        let word = |part: &Part| match part {
            Part::Literal(text) => text.to_string(),
            Part::Timestamp => "{timestamp}".to_owned(),
            Part::Id => "{id}".to_owned(),
            Part::Url => "{url}".to_owned(),
            Part::Body => "{body}".to_owned(),
        };
        self.0.iter().map(word).collect()
    }

    /// Whether `{timestamp}` is in it.
    pub fn has_timestamp(&self) -> bool {
        self.0.contains(&Part::Timestamp)
    }

    /// Whether `{id}` is in it.
    pub fn has_id(&self) -> bool {
        self.0.contains(&Part::Id)
    }

    /// Whether `{url}` is in it.
    pub fn has_url(&self) -> bool {
        self.0.contains(&Part::Url)
    }

    /// The parts before and after `part`.
    fn beside(&self, part: &Part) -> [Option<&Part>; 2] {
        let at = self.0.iter().position(|its| its == part);
        let at = |step: isize| at.and_then(|at| at.checked_add_signed(step));
        [-1, 1].map(|step| at(step).and_then(|at| self.0.get(at)))
    }
}

/// Whether it can be told from the text alone where `a` ends and `b` begins. A timestamp beside the body is judged when the
/// body is there.
fn seam_holds(a: &Part, b: &Part) -> bool {
    match (a, b) {
        (Part::Timestamp, Part::Literal(text)) => !text.starts_with(|c: char| c.is_ascii_digit()),
        (Part::Literal(text), Part::Timestamp) => !text.ends_with(|c: char| c.is_ascii_digit()),
        (Part::Id, Part::Literal(_)) | (Part::Literal(_), Part::Id) => true,
        (Part::Id, _) | (_, Part::Id) => false,
        (Part::Timestamp, Part::Url) | (Part::Url, Part::Timestamp) => false,
        _ => true,
    }
}

/// What the header says, and the rest of what the message is made of.
struct Given<'a> {
    signatures: Vec<&'a str>,
    timestamp: &'a str,
    id: &'a str,
}

impl Hmac {
    /// Whether one of the keys signed `request`, not too long ago.
    pub(super) fn verify(&self, request: &Request<'_>, now_unix_s: u64) -> Result<(), Refused> {
        let given = self.given(request)?;
        if self.message.has_timestamp() {
            check_time(given.timestamp, self.unit, now_unix_s, self.tolerance)?;
        }
        self.check_seams(&given, request, now_unix_s)?;
        let mut verified = false;
        for key in &self.keys {
            let expected = self.signature(key, &given, request);
            for signature in &given.signatures {
                verified |=
                    verify_slices_are_equal(expected.as_bytes(), signature.as_bytes()).is_ok();
            }
        }
        verified.then_some(()).ok_or(Refused::Mismatch)
    }

    /// Whether the header called `name`, in lower case, is a part of the message.
    pub(super) fn signs_header(&self, name: &str) -> bool {
        let is_one_of = |names: &[Box<str>]| names.iter().any(|its| **its == *name);
        let is_id = self.message.has_id() && is_one_of(&self.id_headers);
        let is_time =
            matches!(&self.timestamp, Some(Timestamp::Header(headers)) if is_one_of(headers));
        is_id || (is_time && self.message.has_timestamp())
    }

    /// Whether the header called `name`, in lower case, is looked at.
    pub(super) fn reads_header(&self, name: &str) -> bool {
        self.headers.iter().any(|its| **its == *name) || self.signs_header(name)
    }

    fn given<'r>(&self, request: &Request<'r>) -> Result<Given<'r>, Refused> {
        let value = request.header_of(&self.headers)?;
        let mut given = Given {
            signatures: Vec::new(),
            timestamp: "",
            id: "",
        };
        let mut time = None;
        match self.separator {
            None => given.signatures.extend(value.strip_prefix(&*self.prefix)),
            Some(separator) => {
                for (at, item) in value.split(separator).enumerate() {
                    if at == ITEMS_MAX || given.signatures.len() > SIGNATURES_MAX {
                        return Err(Refused::TooMany("signatures"));
                    }
                    if let Some(signature) = item.strip_prefix(&*self.prefix) {
                        given.signatures.push(signature);
                    } else if let Some(Timestamp::Item(prefix)) = &self.timestamp
                        && let Some(text) = item.strip_prefix(&**prefix)
                        && time.replace(text).is_some()
                    {
                        return Err(Refused::Repeated("timestamp".into()));
                    }
                }
            }
        }
        if given.signatures.len() > SIGNATURES_MAX {
            return Err(Refused::TooMany("signatures"));
        }
        if given.signatures.is_empty() {
            return Err(Refused::Malformed(
                "its signature header has no signature of the kind that is checked",
            ));
        }
        if self.message.has_timestamp() {
            given.timestamp = match &self.timestamp {
                Some(Timestamp::Header(headers)) => request.header_of(headers)?,
                Some(Timestamp::Item(_)) | None => {
                    time.ok_or(Refused::Missing("timestamp".into()))?
                }
            };
        }
        if self.message.has_id() {
            given.id = request.header_of(&self.id_headers)?;
        }
        Ok(given)
    }

    /// Refuses values with which the message could be cut into other parts than these.
    fn check_seams(
        &self,
        given: &Given<'_>,
        request: &Request<'_>,
        now_unix_s: u64,
    ) -> Result<(), Refused> {
        const SEAM: Refused =
            Refused::Malformed("where one signed part ends and the next begins cannot be told");
        if self.message.has_id() && !self.id_ends_once(given, now_unix_s) {
            return Err(SEAM);
        }
        if self.message.has_id() && given.id.is_empty() {
            return Err(Refused::Malformed("its id header is empty"));
        }
        let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
        let [before, after] = self.message.beside(&Part::Timestamp);
        if (before == Some(&Part::Body) && is_digit(request.body.last()))
            || (after == Some(&Part::Body) && is_digit(request.body.first()))
        {
            return Err(SEAM);
        }
        let [_, after] = self.message.beside(&Part::Url);
        let of_id = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-%".contains(byte);
        if self.url.as_ref().is_some_and(Url::ends_with_id)
            && after == Some(&Part::Body)
            && request.body.first().is_some_and(of_id)
        {
            return Err(SEAM);
        }
        Ok(())
    }

    /// Whether the id ends where the message first allows it: then nobody can cut the same text elsewhere.
    fn id_ends_once(&self, given: &Given<'_>, now_unix_s: u64) -> bool {
        let Some(at) = self.message.0.iter().position(|part| *part == Part::Id) else {
            return true;
        };
        let (before, after) = (&self.message.0[..at], &self.message.0[at + 1..]);
        // What stands before it is as long as it is, unless a body or an address is among it.
        let is_open = |part: &Part| matches!(part, Part::Body | Part::Url);
        if let Some(Part::Literal(text)) = before.last()
            && before.iter().any(is_open)
            && given.id.contains(&**text)
        {
            return false;
        }
        match after {
            [Part::Literal(first), Part::Timestamp, then @ ..] => {
                let then = match then {
                    [Part::Literal(text), ..] => text,
                    _ => "",
                };
                // A time of now would have to follow an earlier end of the id.
                let text = [given.id, first, given.timestamp, then].concat();
                let earlier = text
                    .match_indices(&**first)
                    .take_while(|(at, _)| *at < given.id.len());
                earlier.into_iter().all(|(at, _)| {
                    let rest = &text[at + first.len()..];
                    let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                    let (time, rest) = rest.split_at(digits);
                    !rest.starts_with(then)
                        || check_time(time, self.unit, now_unix_s, self.tolerance).is_err()
                })
            }
            [Part::Literal(text), ..] => !given.id.contains(&**text),
            _ => true,
        }
    }

    /// The text that `request` should have been signed as.
    pub(super) fn explain(&self, request: &Request<'_>) -> Result<Vec<u8>, Refused> {
        let given = self.given(request)?;
        let mut text = Vec::new();
        self.write(&given, request, |piece| text.extend_from_slice(piece));
        Ok(text)
    }

    /// The message, in pieces.
    fn write(&self, given: &Given<'_>, request: &Request<'_>, mut piece: impl FnMut(&[u8])) {
        for part in &self.message.0 {
            match part {
                Part::Literal(text) => piece(text.as_bytes()),
                Part::Timestamp => piece(given.timestamp.as_bytes()),
                Part::Id => piece(given.id.as_bytes()),
                Part::Body => piece(request.body),
                Part::Url => {
                    if let Some(url) = &self.url {
                        piece(url.before.as_bytes());
                        if let Some(after) = &url.after {
                            piece(request.path_id.unwrap_or_default().as_bytes());
                            piece(after.as_bytes());
                        }
                    }
                }
            }
        }
    }

    fn signature(&self, key: &MacKey, given: &Given<'_>, request: &Request<'_>) -> String {
        let mut mac = key.begin();
        self.write(given, request, |piece| mac.update(piece));
        let tag = mac.sign();
        match self.encoding {
            Encoding::Hex => hex_lower(tag.as_ref()),
            Encoding::HexUpper => hex_upper(tag.as_ref()),
            Encoding::Base64 => STANDARD.encode(tag.as_ref()),
        }
    }
}
