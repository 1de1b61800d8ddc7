//! Where a signature stands and how it is written; finding it, and the time beside it.

use std::borrow::Cow;
use std::ops::Range;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{Signed, missing};
use crate::escape::{hex, hex_upper, percent_decode};
use crate::request::{Parts, Selector};
use crate::verify::{Refused, SIGNATURES_MAX};

/// The most items of a signature header, signatures or not.
const ITEMS_MAX: usize = 64;

const NOT_TEXT: Refused = Refused::Malformed("its signature is no text");

/// Where the signature stands, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureAt {
    /// Where.
    pub place: Selector,
    /// What stands between the items of that value; `None`: it is one item.
    pub separator: Option<char>,
    /// What an item that is a signature begins with.
    pub prefix: Box<str>,
    /// What it begins with counts in any case of its letters.
    pub any_case: bool,
    /// How it is written.
    pub encoding: Encoding,
    /// Its `%XX` are decoded first.
    pub unescape: bool,
}

/// How a signature is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Encoding {
    /// Hex, in either case.
    Hex,
    /// Lower-case hex.
    HexLower,
    /// Upper-case hex.
    HexUpper,
    /// Base64, padded.
    Base64,
}

impl Signed {
    /// What may be the signature, and the time.
    pub(super) fn signatures<'a>(
        &self,
        parts: &Parts<'a>,
    ) -> Result<(Vec<Cow<'a, str>>, Cow<'a, str>), Refused> {
        let at = &self.signature;
        let mut signatures = Vec::new();
        let mut timestamp = None;
        let time_prefix = self.time.as_ref().filter(|time| time.place.is_none());
        let mut item = |item: Cow<'a, str>| {
            if at.is_signature(&item) {
                if signatures.len() == SIGNATURES_MAX {
                    return Err(Refused::TooMany("signatures"));
                }
                let signature = after(item, at.prefix.len());
                signatures.push(match at.unescape {
                    true => unescaped(&signature).ok_or(NOT_TEXT)?.into(),
                    false => signature,
                });
            } else if let Some(time) = time_prefix
                && item.starts_with(&*time.prefix)
                && timestamp.replace(after(item, time.prefix.len())).is_some()
            {
                return Err(Refused::Repeated("timestamp".into()));
            }
            Ok(())
        };
        match (at.separator, text_at(parts, &at.place, NOT_TEXT)?) {
            (None, value) => item(value)?,
            (Some(separator), value) => {
                for (at, range) in ranges(&value, separator).enumerate() {
                    if at == ITEMS_MAX {
                        return Err(Refused::TooMany("signatures"));
                    }
                    item(match &value {
                        Cow::Borrowed(value) => value[range].into(),
                        Cow::Owned(value) => value[range].to_owned().into(),
                    })?;
                }
            }
        }
        if signatures.is_empty() {
            return Err(Refused::Malformed(
                "where its signature should be there is none of the kind that is checked",
            ));
        }
        if let Some(place) = self.time.as_ref().and_then(|time| time.place.as_ref()) {
            timestamp = Some(text_at(parts, place, NOT_TEXT)?);
        }
        match (timestamp, &self.time) {
            (Some(timestamp), _) => Ok((signatures, timestamp)),
            (None, None) => Ok((signatures, "".into())),
            (None, Some(_)) => Err(Refused::Missing("timestamp".into())),
        }
    }
}

impl SignatureAt {
    /// Whether `item` begins as a signature does; a password's scheme is known in any case of its letters.
    fn is_signature(&self, item: &str) -> bool {
        match (item.get(..self.prefix.len()), self.any_case) {
            (Some(start), true) => start.eq_ignore_ascii_case(&self.prefix),
            (Some(start), false) => *start == *self.prefix,
            (None, _) => false,
        }
    }
}

impl Encoding {
    /// `bytes` written so.
    pub(super) fn write(self, bytes: &[u8]) -> String {
        match self {
            Self::Hex | Self::HexLower => hex(bytes),
            Self::HexUpper => hex_upper(bytes),
            Self::Base64 => STANDARD.encode(bytes),
        }
    }
}

/// What `place` says, as text; `not_text`: why it is refused if it is none.
pub(in crate::verify) fn text_at<'a>(
    parts: &Parts<'a>,
    place: &Selector,
    not_text: Refused,
) -> Result<Cow<'a, str>, Refused> {
    match parts.value(place).map_err(missing)? {
        Cow::Borrowed(bytes) => str::from_utf8(bytes).ok().map(Cow::Borrowed),
        Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
    }
    .ok_or(not_text)
}

/// `text` without its first `bytes`.
pub(in crate::verify) fn after(text: Cow<'_, str>, bytes: usize) -> Cow<'_, str> {
    match text {
        Cow::Borrowed(text) => text[bytes..].into(),
        Cow::Owned(text) => text[bytes..].to_owned().into(),
    }
}

fn unescaped(text: &str) -> Option<String> {
    let bytes = percent_decode(text.as_bytes(), false)?;
    String::from_utf8(bytes.into_owned()).ok()
}

/// Where the items of `value` stand, without the spaces around them.
fn ranges(value: &str, separator: char) -> impl Iterator<Item = Range<usize>> {
    let start_of = |piece: &str| piece.as_ptr() as usize - value.as_ptr() as usize;
    value.split(separator).map(move |piece| {
        let piece = piece.trim();
        let start = start_of(piece);
        start..start + piece.len()
    })
}
