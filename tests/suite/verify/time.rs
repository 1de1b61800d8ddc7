//! Old callbacks and those from the future: believed within the tolerance, and no further.

use super::callback::Callback;
use super::fresh::{self, now};
use super::{accepted, refused, relay};

/// A minute more than any machine takes between signing and checking.
const MARGIN: u64 = 60;

type Sign = fn(u64) -> Callback;

/// The presets whose signatures have a time.
fn timed() -> [Sign; 5] {
    const BODY: &str = "{\"id\":\"evt_1\"}";
    [
        |at| fresh::stripe(at, BODY),
        |at| {
            let mut callback = fresh::paddle(at, BODY);
            callback.event = None;
            callback
        },
        |at| fresh::standard_webhooks(at, BODY),
        |at| fresh::wechatpay_v3_notice(at, BODY),
        |at| fresh::custom(at, BODY),
    ]
}

/// On a route that knows no events, so that the same one again is not taken for a retry.
fn without_event(mut callback: Callback) -> Callback {
    let lines = callback.keys.lines();
    let others = lines.filter(|line| !line.starts_with("event = "));
    callback.keys = others.map(|line| format!("{line}\n")).collect();
    callback.event = None;
    callback.key("event", "\"none\"")
}

fn with_tolerance(sign: Sign, at: u64, tolerance: &str) -> Callback {
    let callback = sign(at).called(&format!("tolerance {tolerance}, signed at {at}"));
    match tolerance {
        "" => callback,
        tolerance => callback.key("tolerance", &format!("\"{tolerance}\"")),
    }
}

#[test]
fn a_callback_is_believed_for_five_minutes_and_no_longer() {
    let at = now();
    let relay = relay(&timed().map(|sign| without_event(sign(at))));
    let mut till = relay.backend("till-7");
    for (n, sign) in timed().iter().enumerate() {
        for fresh in [at, at - 300 + MARGIN, at + 300 - MARGIN] {
            accepted(&relay, &mut till, n, &without_event(sign(fresh)));
        }
        for stale in [at - 301, at + 300 + MARGIN, at - 86_400, 0, 999_999_999_999] {
            refused(&relay, n, &sign(stale));
        }
    }
    till.settle();
    assert_eq!(
        relay.metric("payrelay_signature_refusals_total{reason=\"expired\"}"),
        25.0
    );
    relay.log_contains("look at this machine's clock");
}

#[test]
fn tolerance_is_what_the_route_says() {
    let at = now();
    for (tolerance, believed, refused_at) in [
        ("1h", at - 3600 + MARGIN, at - 3601),
        ("1h", at + 3600 - MARGIN, at + 3600 + MARGIN),
        ("off", 0, u64::MAX),
        ("off", 999_999_999_999, u64::MAX),
    ] {
        let routes = timed().map(|sign| with_tolerance(sign, at, tolerance));
        let relay = relay(&routes);
        let mut till = relay.backend("till-7");
        for (n, sign) in timed().iter().enumerate() {
            accepted(
                &relay,
                &mut till,
                n,
                &with_tolerance(*sign, believed, tolerance),
            );
            // Longer than a time is: refused whatever the tolerance.
            refused(&relay, n, &with_tolerance(*sign, refused_at, tolerance));
        }
        till.settle();
    }
}

#[test]
fn a_time_that_was_changed_or_is_none_is_refused() {
    let at = now();
    let relay = relay(&timed().map(|sign| sign(at)));
    let mut till = relay.backend("till-7");
    for (n, sign) in timed().iter().enumerate() {
        let (old, genuine) = (at.to_string(), sign(at));
        let (later, spaced, hex) = ((at + 1).to_string(), format!(" {at}"), format!("0x{at:x}"));
        let (signed, fraction, padded) = (format!("+{at}"), format!("{at}.0"), format!("{at:013}"));
        for new in [
            "", "-1", "now", &later, &spaced, &hex, &signed, &fraction, &padded,
        ] {
            let mut forgery = genuine.called(&format!("its time is {new:?}"));
            for (_, value) in &mut forgery.headers {
                *value = value.replace(&old, new);
            }
            // A space before a value of its own is no part of it, by HTTP's rules.
            if forgery.headers != genuine.headers && !(new == spaced && n >= 2) {
                refused(&relay, n, &forgery);
            }
        }
    }
    till.settle();
}
