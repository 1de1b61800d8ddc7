//! Signed JSON documents through the HTTP port: Apple's, by a chain of certificates made here as Apple's is made. What is not signed by
//! whom it should be, or says it is for somebody else, is refused.

use std::process::Command;
use std::sync::OnceLock;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::callback::{listed, quoted};
use super::fresh::{self, now};
use super::push_token::EMAIL;
use crate::support::{Random, Relay, Setup};

const APPLE_VECTOR: &str = include_str!("../../data/apple_vector.json");
const GOOGLE_VECTOR: &str = include_str!("../../data/google_vector.json");

/// The two extensions that Apple's certificates have.
const LEAF_OID: &str = "1.2.840.113635.100.6.11.1=DER:0500";
const ISSUER_OID: &str = "1.2.840.113635.100.6.2.1=DER:0500";

/// A folder with certificates and keys: `root`, and what it issued.
pub(super) struct JwsAuthority {
    folder: TempDir,
}

impl JwsAuthority {
    fn new() -> Self {
        let authority = Self {
            folder: tempfile::tempdir().expect("a folder"),
        };
        authority.key("root");
        let (key, pem) = (authority.path("root.key"), authority.path("root.pem"));
        let usual = "req -x509 -days 3650 -subj /CN=root -addext basicConstraints=critical,CA:true -addext keyUsage=keyCertSign";
        run(&[&words(usual)[..], &["-key", &key, "-out", &pem]].concat());
        authority
    }

    fn path(&self, name: &str) -> String {
        let path = self.folder.path().join(name);
        path.to_str().expect("UTF-8").to_owned()
    }

    fn key(&self, name: &str) {
        let key = self.path(&format!("{name}.key"));
        let usual = "genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256";
        run(&[&words(usual)[..], &["-out", &key]].concat());
    }

    /// A certificate called `name` that `by` issues, with these extensions.
    fn issue(&self, name: &str, by: &str, extensions: &[&str], days: &str) {
        self.key(name);
        let file = |suffix: &str| self.path(&format!("{name}.{suffix}"));
        let subject = format!("/CN={name}");
        let (key, csr, pem, ext) = (file("key"), file("csr"), file("pem"), file("ext"));
        std::fs::write(&ext, extensions.join("\n")).expect("written");
        run(&["req", "-new", "-key", &key, "-subj", &subject, "-out", &csr]);
        let (ca, ca_key) = (
            self.path(&format!("{by}.pem")),
            self.path(&format!("{by}.key")),
        );
        run(&[
            "x509",
            "-req",
            "-in",
            &csr,
            "-CA",
            &ca,
            "-CAkey",
            &ca_key,
            "-CAcreateserial",
            "-days",
            days,
            "-extfile",
            &ext,
            "-out",
            &pem,
        ]);
    }

    fn leaf(&self, name: &str, by: &str, oid: &str, days: &str) {
        let usual = [
            "basicConstraints=critical,CA:false",
            "keyUsage=digitalSignature",
            oid,
        ];
        self.issue(name, by, &usual, days);
    }

    fn issuer(&self, name: &str, by: &str, oid: &str) {
        let usual = [
            "basicConstraints=critical,CA:true",
            "keyUsage=keyCertSign",
            oid,
        ];
        self.issue(name, by, &usual, "3650");
    }

    pub(super) fn pem(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(&format!("{name}.pem"))).expect("a certificate")
    }

    fn der(&self, name: &str) -> String {
        let pem = self.pem(name);
        let lines = pem.lines().filter(|line| !line.starts_with('-'));
        lines.collect()
    }

    fn pair(&self, name: &str) -> EcdsaKeyPair {
        let key = self.path(&format!("{name}.key"));
        let der = fresh::openssl(
            &[
                "pkcs8", "-topk8", "-nocrypt", "-in", &key, "-outform", "DER",
            ],
            b"",
        );
        EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &der).expect("a key")
    }

    /// `payload` signed by `signer`, with these certificates in the header.
    fn sign(&self, signer: &str, chain: &[&str], payload: &Value) -> String {
        let chain: Vec<String> = chain.iter().map(|name| self.der(name)).collect();
        self.sign_with(signer, &json!({ "alg": "ES256", "x5c": chain }), payload)
    }

    fn sign_with(&self, signer: &str, header: &Value, payload: &Value) -> String {
        let text = signing_input(header, payload);
        let signature = self
            .pair(signer)
            .sign(&SystemRandom::new(), text.as_bytes());
        format!(
            "{text}.{}",
            URL_SAFE_NO_PAD.encode(signature.expect("signed").as_ref())
        )
    }
}

fn words(text: &str) -> Vec<&str> {
    text.split(' ').collect()
}

fn run(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output();
    let output = output.expect("openssl");
    assert!(
        output.status.success(),
        "{arguments:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

pub(super) fn signing_input(header: &Value, payload: &Value) -> String {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", encode(header), encode(payload))
}

/// Certificates as Apple has them, and some that only look like those.
pub(super) fn authority() -> &'static JwsAuthority {
    static ONE: OnceLock<JwsAuthority> = OnceLock::new();
    ONE.get_or_init(|| {
        let authority = JwsAuthority::new();
        authority.issuer("issuer", "root", ISSUER_OID);
        authority.leaf("leaf", "issuer", LEAF_OID, "30");
        authority.issuer("plain-issuer", "root", "");
        authority.leaf("leaf-of-plain", "plain-issuer", LEAF_OID, "30");
        authority.leaf("plain-leaf", "issuer", "", "30");
        authority.leaf("leaf-of-root", "root", LEAF_OID, "30");
        authority.leaf("leaf-of-leaf", "leaf", LEAF_OID, "30");
        authority
    })
}

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
