//! Who fails too often is told to come later; who is genuine comes in all the same, from the same address.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::support::{Setup, eventually, post_request};

use super::callback::Callback;
use super::{accepted, fresh, post, toml};

fn forged(genuine: &Callback) -> Callback {
    Callback {
        body: b"{\"id\":\"till-7\",\"forged\":true}".to_vec(),
        ..genuine.called("forged")
    }
}

#[test]
fn bad_signatures_beyond_the_limit_are_answered_429_and_good_ones_are_taken() {
    let genuine = fresh::github("{\"id\":\"till-7\"}");
    let words = fresh::alipay(&fresh::alipay_fields());
    let callbacks = [genuine.clone(), words.clone()];
    let few = toml(&callbacks).replace("per_minute = 1000000", "per_minute = 5");
    let relay = Setup::with(&few).start();
    let mut till = relay.backend("till-7");
    let forgery = forged(&genuine);
    for n in 0..5 {
        let answer = post(&relay, 0, &forgery).answer();
        assert_eq!(answer.told(), (401, "bad-signature"), "{n}");
    }
    for _ in 0..20 {
        let answer = post(&relay, 0, &forgery).answer();
        assert_eq!(answer.told(), (429, "too-many"));
        let after: u64 = answer
            .header("retry-after")
            .and_then(|s| s.parse().ok())
            .expect("seconds");
        assert!((1..=61).contains(&after), "{after}");
    }
    // A route whose provider reads bodies makes no difference to who fails.
    let mut bad = words.called("forged");
    bad.replace("88%2E00", "0%2E01");
    assert_eq!(post(&relay, 1, &bad).answer().told(), (429, "too-many"));
    accepted(&relay, &mut till, 0, &genuine);
    accepted(&relay, &mut till, 1, &words);
    relay.log_contains("http.failures_per_minute = 5");
    let log = relay.log();
    assert_eq!(
        log.matches("http.failures_per_minute = 5").count(),
        1,
        "{log}"
    );
    // What fails otherwise is no attempt on a signature.
    let answer = relay
        .http()
        .exchange(&post_request("/nowhere", &[], b""))
        .expect("an answer");
    assert_eq!(answer.told(), (404, "no-route"));
}

/// One that forges on many connections, behind the provider's own address.
fn genuine_beside_a_flood(workers: usize) {
    let genuine = fresh::github("{\"id\":\"till-7\"}");
    let few = toml(std::slice::from_ref(&genuine))
        .replace("per_minute = 1000000", "per_minute = 5")
        .replace("[http]", &format!("[http]\nworkers = {workers}"));
    let relay = Setup::with(&few).start();
    let mut till = relay.backend("till-7");
    let forgery = forged(&genuine);
    let signature = [("X-Hub-Signature-256", "sha256=00")];
    let forgery = post_request("/0/till-7", &signature, &forgery.body);
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| {
                let mut forger = relay.http();
                while !is_over.load(Ordering::Relaxed) {
                    let answer = forger.exchange(&forgery).expect("an answer");
                    assert!(matches!(answer.told().0, 401 | 429));
                }
            });
        }
        let flood = std::panic::AssertUnwindSafe(|| {
            eventually("the flood is known", || {
                relay.log().contains("http.failures_per_minute = 5")
            });
            for n in 0..30 {
                let genuine = fresh::github(format!("{{\"id\":\"till-7\",\"n\":{n}}}"));
                accepted(&relay, &mut till, 0, &genuine);
            }
        });
        let outcome = std::panic::catch_unwind(flood);
        is_over.store(true, Ordering::Relaxed);
        outcome.expect("30 genuine callbacks");
    });
    // The workers had what came before the address was known, one of each connection at most.
    let by_workers = relay.metric("payrelay_http_worker_requests_total");
    assert!(by_workers <= f64::from(5 + 1 + 16), "{by_workers}");
}

#[test]
fn a_flood_of_forgeries_keeps_no_genuine_callback_of_its_address_out() {
    genuine_beside_a_flood(0);
}

#[test]
fn a_flood_of_forgeries_keeps_no_genuine_callback_of_its_address_out_of_the_pool() {
    genuine_beside_a_flood(2);
}

#[test]
fn behind_a_proxy_each_client_is_counted_by_itself() {
    let genuine = fresh::github("{\"id\":\"till-7\"}");
    let few = toml(std::slice::from_ref(&genuine)).replace(
        "per_minute = 1000000",
        "per_minute = 3\ntrusted_proxies = [\"127.0.0.1\"]",
    );
    let relay = Setup::with(&few).start();
    let forgery = forged(&genuine);
    let from = |client: &str| {
        let mut callback = forgery.clone();
        callback
            .headers
            .push(("X-Forwarded-For".into(), client.into()));
        post(&relay, 0, &callback).answer().status
    };
    for client in ["203.0.113.7", "2001:db8::1"] {
        for _ in 0..3 {
            assert_eq!(from(client), 401, "{client}");
        }
        assert_eq!(from(client), 429, "{client}");
    }
    assert_eq!(from("2001:db8::ffff"), 429, "the same /64");
    assert_eq!(from("203.0.113.8"), 401);
}
