//! Forgeries of every kind, made of genuine callbacks of every preset: each is refused, none reaches a backend.

use super::callback::{Callback, listed, quoted};
use super::fresh::{self, now};
use super::{accepted, post, refused, relay, vectors};
use crate::support::Random;

/// Genuine callbacks of every preset: the providers' own, and some signed here.
fn genuine() -> Vec<Callback> {
    let vectors = vectors::all().into_iter();
    let vectors = vectors
        .filter(|(_, genuine)| *genuine)
        .map(|(callback, _)| callback);
    vectors.chain(fresh::all(now())).collect()
}

/// The headers that hold a signature, or the password itself.
const SIGNATURES: [&str; 14] = [
    "stripe-signature",
    "webhook-signature",
    "paddle-signature",
    "x-square-hmacsha256-signature",
    "x-shopify-hmac-sha256",
    "shopify-hmac-sha256",
    "x-razorpay-signature",
    "x-hub-signature-256",
    "hmacsignature",
    "wechatpay-signature",
    "x-sign",
    "x-token",
    // Not signatures, but parts of what is signed.
    "wechatpay-serial",
    "webhook-id",
];

fn signature_headers(callback: &Callback) -> Vec<usize> {
    let is_one = |name: &str| {
        SIGNATURES
            .iter()
            .any(|known| known.eq_ignore_ascii_case(name))
    };
    let headers = callback.headers.iter().enumerate();
    headers
        .filter(|(_, (name, _))| is_one(name))
        .map(|(at, _)| at)
        .collect()
}

/// Sends every forgery that `forge` makes of every genuine callback. A genuine one at the end shows that the route works.
fn all_refused(forge: impl Fn(&Callback) -> Vec<Callback>) -> usize {
    let genuine = genuine();
    let relay = relay(&genuine);
    let mut till = relay.backend("till-7");
    let mut count = 0;
    for (n, callback) in genuine.iter().enumerate() {
        for forgery in forge(callback) {
            refused(&relay, n, &forgery);
            count += 1;
        }
        till.settle();
        accepted(&relay, &mut till, n, callback);
    }
    assert_eq!(
        relay.metric("payrelay_http_refusals_total{reason=\"bad-signature\"}"),
        count as f64
    );
    assert_eq!(
        relay.metric("payrelay_signature_refusals_total"),
        count as f64
    );
    count
}

#[test]
fn a_body_with_one_bit_changed_is_refused() {
    let seed = Random::new().next();
    let forge = |callback: &Callback| {
        if !callback.signs_whole_body() {
            return Vec::new();
        }
        let mut random = Random::from(seed);
        let last = callback.body.len() - 1;
        let places = [
            0,
            last,
            random.below(last),
            random.below(last),
            random.below(last),
        ];
        let flipped = places.map(|at| {
            let mut forgery = callback.called(&format!("bit flipped at {at}"));
            forgery.body[at] ^= 1 << random.below(8);
            forgery
        });
        flipped.to_vec()
    };
    assert!(all_refused(forge) >= 90);
}

#[test]
fn a_body_with_other_whitespace_or_order_is_refused() {
    let forge = |callback: &Callback| {
        if !callback.signs_whole_body() {
            return Vec::new();
        }
        let with = |change: &str, body: Vec<u8>| {
            let mut forgery = callback.called(change);
            forgery.body = body;
            forgery
        };
        let mut forgeries = vec![
            with("newline after", [&callback.body[..], b"\n"].concat()),
            with("space before", [b" ", &callback.body[..]].concat()),
            with(
                "byte less",
                callback.body[..callback.body.len() - 1].to_vec(),
            ),
            with("empty", Vec::new()),
        ];
        // The same JSON to a machine, written anew: keys sorted, whitespace as a machine likes it.
        let json: serde_json::Value = serde_json::from_slice(&callback.body).expect("JSON");
        for text in [
            serde_json::to_string_pretty(&json),
            serde_json::to_string(&json),
        ] {
            let text = text.expect("written").into_bytes();
            if text != callback.body {
                forgeries.push(with("written anew", text));
            }
        }
        forgeries
    };
    assert!(all_refused(forge) >= 80);
}

