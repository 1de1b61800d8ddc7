//! Genuine callbacks that are easily taken for forged ones, or cannot be read at first sight: each gets in.

use std::io::Write;

use super::callback::{Callback, listed, quoted};
use super::fresh::{self, now};
use super::{accepted, refused, relay};
use crate::support::{Relay, Setup};

/// The fields of an ordinary payment, with one of them replaced or added.
fn wechat_fields(name: &str, value: &str) -> Vec<(String, String)> {
    let usual = [
        ("appid", "wx2421b1c4370ec43b"),
        ("bank_type", "CFT"),
        ("cash_fee", "8800"),
        ("fee_type", "CNY"),
        ("is_subscribe", "Y"),
        ("mch_id", "10000100"),
        ("nonce_str", "5d2b6c2a8db53831f7eda20af46e531c"),
        ("openid", "oUpF8uMEb4qRXf22hE3X68TekukE"),
        ("out_trade_no", "till-7"),
        ("result_code", "SUCCESS"),
        ("return_code", "SUCCESS"),
        ("time_end", "20261128133045"),
        ("total_fee", "8800"),
        ("trade_type", "JSAPI"),
        ("transaction_id", "tx-1"),
    ];
    with(&usual, name, value.to_owned())
}

fn with<V: From<String> + Clone>(
    usual: &[(&str, &str)],
    name: &str,
    value: String,
) -> Vec<(String, V)> {
    let mut fields: Vec<(String, V)> = usual
        .iter()
        .filter(|(its, _)| *its != name)
        .map(|(name, value)| ((*name).to_owned(), V::from((*value).to_owned())))
        .collect();
    fields.push((name.to_owned(), V::from(value)));
    fields
}

pub fn alipay_fields(name: &str, value: &str) -> Vec<(String, Vec<u8>)> {
    let usual = [
        ("app_id", "2019073166072302"),
        ("auth_app_id", "2019073166072302"),
        ("buyer_id", "2088102116773037"),
        ("charset", "utf-8"),
        ("gmt_create", "2026-11-28 10:00:00"),
        ("gmt_payment", "2026-11-28 10:00:01"),
        ("notify_id", "notify-1"),
        ("notify_time", "2026-11-28 10:00:02"),
        ("notify_type", "trade_status_sync"),
        ("out_trade_no", "till-7"),
        ("point_amount", "0.00"),
        ("receipt_amount", "88.00"),
        ("seller_id", "2088102119685838"),
        ("subject", "PC网站支付交易"),
        ("total_amount", "88.00"),
        ("trade_no", "2026112800000001"),
        ("trade_status", "TRADE_SUCCESS"),
        ("version", "1.0"),
    ];
    with(&usual, name, value.to_owned())
}

#[test]
fn values_that_look_like_fields_get_in_and_no_other_cut_of_them_does() {
    let mut genuine = Vec::new();
    for value in [
        "a&openid=b",
        "uid=5&key=abc",
        "https://x.cn/?a=1&sign=1",
        "&bank_type=X",
        "uid=5&avatar=1&b=2",
        "total_fee=1&total_fee=2&transaction_id=3",
    ] {
        for kind in ["MD5", "HMAC-SHA256"] {
            genuine.push(fresh::wechatpay_v2(&wechat_fields("attach", value), kind).called(value));
        }
    }
    for (name, value) in [
        ("body", "a&version=2"),
        ("passback_params", "u=1&sign=2"),
        ("passback_params", "uid=5&pid=7&player=8"),
        ("passback_params", "x&sign_type=RSA2&point_amount=1"),
        ("subject", "60 gems&t=1&total_amount=0.01"),
    ] {
        let fields = alipay_fields(name, value);
        genuine.push(fresh::alipay(&fields).called(value));
        genuine.push(fresh::alipay_as(&fields, true).called(value));
    }
    let relay = relay(&genuine);
    let mut till = relay.backend("till-7");
    for (n, callback) in genuine.iter().enumerate() {
        accepted(&relay, &mut till, n, callback);
    }
    // The same texts, cut where the values look like fields.
    let route = |what: &str| {
        genuine
            .iter()
            .position(|callback| callback.name.ends_with(what))
            .expect("a route")
    };
    let n = route(", uid=5&avatar=1&b=2");
    let mut cut = genuine[n].called("cut in two");
    cut.replace(
        "<attach><![CDATA[uid=5&avatar=1&b=2]]></attach>",
        "<attach>uid=5</attach><avatar>1&amp;b=2</avatar>",
    );
    refused(&relay, n, &cut);
    let n = route(", uid=5&pid=7&player=8");
    let mut cut = genuine[n].called("cut in two");
    cut.replace(
        "uid%3D5%26pid%3D7%26player%3D8",
        "uid%3D5&pid=7%26player%3D8",
    );
    refused(&relay, n, &cut);
    // And fields that look like one value.
    let n = route(", a&version=2");
    let mut joined = genuine[n].called("joined");
    joined.replace("&total%5Famount=88%2E00", "");
    joined.replace("&subject=PC", "&subject=PC");
    joined.replace("%BA%A4%E6%98%93", "%BA%A4%E6%98%93%26total_amount%3D88.00");
    refused(&relay, n, &joined);
    till.settle();
}

