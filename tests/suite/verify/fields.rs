//! Signatures over fields: one that is changed, added, doubled or dropped is refused.

use super::fresh::{self};
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
        // Base64 in other ways: the same bytes to whoever is lenient.
        ("&sign=", "&sign=%20"),
        ("&sign=", "&sign=%0A"),
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
        // The same with the first of them in the name.
        (
            "&notify%5Fid=notify%2D1&out%5Ftrade%5Fno=till%2D7",
            "&notify_id%3Dnotify-1%26out_trade_no=till-7",
        ),
    ] {
        let mut forgery = genuine.called(&format!("{old} -> {new}"));
        forgery.replace(old, new);
        refused(&relay, 0, &forgery);
    }
    // 256 bytes end in "==" and four bits that say nothing.
    for (change, new) in [("less padding", "%3D"), ("no padding", "")] {
        let mut forgery = genuine.called(change);
        forgery.replace("%3D%3D", new);
        refused(&relay, 0, &forgery);
    }
    let text = String::from_utf8(genuine.body.clone()).expect("ASCII");
    let (before, last) = text
        .strip_suffix("%3D%3D")
        .and_then(|signed| signed.split_at_checked(signed.len() - 1))
        .expect("a signature of 256 bytes");
    let next = char::from(last.as_bytes()[0] + 1);
    assert!("BRhx".contains(next), "A, Q, g and w have no stray bits");
    let stray = format!("{before}{next}%3D%3D");
    refused(&relay, 0, &genuine.called("a stray bit").body(stray));
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
        (amount, "<total_fee>8800&amount;</total_fee>"),
        (amount, "<more><total_fee>8800</total_fee></more>"),
        (amount, "<total_fee>&#0;8800</total_fee>"),
        ("<xml>", "<!DOCTYPE xml><xml>"),
        ("<xml>", "<xml a=\"1\">"),
        ("<xml>", "<xml>8800"),
        ("<xml>", "<?xml version=\"1.0\" encoding=\"GBK\"?><xml>"),
        ("</xml>", "</xml><xml></xml>"),
        ("</xml>", "</xml><xml><fee_type></fee_type></xml>"),
        ("</xml>", "8800</xml>"),
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
    let mut other = genuine.called("another root");
    other.replace("<xml>", "<pay>");
    other.replace("</xml>", "</pay>");
    refused(&relay, 0, &other);
    let mut gbk = genuine.called("GBK bytes");
    gbk.body.splice(40..40, [0xd6, 0xa7]);
    refused(&relay, 0, &gbk);
    for body in ["", "x", "<xml/>", "<xml><sign/></xml>", "{}"] {
        refused(&relay, 0, &genuine.called("another body").body(body));
    }
    till.settle();
}
