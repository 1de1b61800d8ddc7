//! The text that is signed, for one request: its pieces, none of them copied that need not be, and whether they could be cut
//! into other values than these.

use std::borrow::Cow;

use md5::{Digest as _, Md5};

use super::text::{Part, Template};
use super::{Url, crc32, missing};
use crate::escape::hex;
use crate::request::{Missing, Parts, Selector};
use crate::verify::fields::Text;
use crate::verify::keys::MacKey;
use crate::verify::{Refused, Request, TimeUnit, Tolerance, check_time};

/// The signed text up to the secret, which differs from key to key.
pub struct Built<'a> {
    pieces: Vec<Piece<'a>>,
    fields: Option<Text>,
}

/// A piece of the text.
enum Piece<'a> {
    Bytes(Cow<'a, [u8]>),
    Fields,
    Secret,
    SecretMd5,
    /// The address, around the id in it as it was sent.
    Url(&'a Url, &'a str),
    /// Sorted when the secret is known.
    Ordered(Vec<Piece<'a>>),
}

/// What the text is made of besides the request.
pub struct Given<'a> {
    pub timestamp: &'a str,
    pub url: Option<&'a Url>,
    /// The fields, if the text has them.
    pub fields: Option<Text>,
}

/// When a time is believed.
#[derive(Clone, Copy)]
pub struct TimeCheck {
    pub unit: TimeUnit,
    pub now_unix_s: u64,
    pub tolerance: Tolerance,
}

impl<'a> Built<'a> {
    pub fn new(
        template: &'a Template,
        request: &Request<'a>,
        given: Given<'a>,
    ) -> Result<Self, Refused> {
        let parts = request.parts();
        let mut pieces = Vec::with_capacity(template.0.len());
        for part in &template.0 {
            pieces.push(piece(part, request, &parts, &given)?);
        }
        Ok(Self {
            pieces,
            fields: given.fields,
        })
    }

    /// Gives `sink` the text with `secret`, piece by piece; without one, `<secret>` stands where it would.
    pub fn write(&self, secret: Option<&MacKey>, sink: &mut dyn FnMut(&[u8])) {
        let fields = self.fields.as_ref().map_or(&[][..], |fields| &fields.bytes);
        for piece in &self.pieces {
            piece.write(secret, fields, sink);
        }
    }

    /// The sorted fields.
    pub fn fields(&self) -> Option<&Text> {
        self.fields.as_ref()
    }

    /// Refuses values with which the text could be cut into other values than these, where the provider leaves that to be
    /// told: by a text that follows a value, or digits of a time beside a body. `clock`: which times would be believed.
    pub fn check_seams(
        &self,
        template: &Template,
        clock: Option<TimeCheck>,
    ) -> Result<(), Refused> {
        const SEAM: Refused =
            Refused::Malformed("where one signed part ends and the next begins cannot be told");
        let parts = &template.0[..];
        for (at, part) in parts.iter().enumerate() {
            let is_open = match part {
                Part::Value(selector, form) => {
                    let value = self.bytes(at);
                    if value.is_empty()
                        && matches!(selector, Selector::Header(_))
                        && !form.may_be_missing
                    {
                        return Err(Refused::Malformed("a header that is signed is empty"));
                    }
                    self.value_is_open(parts, at, value, clock)
                }
                Part::Timestamp => {
                    let is_digit = |byte: Option<&u8>| byte.is_some_and(u8::is_ascii_digit);
                    let before = at.checked_sub(1);
                    let follows_body = before.is_some_and(|at| parts[at] == Part::Body);
                    (follows_body && is_digit(self.bytes(at - 1).last()))
                        || (parts.get(at + 1) == Some(&Part::Body)
                            && is_digit(self.bytes(at + 1).first()))
                }
                Part::Url => {
                    let of_id = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-%".contains(byte);
                    let ends_with_id =
                        matches!(&self.pieces[at], Piece::Url(url, _) if url.ends_with_id());
                    ends_with_id
                        && parts.get(at + 1) == Some(&Part::Body)
                        && self.bytes(at + 1).first().is_some_and(of_id)
                }
                _ => false,
            };
            if is_open {
                return Err(SEAM);
            }
        }
        Ok(())
    }