#[test]
fn alipay_with_sha1_and_a_short_key_gets_in_where_the_route_says_so() {
    let genuine = fresh::alipay_sha1(&alipay_fields("subject", "x"));
    let with_sha2 = fresh::alipay(&alipay_fields("subject", "x"));
    let allowing = genuine.clone().key("allow_sha1", "true");
    let mut both = with_sha2
        .called("and SHA-1 allowed")
        .key("allow_sha1", "true");
    let strict = {
        let mut strict = genuine.called("not allowed");
        strict.keys = with_sha2.keys.clone();
        strict
    };
    both.keys += "";
    let relay = relay(&[allowing.clone(), strict.clone(), both.clone()]);
    assert!(relay.log_contains("SHA-1").contains("allow_sha1"));
    let mut till = relay.backend("till-7");
    accepted(&relay, &mut till, 0, &allowing);
    accepted(&relay, &mut till, 2, &both);
    refused(&relay, 1, &strict);
    let line = relay.log_contains("bad signature");
    assert!(line.contains("allow_sha1 = true"), "{line}");
    for forgery in [
        ("another amount", "88%2E00", "98%2E00"),
        ("as RSA2", "sign%5Ftype=RSA", "sign%5Ftype=RSA2"),
    ] {
        let (name, old, new) = forgery;
        let mut forgery = allowing.called(name);
        if old == "88%2E00" {
            forgery.replace(
                "receipt%5Famount=88%2E00",
                &format!("receipt%5Famount={new}"),
            );
        } else {
            forgery.replace(old, new);
        }
        refused(&relay, 0, &forgery);
    }
}

#[test]
fn a_header_outside_ascii_is_refused_only_where_it_is_needed() {
    let genuine = fresh::stripe(now(), "{\"id\":\"evt_1\"}")
        .key("forward_headers", "[\"stripe-signature\", \"x-city\"]")
        .key("event", "\"none\"");
    for workers in [1, 2] {
        let toml = super::toml(std::slice::from_ref(&genuine))
            .replace("[http]", &format!("[http]\nworkers = {workers}"));
        let relay = Setup::with(&toml).start();
        let mut till = relay.backend("till-7");
        let send = |name: &str, value: &[u8]| {
            let signature = &genuine.headers[1].1;
            let mut request = format!(
                "POST /0/till-7 HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n{name}: ",
                genuine.body.len()
            )
            .into_bytes();
            request.extend_from_slice(value);
            write!(request, "\r\nStripe-Signature: {signature}\r\n\r\n").expect("written");
            request.extend_from_slice(&genuine.body);
            relay.send(&request)
        };
        for value in ["São Paulo".as_bytes(), b"S\xe3o Paulo", b"\xff"] {
            let answer = send("cf-ipcity", value);
            let message = till.message();
            let head = String::from_utf8(message.frame.head().to_vec()).expect("ASCII");
            assert!(!head.contains("cf-ipcity"), "{head}");
            message.ack();
            assert_eq!(answer.answer().told(), (200, "delivered"));
            for needed in ["X-City", "stripe-signature"] {
                let answer = send(needed, value).answer();
                assert_eq!(answer.told(), (400, "not-ascii"), "{needed}");
                assert!(answer.text().contains(needed), "{}", answer.text());
            }
            assert_eq!(send("Host", value).answer().status, 400);
        }
        till.settle();
    }
}

