//! Whom a callback is for: found in what was signed, and in nothing else unless the route says so.

use super::callback::{Callback, quoted};
use super::fresh::{self, now};
use crate::support::{Backend, Relay};

/// A relay with one route at `/pay`, whose id is where `id` says.
fn relay(callback: &Callback, id: &str) -> Relay {
    Relay::with(&format!(
        "[[route]]\npath = \"/pay\"\nname = \"pay\"\nverify = \"{}\"\nid = \"{id}\"\n{}",
        callback.preset, callback.keys
    ))
}

fn told(relay: &Relay, callback: &Callback) -> (u16, String) {
    let headers: Vec<_> = callback
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let path = format!("/pay{}", callback.query);
    let answer = relay.post_with(&path, &headers, &callback.body).answer();
    (answer.status, answer.outcome().to_owned())
}

/// `callback` is delivered to `till`.
fn arrives(relay: &Relay, till: &mut Backend, callback: &Callback) {
    let headers: Vec<_> = callback
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let path = format!("/pay{}", callback.query);
    let answer = relay.post_with(&path, &headers, &callback.body);
    let pattern = format!("MSG id=* route=pay verified={} =*", callback.preset);
    till.expect(&pattern, &callback.body).ack();
    assert_eq!(answer.answer().outcome(), "delivered", "{}", callback.name);
}

