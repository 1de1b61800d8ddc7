//! The presets of the engine `jws`: Apple's notifications of the App Store, and Google's push of Pub/Sub, by which Google Play
//! tells of purchases.

use super::presets::{AnswerWords, Preset, Scheme};

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

/// The identifiers are those that Apple's own library asks for (apple/app-store-server-library-node, jws_verification.ts).
const APPLE: JwsPreset = JwsPreset {
    place: "json:/signedPayload",
    prefix: "",
    chain: Some(PresetChain {
        leaf_oid: "1.2.840.113635.100.6.11.1",
        issuer_oid: "1.2.840.113635.100.6.2.1",
    }),
    claims: &[
        PresetClaim {
            name: "bundleId",
            at: &["/data/bundleId", "/summary/bundleId", "/appData/bundleId"],
            allowed: &[],
        },
        PresetClaim {
            name: "environment",
            at: &[
                "/data/environment",
                "/summary/environment",
                "/appData/environment",
            ],
            allowed: &[],
        },
    ],
};

/// cloud.google.com/pubsub/docs/authenticate-push-subscriptions.
const GOOGLE_PLAY: JwsPreset = JwsPreset {
    place: "header:authorization",
    prefix: "Bearer ",
    chain: None,
    claims: &[
        PresetClaim {
            name: "iss",
            at: &["/iss"],
            allowed: &["https://accounts.google.com", "accounts.google.com"],
        },
        PresetClaim {
            name: "email_verified",
            at: &["/email_verified"],
            allowed: &["true"],
        },
        PresetClaim {
            name: "aud",
            at: &["/aud"],
            allowed: &[],
        },
        PresetClaim {
            name: "email",
            at: &["/email"],
            allowed: &[],
        },
    ],
};

const SUCCESS: AnswerWords = (200, "text/plain", "success");
const UNAVAILABLE: AnswerWords = (503, "text/plain", "fail");

/// Every preset of this engine.
pub static JWS: &[Preset] = &[
    Preset {
        name: "apple",
        scheme: Scheme::Jws(&APPLE),
        event: Some("opened:/notificationUUID"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &["content-type"],
        reads_fail: false,
    },
    Preset {
        name: "google-play",
        scheme: Scheme::Jws(&GOOGLE_PLAY),
        event: Some("json:/message/messageId"),
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &["content-type"], // not the token, with which anybody could post in Google's name
        reads_fail: false,
    },
    Preset {
        name: "jws",
        scheme: Scheme::CustomJws,
        event: None,
        ok: SUCCESS,
        fail: UNAVAILABLE,
        forward_headers: &[],
        reads_fail: false,
    },
];