#[test]
fn a_time_in_milliseconds_is_checked_as_one() {
    let body = "{\"id\":\"evt_1\"}";
    let signed = |at: u64| {
        let text = format!("v1.{at}.{body}");
        let tag = fresh::mac(fresh::SECRET.as_bytes(), &[text.as_bytes()]);
        Callback::new("hmac", &format!("signed at {at}"))
            .key("secrets", &listed(fresh::SECRET))
            .key(
                "hmac",
                "{ header = \"Revolut-Signature\", separator = \",\", prefix = \"v1=\", message = \"v1.{timestamp}.{body}\", \
                 timestamp_header = \"Revolut-Request-Timestamp\", timestamp_unit = \"ms\" }",
            )
            .header("Revolut-Request-Timestamp", &at.to_string())
            .header("Revolut-Signature", &format!("v1={}", fresh::hex(&tag)))
            .body(body)
    };
    let now = now() * 1000;
    let genuine = signed(now + 123);
    let relay = relay(std::slice::from_ref(&genuine));
    let mut till = relay.backend("till-7");
    accepted(&relay, &mut till, 0, &genuine);
    for at in [now - 310_000, now + 310_000, now / 1000] {
        refused(&relay, 0, &signed(at));
    }
    assert_eq!(
        relay.metric("payrelay_signature_refusals_total{reason=\"expired\"}"),
        3.0
    );
    till.settle();
}

#[test]
fn an_event_that_cannot_be_found_is_said() {
    let relay =
        Relay::with("[[route]]\npath = \"/pay/{id}\"\nname = \"pay\"\nevent = \"json:/order\"\n");
    let mut till = relay.backend("till-7");
    let answer = relay.post_with("/pay/till-7", &[("Content-Encoding", "gzip")], b"\x1f\x8b");
    till.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    let line = relay.log_contains("no event key");
    assert!(
        line.contains("[WARN]") && line.contains("compressed"),
        "{line}"
    );
}

#[test]
fn probes_of_wechat_pay_slow_nobody_down() {
    let genuine = fresh::wechatpay_v3_notice(now(), "{\"id\":\"evt_1\"}");
    let toml = super::toml(std::slice::from_ref(&genuine))
        .replace("failures_per_minute = 1000000", "failures_per_minute = 2");
    let relay = Setup::with(&toml).start();
    let mut till = relay.backend("till-7");
    let mut probe = genuine.called("probe");
    let signature = genuine.clone().value("Wechatpay-Signature").clone();
    *probe.value("Wechatpay-Signature") = format!("WECHATPAY/SIGNTEST/{signature}");
    for _ in 0..5 {
        refused(&relay, 0, &probe);
    }
    assert_eq!(
        relay.metric("payrelay_signature_refusals_total{reason=\"probe\"}"),
        5.0
    );
    assert!(relay.log_contains("SIGNTEST").contains("it does"));
    accepted(&relay, &mut till, 0, &genuine);
}

#[test]
fn every_certificate_of_a_pem_counts() {
    let genuine = fresh::alipay(&alipay_fields("subject", "x"));
    let mut second = genuine.called("the second key of a PEM");
    let both = format!("{}{}", fresh::other_public_key(), fresh::public_key());
    second.keys = format!("keys = [{}]\n", quoted(&both));
    let relay = relay(std::slice::from_ref(&second));
    let mut till = relay.backend("till-7");
    accepted(&relay, &mut till, 0, &second);
}
