//! Signatures over parts of a body: what is changed, added, doubled, dropped or cut otherwise is refused, and what is only
//! written otherwise is not.

use super::callback::{Callback, listed};
use super::fresh::{self, now};
use super::{accepted, refused, relay};

#[test]
fn every_item_of_adyen_must_be_signed_and_say_each_thing_once() {
    let (one, two) = (
        fresh::adyen_item("PSP0001", "till-7", 8800, "true"),
        fresh::adyen_item("PSP0002", "till-8", 100, "false"),
    );
    let genuine = fresh::adyen_notice(&[one.clone(), two.clone()])
        .event("PSP0001:AUTHORISATION:true,PSP0002:AUTHORISATION:false");
    let relay = relay(std::slice::from_ref(&genuine));
    let mut till = relay.backend("till-7");
    accepted(&relay, &mut till, 0, &genuine);
    let forged = two.replace("\"value\":100", "\"value\":101");
    for items in [
        vec![one.clone(), forged.clone()],
        vec![forged, one.clone()],
        vec![],
    ] {
        refused(
            &relay,
            0,
            &fresh::adyen_notice(&items).called("an item that nobody signed"),
        );
    }
    for (old, new) in [
        ("\"value\":8800", "\"value\":8801"),
        ("\"value\":8800", "\"value\":8800.0"),
        ("\"value\":8800", "\"value\":8800,\"value\":8800"),
        ("\"value\":8800", "\"value\":1,\"value\":8800"),
        ("\"value\":8800", "\"v\":8800"),
        (
            "\"pspReference\":\"PSP0001\"",
            "\"pspReference\":\"PSP0002\"",
        ),
        (
            "\"pspReference\":\"PSP0001\"",
            "\"pspReference\":\"PSP0001\",\"pspReference\":\"PSP0001\"",
        ),
        (
            "\"pspReference\":\"PSP0001\"",
            "\"pspReference\":\"PSP0001\",\"psp\\u0052eference\":\"X\"",
        ),
        (
            "\"pspReference\":\"PSP0001\"",
            "\"pspReference\":[\"PSP0001\"]",
        ),
        ("\"success\":\"true\"", "\"success\":\"false\""),
        ("\"success\":\"true\"", "\"success\":false"),
        (
            "\"eventCode\":\"AUTHORISATION\"",
            "\"eventCode\":\"CAPTURE\"",
        ),
        (
            "\"merchantReference\":\"till-7\"",
            "\"merchantReference\":\"till-8\"",
        ),
        // The same signed text, cut otherwise.
        (
            "\"merchantAccountCode\":\"TestMerchant\"",
            "\"merchantAccountCode\":\"TestMerchant:till-7\",\"x\":\"\"",
        ),
        (
            "\"merchantReference\":\"till-7\"",
            "\"merchantReference\":\"till-7:8800\"",
        ),
    ] {
        let mut forgery =
            fresh::adyen_notice(std::slice::from_ref(&one)).called(&format!("{old} -> {new}"));
        forgery.replace(old, new);
        refused(&relay, 0, &forgery);
    }
    let plain = fresh::adyen_notice(std::slice::from_ref(&one));
    let text = String::from_utf8(plain.body.clone()).expect("ASCII");
    let (before, rest) = text.split_once("hmacSignature\":\"").expect("a signature");
    let (sign, after) = rest.split_once('"').expect("its end");
    for other in [
        String::new(),
        sign[..8].to_owned(),
        sign.trim_end_matches('=').to_owned(),
        sign.to_lowercase(),
        sign.to_uppercase(),
        format!("{sign} "),
        format!(" {sign}"),
        format!("{sign}{sign}"),
        // Its last character but the padding has two bits that say nothing.
        format!("{}{}=", &sign[..42], char::from(sign.as_bytes()[42] + 1)),
        fresh::base64(&[0; 32]),
    ] {
        let body = format!("{before}hmacSignature\":\"{other}\"{after}");
        refused(
            &relay,
            0,
            &plain
                .called(&format!("its signature is {other:?}"))
                .body(body),
        );
    }
    let many = |count: usize| fresh::adyen_notice(&vec![one.clone(); count]);
    refused(&relay, 0, &many(65).called("65 items"));
    // merchantAccountCode takes the reference with it, and the reference becomes nothing: one colon less, one more in it.
    let mut forgery = fresh::adyen_notice(&[fresh::adyen_item("PSP0001", "a:b", 8800, "true")])
        .called("another cut");
    forgery.replace("TestMerchant", "TestMerchant:a");
    forgery.replace(
        "\"merchantReference\":\"a:b\"",
        "\"merchantReference\":\"b\"",
    );
    refused(&relay, 0, &forgery);
    for body in [
        "",
        "{}",
        "[]",
        "null",
        "{\"notificationItems\":{}}",
        "{\"notificationItems\":[{}]}",
    ] {
        refused(&relay, 0, &genuine.called("another body").body(body));
    }
    till.settle();
    accepted(&relay, &mut till, 0, &many(64).called("64 items"));
    // What nobody signs may be anything, and reaches the backend as it came.
    let mut odd = fresh::adyen_notice(&[one]).called("another date");
    odd.replace("2026-11-24", "1999-01-01");
    accepted(&relay, &mut till, 0, &odd);
}

