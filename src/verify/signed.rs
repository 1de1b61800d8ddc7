//! The engine `signed`: a text made of parts of the request as the route's `signed` table says, and a digest, an HMAC or an RSA
//! signature of it; or, in its place, a password. Stripe, Paddle, Square, most of the Chinese channels and most other providers
//! are configurations of it, and so are the tables `hmac` and `token` of a route.
//!
//! What is signed twice could be read twice: a field that is there twice is refused wherever it is looked at, and sorted
//! fields are believed in the likeliest reading of their text only ([`super::fields`]).

mod algorithm;
mod built;
mod sign;
mod signature;
mod source;
mod text;

use std::borrow::Cow;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::digest;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub use self::algorithm::Algorithm;
pub use self::signature::{Encoding, SignatureAt};
pub(super) use self::signature::{after, text_at};
pub(super) use self::source::elements;
pub use self::source::{FieldSource, Shape};
pub use self::text::{Part, Template, Url, ValueForm};

use self::algorithm::Running;
use self::built::{Built, Given, TimeCheck};
use super::fields::Known;
use super::keys::{MacKey, RsaHash, RsaKey};
use super::{Refused, Request, TimeUnit, Tolerance, check_time};
use crate::escape::{hex, unhex};
use crate::request::{Missing, Selector, form};

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
    /// What `{url}` is.
    pub url: Option<Url>,
    /// Where the signature stands.
    pub signature: SignatureAt,
    /// What `{timestamp}` is; `None`: there is none.
    pub time: Option<Time>,
    /// Any of them may be `{secret}`, or the HMAC's key.
    pub secrets: Vec<MacKey>,
    /// Any of them may have signed.
    pub keys: Vec<RsaKey>,
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

impl Signed {
    /// Whether one of the keys signed `request`, not too long ago.
    pub(super) fn verify(&self, request: &Request<'_>, now_unix_s: u64) -> Result<(), Refused> {
        let parts = request.parts();
        let (signatures, timestamp) = self.signatures(&parts)?;
        let mut clock = None;
        if let Some(time) = &self.time {
            check_time(&timestamp, time.unit, now_unix_s, time.tolerance)?;
            clock = Some(TimeCheck {
                unit: time.unit,
                now_unix_s,
                tolerance: time.tolerance,
            });
        }
        let built = self.build(request, &timestamp)?;
        built.check_seams(&self.text, clock)?;
        let mut verified = false;
        if self.secrets.is_empty() {
            verified = self.matches(&built, None, &signatures);
        }
        for secret in &self.secrets {
            verified |= self.matches(&built, Some(secret), &signatures);
        }
        verified.then_some(()).ok_or(Refused::Mismatch)?;
        self.check_reading(&built)
    }

    /// The text that `request` should have been signed as, the secret left out: for whoever sets a route up.
    pub(super) fn explain(&self, request: &Request<'_>) -> Result<Vec<u8>, Refused> {
        let (_, timestamp) = self.signatures(&request.parts())?;
        let mut text = Vec::new();
        let built = self.build(request, &timestamp)?;
        built.write(None, &mut |bytes| text.extend_from_slice(bytes));
        Ok(text)
    }

    /// Whether the signature covers what `selector` points at.
    pub(super) fn covers(&self, selector: &Selector) -> bool {
        // Whoever has the password may say anything.
        if self.algorithm == Algorithm::Password {
            return true;
        }
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
            // In either case of its letters it is signed alike.
            Part::Value(its, form) => !form.is_lower_case && its.covers(selector),
            _ => false,
        };
        let time = self.time.as_ref().and_then(|time| time.place.as_ref());
        self.text.parts().any(is_value)
            || time.is_some_and(|time| time.covers(selector))
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

    /// `query` without the password, if that is where it stands.
    pub(super) fn query_without_password(&self, query: &str) -> Option<String> {
        let (Algorithm::Password, Selector::Query(name)) = (self.algorithm, &self.signature.place)
        else {
            return None;
        };
        let others = query.split('&').filter(|pair| {
            let (key, _) = pair.split_once('=').unwrap_or((pair, ""));
            form::decode(key.as_bytes()).as_deref() != Some(name.as_bytes())
        });
        Some(others.collect::<Vec<_>>().join("&"))
    }