#[test]
fn a_signature_that_is_not_exactly_the_signature_is_refused() {
    let forge = |callback: &Callback| {
        let mut forgeries = Vec::new();
        for at in signature_headers(callback) {
            let (name, mut value) = callback.headers[at].clone();
            // Items that are not looked at would stay right whatever is done to them.
            value.truncate(value.find(",v0=").unwrap_or(value.len()));
            value = value.trim_start_matches("k=1 ").to_owned();
            let mut with = |change: &str, new: String| {
                if new != value {
                    let mut forgery = callback.called(&format!("{name} {change}"));
                    forgery.headers[at].1 = new;
                    forgeries.push(forgery);
                }
            };
            with("empty", String::new());
            with("cut", value[..value.len() - 1].to_owned());
            with("longer", format!("{value}0"));
            // Among several signatures, one that is right is enough.
            if !value.contains([',', ';', ' ']) {
                with("twice", format!("{value}{value}"));
            }
            with(
                "with a space in it",
                format!("{} {}", &value[..1], &value[1..]),
            );
            with("upper", swap(&value, |c| c.to_ascii_uppercase()));
            with("lower", swap(&value, |c| c.to_ascii_lowercase()));
            with(
                "of zeros",
                swap(&value, |c| if c.is_ascii_hexdigit() { '0' } else { c }),
            );
            with("with a prefix", format!("x{value}"));
            with("quoted", format!("\"{value}\""));
            with("begun otherwise", another_at(&value, 0));
            with(
                "ended otherwise",
                another_at(&value, value.trim_end_matches(['=', '0']).len() - 1),
            );
        }
        forgeries
    };
    assert!(all_refused(forge) >= 150);
}

/// `value` with another case in what is the signature, not in what stands before it.
fn swap(value: &str, change: impl Fn(char) -> char) -> String {
    let keep = value
        .rfind(['=', ','])
        .filter(|at| *at < value.len() - 2)
        .map_or(0, |at| at + 1);
    let keep = if value.ends_with('=') {
        value.rfind(',').map_or(0, |at| at + 1)
    } else {
        keep
    };
    format!(
        "{}{}",
        &value[..keep],
        value[keep..].chars().map(change).collect::<String>()
    )
}

fn another_at(value: &str, at: usize) -> String {
    let mut bytes = value.as_bytes().to_vec();
    bytes[at] = if bytes[at] == b'a' { b'b' } else { b'a' };
    String::from_utf8(bytes).expect("ASCII")
}

#[test]
fn a_missing_or_repeated_header_is_refused() {
    let forge = |callback: &Callback| {
        let mut forgeries = Vec::new();
        for at in signature_headers(callback) {
            let (name, value) = callback.headers[at].clone();
            let mut without = callback.called(&format!("without {name}"));
            without.headers.remove(at);
            forgeries.push(without);
            for second in [value.as_str(), "x", ""] {
                for before in [true, false] {
                    let mut forgery = callback.called(&format!("{name} twice"));
                    let place = if before { at } else { at + 1 };
                    forgery
                        .headers
                        .insert(place, (name.to_uppercase(), second.to_owned()));
                    forgeries.push(forgery);
                }
            }
        }
        forgeries
    };
    assert!(all_refused(forge) >= 150);
}

#[test]
fn a_header_may_be_written_in_any_case() {
    let genuine = genuine();
    let relay = relay(&genuine);
    let mut till = relay.backend("till-7");
    for (n, callback) in genuine.iter().enumerate() {
        let mut callback = callback.called("names in capitals");
        for (name, _) in &mut callback.headers {
            *name = name.to_uppercase();
        }
        accepted(&relay, &mut till, n, &callback);
    }
}

#[test]
fn what_another_key_signed_is_refused() {
    // Routes that know other keys than those that signed.
    let strange: Vec<Callback> = fresh::all(now())
        .iter()
        .map(|callback| {
            let mut callback = callback.called("another key");
            callback.keys = callback
                .keys
                .replace(fresh::SECRET, "another secret")
                .replace(fresh::SECRET_HEX, "00112233")
                .replace(fresh::SECRET_WHSEC, "whsec_AAAA")
                .replace(
                    &quoted(fresh::public_key()),
                    &quoted(fresh::other_public_key()),
                );
            callback
        })
        .collect();
    let relay = relay(&strange);
    let mut till = relay.backend("till-7");
    for (n, callback) in strange.iter().enumerate() {
        refused(&relay, n, callback);
    }
    till.settle();
}

