//! The engines without a socket: what HTTP would not let through, seams of messages, and keys.

use aws_lc_rs::hmac::HMAC_SHA256;

use super::*;
use crate::config::Config;

/// A certificate from the test suite of WeChat Pay's SDK for Go, and its serial number.
const VECTORS: &str = include_str!("../../tests/data/provider_vectors.json");

fn vector(provider: &str, key: &str) -> String {
    let file: serde_json::Value = serde_json::from_str(VECTORS).expect("JSON");
    let all = file["vectors"].as_array().expect("a list");
    let found = all.iter().find(|vector| vector["provider"] == provider);
    found.expect("a vector")[key]
        .as_str()
        .expect("a text")
        .to_owned()
}

/// The first key of a PEM.
fn one_key(text: &str) -> Result<RsaKey, BadKey> {
    RsaKey::read_all(text, RsaBits::Usual).map(|mut keys| keys.swap_remove(0))
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
    let request = Request {
        method: "POST",
        target: "/",
        headers: &[("STRIPE-SIGNATURE", value)],
        path_id: None,
        query: "",
        body: b"{}",
    };
    stripe(secrets).verify(&request, 0)
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
    let request = Request {
        method: "POST",
        target: "/",
        headers: &[("authorization", "Basic ")],
        path_id: None,
        query: "",
        body: b"",
    };
    assert_eq!(token.verify(&request, 0), Err(Refused::Mismatch));
}

