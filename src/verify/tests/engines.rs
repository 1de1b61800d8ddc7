//! What one engine refuses and another does not know: seams of its own messages.

use aws_lc_rs::hmac::HMAC_SHA256;

use super::*;

/// The signature of the vector for what has the same values in other places, or more beside them.
#[test]
fn the_values_of_adyen_count_where_their_names_are_and_nowhere_else() {
    let secret = vector("adyen-standard", "secret_hex");
    let adyen = Adyen {
        keeps_unsigned: false,
        keys: vec![MacKey::from_hex(HMAC_SHA256, &secret).expect("a key")],
    };
    let verify = |body: &str| adyen.verify(&post(&[], body.as_bytes()));
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
        let headers: [(&str, &str); 3] = [
            ("svix-id", id),
            ("svix-timestamp", &at),
            ("svix-signature", &value),
        ];
        engine
            .verify(&post(&headers, body), 1_795_855_399)
            .map(|_| ())
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
        let headers: [(&str, &str); 4] = [
            ("wechatpay-timestamp", "1"),
            ("wechatpay-nonce", nonce),
            ("wechatpay-serial", "1"),
            ("wechatpay-signature", "AAAA"),
        ];
        engine.verify(&post(&headers, b"c"), 1)
    };
    assert_eq!(verify("a"), Err(Refused::UnknownKey));
    assert!(matches!(verify("a\nb"), Err(Refused::Malformed(_))));
}
