//! The engine `signed`: a text made of parts of the request as the route's `signed` table says, and a digest, an HMAC or an RSA
//! signature of it. All of the Chinese channels and most other providers are configurations of it.
//!
//! What is signed twice could be read twice: a field that is there twice is refused wherever it is looked at, and sorted
//! fields are believed in the likeliest reading of their text only ([`super::fields`]).

mod algorithm;
mod source;
mod text;

use std::borrow::Cow;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

pub use self::algorithm::Algorithm;
pub use self::source::{FieldSource, Shape};
pub use self::text::{BadText, Part, Template};
use super::fields::{Known, Text};
use super::keys::{MacKey, RsaKey, hex_lower, hex_upper};
use super::{Encoding, Refused, Request, SIGNATURES_MAX, TimeUnit, Tolerance, check_time};
use crate::request::{Missing, Parts, Selector, form};

/// The most items of a signature header, signatures or not.
const ITEMS_MAX: usize = 64;

/// What such a route checks, and with what.
#[derive(Clone, Debug, PartialEq)]
pub struct Signed {
    /// What `{fields}` stands for, if the text has it.
    pub fields: Option<FieldSource>,
    /// The text that is signed.
    pub text: Template,
    /// How.
    pub algorithm: Algorithm,
    /// The SHA-256 of the text in lower-case hex is signed in place of the text.
    pub hash_first: bool,
    /// Where the signature stands.
    pub signature: SignatureAt,
    /// What `{timestamp}` is; `None`: there is none.
    pub time: Option<Time>,
    /// Any of them may be `{secret}`, or the HMAC's key.
    pub secrets: Vec<MacKey>,
    /// Any of them may have signed.
    pub keys: Vec<RsaKey>,
}

/// Where the signature stands, and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignatureAt {
    /// Where.
    pub place: Selector,
    /// What stands between the items of that value; `None`: it is one item.
    pub separator: Option<char>,
    /// What an item that is a signature begins with.
    pub prefix: Box<str>,
    /// How it is written. Hex is taken in either case.
    pub encoding: Encoding,
    /// Its `%XX` are decoded first.
    pub unescape: bool,
}

/// What `{timestamp}` is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    /// Where it stands; `None`: in the item of the signature that begins with the prefix.
    pub place: Option<Selector>,
    /// What that item begins with.
    pub prefix: Box<str>,
    /// What it counts.
    pub unit: TimeUnit,
    /// How far it may be from now.
    pub tolerance: Tolerance,
}

/// The signed text up to the secret, which differs from key to key.
pub(super) struct Built<'r> {
    pieces: Vec<Piece<'r>>,
    fields: Option<Text>,
}

