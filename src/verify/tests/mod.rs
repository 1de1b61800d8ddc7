//! The engines without a socket: what HTTP would not let through, and what holds for all of them.

mod engines;
mod keys;

use super::*;
use crate::config::Config;

/// A certificate from the test suite of WeChat Pay's SDK for Go, and its serial number.
const VECTORS: &str = include_str!("../../../tests/data/provider_vectors.json");

fn vector(provider: &str, key: &str) -> String {
    let file: serde_json::Value = serde_json::from_str(VECTORS).expect("JSON");
    let all = file["vectors"].as_array().expect("a list");
    let found = all.iter().find(|vector| vector["provider"] == provider);
    found.expect("a vector")[key]
        .as_str()
        .expect("a text")
        .to_owned()
}

/// A request with these headers and this body.
fn post<'a>(headers: &'a [(&'a str, &'a str)], body: &'a [u8]) -> Request<'a> {
    Request {
        method: "POST",
        target: "/",
        headers,
        path_id: None,
        query: "",
        body,
    }
}

/// The check of a route with these lines.
fn of_route(lines: &str) -> Verifier {
    let toml = format!("[[route]]\npath = \"/{{id}}\"\n{lines}\n");
    let config = Config::parse(&toml, "relay.toml").expect("a route");
    let verifier = config.routes[0].verifier.as_deref();
    verifier.expect("a check").clone()
}

/// The same with none of its secrets.
fn without_secrets(mut verifier: Verifier) -> Verifier {
    let Engine::Signed(engine) = &mut verifier.engine else {
        panic!("{verifier:?}");
    };
    engine.secrets.clear();
    verifier
}

fn stripe(secrets: &[&str]) -> Verifier {
    let lines = "verify = \"stripe\"\ntolerance = \"off\"";
    match secrets {
        [] => without_secrets(of_route(&format!("{lines}\nsecrets = [\"x\"]"))),
        secrets => of_route(&format!("{lines}\nsecrets = {secrets:?}")),
    }
}

fn verify_stripe(secrets: &[&str], value: &str) -> Result<Believed, Refused> {
    stripe(secrets).verify(&post(&[("STRIPE-SIGNATURE", value)], b"{}"), 0)
}

/// What looks like a signature of Stripe, and is none.
const TAG: &str = "d58ee9a1fc2f0a35a05c3f2aae2ad1bd9c1b6ad3b8a2d0c7b1c2a1c1d4e5f607";