#[test]
fn one_callbacks_signature_is_not_anothers() {
    let at = now();
    let relay = relay(&fresh::all(at));
    let mut till = relay.backend("till-7");
    let other = r#"{"id":"evt_2","event_id":"evt_2","amount":1}"#;
    let others = [
        fresh::stripe(at, other),
        fresh::standard_webhooks(at, other),
        fresh::paddle(at, other),
        fresh::square(other),
        fresh::shopify(other),
        fresh::razorpay(other),
        fresh::github(other),
        fresh::adyen_platform(other),
    ];
    for (n, (mine, others)) in fresh::all(at).iter().zip(others).enumerate() {
        let mut forgery = mine.called("with another callback's headers");
        forgery.headers = others.headers;
        refused(&relay, n, &forgery);
    }
    till.settle();
}

#[test]
fn a_probe_of_wechat_pay_is_a_bad_signature_like_any_other() {
    let genuine = fresh::wechatpay_v3_notice(now(), "{\"id\":\"evt_1\"}");
    let relay = relay(std::slice::from_ref(&genuine));
    let mut till = relay.backend("till-7");
    let signature = genuine.clone().value("Wechatpay-Signature").clone();
    for probe in [
        format!("WECHATPAY/SIGNTEST/{signature}"),
        format!("WECHATPAY/SIGNTEST/{}", &signature[19..]),
    ] {
        let mut forgery = genuine.called("probe");
        *forgery.value("Wechatpay-Signature") = probe;
        let answer = refused(&relay, 0, &forgery);
        assert_eq!((answer.status, answer.text().contains("FAIL")), (500, true));
    }
    let mut forgery = genuine.called("wrong serial");
    *forgery.value("Wechatpay-Serial") = "PUB_KEY_ID_0".to_owned();
    refused(&relay, 0, &forgery);
    assert_eq!(
        relay.metric("payrelay_signature_refusals_total{reason=\"unknown-key\"}"),
        1.0
    );
    till.settle();
    accepted(&relay, &mut till, 0, &genuine);
}

#[test]
fn a_field_of_alipay_that_is_changed_added_doubled_or_dropped_is_refused() {
    let fields = fresh::alipay_fields();
    let genuine = fresh::alipay(&fields);
    let with_type = fresh::alipay_as(&fields, true).called("signed with sign_type");
    // What its signature covers once decoded may be written in another order and with other escapes.
    let mut rewritten = genuine.called("other escapes");
    rewritten.replace("out%5Ftrade%5Fno=till%2D7", "out_trade_no=till-7");
    rewritten.body = rewritten
        .body
        .split(|&b| b == b'&')
        .rev()
        .collect::<Vec<_>>()
        .join(&b'&');
    // GBK: bytes that are no UTF-8, and must not become some.
    let mut gbk = fields.clone();
    gbk[1].1 = b"GBK".to_vec();
    gbk[5].1 = vec![0xd6, 0xa7, 0xb8, 0xb6, 0xb3, 0xc9, 0xb9, 0xa6];
    let gbk = fresh::alipay(&gbk).called("GBK");
    let good = [genuine.clone(), with_type.clone(), rewritten, gbk.clone()];
    let relay = relay(&good);
    let mut till = relay.backend("till-7");
    for (n, callback) in good.iter().enumerate() {
        accepted(&relay, &mut till, n, callback);
    }
    for (old, new) in [
        ("88%2E00", "0%2E01"),
        ("88%2E00", "88%2E00%00"),
        ("88%2E00", "+88%2E00"),
        ("88%2E00", "88%2E00&total_amount=1"),
        ("88%2E00", "88%2E00&total%5famount=88%2E00"),
        ("88%2E00", "88%2E0"),
        ("88%2E00", "88%2E00&refund_fee=1"),
        ("88%2E00", "88%2E00&x"),
        ("88%2E00", "88%2"),
        ("&empty=", ""),
        ("&sign=", "&sign=x&sign="),
        ("&sign=", "&Sign="),
        ("sign%5Ftype=RSA2", "sign%5Ftype=RSA"),
        ("sign%5Ftype=RSA2", "sign_type=RSA2&sign_type=RSA2"),
        // Two fields become one whose value reads like both: the signed text is the same, the fields are not.
        (
            "&out%5Ftrade%5Fno=till%2D7",
            "&notify_id=notify-1%26out_trade_no=till-7",
        ),
        (
            "&notify%5Fid=notify%2D1&out%5Ftrade%5Fno=till%2D7",
            "&notify_id=notify-1%26out_trade_no=till-7",
        ),
        (
            "&subject=Tom%20%26%20Jerry%20%3D%205&total%5Famount=88%2E00",
            "&subject=Tom%20%26%20Jerry%20%3D%205%26total_amount%3D88.00",
        ),
    ] {
        let mut forgery = genuine.called(&format!("{old} -> {new}"));
        forgery.replace(old, new);
        refused(&relay, 0, &forgery);
    }
    let mut forgery = with_type.called("without sign_type");
    forgery.replace("&sign%5Ftype=RSA2", "");
    refused(&relay, 0, &forgery);
    let mut forgery = gbk.called("as UTF-8");
    forgery.replace(
        "%D6%A7%B8%B6%B3%C9%B9%A6",
        "%E6%94%AF%E4%BB%98%E6%88%90%E5%8A%9F",
    );
    refused(&relay, 3, &forgery);
    for body in [
        "",
        "&",
        "=",
        "sign=",
        "sign=AAAA",
        "sign",
        "%",
        "a=%ZZ",
        "\u{0}",
    ] {
        refused(&relay, 0, &genuine.called("another body").body(body));
    }
    till.settle();
}

