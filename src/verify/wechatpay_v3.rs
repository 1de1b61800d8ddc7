//! The engine `wechatpay-v3`: an RSA signature over time, nonce and body, by the key that the request names; and the sealed
//! `resource` in the body, which can be opened to find out whom it is for.
//!
//! WeChat Pay sends forged probes now and then, to see whether anybody checks (`WECHATPAY/SIGNTEST/…`). They are refused as
//! bad signatures are, and counted apart: the provider itself is not to be slowed down for them.

use std::borrow::Cow;
use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::{digest, rand};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::draft::{CannotSign, Draft};
use super::keys::{BadKey, RsaHash, RsaKey, unbase64};
use super::{Refused, Request, TimeUnit, Tolerance, check_time};
use crate::request::Selector;

/// How the resource is sealed.
const ALGORITHM: &str = "AEAD_AES_256_GCM";

const TIMESTAMP: &str = "wechatpay-timestamp";
const NONCE: &str = "wechatpay-nonce";
const SERIAL: &str = "wechatpay-serial";
const SIGNATURE: &str = "wechatpay-signature";

/// What the false signatures of WeChat Pay's own tests begin with.
const PROBE: &str = "WECHATPAY/SIGNTEST/";

/// What a payment's resource is sealed together with.
const ASSOCIATED_DATA: &str = "transaction";

/// What such a route checks with.
#[derive(Clone, Debug, PartialEq)]
pub struct WechatpayV3 {
    /// Each key with the serial that requests name it by.
    pub keys: Vec<(Box<str>, RsaKey)>,
    /// How far the time may be from now.
    pub tolerance: Tolerance,
    /// What the `resource` is sealed with, if it is to be opened.
    pub api_v3_key: Option<ApiV3Key>,
}

/// What WeChat Pay seals the `resource` of a notice with.
#[derive(Clone)]
pub struct ApiV3Key {
    secret: [u8; 32],
    key: std::sync::Arc<LessSafeKey>,
}

impl ApiV3Key {
    /// Takes the 32 characters that the merchant has set.
    ///
    /// # Errors
    /// They are not 32.
    pub fn new(text: &str) -> Result<Self, BadKey> {
        let secret: [u8; 32] = text.as_bytes().try_into().map_err(|_| BadKey::NotApiV3)?;
        let key = UnboundKey::new(&AES_256_GCM, &secret).map_err(|_| BadKey::NotApiV3)?;
        Ok(Self {
            secret,
            key: LessSafeKey::new(key).into(),
        })
    }

    /// `plain` in base64, sealed with `nonce`, 12 bytes.
    fn seal(&self, nonce: &str, plain: &[u8]) -> Option<String> {
        let nonce = Nonce::try_assume_unique_for_key(nonce.as_bytes()).ok()?;
        let mut bytes = plain.to_vec();
        let aad = Aad::from(ASSOCIATED_DATA.as_bytes());
        self.key
            .seal_in_place_append_tag(nonce, aad, &mut bytes)
            .ok()?;
        Some(STANDARD.encode(bytes))
    }

    fn open(&self, resource: &Resource<'_>) -> Option<Vec<u8>> {
        let nonce = Nonce::try_assume_unique_for_key(resource.nonce.as_bytes()).ok()?;
        let mut bytes = unbase64(&resource.ciphertext)?;
        let aad = Aad::from(
            resource
                .associated_data
                .as_deref()
                .unwrap_or_default()
                .as_bytes(),
        );
        let length = self.key.open_in_place(nonce, aad, &mut bytes).ok()?.len();
        bytes.truncate(length);
        Some(bytes)
    }
}

impl PartialEq for ApiV3Key {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl fmt::Debug for ApiV3Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ApiV3Key(…)")
    }
}

/// The part of a notice that is read here.
#[derive(Deserialize)]
struct Notice<'a> {
    #[serde(borrow)]
    resource: Resource<'a>,
}

#[derive(Deserialize)]
struct Resource<'a> {
    #[serde(borrow)]
    algorithm: Cow<'a, str>,
    #[serde(borrow)]
    ciphertext: Cow<'a, str>,
    #[serde(borrow)]
    associated_data: Option<Cow<'a, str>>,
    #[serde(borrow)]
    nonce: Cow<'a, str>,
}