#[test]
fn every_preset_can_be_built_and_names_itself_once() {
    for preset in presets::all() {
        let same = presets::all().filter(|other| other.name == preset.name);
        assert_eq!(same.count(), 1, "{}", preset.name);
        assert_ne!(preset.name, NONE);
        let secret = match preset.name {
            "adyen" | "adyen-platform" => "00ff",
            "standard-webhooks" | "svix" => "c2VjcmV0",
            _ => "secret",
        };
        let lines = preset.needs().iter().map(|key| match *key {
            "secrets" => format!("secrets = [{secret:?}]\n"),
            "keys" if matches!(preset.name, "wechatpay-v3" | "apple") => format!(
                "keys = [{:?}]\n",
                vector("wechatpay-v3", "platform_cert_pem")
            ),
            "keys" if matches!(preset.name, "google-play" | "jws") => {
                let modulus = format!("{}w", "_".repeat(341)); // 256 bytes
                let set = format!(r#"{{"keys":[{{"kid":"a","kty":"RSA","n":"{modulus}","e":"AQAB"}}]}}"#);
                format!("keys = [{set:?}]\n")
            }
            "keys" => format!("keys = [{:?}]\n", vector("alipay", "public_key_pem")),
            "claims" if preset.name == "apple" => {
                "claims = { bundleId = \"com.example\", environment = \"Sandbox\" }\n".to_owned()
            }
            "claims" => "claims = { aud = \"https://pay.example\", email = \"push@pay.example\" }\n".to_owned(),
            "jws" => "jws = { token = \"header:authorization\", prefix = \"Bearer \" }\n".to_owned(),
            "url" => "url = \"https://pay.example/{id}\"\n".to_owned(),
            "hmac" => "hmac = { header = \"x\" }\n".to_owned(),
            "token" => "token = \"basic\"\n".to_owned(),
            _ => "secrets = [\"x\"]\nsigned = { text = \"{body}\", algorithm = \"hmac-sha256\", signature = \"header:x\" }\n"
                .to_owned(),
        });
        let verifier = of_route(&format!(
            "verify = {:?}\n{}",
            preset.name,
            lines.collect::<String>()
        ));
        assert_eq!(verifier.name, preset.name);
    }
}

#[test]
fn without_keys_nothing_verifies() {
    assert_eq!(
        verify_stripe(&[], &format!("t=1,v1={TAG}")),
        Err(Refused::Mismatch)
    );
    let token = "verify = \"token\"\nsecrets = [\"x\"]\ntoken = \"basic\"";
    let token = without_secrets(of_route(token));
    assert_eq!(
        token.verify(&post(&[("authorization", "Basic ")], b""), 0),
        Err(Refused::Mismatch)
    );
}

#[test]
fn what_stands_for_the_secret_where_it_is_shown_signs_nothing() {
    let route = || of_route("verify = \"kuaishou\"\nsecrets = [\"x\"]");
    let verdict = |verifier: Verifier, text: &str| {
        let signature = md5_hex(text);
        verifier.verify(&post(&[("kwaisign", &signature)], b"{}"), 0)
    };
    assert!(verdict(route(), "{}x").is_ok());
    for text in ["{}<secret>", "{}"] {
        assert_eq!(verdict(route(), text), Err(Refused::Mismatch));
        assert_eq!(
            verdict(without_secrets(route()), text),
            Err(Refused::Mismatch)
        );
    }
}

fn md5_hex(text: &str) -> String {
    use md5::{Digest as _, Md5};
    crate::escape::hex(&Md5::digest(text))
}

#[test]
fn a_check_knows_the_headers_that_it_looks_at() {
    let cert = vector("wechatpay-v3", "platform_cert_pem");
    let google: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/google_vector.json")).expect("JSON");
    let key_set = google["key_set"].as_str().expect("a text");
    for (lines, headers) in [
        (
            "verify = \"signed\"\nsecrets = [\"x\"]\nsigned = { text = \"{header:X-Id?}.{timestamp}.{body}{secret}\", \
             algorithm = \"sha256\", signature = \"header:X-Sign\", timestamp = \"header:X-Time\" }"
                .to_owned(),
            vec!["X-Id", "x-time", "X-SIGN"],
        ),
        (
            "verify = \"token\"\nsecrets = [\"x\"]\ntoken = \"header:X-Token\"".to_owned(),
            vec!["X-Token"],
        ),
        (
            format!("verify = \"wechatpay-v3\"\nkeys = [{cert:?}]"),
            vec![
                "Wechatpay-Timestamp",
                "wechatpay-nonce",
                "Wechatpay-Serial",
                "Wechatpay-Signature",
            ],
        ),
        (
            format!(
                "verify = \"jws\"\nkeys = [{key_set:?}]\njws = {{ token = \"header:X-Jwt\" }}\nclaims = {{ iss = \"a\" }}"
            ),
            vec!["X-Jwt"],
        ),
    ] {
        let verifier = of_route(&lines);
        for name in headers {
            assert!(verifier.reads_header(name), "{name}");
        }
        assert!(!verifier.reads_header("cf-ipcity"), "{lines}");
    }
}

#[test]
fn a_hundred_thousand_signatures_are_not_looked_at() {
    let many = format!("t=1{}", format!(",v1={TAG}").repeat(100_000));
    assert_eq!(
        verify_stripe(&["secret"], &many),
        Err(Refused::TooMany("signatures"))
    );
    let other = format!("t=1,v1={TAG}{}", ",v0=00".repeat(100_000));
    assert_eq!(
        verify_stripe(&["secret"], &other),
        Err(Refused::TooMany("signatures"))
    );
}

#[test]
fn what_a_header_cannot_hold_is_refused_without_a_panic() {
    for value in [
        "",
        ",",
        "=",
        "t=",
        "t=1",
        "v1=",
        "t=1,v1=",
        "t=,v1=00",
        "t=1,t=1,v1=00",
        "t=é,v1=é",
        "v1=\u{1f4b0}",
    ] {
        assert!(verify_stripe(&["secret"], value).is_err(), "{value}");
    }
}

#[test]
fn a_time_is_digits_and_both_ends_of_the_tolerance_are_within() {
    let five_minutes = Some(std::time::Duration::from_secs(300));
    for (at, now, told) in [
        ("1000", 1000, Ok(())),
        ("1000", 1300, Ok(())),
        ("1000", 1301, Err(Refused::Expired)),
        ("1300", 1000, Ok(())),
        ("1301", 1000, Err(Refused::Expired)),
        ("0", u64::MAX, Err(Refused::Expired)),
        ("999999999999", 0, Err(Refused::Expired)),
    ] {
        assert_eq!(
            check_time(at, TimeUnit::Seconds, now, five_minutes),
            told,
            "{at} {now}"
        );
        assert_eq!(
            check_time(at, TimeUnit::Seconds, now, None),
            Ok(()),
            "{at} {now}"
        );
    }
    let in_ms = |at, now| check_time(at, TimeUnit::Milliseconds, now, five_minutes);
    assert_eq!(in_ms("1795855399123", 1_795_855_399), Ok(()));
    assert_eq!(in_ms("1795855699000", 1_795_855_399), Ok(()));
    assert_eq!(in_ms("1795855699001", 1_795_855_399), Err(Refused::Expired));
    assert_eq!(in_ms("1795855399", 1_795_855_399), Err(Refused::Expired));
    assert!(matches!(
        in_ms("1000000000000000", 0),
        Err(Refused::Malformed(_))
    ));
    for none in [
        "",
        "1 ",
        " 1",
        "+1",
        "-1",
        "1.0",
        "1e3",
        "0x1",
        "１",
        "1000000000000",
        "18446744073709551616",
    ] {
        assert!(
            matches!(
                check_time(none, TimeUnit::Seconds, 0, None),
                Err(Refused::Malformed(_))
            ),
            "{none}"
        );
    }
}

#[test]
fn elements_in_each_other_are_read_down_to_a_depth_and_no_further() {
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let read = |depth| crate::request::xml::leaves(nested(depth).as_bytes(), |_| true);
    assert_eq!(read(32), Ok(()));
    assert_eq!(read(33), Err(crate::request::xml::BadXml::TooDeep));
}
