//! What a preset is: the engine that checks its callbacks, in the words of relay.toml, and what its provider reads as ok.

use super::keys::{BadKey, MacKey};
use super::{Algorithm, Encoding, TimeUnit};

/// What a route gets by `verify = "<name>"`, where it says nothing else itself.
#[derive(Debug)]
pub struct Preset {
    /// What `verify` and `verified` say.
    pub name: &'static str,
    /// How it is checked.
    pub scheme: Scheme,
    /// The selector of the event key.
    pub event: Option<&'static str>,
    /// What the provider reads when the notification is safe.
    pub ok: AnswerWords,
    /// What the provider reads when it is not.
    pub fail: AnswerWords,
    /// Headers that go to the backend, so that it can check once more.
    pub forward_headers: &'static [&'static str],
    /// The provider reads the body of a failure, so a bad signature is answered with `fail` too, and not with 401.
    pub reads_fail: bool,
}

impl Preset {
    /// The keys of its route without which it checks nothing.
    pub fn needs(&self) -> &'static [&'static str] {
        match self.scheme {
            Scheme::Signed(preset) if preset.has_url() => &["secrets", "url"],
            Scheme::WechatpayV2 | Scheme::Adyen => &["secrets"],
            Scheme::CustomHmac => &["secrets", "hmac"],
            Scheme::Token => &["secrets", "token"],
            Scheme::Alipay | Scheme::WechatpayV3 => &["keys"],
            Scheme::CustomSigned => &["signed"],
            Scheme::Jws(_) => &["keys", "claims"],
            Scheme::CustomJws => &["keys", "claims", "jws"],
            Scheme::Signed(preset) => match (preset.algorithm.rsa(), preset.has_secret) {
                (None, _) => &["secrets"],
                (Some(_), false) => &["keys"],
                (Some(_), true) => &["keys", "secrets"],
            },
        }
    }
}

/// An answer: status, content type, body.
pub type AnswerWords = (u16, &'static str, &'static str);

/// The engine of a preset, and what its configuration must say.
#[derive(Clone, Copy, Debug)]
pub enum Scheme {
    /// An HMAC as the route's `hmac` table says.
    CustomHmac,
    /// As these words say.
    Signed(&'static SignedPreset),
    /// As the route's `signed` table says.
    CustomSigned,
    /// A signed JSON document; `keys`, `claims`.
    Jws(&'static JwsPreset),
    /// The same, as the route's `jws` table says.
    CustomJws,
    /// A password.
    Token,
    /// RSA over a form; `keys`.
    Alipay,
    /// A hash over XML; `secrets`.
    WechatpayV2,
    /// RSA over JSON; `keys`, `api_v3_key`.
    WechatpayV3,
    /// An HMAC over items; `secrets` in hex.
    Adyen,
}

/// How a provider writes secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyText {
    /// The text's own bytes.
    Text,
    /// Hex.
    Hex,
    /// Base64, after `whsec_` if that stands before it.
    WhsecBase64,
    /// Base64.
    Base64,
}

impl KeyText {
    /// Reads a secret that is written so, for an HMAC with this hash.
    ///
    /// # Errors
    /// It is not.
    pub fn read(self, digest: aws_lc_rs::hmac::Algorithm, text: &str) -> Result<MacKey, BadKey> {
        match self {
            Self::Text => MacKey::from_text(digest, text),
            Self::Hex => MacKey::from_hex(digest, text),
            Self::Base64 => MacKey::from_base64(digest, text),
            Self::WhsecBase64 => {
                MacKey::from_base64(digest, text.strip_prefix("whsec_").unwrap_or(text))
            }
        }
    }
}

/// What a provider signs, and how, in the words of relay.toml.
#[derive(Debug)]
pub struct SignedPreset {
    /// Where `{fields}` come from; empty: there are none.
    pub fields: &'static str,
    /// Fields that are left out of the text.
    pub skip: &'static [&'static str],
    /// Fields without a value are in the text.
    pub keeps_empty: bool,
    /// What stands between fields.
    pub join: &'static str,
    /// Only values are in the text, not names.
    pub values_only: bool,
    /// Fields of every notification.
    pub always: &'static [&'static str],
    /// Fields of some notifications.
    pub sometimes: &'static [&'static str],
    /// Fields of the merchant's or the buyer's own text; with `values_only` the others that may be there.
    pub free_text: &'static [&'static str],
    /// What is signed.
    pub text: &'static str,
    /// How.
    pub algorithm: Algorithm,
    /// The hex of the text's SHA-256 is signed in its place.
    pub hash_first: bool,
    /// Where the signature stands.
    pub signature: &'static str,
    /// What stands between its items.
    pub separator: Option<char>,
    /// What stands before it.
    pub prefix: &'static str,
    /// How it is written.
    pub encoding: Encoding,
    /// Its `%XX` are decoded.
    pub unescape: bool,
    /// Where `{timestamp}` stands.
    pub timestamp: &'static str,
    /// What the item with the time begins with.
    pub timestamp_prefix: &'static str,
    /// What the time counts.
    pub unit: TimeUnit,
    /// The time is compared with the clock.
    pub is_timed: bool,
    /// How secrets are written.
    pub key: KeyText,
    /// A secret is needed beside the RSA keys.
    pub has_secret: bool,
    /// Notifications come by GET, or by both.
    pub methods: &'static [&'static str],
}

impl SignedPreset {
    /// Whether the configuration must give a `url`.
    pub fn has_url(&self) -> bool {
        self.text.contains("{url}")
    }
}

/// How a provider signs its documents.
#[derive(Debug)]
pub struct JwsPreset {
    /// Where the document stands.
    pub place: &'static str,
    /// What stands before it.
    pub prefix: &'static str,
    /// By a chain of certificates in its header; otherwise by a key that it names.
    pub chain: Option<PresetChain>,
    /// What it must say.
    pub claims: &'static [PresetClaim],
}

/// Which certificates such a chain has.
#[derive(Debug)]
pub struct PresetChain {
    /// An extension of the signer's certificate.
    pub leaf_oid: &'static str,
    /// An extension of its issuer's.
    pub issuer_oid: &'static str,
}

/// What a document must say.
#[derive(Debug)]
pub struct PresetClaim {
    /// What the route calls it.
    pub name: &'static str,
    /// Where it stands.
    pub at: &'static [&'static str],
    /// What it must be; none: what the route's `claims` say.
    pub allowed: &'static [&'static str],
}

/// What most providers read as ok.
pub const SUCCESS: AnswerWords = (200, "text/plain", "success");
/// What is answered on failure where nobody reads it: the status makes the provider try again.
const UNAVAILABLE: AnswerWords = (503, "text/plain", "fail");

/// A provider of the engine `signed`, whose failures nobody reads.
pub const fn signed(
    name: &'static str,
    scheme: &'static SignedPreset,
    event: &'static str,
    ok: AnswerWords,
) -> Preset {
    Preset {
        event: Some(event),
        ok,
        forward_headers: &["content-type"],
        ..preset(name, Scheme::Signed(scheme))
    }
}

/// A provider whose failures nobody reads; without more, its route says what the event is and what is forwarded.
pub const fn preset(name: &'static str, scheme: Scheme) -> Preset {
    Preset {
        name,
        scheme,
        event: None,
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &[],
        reads_fail: false,
    }
}