#[test]
fn a_field_of_wechat_pay_v2_that_is_changed_added_doubled_or_dropped_is_refused() {
    let fields = fresh::wechatpay_v2_fields();
    let genuine = fresh::wechatpay_v2(&fields, "MD5");
    let keyed = fresh::wechatpay_v2(&fields, "HMAC-SHA256");
    let mut plain = genuine.called("without CDATA");
    plain.replace(
        "<![CDATA[支付测试 a&b=c <&>]]>",
        "支付测试 a&amp;b=c &lt;&#38;&#x3e;",
    );
    plain.replace("<xml>", "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<xml>");
    let good = [genuine.clone(), keyed.clone(), plain];
    let relay = relay(&good);
    let mut till = relay.backend("till-7");
    for (n, callback) in good.iter().enumerate() {
        accepted(&relay, &mut till, n, callback);
    }
    let amount = "<total_fee><![CDATA[8800]]></total_fee>";
    for (old, new) in [
        (amount, "<total_fee><![CDATA[1]]></total_fee>"),
        (amount, ""),
        (
            amount,
            "<total_fee><![CDATA[8800]]></total_fee><total_fee>1</total_fee>",
        ),
        (amount, "<total_fee> 8800</total_fee>"),
        (amount, "<total_fee>88<!-- -->00</total_fee>"),
        (amount, "<total_fee>88<?x?>00</total_fee>"),
        (amount, "<total_fee>88<b/>00</total_fee>"),
        (amount, "<total_fee x=\"1\">8800</total_fee>"),
        (amount, "<total_fee><v>8800</v></total_fee>"),
        (
            amount,
            "<total_fee><![CDATA[8800]]></total_fee><more>1</more>",
        ),
        (amount, "<Total_fee><![CDATA[8800]]></Total_fee>"),
        (amount, "<total_fee>&amount;</total_fee>"),
        (amount, "<total_fee>&#0;8800</total_fee>"),
        ("<xml>", "<!DOCTYPE xml><xml>"),
        ("<xml>", "<xml a=\"1\">"),
        ("<xml>", "<xml>8800"),
        ("<xml>", "<?xml version=\"1.0\" encoding=\"GBK\"?><xml>"),
        ("</xml>", "</xml><xml></xml>"),
        ("</xml>", "</xml>8800"),
        ("</xml>", ""),
        ("<![CDATA[MD5]]>", "<![CDATA[HMAC-SHA256]]>"),
        ("<![CDATA[MD5]]>", "<![CDATA[SM3]]>"),
        ("<![CDATA[MD5]]>", "<![CDATA[]]>"),
        ("<sign>", "<sign>0"),
        // Two fields become one whose value reads like both.
        (
            "<total_fee><![CDATA[8800]]></total_fee>\n  <transaction_id><![CDATA[tx-1]]></transaction_id>",
            "<total_fee><![CDATA[8800&transaction_id=tx-1]]></total_fee>",
        ),
    ] {
        let mut forgery = genuine.called(&format!("{old} -> {new}"));
        forgery.replace(old, new);
        refused(&relay, 0, &forgery);
    }
    for callback in [&genuine, &keyed] {
        let text = String::from_utf8(callback.body.clone()).expect("UTF-8");
        let (before, sign) = text.split_once("<sign><![CDATA[").expect("a sign");
        let (sign, after) = sign.split_once("]]>").expect("its end");
        for sign in [
            sign.to_lowercase(),
            sign[1..].to_owned(),
            "0".repeat(sign.len()),
            String::new(),
        ] {
            let body = format!("{before}<sign><![CDATA[{sign}]]>{after}");
            refused(&relay, 0, &callback.called("another sign").body(body));
        }
        refused(
            &relay,
            0,
            &callback
                .called("no sign")
                .body(format!("{before}<x><![CDATA[{after}")),
        );
    }
    let mut gbk = genuine.called("GBK bytes");
    gbk.body.splice(40..40, [0xd6, 0xa7]);
    refused(&relay, 0, &gbk);
    for body in ["", "x", "<xml/>", "<xml><sign/></xml>", "{}"] {
        refused(&relay, 0, &genuine.called("another body").body(body));
    }
    till.settle();
}

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
    // What nobody signs may be anything, and reaches the backend as it came.
    let mut odd = fresh::adyen_notice(&[one]).called("another date");
    odd.replace("2026-11-24", "1999-01-01");
    accepted(&relay, &mut till, 0, &odd);
}