/// A piece of the text.
enum Piece<'r> {
    Bytes(Cow<'r, [u8]>),
    Secret,
    SecretMd5,
    /// Sorted when the secret is known.
    Ordered(Vec<Piece<'r>>),
}

impl Signed {
    /// Whether one of the keys signed `request`, not too long ago.
    pub(super) fn verify(&self, request: &Request<'_>, now_unix_s: u64) -> Result<(), Refused> {
        let parts = request.parts();
        let (signatures, timestamp) = self.signatures(&parts)?;
        let timestamp = timestamp.unwrap_or_default();
        if let Some(time) = &self.time {
            check_time(&timestamp, time.unit, now_unix_s, time.tolerance)?;
        }
        let built = self.build(request, &parts, &timestamp)?;
        let mut verified = false;
        let no_secret = [None];
        let secrets: Vec<Option<&MacKey>> = self.secrets.iter().map(Some).collect();
        let secrets = if secrets.is_empty() {
            &no_secret[..]
        } else {
            &secrets
        };
        for secret in secrets {
            let text = self.hashed(built.text(*secret));
            verified |= self.matches(&text, *secret, &signatures);
        }
        verified.then_some(()).ok_or(Refused::Mismatch)?;
        self.check_reading(&built)
    }

    /// The text that `request` should have been signed as, the secret left out: for whoever sets a route up.
    pub fn explain(&self, request: &Request<'_>) -> Result<Vec<u8>, Refused> {
        let parts = request.parts();
        let (_, timestamp) = self.signatures(&parts)?;
        let built = self.build(request, &parts, &timestamp.unwrap_or_default())?;
        Ok(built.text(None))
    }

    /// Whether the signature covers what `selector` points at.
    pub(super) fn covers(&self, selector: &Selector) -> bool {
        let is_body = matches!(
            selector,
            Selector::Form(_) | Selector::Json(_) | Selector::Xml(_)
        );
        if is_body && (self.text.has(&Part::Body) || self.text.has(&Part::BodyCrc32)) {
            return true;
        }
        if matches!(selector, Selector::Query(_)) && self.text.has(&Part::Target) {
            return true;
        }
        let is_value = |part: &Part| match part {
            Part::Value(its, _) => covers_value(its, selector),
            _ => false,
        };
        self.text.parts().any(is_value)
            || (self.text.has(&Part::Fields)
                && self
                    .fields
                    .as_ref()
                    .is_some_and(|fields| fields.covers(selector)))
    }

    /// Whether the header called `name`, in lower case, is looked at.
    pub(super) fn reads_header(&self, name: &str) -> bool {
        let is_it = |selector: &Selector| match selector {
            Selector::Header(names) => names.iter().any(|its| its == name),
            _ => false,
        };
        let in_text = self.text.parts().any(|part| match part {
            Part::Value(selector, _) => is_it(selector),
            _ => false,
        });
        let time = self.time.as_ref().and_then(|time| time.place.as_ref());
        in_text || is_it(&self.signature.place) || time.is_some_and(is_it)
    }

    /// What may be the signature, and the time.
    fn signatures(&self, parts: &Parts<'_>) -> Result<(Vec<String>, Option<String>), Refused> {
        const NOT_ASCII: Refused = Refused::Malformed("its signature is no text");
        let at = &self.signature;
        let value = parts.value(&at.place).map_err(missing)?;
        let value = str::from_utf8(&value).map_err(|_| NOT_ASCII)?;
        let mut signatures = Vec::new();
        let mut timestamp = None;
        let time_prefix = self.time.as_ref().filter(|time| time.place.is_none());
        let mut item = |item: &str| {
            if let Some(signature) = item.strip_prefix(&*at.prefix) {
                if signatures.len() == SIGNATURES_MAX {
                    return Err(Refused::TooMany("signatures"));
                }
                let decoded = match at.unescape {
                    true => form::percent_decode(signature.as_bytes(), false)
                        .and_then(|bytes| String::from_utf8(bytes.into_owned()).ok()),
                    false => Some(signature.to_owned()),
                };
                signatures.push(decoded.ok_or(NOT_ASCII)?);
            } else if let Some(time) = time_prefix
                && let Some(text) = item.strip_prefix(&*time.prefix)
                && timestamp.replace(text.to_owned()).is_some()
            {
                return Err(Refused::Repeated("timestamp".into()));
            }
            Ok(())
        };
        match at.separator {
            None => item(value)?,
            Some(separator) => {
                for (at, piece) in value.split(separator).enumerate() {
                    if at == ITEMS_MAX {
                        return Err(Refused::TooMany("signatures"));
                    }
                    item(piece.trim())?;
                }
            }
        }
        if signatures.is_empty() {
            return Err(Refused::Malformed(
                "where its signature should be there is none of the kind that is checked",
            ));
        }
        if let Some(place) = self.time.as_ref().and_then(|time| time.place.as_ref()) {
            let value = parts.value(place).map_err(missing)?;
            timestamp = Some(String::from_utf8(value.into_owned()).map_err(|_| NOT_ASCII)?);
        }
        if self.time.is_some() && timestamp.is_none() {
            return Err(Refused::Missing("timestamp".into()));
        }
        Ok((signatures, timestamp))
    }

    fn build<'r>(
        &self,
        request: &Request<'r>,
        parts: &Parts<'r>,
        timestamp: &str,
    ) -> Result<Built<'r>, Refused> {
        let mut fields = None;
        if let Some(source) = &self.fields {
            let skip = |name: &[u8]| source.skip.iter().any(|its| its.as_bytes() == name);
            let all = source.read(parts)?;
            fields = Some(match source.values_only {
                true => source.values(&all)?,
                false => all.text(source.skips_empty, &source.join, |name| !skip(name)),
            });
        }
        let piece = |part: &Part| self.piece(part, request, parts, timestamp, fields.as_ref());
        let pieces: Vec<Piece<'_>> = self.text.0.iter().map(piece).collect::<Result<_, _>>()?;
        self.check_seams(&pieces)?;
        Ok(Built { pieces, fields })
    }

    /// Refuses values with which the text could be cut into other values than these, where the provider leaves that to be
    /// told: by a text that follows a value, or digits of a time beside a body.
    fn check_seams(&self, pieces: &[Piece<'_>]) -> Result<(), Refused> {
        let bytes = |piece: &Piece<'_>, test: &dyn Fn(&[u8]) -> bool| match piece {
            Piece::Bytes(bytes) => test(bytes),
            _ => false,
        };
        for (parts, pieces) in self.text.0.windows(2).zip(pieces.windows(2)) {
            let is_open = match (&parts[0], &parts[1]) {
                (Part::Value(..), Part::Literal(text)) => bytes(&pieces[0], &|value| {
                    value
                        .windows(text.len())
                        .any(|piece| piece == text.as_bytes())
                }),
                (Part::Timestamp, Part::Body) => bytes(&pieces[1], &|body| {
                    body.first().is_some_and(u8::is_ascii_digit)
                }),
                (Part::Body, Part::Timestamp) => bytes(&pieces[0], &|body| {
                    body.last().is_some_and(u8::is_ascii_digit)
                }),
                _ => false,
            };
            if is_open {
                return Err(Refused::Malformed(
                    "where one signed part ends and the next begins cannot be told",
                ));
            }
        }
        Ok(())
    }

    fn piece<'r>(
        &self,
        part: &Part,
        request: &Request<'r>,
        parts: &Parts<'r>,
        timestamp: &str,
        fields: Option<&Text>,
    ) -> Result<Piece<'r>, Refused> {
        let owned = |text: &[u8]| Piece::Bytes(Cow::Owned(text.to_vec()));
        Ok(match part {
            Part::Literal(text) => owned(text.as_bytes()),
            Part::Fields => owned(fields.map_or(&[], |fields| &fields.bytes)),
            Part::Body => Piece::Bytes(request.body.into()),
            Part::BodyCrc32 => owned(crc32(request.body).to_string().as_bytes()),
            Part::Secret => Piece::Secret,
            Part::SecretMd5 => Piece::SecretMd5,
            Part::Method => Piece::Bytes(request.method.as_bytes().into()),
            Part::Target => Piece::Bytes(request.target.as_bytes().into()),
            Part::Timestamp => owned(timestamp.as_bytes()),
            Part::Value(selector, may_be_missing) => match parts.value(selector) {
                Ok(value) => Piece::Bytes(value),
                Err(Missing::Nowhere(_)) if *may_be_missing => owned(b""),
                Err(other) => return Err(missing(other)),
            },
            Part::Ordered(parts_of) => {
                let piece = |part| self.piece(part, request, parts, timestamp, fields);
                Piece::Ordered(parts_of.iter().map(piece).collect::<Result<_, _>>()?)
            }
        })
    }

    fn hashed(&self, text: Vec<u8>) -> Vec<u8> {
        match self.hash_first {
            false => text,
            true => {
                let hash = digest::digest(&digest::SHA256, &text);
                hex_lower(hash.as_ref()).into_bytes()
            }
        }
    }

    fn matches(&self, text: &[u8], secret: Option<&MacKey>, signatures: &[String]) -> bool {
        if let Some(hash) = self.algorithm.rsa() {
            let digest = hash.of(text);
            let decoded = signatures.iter().filter_map(|text| self.decode(text));
            let mut signed = decoded.flat_map(|signature| {
                let by = move |key: &RsaKey| key.verifies(hash, &digest, &signature);
                self.keys.iter().map(by)
            });
            return signed.any(|yes| yes);
        }
        let Some(secret) = secret else {
            return false;
        };
        let tag = match self.algorithm {
            Algorithm::Md5 => Md5::digest(text).to_vec(),
            Algorithm::Sha1 => hash(&digest::SHA1_FOR_LEGACY_USE_ONLY, text),
            Algorithm::Sha256 => hash(&digest::SHA256, text),
            Algorithm::Sha512 => hash(&digest::SHA512, text),
            _ => {
                let mut mac = secret.begin();
                mac.update(text);
                mac.sign().as_ref().to_vec()
            }
        };
        let expected = match self.signature.encoding {
            Encoding::Hex => hex_lower(&tag),
            Encoding::HexUpper => hex_upper(&tag),
            Encoding::Base64 => STANDARD.encode(&tag),
        };
        let mut verified = false;
        for signature in signatures {
            // Senders of one scheme write their hex in one case or the other.
            let given = match self.signature.encoding {
                Encoding::Hex => signature.to_ascii_lowercase(),
                Encoding::HexUpper => signature.to_ascii_uppercase(),
                Encoding::Base64 => signature.clone(),
            };
            verified |= verify_slices_are_equal(expected.as_bytes(), given.as_bytes()).is_ok();
        }
        verified
    }

    /// The bytes of an RSA signature.
    fn decode(&self, text: &str) -> Option<Vec<u8>> {
        match self.signature.encoding {
            Encoding::Base64 => super::keys::unbase64(text),
            Encoding::Hex | Encoding::HexUpper => super::keys::unhex(text),
        }
    }

    fn check_reading(&self, built: &Built<'_>) -> Result<(), Refused> {
        let (Some(source), Some(text)) = (&self.fields, &built.fields) else {
            return Ok(());
        };
        if source.values_only {
            return Ok(()); // each value has one name only
        }
        let known = Known {
            always: &source::borrowed(&source.always),
            sometimes: &[],
            free_text: &source::borrowed(&source.free_text),
            never: &source::borrowed(&source.skip),
        };
        text.check_reading(&known)
    }
}

