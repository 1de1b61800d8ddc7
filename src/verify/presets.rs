//! What each provider signs, how it names its events, and what it reads as ok and as fail: one line of a table each.
//!
//! Events and headers are in the words of relay.toml. Sources are the providers' documents and SDKs; doc/providers.md says
//! it for operators.

use super::Encoding;
use super::jws_presets::JWS;
use super::preset::{AnswerWords, KeyText, Preset, SUCCESS, Scheme, SignedPreset, preset, signed};
use super::signed_presets::{HMAC, SIGNED};

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

const ACCEPTED: AnswerWords = (200, "text/plain", "[accepted]");

/// The presets with an engine of their own; [`all`] has those of `signed` too.
pub static PRESETS: &[Preset] = &[
    Preset {
        forward_headers: &["content-type", "stripe-signature"],
        ..signed("stripe", &STRIPE, "json:/id", SUCCESS)
    },
    Preset {
        forward_headers: &[
            "content-type",
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "svix-id",
            "svix-timestamp",
            "svix-signature",
        ],
        ..signed(
            "standard-webhooks",
            &STANDARD_WEBHOOKS,
            "header:webhook-id,svix-id",
            SUCCESS,
        )
    },
    Preset {
        forward_headers: &[
            "content-type",
            "svix-id",
            "svix-timestamp",
            "svix-signature",
        ],
        ..signed(
            "svix",
            &STANDARD_WEBHOOKS,
            "header:webhook-id,svix-id",
            SUCCESS,
        )
    },
    Preset {
        forward_headers: &["content-type", "paddle-signature"],
        ..signed("paddle", &PADDLE, "json:/event_id", SUCCESS)
    },
    Preset {
        forward_headers: &["content-type", "x-square-hmacsha256-signature"],
        ..signed("square", &SQUARE, "json:/event_id", SUCCESS)
    },
    Preset {
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
        ..signed(
            "shopify",
            &SHOPIFY,
            "header:x-shopify-webhook-id,shopify-webhook-id",
            SUCCESS,
        )
    },
    Preset {
        forward_headers: &[
            "content-type",
            "x-razorpay-signature",
            "x-razorpay-event-id",
        ],
        ..signed("razorpay", &RAZORPAY, "header:x-razorpay-event-id", SUCCESS)
    },
    Preset {
        forward_headers: &[
            "content-type",
            "x-hub-signature-256",
            "x-github-event",
            "x-github-delivery",
        ],
        ..signed("github", &GITHUB, "header:x-github-delivery", SUCCESS)
    },
    Preset {
        ok: ACCEPTED,
        forward_headers: &["content-type", "hmacsignature"],
        ..preset("adyen-platform", Scheme::Signed(&ADYEN_PLATFORM))
    },
    // The event is the engine's own, of all items.
    Preset {
        ok: ACCEPTED,
        forward_headers: &["content-type"],
        ..preset("adyen", Scheme::Adyen)
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
    preset("hmac", Scheme::CustomHmac),
    preset("token", Scheme::Token),
];

/// Every preset, in the order in which errors name them.
pub fn all() -> impl Iterator<Item = &'static Preset> {
    PRESETS.iter().chain(SIGNED).chain(JWS)
}

/// The preset called `name`.
pub fn named(name: &str) -> Option<&'static Preset> {
    all().find(|preset| preset.name == name)
}
