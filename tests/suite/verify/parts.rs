//! Signatures over parts of a body: what is changed, added, doubled, dropped or cut otherwise is refused, and what is only
//! written otherwise is not.

use super::callback::{Callback, listed};
use super::fresh::{self, now};
use super::{accepted, refused, relay};

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