impl Built<'_> {
    /// The text with `secret`; without one, `<secret>` stands where it would.
    fn text(&self, secret: Option<&MacKey>) -> Vec<u8> {
        let mut text = Vec::new();
        for piece in &self.pieces {
            piece.write(secret, &mut text);
        }
        text
    }
}

impl Piece<'_> {
    fn write(&self, secret: Option<&MacKey>, text: &mut Vec<u8>) {
        match (self, secret) {
            (Self::Bytes(bytes), _) => text.extend_from_slice(bytes),
            (Self::Secret, Some(secret)) => text.extend_from_slice(secret.secret()),
            (Self::SecretMd5, Some(secret)) => {
                text.extend_from_slice(hex_lower(&Md5::digest(secret.secret())).as_bytes());
            }
            (Self::Secret, None) => text.extend_from_slice(b"<secret>"),
            (Self::SecretMd5, None) => text.extend_from_slice(b"<md5 of the secret>"),
            (Self::Ordered(pieces), _) => {
                let mut values: Vec<Vec<u8>> = Vec::with_capacity(pieces.len());
                for piece in pieces {
                    let mut value = Vec::new();
                    piece.write(secret, &mut value);
                    values.push(value);
                }
                values.sort();
                text.extend_from_slice(&values.concat());
            }
        }
    }
}