    fn build<'a>(
        &'a self,
        request: &Request<'a>,
        timestamp: &'a str,
    ) -> Result<Built<'a>, Refused> {
        let mut fields = None;
        if let Some(source) = &self.fields {
            let skip = |name: &[u8]| source.skip.iter().any(|its| its.as_bytes() == name);
            let all = source.read(&request.parts())?;
            fields = Some(match source.values_only {
                true => source.values(&all)?,
                false => all.text(source.skips_empty, &source.join, |name| !skip(name)),
            });
        }
        let given = Given {
            timestamp,
            url: self.url.as_ref(),
            fields,
        };
        Built::new(&self.text, request, given)
    }

    /// Gives `sink` what is signed: the text, or its hash.
    fn feed(&self, built: &Built<'_>, secret: Option<&MacKey>, sink: &mut dyn FnMut(&[u8])) {
        if !self.hash_first {
            return built.write(secret, sink);
        }
        let mut hash = digest::Context::new(&digest::SHA256);
        built.write(secret, &mut |bytes| hash.update(bytes));
        sink(hex(hash.finish().as_ref()).as_bytes());
    }

    fn matches(
        &self,
        built: &Built<'_>,
        secret: Option<&MacKey>,
        signatures: &[Cow<'_, str>],
    ) -> bool {
        if let Some(hash) = self.algorithm.rsa() {
            return self.is_signed_by_key(hash, false, built, secret, signatures)
                // A test key signs with SHA-256, whatever the provider does.
                || self.keys.iter().any(RsaKey::is_test)
                    && self.is_signed_by_key(RsaHash::Sha256, true, built, secret, signatures);
        }
        if let (Algorithm::Password, Some(secret)) = (self.algorithm, secret) {
            return self.is_password(secret, signatures);
        }
        let Some(mut running) = Running::begin(self.algorithm, secret) else {
            return false;
        };
        self.feed(built, secret, &mut |bytes| running.update(bytes));
        let expected = running.finish(|tag| self.signature.encoding.write(tag));
        let mut verified = false;
        for signature in signatures {
            let same = |given: &str| {
                verify_slices_are_equal(expected.as_bytes(), given.as_bytes()).is_ok()
            };
            verified |= match self.signature.encoding {
                // Senders of one scheme write their hex in one case or the other.
                Encoding::Hex => same(&signature.to_ascii_lowercase()),
                _ => same(signature),
            };
        }
        verified
    }

    /// Whether one of the keys, which are test keys or the provider's, made one of `signatures`.
    fn is_signed_by_key(
        &self,
        hash: RsaHash,
        by_test: bool,
        built: &Built<'_>,
        secret: Option<&MacKey>,
        signatures: &[Cow<'_, str>],
    ) -> bool {
        let mut digest = hash.begin();
        self.feed(built, secret, &mut |bytes| digest.update(bytes));
        let digest = digest.finish();
        let mut keys = self.keys.iter().filter(|key| key.is_test() == by_test);
        keys.any(|key| {
            let mut decoded = signatures.iter().filter_map(|text| self.decode(text));
            decoded.any(|signature| key.verifies(hash, &digest, &signature))
        })
    }

    /// Whether one of `given` is the secret. Hashes are compared, so that not even its length shows.
    fn is_password(&self, secret: &MacKey, given: &[Cow<'_, str>]) -> bool {
        let sha256 = |bytes: &[u8]| digest::digest(&digest::SHA256, bytes);
        let expected = match self.signature.encoding {
            Encoding::Base64 => sha256(STANDARD.encode(secret.secret()).as_bytes()),
            _ => sha256(secret.secret()),
        };
        let mut verified = false;
        for given in given {
            let given = sha256(given.as_bytes());
            verified |= verify_slices_are_equal(expected.as_ref(), given.as_ref()).is_ok();
        }
        verified
    }

    /// The bytes of an RSA signature.
    fn decode(&self, text: &str) -> Option<Vec<u8>> {
        match self.signature.encoding {
            Encoding::Base64 => super::keys::unbase64(text),
            Encoding::Hex | Encoding::HexLower | Encoding::HexUpper => unhex(text),
        }
    }

    fn check_reading(&self, built: &Built<'_>) -> Result<(), Refused> {
        let (Some(source), Some(text)) = (&self.fields, built.fields()) else {
            return Ok(());
        };
        if source.values_only {
            return Ok(()); // each value has one name only
        }
        let known = Known {
            always: &source::borrowed(&source.always),
            sometimes: &[],
            more: &source.sometimes,
            free_text: &source::borrowed(&source.free_text),
            never: &source::borrowed(&source.skip),
        };
        text.check_reading(&known)
    }
}

pub(super) fn missing(missing: Missing) -> Refused {
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
