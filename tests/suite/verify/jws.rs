//! Signed JSON documents through the HTTP port: Apple's, by a chain of certificates made here as Apple's is made. What is not signed by
//! whom it should be, or says it is for somebody else, is refused.

mod authority;

use serde_json::{Value, json};

use self::authority::{ISSUER_OID, JwsAuthority, LEAF_OID};
pub(super) use self::authority::{authority, signing_input};
use super::callback::{listed, quoted};
use super::fresh::now;
use super::push_token::EMAIL;
use crate::support::{Random, Relay, Setup};

const APPLE_VECTOR: &str = include_str!("../../data/apple_vector.json");
const GOOGLE_VECTOR: &str = include_str!("../../data/google_vector.json");

fn payload() -> Value {
    let inner = json!({ "appAccountToken": "till-7", "transactionId": "42" });
    json!({
        "notificationType": "ONE_TIME_CHARGE",
        "notificationUUID": "002e14d5-51f5-4503-b5a8-c3a1af68eb20",
        "version": "2.0",
        "signedDate": now() * 1000,
        "data": {
            "environment": "Sandbox",
            "bundleId": "com.example.game",
            "signedTransactionInfo": authority().sign("leaf", &["leaf", "issuer", "root"], &inner),
        },
    })
}

const CHAIN: [&str; 3] = ["leaf", "issuer", "root"];

fn body(token: &str) -> String {
    json!({ "signedPayload": token }).to_string()
}

/// A genuine notification, as Apple posts it to [`apple_route`].
pub(super) fn notification() -> String {
    body(&authority().sign("leaf", &CHAIN, &payload()))
}

pub(super) fn apple_route(root: &str, more: &str) -> String {
    format!(
        "[[route]]\npath = \"/apple\"\nname = \"apple\"\nverify = \"apple\"\nkeys = {}\n\
         claims = {{ bundleId = [\"com.other\", \"com.example.game\"], environment = \"Sandbox\" }}\n\
         id = \"opened:/data/signedTransactionInfo>/appAccountToken\"\n{more}\n",
        listed(root)
    )
}

pub(super) fn start(routes: &str) -> Relay {
    Setup::with(&format!(
        "[http]\nfailures_per_minute = 1000000\n[log]\nlevel = \"trace\"\n{routes}\n"
    ))
    .start()
}

#[test]
fn apples_notification_gets_in_and_no_bit_of_it_may_change() {
    let relay = start(&apple_route(&authority().pem("root"), ""));
    let mut till = relay.backend("till-7");
    let genuine = notification();
    let answer = relay.post("/apple", genuine.as_bytes());
    let pattern =
        "MSG id=* route=apple verified=apple event=002e14d5-51f5-4503-b5a8-c3a1af68eb20 =*";
    till.expect(pattern, genuine.as_bytes()).ack();
    let answer = answer.answer();
    assert_eq!((answer.outcome(), answer.status), ("delivered", 200));
    let again = relay.post("/apple", genuine.as_bytes()).answer();
    assert_eq!(again.outcome(), "duplicate");
    let mut random = Random::new();
    for _ in 0..40 {
        let at = random.below(genuine.len());
        let mut forged = genuine.clone().into_bytes();
        forged[at] ^= 1 << random.below(8);
        let answer = relay.post("/apple", &forged).answer();
        assert_eq!(answer.outcome(), "bad-signature", "byte {at}");
        assert_eq!(answer.status, 401);
    }
    till.settle();
}

#[test]
fn apples_document_is_handed_over_opened_where_the_route_says_so() {
    let relay = start(&apple_route(
        &authority().pem("root"),
        "deliver = \"opened\"",
    ));
    let mut till = relay.backend("till-7");
    let payload = payload();
    let token = authority().sign("leaf", &CHAIN, &payload);
    let answer = relay.post("/apple", body(&token).as_bytes());
    let pattern = "MSG id=* route=apple verified=apple:opened =*";
    till.expect(pattern, payload.to_string().as_bytes()).ack();
    assert_eq!(answer.answer().outcome(), "delivered");
}