#[test]
fn every_signed_place_can_hold_the_id() {
    let at = now();
    let json = r#"{"id":"evt_1","for":{"game":"till-7"}}"#;
    let item = fresh::adyen_item("PSP0001", "till-7", 1, "true");
    let adyen = "json:/notificationItems/0/NotificationRequestItem/merchantReference";
    let mut with_id = fresh::standard_webhooks(at, json);
    let tag = {
        let secret = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            &fresh::SECRET_WHSEC[6..],
        );
        fresh::mac(
            &secret.expect("base64"),
            &[format!("till-7.{at}.{json}").as_bytes()],
        )
    };
    *with_id.value("webhook-id") = "till-7".to_owned();
    *with_id.value("webhook-signature") = format!("v1,{}", fresh::base64(&tag));
    let mut form = fresh::github("game=till-7&x=1");
    form.event = None;
    for (id, callback) in [
        ("json:/for/game", fresh::stripe(at, json)),
        ("json:/for/game", fresh::wechatpay_v3_notice(at, json)),
        ("header:webhook-id", with_id),
        ("form:game", form),
        ("xml:to", fresh::github("<r><to>till-7</to></r>")),
        (
            "xml:a/to",
            fresh::github("<r><to>x</to><a><to>till-7</to></a></r>"),
        ),
        ("form:out_trade_no", fresh::alipay(&fresh::alipay_fields())),
        (
            "xml:out_trade_no",
            fresh::wechatpay_v2(&fresh::wechatpay_v2_fields(), "MD5"),
        ),
        (adyen, fresh::adyen_notice(&[item])),
        (
            "opened:/attach/game",
            fresh::wechatpay_v3_sealed(at, r#"{"attach":{"game":"till-7"}}"#),
        ),
        (
            "json:/id",
            fresh::wechatpay_v3_notice(at, r#"{"id":"till-7"}"#),
        ),
        ("json:/for/game", fresh::token(json)),
    ] {
        let relay = relay(&callback, id);
        let mut till = relay.backend("till-7");
        arrives(&relay, &mut till, &callback.called(id));
    }
}

#[test]
fn an_id_that_is_not_there_or_twice_is_no_id_although_the_signature_is_right() {
    let at = now();
    for (id, body) in [
        ("json:/game", r#"{"id":"evt_1"}"#),
        ("json:/game", r#"{"game":"till-7","game":"till-8"}"#),
        ("json:/game", r#"{"game":"till-7","g\u0061me":"till-7"}"#),
        ("json:/game", r#"{"game":["till-7"]}"#),
        ("json:/game", "game=till-7"),
        ("form:game", "game=till-7&game=till-7"),
        ("form:game", "game=till-7&g%61me=till-8"),
        ("form:game", "GAME=till-7"),
        ("xml:game", "<x><game>till-7</game><game>till-8</game></x>"),
        ("xml:game", "<x><game>till-7<!-- --></game></x>"),
        (
            "xml:game",
            "<!DOCTYPE x [<!ENTITY e \"till-7\">]><x><game>&e;</game></x>",
        ),
        ("xml:game", "<x><y><game>till-7</game></y></x>"),
    ] {
        let callback = fresh::stripe(at, body);
        let relay = relay(&callback, id);
        let mut till = relay.backend("till-7");
        assert_eq!(
            told(&relay, &callback),
            (400, "no-id".to_owned()),
            "{id} in {body}"
        );
        till.settle();
    }
    // Sealed with another key than the route has, or not sealed at all.
    let mut other = fresh::wechatpay_v3_sealed(at, r#"{"game":"till-7"}"#);
    other.keys = other
        .keys
        .replace(fresh::API_V3_KEY, "0123456789abcdef0123456789abcdef");
    let open = fresh::wechatpay_v3_notice(at, r#"{"game":"till-7"}"#)
        .key("api_v3_key", &quoted(fresh::API_V3_KEY));
    // Or sealed as nobody said it would be: the key opens it, but what was it sealed with?
    let sealed = fresh::wechatpay_v3_sealed(at, r#"{"game":"till-7"}"#);
    let text = String::from_utf8(sealed.body.clone()).expect("JSON");
    let mut strange =
        fresh::wechatpay_v3_notice(at, text.replace("AEAD_AES_256_GCM", "AEAD_SM4_GCM"));
    strange.keys = sealed.keys;
    for callback in [other, open, strange] {
        assert_eq!(
            told(&relay(&callback, "opened:/game"), &callback),
            (400, "no-id".to_owned()),
            "{}",
            callback.name
        );
    }
}

#[test]
fn who_is_not_believed_learns_nothing_about_ids() {
    let genuine = fresh::stripe(now(), r#"{"game":"till-7"}"#);
    let relay = Relay::with(&format!(
        "[tcp]\nbackends = [\"till-7\"]\n[[route]]\npath = \"/pay\"\nverify = \"stripe\"\nid = \"json:/game\"\n{}",
        genuine.keys
    ));
    for body in [
        r#"{"game":"till-7"} "#,
        r#"{"game":"till-8"}"#,
        "{}",
        "no json",
    ] {
        let forgery = genuine.called("another body").body(body);
        assert_eq!(
            told(&relay, &forgery),
            (401, "bad-signature".to_owned()),
            "{body}"
        );
    }
    assert_eq!(told(&relay, &genuine), (503, "offline".to_owned()));
    let other = fresh::stripe(now(), r#"{"game":"till-8"}"#);
    assert_eq!(told(&relay, &other), (404, "not-allowed".to_owned()));
}

#[test]
fn what_nobody_signed_holds_the_id_only_by_leave() {
    let mut callback = fresh::stripe(now(), "{\"id\":\"evt_1\"}").key("allow_unsigned_id", "true");
    callback.query = "?game=till-7".to_owned();
    let relay = relay(&callback, "query:game");
    relay.log_contains("route[0].id: the signature does not cover this");
    let mut till = relay.backend("till-7");
    arrives(&relay, &mut till, &callback);
}

#[test]
fn a_number_that_nobody_signed_makes_no_payment_a_duplicate() {
    // Shopify does not sign the header that its events are known by: whoever has one genuine callback could send it under
    // the number of the next, and that would never be heard of.
    let genuine = |body: &str| fresh::shopify(body).called(body);
    let (old, new) = (genuine("{\"id\":1}"), genuine("{\"id\":2}"));
    let relay = super::relay(std::slice::from_ref(&old));
    let mut till = relay.backend("till-7");
    super::accepted(&relay, &mut till, 0, &old);
    super::accepted(&relay, &mut till, 0, &new);
    // A retry is the same in all that is signed, and is known again.
    let answer = super::post(&relay, 0, &new).answer();
    assert_eq!(answer.told(), (200, "duplicate"));
    till.settle();
}

#[test]
fn a_route_says_what_its_preset_does_not() {
    let mut callback = fresh::stripe(now(), "{\"id\":\"evt_1\",\"order\":88}")
        .key("event", "\"json:/order\"")
        .key("ok", "{ status = 201, body = \"mine\" }")
        .key("fail", "{ body = \"not mine\" }")
        .key("forward_headers", "[]");
    let relay = relay(&callback, "json:/order");
    let answer = |relay: &Relay| {
        let headers = [("Stripe-Signature", callback.headers[1].1.as_str())];
        relay.post_with("/pay", &headers, &callback.body)
    };
    let gone = answer(&relay).answer();
    assert_eq!((gone.status, gone.text().as_str()), (503, "not mine"));
    let mut till = relay.backend("88");
    let pending = answer(&relay);
    let message = till.expect("MSG id=* event=88 h=0 =*", &callback.body);
    message.ack();
    let answer = pending.answer();
    assert_eq!((answer.status, answer.text().as_str()), (201, "mine"));
    // Nor does it need to have an event.
    callback.keys = callback.keys.replace("\"json:/order\"", "\"none\"");
    let relay = self::relay(&callback, "json:/order");
    let mut till = relay.backend("88");
    let headers = [("Stripe-Signature", callback.headers[1].1.as_str())];
    let pending = relay.post_with("/pay", &headers, &callback.body);
    let message = till.message();
    assert_eq!(message.frame.get("event"), None);
    message.ack();
    assert_eq!(pending.answer().told(), (200 + 1, "delivered"));
}

#[test]
fn the_backend_gets_what_it_needs_to_check_once_more() {
    let at = now();
    for (callback, wanted) in [
        (
            fresh::stripe(at, "{}"),
            vec!["content-type", "stripe-signature"],
        ),
        (
            fresh::standard_webhooks(at, "{}"),
            vec!["webhook-id", "webhook-signature", "webhook-timestamp"],
        ),
        (
            fresh::wechatpay_v3_notice(at, "{}"),
            vec![
                "wechatpay-nonce",
                "wechatpay-serial",
                "wechatpay-signature",
                "wechatpay-timestamp",
            ],
        ),
        (fresh::token("{}"), vec![]),
    ] {
        let relay = super::relay(std::slice::from_ref(&callback));
        let mut till = relay.backend("till-7");
        let answer = super::post(&relay, 0, &callback);
        let message = till.expect("MSG id=* =*", &callback.body);
        let head = String::from_utf8(message.frame.head().to_vec()).expect("ASCII");
        message.ack();
        answer.answer();
        let mut names: Vec<String> = head
            .lines()
            .skip(1)
            .filter_map(|line| {
                line.split_once(": ")
                    .map(|(name, _)| name.to_ascii_lowercase())
            })
            .collect();
        names.sort();
        assert_eq!(names, wanted, "{}", callback.name);
    }
}
