//! The engines: nothing panics, and whatever is believed says what the provider's own test data say.
//!
//! The fuzzer knows genuine callbacks (its seeds) and no key. So an input that is believed must be one of them, in all that
//! the engine promises to have checked, whatever was done to the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, OnceLock};

use payrelay::config::Config;
use payrelay::request::{form, xml};
use payrelay::verify::{Refused, Request, RsaBits, RsaKey, Verifier};
use serde_json::Value;
use serde_json::value::RawValue;

use super::genuine::{Genuine, NOW, genuine};

/// An input as a request: header lines, an empty line, the body.
struct Input<'a> {
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

impl<'a> Input<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let mut headers = Vec::new();
        let mut rest = data;
        loop {
            let end = rest.iter().position(|&b| b == b'\n')?;
            let line = std::str::from_utf8(&rest[..end]).ok()?;
            rest = &rest[end + 1..];
            match line.split_once(": ") {
                None if line.is_empty() => break,
                None => return None,
                Some(header) => headers.push(header),
            }
        }
        Some(Self {
            headers,
            body: rest,
        })
    }

    fn verify(&self, verifier: &Verifier) -> Result<(), Refused> {
        let request = Request {
            method: "POST",
            target: "/",
            headers: &self.headers,
            path_id: Some("till-7"),
            query: "a=1",
            body: self.body,
        };
        let told = verifier.verify(&request, NOW).map(|_| ());
        if let Err(refused) = &told {
            assert!(!refused.to_string().is_empty() && !refused.word().is_empty());
        }
        told
    }

    /// Whether the header called `name` is the one of `genuine`.
    fn has(&self, genuine: &Genuine, name: &str) -> bool {
        let value = genuine
            .headers
            .iter()
            .find(|(its, _)| its.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str());
        let mine = self
            .headers
            .iter()
            .find(|(its, _)| its.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value);
        value == mine
    }
}

fn of(provider: &str) -> impl Iterator<Item = &'static Genuine> {
    genuine()
        .iter()
        .filter(move |genuine| genuine.provider == provider)
}

/// Whatever an HMAC preset believes has the genuine body, and the genuine time and id.
pub fn hmac(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    for provider in [
        "stripe",
        "standard-webhooks",
        "paddle",
        "square",
        "shopify",
        "github",
        "razorpay",
        "adyen-platform",
    ] {
        for genuine in of(provider) {
            if input.verify(&genuine.verifier).is_ok() {
                assert_eq!(input.body, genuine.body, "{provider} believes another body");
                // The others sign no header.
                let signed: &[&str] = match provider {
                    "standard-webhooks" => &["webhook-id", "webhook-timestamp"],
                    _ => &[],
                };
                for name in signed {
                    assert!(
                        input.has(genuine, name),
                        "{provider} believes another {name}"
                    );
                }
            }
        }
    }
}

/// Whatever Alipay's check believes has the genuine fields, however they are written.
pub fn alipay(data: &[u8]) {
    let fields = |body: &[u8]| -> Option<BTreeSet<(Vec<u8>, Vec<u8>)>> {
        let decoded = |bytes| form::decode(bytes).map(|bytes| bytes.into_owned());
        let all = form::fields(body).map(|(name, value)| Some((decoded(name)?, decoded(value)?)));
        let all: Option<Vec<_>> = all.collect();
        all.map(|all| {
            all.into_iter()
                .filter(|(name, _)| !name.starts_with(b"sign"))
                .collect()
        })
    };
    believes("alipay", data, |genuine, input| {
        fields(&genuine.body) == fields(input.body)
    });
}

/// Whatever WeChat Pay's older check believes has the genuine elements; empty ones are nobody's.
pub fn wechatpay_v2(data: &[u8]) {
    let elements = |body: &[u8]| {
        let mut all = BTreeSet::new();
        let read = xml::leaves(body, |leaf| {
            let name = leaf.path.join("/");
            if name != "xml/sign" && !leaf.text.is_empty() {
                assert!(
                    all.insert((name, leaf.text.into_owned())),
                    "an element is there twice"
                );
            }
            true
        });
        read.map(|()| all)
    };
    believes("wechatpay-v2", data, |genuine, input| {
        let mut both = elements(input.body).expect("what was believed was read");
        // It is only signed where it is there.
        both.retain(|(name, _)| name != "xml/sign_type");
        elements(&genuine.body) == Ok(both)
    });
    if let Some(input) = Input::read(data) {
        let _ = xml::leaves(input.body, |_| true);
    }
}

/// Whatever WeChat Pay's check believes has the genuine body, time and nonce; and nothing is opened that was not sealed so.
pub fn wechatpay_v3(data: &[u8]) {
    believes("wechatpay-v3", data, |genuine, input| {
        let headers = ["wechatpay-timestamp", "wechatpay-nonce", "wechatpay-serial"];
        input.body == genuine.body && headers.iter().all(|name| input.has(genuine, name))
    });
    if let Some(input) = Input::read(data) {
        for genuine in of("wechatpay-v3") {
            assert!(
                !matches!(genuine.verifier.open(input.body), Some(Ok(_))),
                "opened with a key that sealed nothing"
            );
        }
    }
}