/// Whether a signed value covers what `selector` points at: the value itself, or something within it.
fn covers_value(signed: &Selector, selector: &Selector) -> bool {
    match (signed, selector) {
        (Selector::Json(signed), Selector::Json(selector)) => signed == selector,
        (Selector::Header(signed), Selector::Header(selector)) => {
            selector.iter().all(|name| signed.contains(name))
        }
        (signed, selector) => signed == selector,
    }
}

fn missing(missing: Missing) -> Refused {
    match missing {
        Missing::Nowhere(place) => Refused::Missing(place.into()),
        Missing::Twice(place) => Refused::Repeated(place.into()),
        Missing::NotText(_) => Refused::Malformed("a value that is signed cannot be read"),
        Missing::NotObject(_) => {
            Refused::Malformed("where signed fields should be there is no object")
        }
        Missing::Unreadable(_) => Refused::Malformed("the body is not what this provider signs"),
        Missing::Sealed(why) => Refused::Malformed(why),
    }
}

fn hash(algorithm: &'static digest::Algorithm, text: &[u8]) -> Vec<u8> {
    digest::digest(algorithm, text).as_ref().to_vec()
}

/// CRC-32 as in zlib (ISO 3309).
fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| match crc & 1 {
            0 => crc >> 1,
            _ => crc >> 1 ^ 0xedb8_8320,
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}
