//! The engines `signed` and `jws`: nothing panics, and what is believed says in every signed place what a genuine callback says.
//!
//! An input is a request line (method and target), header lines, an empty line and the body. The fuzzer has no key: it can only
//! change genuine callbacks, which are its seeds, or move their pieces.

use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use payrelay::config::Config;
use payrelay::request::{Selector, form};
use payrelay::verify::{Request, Verifier};
use serde_json::Value;

#[path = "../../data/input.rs"]
pub mod input;

const SCHEMES: &str = include_str!("../../data/scheme_vectors.json");
const APPLE: &str = include_str!("../../data/apple_vector.json");
const GOOGLE: &str = include_str!("../../data/google_vector.json");

/// A time after that of Apple's vector, at which its certificates were valid.
const NOW: u64 = 1_795_900_000;

/// A request, whoever made it.
struct Input<'a> {
    method: &'a str,
    target: &'a str,
    headers: Vec<(&'a str, &'a str)>,
    body: &'a [u8],
}

impl<'a> Input<'a> {
    fn read(data: &'a [u8]) -> Option<Self> {
        let mut rest = data;
        let mut lines = Vec::new();
        loop {
            let end = rest.iter().position(|&b| b == b'\n')?;
            let line = std::str::from_utf8(&rest[..end]).ok()?;
            rest = &rest[end + 1..];
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let (first, headers) = lines.split_first()?;
        let (method, target) = first.split_once(' ')?;
        let headers: Option<_> = headers.iter().map(|line| line.split_once(": ")).collect();
        Some(Self {
            method,
            target,
            headers: headers?,
            body: rest,
        })
    }

    fn request(&self) -> Request<'_> {
        Request {
            method: self.method,
            target: self.target,
            headers: &self.headers,
            path_id: None,
            query: self.target.split_once('?').map_or("", |(_, query)| query),
            body: self.body,
        }
    }
}

/// A genuine callback and the check of its route.
struct Genuine {
    preset: String,
    verifier: Arc<Verifier>,
    sent: Vec<u8>,
}

fn verifier(preset: &str, lines: &str) -> Arc<Verifier> {
    let toml = format!("[[route]]\npath = \"/{{id}}\"\nverify = \"{preset}\"\n{lines}");
    let config = Config::parse(&toml, "relay.toml").expect("a route");
    config.routes[0].verifier.clone().expect("a check")
}

/// What the fuzzer begins with must be believed, or nothing is tested.
fn believed(verifier: &Verifier, sent: &[u8]) {
    let input = Input::read(sent).expect("a request");
    let verdict = verifier.verify(&input.request(), NOW);
    assert!(
        verdict.is_ok(),
        "a genuine callback is refused: {verdict:?}"
    );
}

fn schemes() -> &'static [Genuine] {
    static ALL: OnceLock<Vec<Genuine>> = OnceLock::new();
    ALL.get_or_init(|| {
        let all: Vec<Value> = serde_json::from_str(SCHEMES).expect("JSON");
        let read = |vector: &Value| {
            let text = |key: &str| vector[key].as_str().unwrap_or_default();
            let mut lines = String::new();
            for key in ["secrets", "keys"] {
                if vector[key].is_array() {
                    lines += &format!("{key} = {}\n", vector[key]);
                }
            }
            let genuine = Genuine {
                preset: text("preset").to_owned(),
                verifier: verifier(text("preset"), &lines),
                sent: input::of_vector(vector),
            };
            believed(&genuine.verifier, &genuine.sent);
            genuine
        };
        all.iter().map(read).collect()
    })
}

/// What the preset signs of the request, place by place; `None` if a place cannot be read.
fn signed_places(preset: &str, request: &Request<'_>) -> Option<BTreeSet<(String, Vec<u8>)>> {
    let fields = |of: &[u8], skip: &[&str], keeps_empty: bool| {
        let mut all = BTreeSet::new();
        for (name, value) in form::fields(of) {
            let name = String::from_utf8(form::decode(name)?.into_owned()).ok()?;
            let value = form::decode(value)?.into_owned();
            if !skip.contains(&&*name) && (keeps_empty || !value.is_empty()) {
                assert!(all.insert((name, value)), "a field is there twice");
            }
        }
        Some(all)
    };
    let query = request.query.as_bytes();
    let places: &[&str] = match preset {
        "epay" => {
            let of = if request.body.is_empty() {
                query
            } else {
                request.body
            };
            return fields(of, &["sign", "sign_type"], false);
        }
        "xiaomi" => return fields(query, &["signature"], false),
        "unionpay" => return fields(request.body, &["signature"], true),
        "u8sdk" => {
            let body: Value = serde_json::from_slice(request.body).ok()?;
            let of = body["data"].as_object()?.iter();
            let of = of.filter(|(name, _)| !matches!(&***name, "sign" | "signType"));
            let text = |value: &Value| match value {
                Value::String(text) => text.clone(),
                other => other.to_string(),
            };
            return Some(
                of.map(|(name, value)| (name.clone(), text(value).into_bytes()))
                    .collect(),
            );
        }
        "douyin-sha1" => &["json:/timestamp", "json:/nonce", "json:/msg"],
        "oppo" => &[
            "form:notifyId",
            "form:partnerOrder",
            "form:productName",
            "form:productDesc",
            "form:price",
            "form:count",
            "form:attach",
        ],
        "mercadopago" => &["query:data.id", "header:x-request-id"],
        "antom" => &["header:client-id", "header:request-time"],
        "paypal" => &[
            "header:paypal-transmission-id",
            "header:paypal-transmission-time",
        ],
        _ => &[],
    };
    let mut all = BTreeSet::new();
    for place in places {
        let selector = Selector::parse(place).expect("a place");
        let value = request
            .parts()
            .value(&selector)
            .map(|value| value.into_owned());
        all.insert(((*place).to_owned(), value.unwrap_or_default()));
    }
    if matches!(preset, "antom" | "kuaishou") {
        all.insert(("body".to_owned(), request.body.to_vec()));
    }
    if preset == "antom" {
        all.insert(("target".to_owned(), request.target.as_bytes().to_vec()));
    }
    Some(all)
}