#[test]
fn where_one_part_of_a_message_ends_cannot_be_moved() {
    let at = now();
    // Standard Webhooks: an id with a point in it could take the time from the body.
    let mut moved = fresh::standard_webhooks(at, "x").called("an id with a separator in it");
    *moved.value("webhook-id") = format!("msg_1.{at}");
    moved.body = b"x".to_vec();
    let parts = format!("msg_1.{at}.{at}.x");
    let secret = base64::Engine::decode(
        &base64::engine::general_purpose::STANDARD,
        &fresh::SECRET_WHSEC[6..],
    );
    let tag = fresh::mac(&secret.expect("base64"), &[parts.as_bytes()]);
    *moved.value("webhook-signature") = format!("v1,{}", fresh::base64(&tag));
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
    let relay = relay(&[moved.clone(), square.clone(), good.clone()]);
    let mut till = relay.backend("till-7");
    refused(&relay, 0, &moved);
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
    till.settle();
}

#[test]
fn a_token_is_taken_from_where_it_stands_and_nowhere_else() {
    let header = fresh::token("x");
    let mut query = Callback::new("token", "in the query")
        .key("secrets", &listed("a secret&more"))
        .key("token", "\"query:key\"")
        .key("forward_headers", "[\"host\"]")
        .body("x");
    query.query = "?a=1&key=a+secret%26more&b=2".to_owned();
    let basic = Callback::new("token", "Basic")
        .key("secrets", &listed("user:pass:word"))
        .key("token", "\"basic\"")
        .header(
            "Authorization",
            &format!("Basic {}", fresh::base64(b"user:pass:word")),
        )
        .body("x");
    let relay = relay(&[header.clone(), query.clone(), basic.clone()]);
    let mut till = relay.backend("till-7");
    accepted(&relay, &mut till, 0, &header);
    accepted(&relay, &mut till, 2, &basic);
    // The token goes no further than here: the backend gets the query without it.
    let answer = post(&relay, 1, &query);
    let message = till.expect("MSG id=* verified=token =*", b"x");
    let head = String::from_utf8(message.frame.head().to_vec()).expect("ASCII");
    message.ack();
    assert!(
        head.starts_with("POST /1/till-7?a=1&b=2 HTTP/1.1\r\n"),
        "{head}"
    );
    assert_eq!(answer.answer().told(), (200, "delivered"));

    for (change, text) in [
        ("none", "?a=1"),
        ("empty", "?key="),
        ("twice", "?key=a+secret%26more&key=a+secret%26more"),
        ("another", "?key=a+secret%26mor"),
        ("a name like it", "?keys=a+secret%26more"),
        ("bad escape", "?key=a%2"),
    ] {
        let mut forgery = query.called(change);
        forgery.query = text.to_owned();
        refused(&relay, 1, &forgery);
    }
    for value in [
        "",
        "Basic",
        "Basic ",
        "Basic x",
        "Bearer dXNlcjpwYXNzOndvcmQ=",
        "Basic dXNlcjpwYXNz",
        "Basic  dXNlcjpwYXNzOndvcmQ=",
    ] {
        let mut forgery = basic.called(value);
        *forgery.value("Authorization") = value.to_owned();
        refused(&relay, 2, &forgery);
    }
    till.settle();
}