/// Each of these is signed by somebody, and none by whom the route believes, or for it.
#[test]
fn what_another_signed_or_what_is_for_another_is_refused_with_its_reason() {
    let ours = authority();
    let other = JwsAuthority::new();
    other.issuer("issuer", "root", ISSUER_OID);
    other.leaf("leaf", "issuer", LEAF_OID, "30");
    let relay = start(&apple_route(&ours.pem("root"), ""));
    let with = |change: fn(&mut Value)| {
        let mut changed = payload();
        change(&mut changed);
        ours.sign("leaf", &CHAIN, &changed)
    };
    let x5c = |names: &[&str]| -> Vec<String> { names.iter().map(|name| ours.der(name)).collect() };
    let chain = x5c(&CHAIN);
    let signed = |header: Value| ours.sign_with("leaf", &header, &payload());
    let mixed = json!({ "alg": "ES256", "x5c": [other.der("leaf"), other.der("issuer"), ours.der("root")] });
    let none = format!(
        "{}.",
        signing_input(&json!({ "alg": "none", "x5c": chain }), &payload())
    );
    let forgeries = [
        ("untrusted", other.sign("leaf", &CHAIN, &payload())),
        ("untrusted", other.sign_with("leaf", &mixed, &payload())),
        (
            "untrusted",
            ours.sign("plain-leaf", &["plain-leaf", "issuer", "root"], &payload()),
        ),
        (
            "untrusted",
            ours.sign(
                "leaf-of-plain",
                &["leaf-of-plain", "plain-issuer", "root"],
                &payload(),
            ),
        ),
        (
            "untrusted",
            ours.sign(
                "leaf-of-root",
                &["leaf-of-root", "issuer", "root"],
                &payload(),
            ),
        ),
        (
            "untrusted",
            ours.sign(
                "leaf-of-leaf",
                &["leaf-of-leaf", "leaf", "root"],
                &payload(),
            ),
        ),
        (
            "untrusted",
            ours.sign("issuer", &["issuer", "leaf", "root"], &payload()),
        ),
        // Signed by another key than the certificate's.
        ("mismatch", ours.sign("issuer", &CHAIN, &payload())),
        (
            "malformed",
            ours.sign("leaf", &["leaf", "issuer"], &payload()),
        ),
        (
            "malformed",
            ours.sign("leaf", &["leaf", "issuer", "root", "root"], &payload()),
        ),
        ("malformed", signed(json!({ "alg": "ES384", "x5c": chain }))),
        ("malformed", signed(json!({ "alg": "HS256", "x5c": chain }))),
        (
            "malformed",
            signed(json!({ "alg": "ES256", "x5c": chain, "crit": ["b64"], "b64": false })),
        ),
        ("malformed", none),
        ("missing", signed(json!({ "x5c": chain }))),
        (
            "other-claim",
            with(|p| p["data"]["bundleId"] = "com.evil".into()),
        ),
        (
            "other-claim",
            with(|p| p["data"]["environment"] = "Production".into()),
        ),
        (
            "missing",
            with(|p| p["data"] = json!({ "environment": "Sandbox" })),
        ),
        ("repeated", with(|p| p["summary"] = p["data"].clone())),
        (
            "expired",
            with(|p| p["signedDate"] = ((now() + 400) * 1000).into()),
        ),
        (
            "untrusted",
            with(|p| p["signedDate"] = ((now() - 90_000) * 1000).into()),
        ),
        ("malformed", with(|p| p["signedDate"] = "yesterday".into())),
        ("malformed", "not a token".into()),
        ("malformed", String::new()),
    ];
    let mut counts = std::collections::BTreeMap::new();
    for (n, (reason, token)) in forgeries.iter().enumerate() {
        let answer = relay.post("/apple", body(token).as_bytes()).answer();
        assert_eq!(answer.outcome(), "bad-signature", "{n}: {reason}");
        *counts.entry(*reason).or_insert(0.0) += 1.0;
        let counted = relay.metric(&format!(
            "payrelay_signature_refusals_total{{reason=\"{reason}\"}}"
        ));
        assert_eq!(counted, counts[reason], "{n}: {reason}: {}", relay.log());
    }
    assert!(!relay.log().contains("com.evil"), "a value is in the log");
}

#[test]
fn vectors_made_with_other_tools_get_in() {
    let vector = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    let text = |vector: &Value, key: &str| vector[key].as_str().expect("a text").to_owned();
    let (apple, google) = (vector(APPLE_VECTOR), vector(GOOGLE_VECTOR));
    let root = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
        text(&apple, "root_der_b64")
    );
    let routes = format!(
        "[[route]]\npath = \"/apple/{{id}}\"\nverify = \"apple\"\nkeys = {}\n\
         claims = {{ bundleId = \"com.example\", environment = \"Sandbox\" }}\n\
         [[route]]\npath = \"/rtdn/{{id}}\"\nverify = \"google-play\"\nkeys = {}\ntolerance = \"off\"\n\
         claims = {{ aud = \"https://pay.example/rtdn/game-01\", email = {} }}\n\
         [delivery]\nundelivered = \"refuse\"\n",
        listed(&root),
        listed(&text(&google, "key_set")),
        quoted(EMAIL)
    );
    let relay = start(&routes);
    let answer = relay
        .post("/apple/till-7", text(&apple, "body").as_bytes())
        .answer();
    assert_eq!(answer.outcome(), "offline", "{}", relay.log());
    let authorization = text(&google, "authorization");
    let headers = [("Authorization", authorization.as_str())];
    let answer = relay
        .post_with("/rtdn/till-7", &headers, text(&google, "body").as_bytes())
        .answer();
    assert_eq!(answer.outcome(), "offline", "{}", relay.log());
}
