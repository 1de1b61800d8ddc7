//! The engine `jws`: a signed JSON document in compact form (RFC 7515), which is the payment itself (Apple) or says who sends
//! it (Google's push token), by a chain of certificates that leads to a root of the route, or by a key that it names.
//!
//! No address is ever asked for a key: what is not in the route's files is not believed.

mod chain;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

pub use self::chain::{Chain, Trusted, roots};

use super::draft::{CannotSign, Draft, with_value};
use super::keys::{RsaHash, RsaKey};
use super::signed::{after, text_at};
use super::{Refused, Request, Tolerance};
use crate::request::{Missing, Selector, json, place};

/// How long a token of a test key is valid, in seconds: as long as Google's.
const TOKEN_LIFE_S: u64 = 3600;

/// The longest header of a document, in bytes as it stands there. Apple's has three certificates, 4 KiB together.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// What such a route checks, and with what.
#[derive(Clone, Debug, PartialEq)]
pub struct Jws {
    /// Where the document stands.
    pub place: Selector,
    /// What stands before it, in any case of its letters: `Bearer `.
    pub prefix: Box<str>,
    /// Who may have signed it.
    pub signer: Signer,
    /// What it must say.
    pub claims: Vec<Claim>,
    /// How far beyond its own times (`exp`, `nbf`) it is believed; `None`: they are not looked at.
    pub tolerance: Tolerance,
}

/// Who may have signed a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Signer {
    /// ES256, by the certificate in its header, whose chain leads to one of these.
    Chain(Chain),
    /// RS256, by the one of these keys that its header names.
    Named(Vec<RsaKey>),
}

/// What a document must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its name, for the log.
    pub name: Box<str>,
    /// Where it stands: in one of these places.
    pub at: Vec<Vec<String>>,
    /// What it may be.
    pub allowed: Vec<String>,
}

/// A document taken apart.
struct Parts<'t> {
    header: Vec<u8>,
    payload: Vec<u8>,
    signed: &'t str,
    signature: Vec<u8>,
}

impl Jws {
    /// Whether the document of `request` is signed by whom it should be, and says what it must.
    pub(super) fn verify(&self, request: &Request<'_>, now_unix_s: u64) -> Result<(), Refused> {
        let text = self.text(request)?;
        let parts = Parts::of(&text)?;
        // An extension that must be understood changes what is signed (RFC 7515 section 4.1.11).
        match json::at(&parts.header, &["crit".to_owned()]) {
            Err(Missing::Nowhere(_)) => {}
            _ => return Err(Refused::Malformed("its header has critical extensions")),
        }
        let algorithm = header_text(&parts.header, "alg")?;
        match (&self.signer, &*algorithm) {
            (Signer::Chain(chain), "ES256") => chain.verify(&parts, now_unix_s)?,
            (signer, "RS256") => {
                let kid = header_text(&parts.header, "kid")?;
                let mut keys = signer.named().iter();
                let key = keys.find(|key| key.serial() == Some(&kid));
                let key = key.ok_or(Refused::UnknownKey)?;
                let digest = RsaHash::Sha256.of(parts.signed.as_bytes());
                let verified = key.verifies(RsaHash::Sha256, &digest, &parts.signature);
                verified.then_some(()).ok_or(Refused::Mismatch)?;
            }
            _ => {
                return Err(Refused::Malformed(
                    "it is signed by another algorithm than ES256 or RS256",
                ));
            }
        }
        self.check_times(&parts.payload, now_unix_s)?;
        self.claims
            .iter()
            .try_for_each(|claim| claim.check(&parts.payload))
    }

    /// Fills in what the document must say, and signs it with a test key.
    pub(super) fn sign(&self, draft: &mut Draft, now_unix_s: u64) -> Result<(), CannotSign> {
        let name = |name: &str| vec![name.to_owned()];
        let mut payload = match self.is_in_body() {
            true => draft.opened.clone(),
            false => Vec::new(),
        };
        let mut fill = |at: &[String], value: Value| {
            let is_there = !payload.is_empty() && scalar(&payload, at)?.is_some();
            if !is_there {
                let no_room = || CannotSign::Place(place(&Selector::Opened(at.to_vec())));
                payload = with_value(&payload, at, value).ok_or_else(no_room)?;
            }
            Ok::<(), CannotSign>(())
        };
        for claim in &self.claims {
            if let (Some(at), Some(allowed)) = (claim.at.first(), claim.allowed.first()) {
                fill(at, allowed.as_str().into())?;
            }
        }
        match &self.signer {
            Signer::Chain(chain) => fill(&chain.time, (now_unix_s * 1000).into())?,
            Signer::Named(_) => fill(&name("exp"), (now_unix_s + TOKEN_LIFE_S).into())?,
        }
        let test = self.signer.named().iter().find(|key| key.is_test());
        let key = test.ok_or(CannotSign::NoTestKey)?;
        let header = with_value(b"", &name("alg"), "RS256")
            .and_then(|header| with_value(&header, &name("kid"), key.serial()))
            .unwrap_or_default();
        let [header, payload] = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{payload}");
        let signature = key.sign(&RsaHash::Sha256.of(signed.as_bytes()));
        let signature = signature.ok_or(CannotSign::NoTestKey)?;
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        draft.set(&self.place, &format!("{}{token}", self.prefix))
    }

