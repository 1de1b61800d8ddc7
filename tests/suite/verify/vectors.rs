//! The providers' own test data: every vector, accepted or refused as it says.

use std::time::Duration;

use serde_json::Value;

use super::callback::{self, Callback, listed, quoted};
use super::{accepted, post, refused, relay};

const VECTORS: &str = include_str!("../../data/provider_vectors.json");

/// Every vector that is a callback, and whether it is genuine.
pub fn all() -> Vec<(Callback, bool)> {
    vectors().iter().filter_map(callback).collect()
}

/// Every key and certificate of the vectors.
pub fn keys() -> Vec<Vec<u8>> {
    let places = [
        "platform_cert_pem",
        "platform_public_key_pem",
        "public_key_pem",
    ];
    let vectors = vectors();
    let of =
        |vector: &Value| places.map(|key| vector[key].as_str().map(|pem| pem.as_bytes().to_vec()));
    vectors.iter().flat_map(of).flatten().collect()
}

fn vectors() -> Vec<Value> {
    let file: Value = serde_json::from_str(VECTORS).expect("the vectors are JSON");
    file["vectors"].as_array().expect("a list").clone()
}

/// The vector as a callback; `None` for the one that is only a sealed text.
fn callback(vector: &Value) -> Option<(Callback, bool)> {
    let text = |key: &str| vector[key].as_str().unwrap_or_default().to_owned();
    let name = text("name");
    let new = |preset| Callback::new(preset, &name);
    let secret = || listed(&text("secret"));
    let hex = || listed(&text("secret_hex"));
    let callback = match text("provider").as_str() {
        "standard-webhooks" => new("standard-webhooks")
            .key("secrets", &secret())
            .key("tolerance", "\"off\"")
            .event("msg_27UH4WbU6Z5A5EzD8u03UvzRbpk"),
        "stripe" => new("stripe")
            .key("secrets", &secret())
            .key("tolerance", "\"off\"")
            .event("evt_123"),
        "paddle" => new("paddle")
            .key("secrets", &secret())
            .key("tolerance", "\"off\""),
        "square" => new("square")
            .key("secrets", &secret())
            .key("url", &quoted(&text("notification_url"))),
        "shopify" => new("shopify").key("secrets", &secret()).event("123456789"),
        "github" => new("github").key("secrets", &secret()),
        "razorpay" => new("razorpay").key("secrets", &secret()),
        "adyen-platform" => new("adyen-platform").key("secrets", &hex()),
        "adyen-standard" => new("adyen").key("secrets", &hex()),
        "alipay" => new("alipay")
            .key("keys", &listed(&text("public_key_pem")))
            .event("2019081500222155624068450559358070"),
        "wechatpay-v2" => new("wechatpay-v2").key("secrets", &secret()),
        "wechatpay-v3" if vector["body"].is_null() => return None,
        "wechatpay-v3" => new("wechatpay-v3")
            .key("keys", &listed(&text("platform_cert_pem")))
            .key("tolerance", "\"off\"")
            .event("3119dfba-e649-5eec-ab1e-3412bc4d2e17"),
        other => panic!("a vector of {other}, which this test does not know"),
    };
    let headers = vector["headers"].as_object().into_iter().flatten();
    let callback = headers.fold(callback, |callback, (name, value)| {
        callback.header(name, value.as_str().expect("a header"))
    });
    let body = match (&vector["body"], &vector["item"], &vector["params"]) {
        (Value::String(body), _, _) => body.clone(),
        (_, item @ Value::Object(_), _) => serde_json::json!({
            "live": "false",
            "notificationItems": [{ "NotificationRequestItem": item }],
        })
        .to_string(),
        (_, _, Value::Object(params)) => {
            let elements = params.iter().map(|(name, value)| {
                format!(
                    "<{name}><![CDATA[{}]]></{name}>",
                    value.as_str().expect("a text")
                )
            });
            let elements: String = elements.collect();
            format!("<xml>{elements}<sign>{}</sign></xml>", text("sign"))
        }
        _ => panic!("{name} has no body"),
    };
    let is_genuine = match text("expect").split([' ', '(']).next() {
        Some("valid" | "signature") => true,
        Some("invalid") => false,
        other => panic!("{name} expects {other:?}"),
    };
    Some((callback.body(body), is_genuine))
}

