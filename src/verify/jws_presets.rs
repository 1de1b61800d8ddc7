//! The presets of the engine `jws`: Apple's notifications of the App Store, and Google's push of Pub/Sub, by which Google Play
//! tells of purchases.

use super::preset::{JwsPreset, Preset, PresetChain, PresetClaim, Scheme, preset};

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

/// Every preset of this engine.
pub static JWS: &[Preset] = &[
    Preset {
        event: Some("opened:/notificationUUID"),
        forward_headers: &["content-type"],
        ..preset("apple", Scheme::Jws(&APPLE))
    },
    Preset {
        event: Some("json:/message/messageId"),
        forward_headers: &["content-type"], // not the token, with which anybody could post in Google's name
        ..preset("google-play", Scheme::Jws(&GOOGLE_PLAY))
    },
    preset("jws", Scheme::CustomJws),
];
