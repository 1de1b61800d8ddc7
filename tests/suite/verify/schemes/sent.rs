//! A callback of every preset of the engine `signed`: those of the vectors, and those that are signed here.

use md5::{Digest as _, Md5};
use serde_json::Value;

use super::super::callback::{listed, quoted};
use super::super::fresh::{self, SECRET, base64, hex, now, rsa};

const VECTORS: &str = include_str!("../../../data/scheme_vectors.json");

/// One callback as it is sent.
#[derive(Clone)]
pub struct Sent {
    pub preset: String,
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Lines of the route.
    pub keys: String,
    /// What of target and body the provider does not sign.
    pub unsigned: Vec<&'static str>,
    /// Headers that are a part of what is checked.
    pub checked_headers: Vec<String>,
}

impl Sent {
    pub fn new(preset: &str, body: impl Into<Vec<u8>>) -> Self {
        Self {
            preset: preset.to_owned(),
            method: "POST".to_owned(),
            target: format!("/{preset}"),
            headers: Vec::new(),
            body: body.into(),
            keys: String::new(),
            unsigned: Vec::new(),
            checked_headers: Vec::new(),
        }
    }

    pub fn secret(mut self) -> Self {
        self.keys += &format!("secrets = {}\n", listed(SECRET));
        self
    }

    pub fn key(mut self) -> Self {
        self.keys += &format!("keys = {}\n", listed(fresh::public_key()));
        self
    }

    pub fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self.checked_headers.push(name.to_owned());
        self
    }

    pub fn get(mut self, query: &str) -> Self {
        self.method = "GET".to_owned();
        self.target = format!("/{}?{query}", self.preset);
        self
    }

    /// Believed for as long as a test takes.
    fn long_believed(mut self) -> Self {
        self.keys += "tolerance = \"1h\"\n";
        self
    }

    fn unsigned(mut self, parts: &[&'static str]) -> Self {
        self.unsigned.extend_from_slice(parts);
        self
    }

    pub fn request(&self) -> Vec<u8> {
        let mut request = format!(
            "{} {} HTTP/1.1\r\nHost: pay.example\r\nConnection: close\r\nX-Test-Id: till-7\r\nContent-Length: {}\r\n",
            self.method,
            self.target,
            self.body.len()
        )
        .into_bytes();
        for (name, value) in &self.headers {
            request.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
        }
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(&self.body);
        request
    }
}

pub fn md5(parts: &[&str]) -> String {
    hex(&Md5::digest(parts.concat().as_bytes()))
}

/// The vectors of the file, each with what its scheme leaves unsigned.
pub(super) fn vectors() -> Vec<Sent> {
    let all: Vec<Value> = serde_json::from_str(VECTORS).expect("JSON");
    let read = |vector: &Value| {
        let text = |key: &str| vector[key].as_str().unwrap_or_default().to_owned();
        let mut sent = Sent::new(&text("preset"), text("body"));
        (sent.method, sent.target) = (text("method"), text("target"));
        for header in vector["headers"].as_array().expect("a list") {
            let [name, value] = [0, 1].map(|at| header[at].as_str().expect("a text"));
            sent.headers.push((name.to_owned(), value.to_owned()));
            if !matches!(
                name,
                "Content-Type" | "PAYPAL-AUTH-ALGO" | "PAYPAL-CERT-URL"
            ) {
                sent.checked_headers.push(name.to_owned());
            }
        }
        for key in ["secrets", "keys"] {
            if let Value::Array(list) = &vector[key] {
                sent.keys += &format!("{key} = {}\n", Value::Array(list.clone()));
            }
        }
        sent.unsigned = match &*sent.preset {
            "epay" => vec!["&param=", "&sign_type=MD5"],
            "douyin-sha1" => vec!["\"type\": \"payment\""],
            "u8sdk" => vec!["\"state\": 1", "\"signType\": \"md5\""],
            "xiaomi" => vec!["&cpUserInfo="],
            // Values without names and without anything between them.
            "4399" => vec!["&roleid="],
            "oppo" => vec!["&attach="],
            "antom" => vec!["algorithm=RSA256,keyVersion=1,"],
            "mercadopago" => vec![
                "&type=payment",
                "{\"id\": 1, \"data\": {\"id\": \"1234567890\"}}",
            ],
            _ => vec![],
        };
        sent
    };
    all.iter().map(read).collect()
}

