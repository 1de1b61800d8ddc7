//! What each provider signs, how it names its events, and what it reads as ok and as fail: one line of a table each.
//!
//! Events and headers are in the words of relay.toml. Sources are the providers' documents and SDKs; doc/providers.md says
//! it for operators.

use super::Encoding;
use super::jws_presets::{JWS, JwsPreset};
use super::keys::{BadKey, MacKey};
use super::signed_presets::{HMAC, SIGNED, SignedPreset};

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

/// An HMAC-SHA256 over the body, in one header, in the one way in which the provider writes it.
const PLAIN: SignedPreset = SignedPreset {
    encoding: Encoding::HexLower,
    ..HMAC
};

const STRIPE: SignedPreset = SignedPreset {
    signature: "header:stripe-signature",
    separator: Some(','),
    prefix: "v1=", // v0 is a fake one of the test mode
    text: "{timestamp}.{body}",
    timestamp_prefix: "t=",
    is_timed: true,
    ..PLAIN
};

const STANDARD_WEBHOOKS: SignedPreset = SignedPreset {
    // Svix sends its own names for the same.
    signature: "header:webhook-signature,svix-signature",
    separator: Some(' '),
    prefix: "v1,", // v1a is asymmetric
    encoding: Encoding::Base64,
    text: "{header:webhook-id,svix-id}.{timestamp}.{body}",
    timestamp: "header:webhook-timestamp,svix-timestamp",
    is_timed: true,
    key: KeyText::WhsecBase64,
    ..PLAIN
};

const PADDLE: SignedPreset = SignedPreset {
    signature: "header:paddle-signature",
    separator: Some(';'),
    prefix: "h1=",
    text: "{timestamp}:{body}",
    timestamp_prefix: "ts=",
    is_timed: true,
    ..PLAIN
};

const SQUARE: SignedPreset = SignedPreset {
    signature: "header:x-square-hmacsha256-signature",
    encoding: Encoding::Base64,
    text: "{url}{body}",
    ..PLAIN
};

const SHOPIFY: SignedPreset = SignedPreset {
    signature: "header:x-shopify-hmac-sha256,shopify-hmac-sha256",
    encoding: Encoding::Base64,
    ..PLAIN
};

const RAZORPAY: SignedPreset = SignedPreset {
    signature: "header:x-razorpay-signature",
    ..PLAIN
};

const GITHUB: SignedPreset = SignedPreset {
    signature: "header:x-hub-signature-256",
    prefix: "sha256=",
    ..PLAIN
};

const ADYEN_PLATFORM: SignedPreset = SignedPreset {
    signature: "header:hmacsignature",
    encoding: Encoding::Base64,
    key: KeyText::Hex,
    ..PLAIN
};

const SUCCESS: AnswerWords = (200, "text/plain", "success");
const UNAVAILABLE: AnswerWords = (503, "text/plain", "fail");
const ACCEPTED: AnswerWords = (200, "text/plain", "[accepted]");

