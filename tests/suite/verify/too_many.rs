//! Who fails too often is told to come later; who is genuine comes in all the same, from the same address.

use crate::support::{Setup, post_request};

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