impl WechatpayV3 {
    /// Whether the key that `request` names signed it, not too long ago.
    pub(super) fn verify(&self, request: &Request<'_>, now_unix_s: u64) -> Result<(), Refused> {
        let timestamp = request.header(TIMESTAMP)?;
        let nonce = request.header(NONCE)?;
        let serial = request.header(SERIAL)?;
        let signature = request.header(SIGNATURE)?;
        if signature.starts_with(PROBE) {
            return Err(Refused::Probe);
        }
        check_time(timestamp, TimeUnit::Seconds, now_unix_s, self.tolerance)?;
        if nonce.contains('\n') {
            return Err(Refused::Malformed("its nonce has a line end in it"));
        }
        let key = self.keys.iter().find(|(its, _)| **its == *serial);
        let (_, key) = key.ok_or(Refused::UnknownKey)?;
        let signature =
            unbase64(signature).ok_or(Refused::Malformed("its signature is no base64"))?;
        let message = message(timestamp, nonce, request.body);
        let verified = key.verifies(RsaHash::Sha256, &message, &signature);
        verified.then_some(()).ok_or(Refused::Mismatch)
    }

    /// Seals `draft`'s resource, if there is a key for it, and signs with a test key.
    pub(super) fn sign(&self, draft: &mut Draft, now_unix_s: u64) -> Result<(), CannotSign> {
        let random = || {
            let mut bytes = [0; 9];
            let made = rand::fill(&mut bytes);
            made.map(|()| STANDARD.encode(bytes))
                .map_err(|_| CannotSign::Place("a random number".to_owned()))
        };
        if let Some(key) = &self.api_v3_key {
            let nonce = random()?;
            let plain = match &draft.opened[..] {
                b"" => b"{}",
                plain => plain,
            };
            let sealed = key.seal(&nonce, plain).unwrap_or_default();
            for (name, value) in [
                ("algorithm", ALGORITHM),
                ("associated_data", ASSOCIATED_DATA),
                ("ciphertext", &sealed),
                ("nonce", &nonce),
            ] {
                let place = Selector::Json(vec!["resource".to_owned(), name.to_owned()]);
                draft.set(&place, value)?;
            }
        }
        let header = |name: &str| Selector::Header(vec![name.to_owned()]);
        let (timestamp, nonce) = (now_unix_s.to_string(), random()?);
        let digest = message(&timestamp, &nonce, &draft.body);
        let signed = self.keys.iter().find_map(|(serial, key)| {
            let signature = key.sign(&digest)?;
            Some((serial, STANDARD.encode(signature)))
        });
        let (serial, signature) = signed.ok_or(CannotSign::NoTestKey)?;
        draft.set(&header(TIMESTAMP), &timestamp)?;
        draft.set(&header(NONCE), &nonce)?;
        draft.set(&header(SERIAL), serial)?;
        draft.set(&header(SIGNATURE), &signature)
    }

    /// The plaintext of the body's `resource`; `None` without a key for it.
    pub(super) fn open(&self, body: &[u8]) -> Option<Result<Vec<u8>, &'static str>> {
        let key = self.api_v3_key.as_ref()?;
        let Ok(Notice { resource }) = serde_json::from_slice(body) else {
            return Some(Err("the body has no resource that could be opened"));
        };
        if resource.algorithm != ALGORITHM {
            return Some(Err(
                "the resource is sealed with another algorithm than AEAD_AES_256_GCM",
            ));
        }
        let opened = key.open(&resource);
        Some(opened.ok_or("the resource cannot be opened; is api_v3_key this merchant's?"))
    }
}

/// The hash of what is signed: time, nonce and body, a line each.
fn message(timestamp: &str, nonce: &str, body: &[u8]) -> digest::Digest {
    let mut hash = digest::Context::new(&digest::SHA256);
    for piece in [timestamp.as_bytes(), nonce.as_bytes(), body] {
        hash.update(piece);
        hash.update(b"\n");
    }
    hash.finish()
}

/// Whether the header called `name`, in lower case, is a part of the message.
pub(super) fn signs_header(name: &str) -> bool {
    matches!(name, TIMESTAMP | NONCE)
}

/// Whether the header called `name`, in lower case, is looked at.
pub(super) fn reads_header(name: &str) -> bool {
    matches!(name, TIMESTAMP | NONCE | SERIAL | SIGNATURE)
}