/// The presets with an engine of their own; [`all`] has those of `signed` too.
pub static PRESETS: &[Preset] = &[
    Preset {
        name: "stripe",
        scheme: Scheme::Signed(&STRIPE),
        event: Some("json:/id"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &["content-type", "stripe-signature"],
        reads_fail: false,
    },
    Preset {
        name: "standard-webhooks",
        scheme: Scheme::Signed(&STANDARD_WEBHOOKS),
        event: Some("header:webhook-id,svix-id"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &[
            "content-type",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "svix-id",
            "svix-timestamp",
            "svix-signature",
        ],
        reads_fail: false,
    },
    Preset {
        name: "svix",
        scheme: Scheme::Signed(&STANDARD_WEBHOOKS),
        event: Some("header:webhook-id,svix-id"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &[
            "content-type",
            "svix-id",
            "svix-timestamp",
            "svix-signature",
        ],
        reads_fail: false,
    },
    Preset {
        name: "paddle",
        scheme: Scheme::Signed(&PADDLE),
        event: Some("json:/event_id"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &["content-type", "paddle-signature"],
        reads_fail: false,
    },
    Preset {
        name: "square",
        scheme: Scheme::Signed(&SQUARE),
        event: Some("json:/event_id"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &["content-type", "x-square-hmacsha256-signature"],
        reads_fail: false,
    },
    Preset {
        name: "shopify",
        scheme: Scheme::Signed(&SHOPIFY),
        event: Some("header:x-shopify-webhook-id,shopify-webhook-id"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &[
            "content-type",
            "x-shopify-hmac-sha256",
            "shopify-hmac-sha256",
            "x-shopify-topic",
            "x-shopify-shop-domain",
            "x-shopify-webhook-id",
            "shopify-topic",
            "shopify-shop-domain",
            "shopify-webhook-id",
            "shopify-event-id",
        ],
        reads_fail: false,
    },
    Preset {
        name: "razorpay",
        scheme: Scheme::Signed(&RAZORPAY),
        event: Some("header:x-razorpay-event-id"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &[
            "content-type",
            "x-razorpay-signature",
            "x-razorpay-event-id",
        ],
        reads_fail: false,
    },
    Preset {
        name: "github",
        scheme: Scheme::Signed(&GITHUB),
        event: Some("header:x-github-delivery"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &[
            "content-type",
            "x-hub-signature-256",
            "x-github-event",
            "x-github-delivery",
        ],
        reads_fail: false,
    },
    Preset {
        name: "adyen-platform",
        scheme: Scheme::Signed(&ADYEN_PLATFORM),
        event: None,
        ok: ACCEPTED,
        fail: UNAVAILABLE,
        forward_headers: &["content-type", "hmacsignature"],
        reads_fail: false,
    },
    Preset {
        name: "adyen",
        scheme: Scheme::Adyen,
        event: None, // the engine's own, of all items
        ok: ACCEPTED,
        fail: UNAVAILABLE,
        forward_headers: &["content-type"],
        reads_fail: false,
    },
    Preset {
        name: "alipay",
        scheme: Scheme::Alipay,
        event: Some("form:notify_id"),
        ok: SUCCESS, // exactly these seven bytes
        fail: (200, "text/plain", "fail"),
        forward_headers: &["content-type"],
        reads_fail: true,
    },
    Preset {
        name: "wechatpay-v2",
        scheme: Scheme::WechatpayV2,
        event: Some("xml:transaction_id"),
        ok: (
            200,
            "text/xml",
            "<xml><return_code><![CDATA[SUCCESS]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>",
        ),
        fail: (
            200,
            "text/xml",
            "<xml><return_code><![CDATA[FAIL]]></return_code><return_msg><![CDATA[OK]]></return_msg></xml>",
        ),
        forward_headers: &["content-type"],
        reads_fail: true,
    },
    Preset {
        name: "wechatpay-v3",
        scheme: Scheme::WechatpayV3,
        event: Some("json:/id"),
        ok: (200, "application/json", ""),
        fail: (
            500,
            "application/json",
            r#"{"code":"FAIL","message":"retry"}"#,
        ),
        forward_headers: &[
            "content-type",
            "wechatpay-serial",
            "wechatpay-timestamp",
            "wechatpay-nonce",
            "wechatpay-signature",
        ],
        reads_fail: true,
    },
    Preset {
        name: "hmac",
        scheme: Scheme::CustomHmac,
        event: None,
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &[],
        reads_fail: false,
    },
    Preset {
        name: "token",
        scheme: Scheme::Token,
        event: None,
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &[],
        reads_fail: false,
    },
];

/// Every preset, in the order in which errors name them.
pub fn all() -> impl Iterator<Item = &'static Preset> {
    PRESETS.iter().chain(SIGNED).chain(JWS)
}

/// The preset called `name`.
pub fn named(name: &str) -> Option<&'static Preset> {
    all().find(|preset| preset.name == name)
}