/// Whatever is believed has the genuine text, and the genuine value in each place of which that is made. Values between which the
/// provider has nothing (4399) may be cut otherwise, and of PayPal's body a checksum is signed.
pub fn signed(data: &[u8]) {
    let Some(input) = Input::read(data) else {
        return;
    };
    let request = input.request();
    for genuine in schemes() {
        let explained = genuine.verifier.explain(&request);
        match genuine.verifier.verify(&request, NOW) {
            Err(refused) => assert!(!refused.to_string().is_empty() && !refused.word().is_empty()),
            Ok(_) => {
                let preset = &*genuine.preset;
                let own = Input::read(&genuine.sent).expect("a request");
                let own = own.request();
                assert_eq!(
                    explained,
                    genuine.verifier.explain(&own),
                    "{preset} believes another text"
                );
                let places = signed_places(preset, &request);
                assert_eq!(
                    places,
                    signed_places(preset, &own),
                    "{preset} believes other values"
                );
            }
        }
    }
}

/// Whatever is believed has the genuine document, and nothing is opened that is not one.
pub fn jws(data: &[u8]) {
    static ALL: OnceLock<[(Arc<Verifier>, String); 2]> = OnceLock::new();
    let [apple, google] = ALL.get_or_init(|| {
        let read = |text: &str| -> Value { serde_json::from_str(text).expect("JSON") };
        let (apple, google) = (read(APPLE), read(GOOGLE));
        let text = |value: &Value| value.as_str().expect("a text").to_owned();
        let root = format!(
            "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
            text(&apple["root_der_b64"])
        );
        let apple_lines = format!(
            "keys = [{}]\nclaims = {{ bundleId = \"com.example\", environment = \"Sandbox\" }}\n",
            Value::from(root)
        );
        let google_lines = format!(
            "keys = [{}]\ntolerance = \"off\"\nclaims = {{ aud = \"https://pay.example/rtdn/game-01\", email = \
             \"push@proj.iam.gserviceaccount.com\" }}\n",
            Value::from(text(&google["key_set"]))
        );
        let body: Value = serde_json::from_str(&text(&apple["body"])).expect("JSON");
        let (by_apple, by_google) = (
            verifier("apple", &apple_lines),
            verifier("google-play", &google_lines),
        );
        let authorization = text(&google["authorization"]);
        believed(&by_apple, format!("POST /\n\n{}", text(&apple["body"])).as_bytes());
        believed(
            &by_google,
            format!("POST /\nAuthorization: {authorization}\n\n{{}}").as_bytes(),
        );
        [
            (by_apple, text(&body["signedPayload"])),
            (by_google, authorization),
        ]
    });
    let Some(input) = Input::read(data) else {
        return;
    };
    let request = input.request();
    let signed = |document: &str| {
        document
            .rsplit_once('.')
            .map(|(signed, _)| signed.to_owned())
    };
    if apple.0.verify(&request, NOW).is_ok() {
        let place = Selector::parse("json:/signedPayload").expect("a place");
        let document = request
            .parts()
            .select(&place)
            .expect("what was believed was read");
        assert_eq!(
            signed(&document),
            signed(&apple.1),
            "another document is believed"
        );
        let opened = apple.0.open(input.body);
        assert!(
            matches!(opened, Some(Ok(_))),
            "what was believed cannot be opened"
        );
    }
    if google.0.verify(&request, NOW).is_ok() {
        let place = Selector::parse("header:authorization").expect("a place");
        let token = request
            .parts()
            .select(&place)
            .expect("what was believed was read");
        // The word before it counts in any case.
        let after = |text: &str| signed(text).map(|text| text[7..].to_owned());
        assert_eq!(after(&token), after(&google.1), "another token is believed");
    }
    let _ = apple.0.open(data);
}
