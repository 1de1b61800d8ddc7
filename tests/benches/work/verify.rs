//! Whether a callback is the provider's own: each engine on a genuine one of the providers' test data, and on what is large.

#[path = "../../data/genuine.rs"]
mod genuine;

use std::hint::black_box;
use std::sync::Arc;

use payrelay::config::Config;
use payrelay::verify::{Refused, Request, Verifier};

use self::genuine::{NOW, genuine};
use super::{Count, Work};

pub const WORK: [Work; 9] = [
    work("verify: hmac, stripe", || genuine_of("stripe")),
    work("verify: hmac, standard-webhooks", || {
        genuine_of("standard-webhooks")
    }),
    work("verify: adyen-platform", || genuine_of("adyen-platform")),
    work("verify: adyen", || genuine_of("adyen-standard")),
    work("verify: alipay", || genuine_of("alipay")),
    work("verify: wechatpay-v2", || genuine_of("wechatpay-v2")),
    work("verify: wechatpay-v3", || genuine_of("wechatpay-v3")),
    work("verify: token", token),
    work("verify: hmac, 64 KiB that nobody signed", forged),
];

const fn work(name: &'static str, prepare: fn() -> Box<dyn FnMut()>) -> Work {
    Work {
        name,
        prepare,
        count: Count::Varies,
    }
}

fn genuine_of(provider: &'static str) -> Box<dyn FnMut()> {
    let callback = genuine().iter().find(|one| one.provider == provider);
    let callback = callback.expect("a vector of that provider");
    Box::new(move || {
        let headers: Vec<(&str, &str)> = callback
            .headers
            .iter()
            .map(|(name, value)| (&**name, &**value))
            .collect();
        let request = request(&headers, &callback.body);
        let verified = callback.verifier.verify(black_box(&request), NOW);
        assert!(black_box(verified).is_ok());
    })
}

fn token() -> Box<dyn FnMut()> {
    let verifier =
        verifier("verify = \"token\"\nsecrets = [\"a secret\"]\ntoken = \"header:x-token\"");
    Box::new(move || {
        let request = request(&[("x-token", "a secret")], b"");
        assert!(verifier.verify(black_box(&request), NOW).is_ok());
    })
}

/// What a stranger can make the relay do: its digest is all that can be large.
fn forged() -> Box<dyn FnMut()> {
    let verifier = verifier("verify = \"github\"\nsecrets = [\"a secret\"]");
    let signature = format!("sha256={}", "0".repeat(64));
    let body = vec![b'x'; 64 << 10];
    Box::new(move || {
        let headers = [("X-Hub-Signature-256", &*signature)];
        let verified = verifier.verify(black_box(&request(&headers, &body)), NOW);
        assert_eq!(verified, Err(Refused::Mismatch));
    })
}

fn verifier(keys: &str) -> Arc<Verifier> {
    let toml = format!("[[route]]\npath = \"/{{id}}\"\n{keys}\n");
    let config = Config::parse(&toml, "relay.toml").expect("a route");
    config.routes[0].verifier.clone().expect("a check")
}

fn request<'a>(headers: &'a [(&'a str, &'a str)], body: &'a [u8]) -> Request<'a> {
    Request {
        method: "POST",
        target: "/",
        headers,
        path_id: Some("till-7"),
        query: "",
        body,
    }
}
