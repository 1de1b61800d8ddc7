//! The genuine callbacks of the providers' own test data, each with the check of a route that takes them. For whoever is
//! not a test: the fuzzer and the benchmarks.

use std::collections::BTreeMap;
use std::sync::{Arc, OnceLock};

use payrelay::config::Config;
use payrelay::verify::Verifier;
use serde_json::Value;

const VECTORS: &str = include_str!("provider_vectors.json");

/// When all of them are believed: none of these routes has a tolerance.
pub const NOW: u64 = 0;

/// A genuine callback and its route's check.
pub struct Genuine {
    /// What the vector calls its provider.
    pub provider: String,
    pub verifier: Arc<Verifier>,
    pub headers: BTreeMap<String, String>,
    pub body: Vec<u8>,
}

/// All of them.
pub fn genuine() -> &'static [Genuine] {
    static ALL: OnceLock<Vec<Genuine>> = OnceLock::new();
    ALL.get_or_init(|| {
        let file: Value = serde_json::from_str(VECTORS).expect("JSON");
        let all = file["vectors"].as_array().expect("a list").iter();
        all.filter_map(read).collect()
    })
}

fn read(vector: &Value) -> Option<Genuine> {
    let text = |key: &str| vector[key].as_str().unwrap_or_default().to_owned();
    let quoted = |text: String| Value::from(text).to_string();
    let provider = text("provider");
    if text("expect").starts_with("invalid")
        || (provider == "wechatpay-v3" && vector["body"].is_null())
    {
        return None;
    }
    let secrets = |key: &str| format!("secrets = [{}]\n", quoted(text(key)));
    let timed = "tolerance = \"off\"\n";
    let (preset, keys) = match &*provider {
        "stripe" | "standard-webhooks" | "paddle" => (&*provider, secrets("secret") + timed),
        "square" => (
            "square",
            secrets("secret") + &format!("url = {}\n", quoted(text("notification_url"))),
        ),
        "adyen-platform" => ("adyen-platform", secrets("secret_hex")),
        "adyen-standard" => ("adyen", secrets("secret_hex")),
        "alipay" => (
            "alipay",
            format!("keys = [{}]\n", quoted(text("public_key_pem"))),
        ),
        "wechatpay-v3" => (
            "wechatpay-v3",
            format!(
                "keys = [{}]\napi_v3_key = \"0123456789abcdef0123456789abcdef\"\n{timed}",
                quoted(text("platform_cert_pem"))
            ),
        ),
        other => (other, secrets("secret")),
    };
    let toml = format!("[[route]]\npath = \"/{{id}}\"\nverify = \"{preset}\"\n{keys}");
    let config = Config::parse(&toml, "relay.toml").expect("a route");
    let headers = vector["headers"].as_object().into_iter().flatten();
    let headers =
        headers.map(|(name, value)| (name.clone(), value.as_str().expect("a text").to_owned()));
    let body = match (&vector["body"], &vector["params"]) {
        (Value::String(body), _) => body.clone(),
        (_, Value::Object(params)) => {
            let elements = params.iter().map(|(name, value)| {
                format!("<{name}>{}</{name}>", value.as_str().expect("a text"))
            });
            format!(
                "<xml>{}<sign>{}</sign></xml>",
                elements.collect::<String>(),
                text("sign")
            )
        }
        _ => format!(
            "{{\"notificationItems\":[{{\"NotificationRequestItem\":{}}}]}}",
            vector["item"]
        ),
    };
    Some(Genuine {
        provider,
        verifier: config.routes[0].verifier.clone().expect("a check"),
        headers: headers.collect(),
        body: body.into_bytes(),
    })
}