/// Whatever Adyen's check believes has, in every item, the genuine values that are signed.
pub fn adyen(data: &[u8]) {
    // In what Adyen does not sign the relay does not look for UTF-8, for halves of a surrogate pair or for numbers that are too
    // large, nor for anything else; so here it is not looked at either.
    type Object<'a> = BTreeMap<String, &'a RawValue>;
    let items = |body: &[u8]| -> Option<BTreeSet<Vec<String>>> {
        let body = String::from_utf8_lossy(body);
        let notice: Object<'_> = serde_json::from_str(&body).ok()?;
        let items: Vec<Object<'_>> =
            serde_json::from_str(notice.get("notificationItems")?.get()).ok()?;
        let values = items.iter().map(|item| {
            let item = item.get("NotificationRequestItem")?.get();
            let item: Object<'_> = serde_json::from_str(item).ok()?;
            let amount: Object<'_> = match item.get("amount") {
                Some(amount) => serde_json::from_str(amount.get()).ok()?,
                None => Object::new(),
            };
            let text = |object: &Object<'_>, name| match object.get(name) {
                None => Some(String::new()),
                Some(value) => match serde_json::from_str(value.get()).ok()? {
                    Value::Null => Some(String::new()),
                    Value::String(text) => Some(text),
                    other => Some(other.to_string()),
                },
            };
            let names = [
                "pspReference",
                "originalReference",
                "merchantAccountCode",
                "merchantReference",
                "eventCode",
                "success",
            ];
            let values = names.map(|name| text(&item, name));
            let amounts = ["value", "currency"].map(|name| text(&amount, name));
            values.into_iter().chain(amounts).collect()
        });
        values.collect()
    };
    let Some(input) = Input::read(data) else {
        return;
    };
    for genuine in of("adyen-standard") {
        if input.verify(&genuine.verifier).is_ok() {
            let mine = items(input.body).expect("what was believed was read");
            // Two of the vectors have one key, so a notice may have the items of both.
            let all: BTreeSet<_> = of("adyen-standard")
                .filter_map(|genuine| items(&genuine.body))
                .flatten()
                .collect();
            assert!(
                !mine.is_empty() && mine.is_subset(&all),
                "an item that nobody signed"
            );
        }
    }
}

/// Nothing panics, and only the token is believed.
pub fn token(data: &[u8]) {
    static VERIFIERS: OnceLock<Vec<Arc<Verifier>>> = OnceLock::new();
    const SECRET: &str = "user:a secret";
    let verifiers = VERIFIERS.get_or_init(|| {
        let route = |place: &str| {
            let toml = format!("[[route]]\npath = \"/{{id}}\"\nverify = \"token\"\nsecrets = [\"{SECRET}\"]\ntoken = \"{place}\"\n");
            let config = Config::parse(&toml, "relay.toml").expect("a route");
            config.routes[0].verifier.clone().expect("a check")
        };
        ["header:x-token", "query:key", "basic"].map(route).to_vec()
    });
    let Some(input) = Input::read(data) else {
        return;
    };
    let query = String::from_utf8_lossy(input.body);
    for verifier in verifiers {
        let request = Request {
            method: "POST",
            target: "/",
            headers: &input.headers,
            path_id: None,
            query: &query,
            body: b"",
        };
        if verifier.verify(&request, NOW).is_ok() {
            let header = |name: &str, value: &str| {
                input
                    .headers
                    .iter()
                    .any(|(its, mine)| its.eq_ignore_ascii_case(name) && *mine == value)
            };
            let basic = input.headers.iter().any(|(its, mine)| {
                its.eq_ignore_ascii_case("authorization") && mine.ends_with(" dXNlcjphIHNlY3JldA==")
            });
            let in_query = form::fields(input.body)
                .any(|(_, value)| form::decode(value).as_deref() == Some(SECRET.as_bytes()));
            assert!(
                header("x-token", SECRET) || basic || in_query,
                "another token is believed"
            );
            if let Some(rest) = verifier.query_without_token(&query) {
                let left = form::fields(rest.as_bytes())
                    .any(|(name, _)| form::decode(name).as_deref() == Some(b"key"));
                assert!(!left, "the token goes further");
            }
        }
    }
}

/// Nothing panics: PEM, base64, certificates.
pub fn keys(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        let _ = RsaKey::read_all(text, RsaBits::Weak);
    }
    // The bytes themselves as a certificate, so that the fuzzer need not learn base64.
    let pem = format!(
        "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----",
        base64(data)
    );
    let _ = RsaKey::read_all(&pem, RsaBits::Weak);
}

fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks(3) {
        let bits = three
            .iter()
            .fold(0u32, |bits, &byte| bits << 8 | u32::from(byte))
            << (8 * (3 - three.len()));
        for at in 0..4 {
            out.push(match at <= three.len() {
                true => char::from(DIGITS[(bits >> (18 - 6 * at)) as usize & 63]),
                false => '=',
            });
        }
    }
    out
}

fn believes(provider: &str, data: &[u8], says_the_same: impl Fn(&Genuine, &Input<'_>) -> bool) {
    let Some(input) = Input::read(data) else {
        return;
    };
    for genuine in of(provider) {
        if input.verify(&genuine.verifier).is_ok() {
            assert!(
                says_the_same(genuine, &input),
                "{provider} believes what nobody signed"
            );
        }
    }
}