/// Callbacks signed here, of every preset that has no vector.
pub(super) fn fresh_ones() -> Vec<Sent> {
    let json = r#"{"id":"evt_1","event":"ORDER_COMPLETED","order_id":"o-1","amount":1}"#;
    let at = now();
    let ms = (at * 1000 + 17).to_string();
    let form = |pairs: &[(&str, &str)]| {
        let pairs: Vec<_> = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec()))
            .collect();
        fresh::form(&pairs)
    };
    let hmac = |parts: &[&str]| hex(&fresh::mac(SECRET.as_bytes(), &[parts.concat().as_bytes()]));
    let douyin = format!("1795855399\nnonce1\n{json}\n");
    let inner = r#"{"notificationType":4,"orderId":"o-1"}"#;
    let vivo = "appId=1001&cpId=2&cpOrderNumber=till-7&extInfo=区服=1&orderAmount=600&orderNumber=9&payTime=20261128&\
                respCode=200&respMsg=success&tradeStatus=0000&tradeType=01&uid=u1";
    let uc = "accountId=uc1amount=6.00callbackInfo=srv=1cpOrderId=till-7creator=JYfailedDesc=gameId=5orderId=7orderStatus=SpayWay=1";
    let qihoo = "600#game-01#ak#o81#1#success#12112#p1#md5#987";
    vec![
        Sent::new("douyin", json)
            .key()
            .header("Byte-Timestamp", "1795855399")
            .header("Byte-Nonce-Str", "nonce1")
            .header("Byte-Signature", &rsa(douyin.as_bytes())),
        Sent::new(
            "huawei-iap",
            format!(
                r#"{{"statusUpdateNotification":{},"notifycationSignature":"{}"}}"#,
                quoted(inner),
                rsa(inner.as_bytes())
            ),
        )
        .key(),
        Sent::new(
            "vivo",
            form(&[
                ("appId", "1001"),
                ("cpId", "2"),
                ("cpOrderNumber", "till-7"),
                ("extInfo", "区服=1"),
                ("orderAmount", "600"),
                ("orderNumber", "9"),
                ("payTime", "20261128"),
                ("respCode", "200"),
                ("respMsg", "success"),
                ("tradeStatus", "0000"),
                ("tradeType", "01"),
                ("uid", "u1"),
                ("signMethod", "MD5"),
                ("signature", &md5(&[vivo, "&", &md5(&[SECRET])])),
            ]),
        )
        .secret()
        .unsigned(&["&signMethod=MD5"]),
        Sent::new(
            "uc",
            format!(
                r#"{{"data":{{"accountId":"uc1","amount":"6.00","callbackInfo":"srv=1","cpOrderId":"till-7","creator":"JY","failedDesc":"","gameId":"5","orderId":"7","orderStatus":"S","payWay":"1"}},"sign":"{}","ver":"2.0"}}"#,
                md5(&[uc, SECRET])
            ),
        )
        .secret()
        .unsigned(&["\"ver\":\"2.0\""]),
        Sent::new("360", "").secret().get(&form(&[
            ("amount", "600"),
            ("app_ext1", "game-01"),
            ("app_key", "ak"),
            ("app_order_id", "o81"),
            ("app_uid", "1"),
            ("gateway_flag", "success"),
            ("order_id", "12112"),
            ("product_id", "p1"),
            ("sign_type", "md5"),
            ("user_id", "987"),
            ("sign_return", "x"),
            ("sign", &md5(&[qihoo, "#", SECRET])),
        ]))
        .unsigned(&["&sign%5Freturn=x"]),
        Sent::new(
            "quicksdk",
            form(&[("nt_data", "@108@119"), ("sign", "@116"), ("md5Sign", &md5(&["@108@119", "@116", SECRET]))]),
        )
        .secret(),
        Sent::new("xsolla", json).secret().header(
            "Authorization",
            &format!("Signature {}", hex(aws_lc_rs::digest::digest(
                &aws_lc_rs::digest::SHA1_FOR_LEGACY_USE_ONLY,
                [json, SECRET].concat().as_bytes(),
            ).as_ref())),
        ),
        Sent::new("pingpp", json)
            .key()
            .header("X-Pingplusplus-Signature", &rsa(json.as_bytes())),
        Sent::new(
            "midtrans",
            format!(
                r#"{{"order_id":"till-7","status_code":"200","gross_amount":"60000.00","signature_key":"{}","x":"y"}}"#,
                hex(aws_lc_rs::digest::digest(
                    &aws_lc_rs::digest::SHA512,
                    ["till-7", "200", "60000.00", SECRET].concat().as_bytes(),
                ).as_ref())
            ),
        )
        .secret()
        .unsigned(&["\"x\":\"y\""]),
        // An order's number has capitals, and is signed without them.
        Sent {
            target: "/mercadopago-order?data.id=ORD-01JQ&type=order".to_owned(),
            ..Sent::new("mercadopago", "{}")
        }
        .secret()
        .header("x-request-id", "f7b2a1d4")
        .header("x-signature", &format!("ts={ms},v1={}", hmac(&["id:ord-01jq;request-id:f7b2a1d4;ts:", &ms, ";"])))
        .unsigned(&["&type=order", "{}"]),
        Sent::new("airwallex", json)
            .secret()
            .header("x-timestamp", &ms)
            .header("x-signature", &hmac(&[&ms, json]))
            .long_believed(),
        Sent::new("revolut", json)
            .secret()
            .header("Revolut-Request-Timestamp", &ms)
            .header("Revolut-Signature", &format!("v1={}", hmac(&["v1.", &ms, ".", json])))
            .long_believed(),
        Sent {
            keys: format!("secrets = {}\n", listed(fresh::SECRET_WHSEC)),
            ..Sent::new("svix", json)
        }
        .header("svix-id", "msg_1")
        .header("svix-timestamp", &at.to_string())
        .header("svix-signature", &format!("v1,{}", base64(&fresh::mac(b"CANARY-secret", &[
            format!("msg_1.{at}.{json}").as_bytes(),
        ]))))
        .long_believed(),
    ]
}
