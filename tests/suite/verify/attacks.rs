//! Forgeries of every kind, made of genuine callbacks of every preset: each is refused, none reaches a backend.

use super::callback::{Callback, quoted};
use super::fresh::{self, now};
use super::{accepted, refused, relay, vectors};
use crate::support::Random;

/// Genuine callbacks of every preset: the providers' own, and some signed here.
pub fn genuine() -> Vec<Callback> {
    let vectors = vectors::all().into_iter();
    let vectors = vectors
        .filter(|(_, genuine)| *genuine)
        .map(|(callback, _)| callback);
    vectors
        .chain(fresh::all(now()).into_iter().map(long_believed))
        .collect()
}

/// Presets whose signatures have a time.
const TIMED: [&str; 5] = [
    "stripe",
    "standard-webhooks",
    "paddle",
    "wechatpay-v3",
    "hmac",
];

/// On a route that believes it for as long as a test takes.
fn long_believed(callback: Callback) -> Callback {
    match TIMED.contains(&callback.preset) {
        true => callback.key("tolerance", "\"1h\""),
        false => callback,
    }
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

pub fn signature_headers(callback: &Callback) -> Vec<usize> {
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
pub fn all_refused(forge: impl Fn(&Callback) -> Vec<Callback>) -> usize {
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

/// The most that a run of forgeries of one callback has.
const BITS: usize = 40;

/// Whether another bit of the byte at `at` of the body says another thing to who checks the signature.
fn signs_bit(callback: &Callback, at: usize, bit: u8) -> bool {
    let body = &callback.body;
    match callback.preset {
        // The password alone.
        "token" => false,
        // A digit of an escape, in either case.
        "alipay" => {
            let begins = at.saturating_sub(2);
            let is_digit = body[begins..at].contains(&b'%');
            !(is_digit && bit == 0x20 && body[at].is_ascii_alphabetic())
        }
        // Eight values and the signature of them.
        "adyen" => {
            let text = str::from_utf8(body).expect("JSON");
            let signed = [
                "pspReference",
                "originalReference",
                "merchantAccountCode",
                "merchantReference",
                "value",
                "currency",
                "eventCode",
                "success",
                "hmacSignature",
            ];
            signed.iter().any(|name| {
                let name = format!("\"{name}\":");
                text.match_indices(&name).any(|(found, _)| {
                    let rest = text[found + name.len()..].trim_start_matches([' ', '"']);
                    let begins = text.len() - rest.len();
                    let length = rest.find(['"', ',', '}']).expect("an end");
                    (begins..begins + length).contains(&at)
                })
            })
        }
        _ => true,
    }
}

#[test]
fn a_body_with_one_bit_changed_is_refused() {
    let seed = Random::new().next();
    let forge = |callback: &Callback| {
        let mut random = Random::from(seed);
        let last = callback.body.len() - 1;
        let mut places = vec![(0, 1), (last, 1)];
        places.extend((0..50 * BITS).map(|_| (random.below(last), 1 << random.below(8))));
        places.retain(|(at, bit)| signs_bit(callback, *at, *bit));
        let flipped = places.iter().take(BITS).map(|(at, bit)| {
            let mut forgery = callback.called(&format!("bit {bit} flipped at {at}"));
            forgery.body[*at] ^= bit;
            forgery
        });
        flipped.collect()
    };
    let tokens = genuine().iter().filter(|its| its.preset == "token").count();
    assert_eq!(all_refused(forge), BITS * (genuine().len() - tokens));
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
            // Base64 that says the same bytes: its last character has bits that say nothing, all of them 0.
            if value.ends_with('=') {
                let signed = value.trim_end_matches('=');
                let (before, last) = signed.split_at(signed.len() - 1);
                let next = char::from(last.as_bytes()[0] + 1);
                let padding = &value[signed.len()..];
                with("with a stray bit", format!("{before}{next}{padding}"));
                with("without padding", signed.to_owned());
            }
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