#[test]
fn every_vector_is_believed_or_not_as_it_says() {
    let all = all();
    // One more is not a callback: see the next test.
    assert_eq!(all.len() + 1, vectors().len());
    assert_eq!(all.iter().filter(|(_, genuine)| !genuine).count(), 1);
    let callbacks: Vec<Callback> = all.iter().map(|(callback, _)| callback.clone()).collect();
    let relay = relay(&callbacks);
    let mut till = relay.backend("till-7");
    for (n, (callback, genuine)) in all.iter().enumerate() {
        if *genuine {
            accepted(&relay, &mut till, n, callback);
        } else {
            refused(&relay, n, callback);
        }
    }
    till.settle();
}

#[test]
fn a_genuine_callback_that_nobody_takes_is_answered_in_the_providers_words_for_it() {
    let genuine: Vec<Callback> = all()
        .into_iter()
        .filter(|(_, genuine)| *genuine)
        .map(|(c, _)| c)
        .collect();
    let relay = relay(&genuine);
    for (n, callback) in genuine.iter().enumerate() {
        let answer = post(&relay, n, callback).answer();
        let what = &callback.name;
        assert_eq!(answer.outcome(), "offline", "{what}");
        let told = (answer.status, answer.text());
        let (status, body) = callback::fail(callback.preset);
        assert_eq!(told, (status, body.to_owned()), "{what}");
        assert!(answer.elapsed < Duration::from_secs(15));
    }
}

#[test]
fn a_vector_signed_long_ago_is_refused_without_tolerance_off() {
    let timed: Vec<Callback> = all()
        .into_iter()
        .map(|(callback, _)| callback)
        .filter(|callback| callback.keys.contains("tolerance"))
        .map(|mut callback| {
            callback.keys = callback.keys.replace("tolerance = \"off\"\n", "");
            callback
        })
        .collect();
    assert_eq!(timed.len(), 5);
    let relay = relay(&timed);
    for (n, callback) in timed.iter().enumerate() {
        refused(&relay, n, callback);
    }
    assert_eq!(
        relay.metric("payrelay_signature_refusals_total{reason=\"expired\"}"),
        5.0
    );
}

#[test]
fn the_sealed_text_of_the_vectors_opens_and_its_corruptions_do_not() {
    let vectors = vectors();
    let sealed = vectors
        .iter()
        .find(|vector| vector["body"].is_null() && vector["provider"] == "wechatpay-v3");
    let sealed = sealed.expect("the vector");
    let text = |key: &str| sealed[key].as_str().expect("a text").to_owned();
    let notice = |nonce: &str, aad: &str, ciphertext: &str| {
        super::fresh::wechatpay_v3_notice(
            super::fresh::now(),
            serde_json::json!({
                "id": "sealed",
                "resource": {
                    "algorithm": "AEAD_AES_256_GCM",
                    "nonce": nonce,
                    "associated_data": aad,
                    "ciphertext": ciphertext,
                },
            })
            .to_string(),
        )
        .key("api_v3_key", &quoted(&text("api_v3_key")))
    };
    let (nonce, aad, ciphertext) = (
        text("nonce"),
        text("associated_data"),
        text("ciphertext_b64"),
    );
    let good = notice(&nonce, &aad, &ciphertext);
    let toml = format!(
        "[[route]]\npath = \"/pay\"\nverify = \"wechatpay-v3\"\nid = \"opened:/to\"\n{}",
        good.keys
    );
    let relay = crate::support::Relay::with(&toml);
    let told = |callback: &Callback| {
        let headers: Vec<_> = callback
            .headers
            .iter()
            .map(|(n, v)| (n.as_str(), v.as_str()))
            .collect();
        let answer = relay.post_with("/pay", &headers, &callback.body).answer();
        assert_eq!(answer.told(), (400, "no-id"));
        answer.text()
    };
    // The text within is "message", which has no id in it; but it was opened to find that out.
    assert!(told(&good).contains("not JSON"), "{}", told(&good));
    let other = ciphertext.replace("ulw", "ulx");
    for (nonce, aad, ciphertext) in [
        ("uluk4a9R25RX", aad.as_str(), ciphertext.as_str()),
        (&nonce[..11], &aad, &ciphertext),
        ("", &aad, &ciphertext),
        (&nonce, "associatedDatb", &ciphertext),
        (&nonce, "", &ciphertext),
        (&nonce, &aad, &other),
        (&nonce, &aad, ""),
        (&nonce, &aad, "ulwS"),
        (&nonce, &aad, "no base64"),
    ] {
        let bad = notice(nonce, aad, ciphertext);
        assert!(
            told(&bad).contains("cannot be opened"),
            "{nonce} {aad} {ciphertext}"
        );
    }
}