    /// Whether the value at `at` might end earlier, or begin later, and leave the text as it is.
    fn value_is_open(
        &self,
        parts: &[Part],
        at: usize,
        value: &[u8],
        clock: Option<TimeCheck>,
    ) -> bool {
        let has = |text: &str| has_before_its_end(value, text.as_bytes());
        // What stands before it is as long as it is, unless a body or an address is among it.
        let is_of_any_length = |part: &Part| matches!(part, Part::Body | Part::Url);
        if let [before @ .., Part::Literal(text)] = &parts[..at]
            && before.iter().any(is_of_any_length)
            && has(text)
        {
            return true;
        }
        match (&parts[at + 1..], clock) {
            ([Part::Literal(first), Part::Timestamp, then @ ..], Some(clock)) => {
                // A time of now would have to follow an earlier end of it.
                let then = match then {
                    [Part::Literal(text), ..] => text.as_bytes(),
                    _ => b"",
                };
                let text = [value, first.as_bytes(), self.bytes(at + 2), then].concat();
                let first = first.as_bytes();
                (0..value.len()).any(|end| {
                    let Some(rest) = text[end..].strip_prefix(first) else {
                        return false;
                    };
                    let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
                    let (time, rest) = rest.split_at(digits);
                    let time = str::from_utf8(time).unwrap_or_default();
                    rest.starts_with(then)
                        && check_time(time, clock.unit, clock.now_unix_s, clock.tolerance).is_ok()
                })
            }
            ([Part::Literal(text), ..], _) => has(text),
            _ => false,
        }
    }

    /// The bytes of a piece; none if it has none of its own.
    fn bytes(&self, at: usize) -> &[u8] {
        match &self.pieces[at] {
            Piece::Bytes(bytes) => bytes,
            _ => &[],
        }
    }
}

/// Whether `text`, which follows `value`, is there before that, in whole or in part.
fn has_before_its_end(value: &[u8], text: &[u8]) -> bool {
    match text {
        [one] => value.contains(one),
        [most @ .., _] => [value, most]
            .concat()
            .windows(text.len())
            .any(|piece| piece == text),
        [] => true,
    }
}

fn piece<'a>(
    part: &'a Part,
    request: &Request<'a>,
    parts: &Parts<'a>,
    given: &Given<'a>,
) -> Result<Piece<'a>, Refused> {
    Ok(match part {
        Part::Literal(text) => Piece::Bytes(text.as_bytes().into()),
        Part::Fields => Piece::Fields,
        Part::Body => Piece::Bytes(request.body.into()),
        Part::BodyCrc32 => Piece::Bytes(crc32(request.body).to_string().into_bytes().into()),
        Part::Secret => Piece::Secret,
        Part::SecretMd5 => Piece::SecretMd5,
        Part::Method => Piece::Bytes(request.method.as_bytes().into()),
        Part::Target => Piece::Bytes(request.target.as_bytes().into()),
        Part::Url => match given.url {
            Some(url) => Piece::Url(url, request.path_id.unwrap_or_default()),
            None => Piece::Bytes((&[]).into()),
        },
        Part::Timestamp => Piece::Bytes(given.timestamp.as_bytes().into()),
        Part::Value(selector, form) => match parts.value(selector) {
            Ok(value) if form.is_lower_case => Piece::Bytes(value.to_ascii_lowercase().into()),
            Ok(value) => Piece::Bytes(value),
            Err(Missing::Nowhere(_)) if form.may_be_missing => Piece::Bytes((&[]).into()),
            Err(other) => return Err(missing(other)),
        },
        Part::Ordered(ordered) => {
            let pieces = ordered
                .iter()
                .map(|part| piece(part, request, parts, given));
            Piece::Ordered(pieces.collect::<Result<_, _>>()?)
        }
    })
}

impl Piece<'_> {
    fn write(&self, secret: Option<&MacKey>, fields: &[u8], sink: &mut dyn FnMut(&[u8])) {
        match (self, secret) {
            (Self::Bytes(bytes), _) => sink(bytes),
            (Self::Fields, _) => sink(fields),
            (Self::Url(url, id), _) => url.write(id, sink),
            (Self::Secret, Some(secret)) => sink(secret.secret()),
            (Self::SecretMd5, Some(secret)) => {
                sink(hex(&Md5::digest(secret.secret())).as_bytes());
            }
            (Self::Secret, None) => sink(b"<secret>"),
            (Self::SecretMd5, None) => sink(b"<md5 of the secret>"),
            (Self::Ordered(pieces), _) => {
                let mut values: Vec<Vec<u8>> = Vec::with_capacity(pieces.len());
                for piece in pieces {
                    let mut value = Vec::new();
                    piece.write(secret, fields, &mut |bytes| value.extend_from_slice(bytes));
                    values.push(value);
                }
                values.sort();
                values.iter().for_each(|value| sink(value));
            }
        }
    }
}