    /// Whether the signature covers what `selector` points at.
    pub(super) fn covers(&self, selector: &Selector) -> bool {
        // A bearer token signs nothing of the body: whoever has it may say anything while it is valid.
        matches!(self.place, Selector::Header(_))
            || matches!(selector, Selector::Opened(_))
            || *selector == self.place
    }

    /// Whether the header called `name`, in lower case, is looked at.
    pub(super) fn reads_header(&self, name: &str) -> bool {
        matches!(&self.place, Selector::Header(names) if names.iter().any(|its| its == name))
    }

    /// Whether the document stands in the body.
    pub(super) fn is_in_body(&self) -> bool {
        !matches!(self.place, Selector::Header(_))
    }

    /// What the document in `body` says.
    pub(super) fn open(&self, body: &[u8]) -> Option<Result<Vec<u8>, &'static str>> {
        if !self.is_in_body() {
            return None;
        }
        let request = Request {
            method: "POST",
            target: "",
            headers: &[],
            path_id: None,
            query: "",
            body,
        };
        let opened = self
            .text(&request)
            .and_then(|text| Ok(Parts::of(&text)?.payload));
        Some(opened.map_err(|_| "the body has no signed document in it"))
    }

    fn text<'r>(&self, request: &Request<'r>) -> Result<Cow<'r, str>, Refused> {
        const NONE: Refused =
            Refused::Malformed("where the signed document should be there is none");
        let text = text_at(&request.parts(), &self.place, NONE)?;
        let length = self.prefix.len();
        let begins = text.get(..length).ok_or(NONE)?;
        if !begins.eq_ignore_ascii_case(&self.prefix) {
            return Err(NONE);
        }
        Ok(after(text, length))
    }

    /// Refuses a document before or after the time for which it was made (RFC 7519 sections 4.1.4 and 4.1.5).
    fn check_times(&self, payload: &[u8], now_unix_s: u64) -> Result<(), Refused> {
        let Some(tolerance) = self.tolerance else {
            return Ok(());
        };
        let around = tolerance.as_secs();
        match (seconds(payload, "exp")?, &self.signer) {
            (Some(until), _) if until.saturating_add(around) < now_unix_s => {
                return Err(Refused::Expired);
            }
            (None, Signer::Named(_)) => {
                return Err(Refused::Missing("exp in the signed document".into()));
            }
            _ => {}
        }
        match seconds(payload, "nbf")? {
            Some(from) if from > now_unix_s.saturating_add(around) => Err(Refused::Expired),
            _ => Ok(()),
        }
    }
}

impl Signer {
    /// Keys that a document may name.
    pub(super) fn named(&self) -> &[RsaKey] {
        match self {
            Self::Named(keys) => keys,
            Self::Chain(chain) => &chain.test,
        }
    }
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Result<Self, Refused> {
        const NONE: Refused =
            Refused::Malformed("it is no signed document in compact form (RFC 7515)");
        let (signed, signature) = text.rsplit_once('.').ok_or(NONE)?;
        let (header, payload) = signed.split_once('.').ok_or(NONE)?;
        if header.len() > HEADER_BYTES_MAX {
            return Err(Refused::TooMany(
                "bytes in the header of the signed document",
            ));
        }
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| NONE);
        Ok(Self {
            header: decode(header)?,
            payload: decode(payload)?,
            signed,
            signature: decode(signature)?,
        })
    }
}

impl Claim {
    fn check(&self, payload: &[u8]) -> Result<(), Refused> {
        let mut found = None;
        for at in &self.at {
            match (scalar(payload, at)?, &found) {
                (Some(_), Some(_)) => return Err(Refused::Repeated(self.name.clone())),
                (Some(value), None) => found = Some(value),
                (None, _) => {}
            }
        }
        let found = found.ok_or_else(|| Refused::Missing(self.name.clone()))?;
        let is_allowed = self.allowed.contains(&found);
        is_allowed
            .then_some(())
            .ok_or_else(|| Refused::OtherClaim(self.name.clone()))
    }
}

fn header_text(header: &[u8], name: &str) -> Result<String, Refused> {
    let found = scalar(header, &[name.to_owned()])?;
    found.ok_or_else(|| {
        Refused::Missing(format!("{name} in the header of the signed document").into())
    })
}

fn seconds(payload: &[u8], name: &str) -> Result<Option<u64>, Refused> {
    let Some(text) = scalar(payload, &[name.to_owned()])? else {
        return Ok(None);
    };
    let digits = text.split('.').next().unwrap_or_default();
    let seconds = digits
        .parse()
        .map_err(|_| Refused::Malformed("a time in it is no number"))?;
    Ok(Some(seconds))
}

/// The text, number, true or false at `pointer`; `None`: it is not there.
fn scalar(json: &[u8], pointer: &[String]) -> Result<Option<String>, Refused> {
    match json::at(json, pointer) {
        Ok(Some(scalar)) => Ok(Some(scalar.into_text())),
        Ok(None) => Err(Refused::Malformed("a claim is an object or a list")),
        Err(Missing::Nowhere(_)) => Ok(None),
        Err(Missing::Twice(_)) => Err(Refused::Repeated(
            place(&Selector::Json(pointer.to_vec())).into(),
        )),
        Err(_) => Err(Refused::Malformed("what was signed is no JSON object")),
    }
}