#[test]
fn where_one_part_of_a_message_ends_cannot_be_moved() {
    let at = now();
    let standard = |signed: &str| {
        let secret = base64::Engine::decode(
            &base64::engine::general_purpose::STANDARD,
            &fresh::SECRET_WHSEC[6..],
        );
        let tag = fresh::mac(&secret.expect("base64"), &[signed.as_bytes()]);
        format!("v1,{}", fresh::base64(&tag))
    };
    // Standard Webhooks: an id with a point in it could take the time from the body.
    let mut moved = fresh::standard_webhooks(at, "x").called("an id with a separator in it");
    *moved.value("webhook-id") = format!("msg_1.{at}");
    moved.body = b"x".to_vec();
    *moved.value("webhook-signature") = standard(&format!("msg_1.{at}.{at}.x"));
    // Square: the id in the address and the body after it.
    let body = "7{}";
    let tag = fresh::mac(
        fresh::SECRET.as_bytes(),
        &[b"https://pay.example/square/till-7", body.as_bytes()],
    );
    let mut square = fresh::square("{}")
        .called("a body that could belong to the id")
        .body(body);
    *square.value("x-square-hmacsha256-signature") = fresh::base64(&tag);
    // Time and body with nothing between them.
    let glued = |time: &str, body: &str| {
        let tag = fresh::mac(
            fresh::SECRET.as_bytes(),
            &[time.as_bytes(), body.as_bytes()],
        );
        Callback::new("hmac", "time and body glued")
            .key("secrets", &listed(fresh::SECRET))
            .key("hmac", "{ header = \"X-Sign\", message = \"{timestamp}{body}\", timestamp_header = \"X-Time\" }")
            .header("X-Time", time)
            .header("X-Sign", &fresh::hex(&tag))
            .body(body)
    };
    let good = glued(&at.to_string(), "{}");
    let after = |body: &str| {
        let tag = fresh::mac(
            fresh::SECRET.as_bytes(),
            &[body.as_bytes(), at.to_string().as_bytes()],
        );
        let mut callback = glued("", "").called("the time after the body");
        callback.keys = callback
            .keys
            .replace("{timestamp}{body}", "{body}{timestamp}");
        *callback.value("X-Time") = at.to_string();
        *callback.value("X-Sign") = fresh::hex(&tag);
        callback.body(body)
    };
    // An empty id: as signed, but no provider sends it, and all of them would be one event.
    let mut nameless = fresh::standard_webhooks(at, "x").called("an empty id");
    *nameless.value("webhook-id") = String::new();
    *nameless.value("webhook-signature") = standard(&format!(".{at}.x"));
    let relay = relay(&[moved.clone(), square.clone(), good.clone(), after("{}")]);
    let mut till = relay.backend("till-7");
    refused(&relay, 0, &moved);
    refused(&relay, 0, &nameless);
    refused(&relay, 3, &after("{}1"));
    accepted(&relay, &mut till, 3, &after("{}"));
    refused(&relay, 1, &square);
    refused(&relay, 2, &glued(&at.to_string(), "1{}"));
    accepted(&relay, &mut till, 2, &good);
    // Square signs the address, and with it the backend: another's path is refused.
    let elsewhere = fresh::square("{}");
    let headers = [(
        "x-square-hmacsha256-signature",
        elsewhere.headers[0].1.as_str(),
    )];
    assert_eq!(
        relay
            .post_with("/1/till-8", &headers, b"{}")
            .answer()
            .told(),
        (401, "bad-signature")
    );
    assert_eq!(
        relay
            .post_with("/1/till-9?x", &headers, b"{}")
            .answer()
            .told(),
        (401, "bad-signature")
    );
    // It signs the address as it was told it, which may be written in another way than the id.
    let path = "/1/till%2D7";
    let signed = |url: &str| {
        let tag = fresh::mac(fresh::SECRET.as_bytes(), &[url.as_bytes(), b"{}"]);
        fresh::base64(&tag)
    };
    let post = |url: &str| {
        let headers = [("x-square-hmacsha256-signature", &*signed(url))];
        relay.post_with(path, &headers, b"{}")
    };
    assert_eq!(
        post("https://pay.example/square/till-7").answer().told(),
        (401, "bad-signature")
    );
    till.settle();
    let answer = post("https://pay.example/square/till%2D7");
    till.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

#[test]
fn what_is_signed_is_bytes_and_not_text() {
    let at = now();
    // GBK, NUL, a byte that no encoding has, and every kind of line end.
    const BODY: &[u8] = b"\xd6\xa7\xb8\xb6 \0 \xff {\"a\": 1.0}\r\n\n\r ";
    let whole = |body: &[u8]| {
        let mut callbacks = vec![
            fresh::stripe(at, body),
            fresh::standard_webhooks(at, body),
            fresh::paddle(at, body),
            fresh::square(body),
            fresh::shopify(body),
            fresh::razorpay(body),
            fresh::github(body),
            fresh::adyen_platform(body),
            fresh::wechatpay_v3_notice(at, body),
            fresh::custom(at, body),
        ];
        for callback in &mut callbacks {
            callback.event = None;
        }
        callbacks
    };
    let genuine = whole(BODY);
    assert!(genuine.iter().all(Callback::signs_whole_body));
    let relay = relay(&genuine);
    let mut till = relay.backend("till-7");
    for (n, callback) in genuine.iter().enumerate() {
        let change = |old: u8, new: u8| -> Vec<u8> {
            let bytes = BODY.iter();
            bytes
                .map(|byte| if *byte == old { new } else { *byte })
                .collect()
        };
        for (name, body) in [
            // To whoever reads text these are the same.
            ("another byte that is no text", change(0xff, 0xfe)),
            (
                "as text",
                String::from_utf8_lossy(BODY).into_owned().into_bytes(),
            ),
            ("with a byte order mark", [b"\xef\xbb\xbf", BODY].concat()),
            ("another after the NUL", change(b'a', b'b')),
            (
                "up to the NUL",
                BODY[..BODY.iter().position(|b| *b == 0).expect("NUL")].to_vec(),
            ),
            ("other line ends", change(b'\r', b'\n')),
            ("without its last space", BODY[..BODY.len() - 1].to_vec()),
        ] {
            refused(&relay, n, &callback.called(name).body(body));
        }
        till.settle();
        accepted(&relay, &mut till, n, callback);
    }
}