#[test]
fn what_stands_for_the_secret_where_it_is_shown_signs_nothing() {
    let route = || of_route("verify = \"kuaishou\"\nsecrets = [\"x\"]");
    let verdict = |verifier: Verifier, text: &str| {
        let signature = md5_hex(text);
        let request = Request {
            method: "POST",
            target: "/",
            headers: &[("kwaisign", &signature)],
            path_id: None,
            query: "",
            body: b"{}",
        };
        verifier.verify(&request, 0)
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
        serde_json::from_str(include_str!("../../tests/data/google_vector.json")).expect("JSON");
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
fn a_certificate_gives_its_key_and_its_serial_number() {
    let pem = vector("wechatpay-v3", "platform_cert_pem");
    let certificate = one_key(&pem).expect("a certificate");
    assert_eq!(certificate.serial(), Some("D7CE59D1F522D701"));
    let key = one_key(&vector("wechatpay-v3", "platform_public_key_pem")).expect("a key");
    assert_eq!(key.serial(), None);
    // Before and after it may stand what tools print there.
    let noted = format!("Bag Attributes\n{}\n{pem}", pem.replace('\n', "\r\n"));
    assert_eq!(
        one_key(&noted).expect("the first").serial(),
        certificate.serial()
    );
    let bare: String = vector("alipay", "public_key_pem")
        .lines()
        .filter(|line| !line.starts_with('-'))
        .collect();
    assert_eq!(
        one_key(&bare).expect("base64"),
        one_key(&vector("alipay", "public_key_pem")).expect("PEM")
    );
}

#[test]
fn a_broken_certificate_is_an_error_wherever_it_breaks() {
    use base64::Engine as _;
    let pem = vector("wechatpay-v3", "platform_cert_pem");
    let digits: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = base64::engine::general_purpose::STANDARD
        .decode(digits)
        .expect("base64");
    let read = |der: &[u8]| {
        let digits = base64::engine::general_purpose::STANDARD.encode(der);
        one_key(&format!(
            "-----BEGIN CERTIFICATE-----\n{digits}\n-----END CERTIFICATE-----"
        ))
    };
    assert!(read(&der).is_ok());
    for cut in 0..der.len() {
        assert!(read(&der[..cut]).is_err(), "cut at {cut}");
    }
    // The first bytes say lengths and kinds: whatever they are made to say, it is an error or another key.
    for at in 0..40 {
        for byte in [0x00, 0x30, 0x7f, 0x80, 0x81, 0x82, 0x84, 0xff] {
            let mut other = der.clone();
            other[at] = byte;
            let _ = read(&other);
        }
    }
}

#[test]
fn no_debug_output_shows_a_secret() {
    let shown = format!(
        "{:?} {:?} {:?}",
        stripe(&["hunter2"]),
        ApiV3Key::new("hunter2-hunter2-hunter2-hunter2-").expect("32 bytes"),
        of_route("verify = \"token\"\nsecrets = [\"hunter2\"]\ntoken = \"basic\""),
    );
    assert!(
        !shown.contains("hunter2") && !shown.contains("104, 117, 110"),
        "{shown}"
    );
}

/// The signature of the vector for what has the same values in other places, or more beside them.
#[test]
fn the_values_of_adyen_count_where_their_names_are_and_nowhere_else() {
    let secret = vector("adyen-standard", "secret_hex");
    let adyen = Adyen {
        keeps_unsigned: false,
        keys: vec![MacKey::from_hex(HMAC_SHA256, &secret).expect("a key")],
    };
    let verify = |body: &str| {
        let request = Request {
            method: "POST",
            target: "/",
            headers: &[],
            path_id: None,
            query: "",
            body: body.as_bytes(),
        };
        adyen.verify(&request)
    };
    let genuine = vector("adyen-standard", "body");
    let event = verify(&genuine);
    assert!(event.is_ok(), "{event:?}");
    // Half a surrogate pair where nobody signed: whoever reads it, all that is signed is what it was.
    let unsigned = genuine.replacen('{', "{\"x\":\"\\ud999\",", 1);
    assert_eq!(verify(&unsigned), event);
    let body: serde_json::Value = serde_json::from_str(&genuine).expect("JSON");
    let item = &body["notificationItems"][0]["NotificationRequestItem"];
    let value = |name: &str| item[name].clone();
    let amount = &item["amount"];
    let signature = &item["additionalData"]["hmacSignature"];
    let listed = serde_json::json!([
        value("pspReference"),
        value("originalReference"),
        value("merchantAccountCode"),
        value("merchantReference"),
        [amount["value"], amount["currency"]],
        value("eventCode"),
        value("success"),
        [signature],
    ]);
    let with = |name: &str, value: serde_json::Value| {
        let mut item = item.clone();
        item[name] = value;
        serde_json::json!({"notificationItems": [{"NotificationRequestItem": item}]})
    };
    assert_eq!(verify(&with("reason", "x".into()).to_string()), event);
    // True is signed as "true", and false is not.
    assert_eq!(verify(&with("success", true.into()).to_string()), event);
    let failed = verify(&with("success", false.into()).to_string());
    assert_eq!(failed, Err(Refused::Mismatch));
    for listed in [
        serde_json::json!([[[listed]]]),
        serde_json::json!({"notificationItems": [[listed]]}),
        serde_json::json!({"notificationItems": [{"NotificationRequestItem": listed}]}),
        serde_json::json!([[{"NotificationRequestItem": item}]]),
        with(
            "amount",
            serde_json::json!([amount["value"], amount["currency"]]),
        ),
        with("additionalData", serde_json::json!([signature])),
    ] {
        let refused = verify(&listed.to_string());
        assert!(matches!(refused, Err(Refused::Malformed(_))), "{listed}");
    }
}

#[test]
fn an_id_may_have_dots_where_no_other_time_can_be_read() {
    let verify = |id: &str, at: u64, body: &[u8], tolerance: Tolerance| {
        let tolerance = tolerance.map_or("off".to_owned(), |most| format!("{}s", most.as_secs()));
        let engine = of_route(&format!(
            "verify = \"standard-webhooks\"\nsecrets = [\"whsec_c2VjcmV0\"]\ntolerance = {tolerance:?}"
        ));
        let key = MacKey::from_text(HMAC_SHA256, "secret").expect("a key");
        let mut mac = key.begin();
        for part in [format!("{id}.{at}.").as_bytes(), body] {
            mac.update(part);
        }
        use base64::Engine as _;
        let tag = base64::engine::general_purpose::STANDARD.encode(mac.sign());
        let (at, value) = (at.to_string(), format!("v1,{tag}"));
        let request = Request {
            method: "POST",
            target: "/",
            headers: &[
                ("svix-id", id),
                ("svix-timestamp", &at),
                ("svix-signature", &value),
            ],
            path_id: None,
            query: "",
            body,
        };
        engine.verify(&request, 1_795_855_399).map(|_| ())
    };
    let now = 1_795_855_399;
    let usual = Some(Duration::from_secs(300));
    for id in ["m.1", "a.b.c", "m.", ".", "1.2.3", "m.1795855399x"] {
        assert_eq!(verify(id, now, b"{}", usual), Ok(()), "{id}");
        assert_eq!(verify(id, now, b"1.1795855399.{}", usual), Ok(()), "{id}");
    }
    for id in ["m.1795855399", "m.1795855399.x", "a.b.1795855390"] {
        let refused = verify(id, now, b"{}", usual);
        assert!(matches!(refused, Err(Refused::Malformed(_))), "{id}");
    }
    // Without a tolerance any number is a time.
    assert!(verify("m.1", now, b"{}", None).is_err());
    assert_eq!(verify("m.x", now, b"{}", None), Ok(()));
}

#[test]
fn a_nonce_of_two_lines_is_refused_for_it_could_take_one_from_the_body() {
    let engine = WechatpayV3 {
        keys: Vec::new(),
        tolerance: None,
        api_v3_key: None,
    };
    let verify = |nonce| {
        let request = Request {
            method: "POST",
            target: "/",
            headers: &[
                ("wechatpay-timestamp", "1"),
                ("wechatpay-nonce", nonce),
                ("wechatpay-serial", "1"),
                ("wechatpay-signature", "AAAA"),
            ],
            path_id: None,
            query: "",
            body: b"c",
        };
        engine.verify(&request, 1)
    };
    assert_eq!(verify("a"), Err(Refused::UnknownKey));
    assert!(matches!(verify("a\nb"), Err(Refused::Malformed(_))));
}

#[test]
fn elements_in_each_other_are_read_down_to_a_depth_and_no_further() {
    let nested = |depth: usize| format!("{}{}", "<a>".repeat(depth), "</a>".repeat(depth));
    let read = |depth| crate::request::xml::leaves(nested(depth).as_bytes(), |_| true);
    assert_eq!(read(32), Ok(()));
    assert_eq!(read(33), Err(crate::request::xml::BadXml::TooDeep));
}
