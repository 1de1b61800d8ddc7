//! Callbacks signed here and now, as each provider signs: the tests' own reckoning, apart from the relay's.

mod keys;

use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::{aead, hmac};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::{Digest as _, Md5};

pub use self::keys::{key_set, openssl, openssl_sign, other_public_key, public_key, rsa, weak_key};
use super::callback::{Callback, listed, quoted};

/// The secret of every route here that has one.
pub const SECRET: &str = "CANARY-secret-of-the-provider";

/// The same for presets whose secrets are hex, and base64.
pub const SECRET_HEX: &str = "43414e4152592d736563726574";
pub const SECRET_WHSEC: &str = "whsec_Q0FOQVJZLXNlY3JldA==";

/// WeChat Pay's serial of the RSA key here.
pub const SERIAL: &str = "PUB_KEY_ID_0000000000000024101100397200000006";

/// 32 bytes.
pub const API_V3_KEY: &str = "CANARY-api-v3-key-0123456789abcd";

pub fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock after 1970").as_secs()
}

/// One callback of every preset, signed at `at`.
pub fn all(at: u64) -> Vec<Callback> {
    let json = r#"{"id":"evt_1","event_id":"evt_1","amount":8800,"currency":"CNY","note":"a b"}"#;
    vec![
        stripe(at, json),
        standard_webhooks(at, json),
        paddle(at, json),
        square(json),
        shopify(json),
        razorpay(json),
        github(json),
        adyen_platform(json),
        adyen(),
        alipay(&alipay_fields()),
        wechatpay_v2(&wechatpay_v2_fields(), "MD5"),
        wechatpay_v2(&wechatpay_v2_fields(), "HMAC-SHA256"),
        wechatpay_v3_notice(at, json).event("evt_1"),
        custom(at, json),
        token(json),
    ]
}

pub fn mac(secret: &[u8], parts: &[&[u8]]) -> Vec<u8> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
    hmac::sign(&key, &parts.concat()).as_ref().to_vec()
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

fn unhex(text: &str) -> Vec<u8> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).expect("ASCII"), 16).expect("hex"))
        .collect()
}

pub fn stripe(at: u64, body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    let at = at.to_string();
    let tag = mac(SECRET.as_bytes(), &[at.as_bytes(), b".", body]);
    Callback::new("stripe", "fresh")
        .key("secrets", &listed(SECRET))
        .header("Content-Type", "application/json")
        .header(
            "Stripe-Signature",
            &format!("t={at},v1={},v0=00", hex(&tag)),
        )
        .body(body)
        .event("evt_1")
}

pub fn standard_webhooks(at: u64, body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    let (id, at) = ("msg_1", at.to_string());
    let secret = STANDARD.decode(&SECRET_WHSEC[6..]).expect("base64");
    let parts = [id.as_bytes(), b".", at.as_bytes(), b".", body];
    let tag = mac(&secret, &parts);
    Callback::new("standard-webhooks", "fresh")
        .key("secrets", &listed(SECRET_WHSEC))
        .header("webhook-id", id)
        .header("webhook-timestamp", &at)
        .header("webhook-signature", &format!("v1,{}", base64(&tag)))
        .body(body)
        .event(id)
}

pub fn paddle(at: u64, body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    let at = at.to_string();
    let tag = mac(SECRET.as_bytes(), &[at.as_bytes(), b":", body]);
    Callback::new("paddle", "fresh")
        .key("secrets", &listed(SECRET))
        .header("Paddle-Signature", &format!("ts={at};h1={}", hex(&tag)))
        .body(body)
        .event("evt_1")
}

pub fn square(body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    // The address has the id of the backend that the tests post to.
    let url = b"https://pay.example/square/till-7";
    let tag = mac(SECRET.as_bytes(), &[url, body]);
    Callback::new("square", "fresh")
        .key("secrets", &listed(SECRET))
        .key("url", "\"https://pay.example/square/{id}\"")
        .header("x-square-hmacsha256-signature", &base64(&tag))
        .body(body)
        .event("evt_1")
}

pub fn shopify(body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    let tag = mac(SECRET.as_bytes(), &[body]);
    Callback::new("shopify", "fresh")
        .key("secrets", &listed(SECRET))
        .header("shopify-hmac-sha256", &base64(&tag))
        .header("X-Shopify-Webhook-Id", "wh-1")
        .body(body)
        .event("wh-1")
}

pub fn razorpay(body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    let tag = mac(SECRET.as_bytes(), &[body]);
    Callback::new("razorpay", "fresh")
        .key(
            "secrets",
            &format!("[\"an older secret\", {}]", quoted(SECRET)),
        )
        .header("X-Razorpay-Signature", &hex(&tag))
        .header("x-razorpay-event-id", "rzp-1")
        .body(body)
        .event("rzp-1")
}

pub fn github(body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    let tag = mac(SECRET.as_bytes(), &[body]);
    Callback::new("github", "fresh")
        .key("secrets", &listed(SECRET))
        .header("X-Hub-Signature-256", &format!("sha256={}", hex(&tag)))
        .header("X-GitHub-Delivery", "gh-1")
        .body(body)
        .event("gh-1")
}

pub fn adyen_platform(body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    let tag = mac(&unhex(SECRET_HEX), &[body]);
    Callback::new("adyen-platform", "fresh")
        .key("secrets", &listed(SECRET_HEX))
        .header("HmacSignature", &base64(&tag))
        .body(body)
}

/// An item as Adyen signs it: reference, value and success of the merchant's order.
pub fn adyen_item(psp: &str, reference: &str, value: u64, success: &str) -> String {
    let signed = format!("{psp}::TestMerchant:{reference}:{value}:EUR:AUTHORISATION:{success}");
    let tag = mac(&unhex(SECRET_HEX), &[signed.as_bytes()]);
    format!(
        r#"{{"NotificationRequestItem":{{"additionalData":{{"hmacSignature":"{}"}},"amount":{{"currency":"EUR","value":{value}}},"eventCode":"AUTHORISATION","eventDate":"2026-11-24T10:00:00+01:00","merchantAccountCode":"TestMerchant","merchantReference":"{reference}","pspReference":"{psp}","success":"{success}"}}}}"#,
        base64(&tag)
    )
}

pub fn adyen_notice(items: &[String]) -> Callback {
    let items = items.join(",");
    Callback::new("adyen", "fresh")
        .key("secrets", &listed(SECRET_HEX))
        .body(format!(
            "{{\"live\":\"false\",\"notificationItems\":[{items}]}}"
        ))
}

fn adyen() -> Callback {
    adyen_notice(&[adyen_item("PSP0001", "order:with:colons", 8800, "true")])
        .event("PSP0001:AUTHORISATION:true")
}

pub fn alipay_fields() -> Vec<(String, Vec<u8>)> {
    [
        ("app_id", "2019073166072302"),
        ("charset", "utf-8"),
        ("notify_id", "notify-1"),
        ("out_trade_no", "till-7"),
        ("passback_params", "merchantBizType=3C&merchantBizNo=1"),
        ("subject", "Tom & Jerry = 5"),
        ("total_amount", "88.00"),
        ("trade_status", "TRADE_SUCCESS"),
        ("empty", ""),
    ]
    .map(|(name, value)| (name.to_owned(), value.as_bytes().to_vec()))
    .to_vec()
}

/// The form with these fields, signed without `sign_type`, as most notices are.
pub fn alipay(fields: &[(String, Vec<u8>)]) -> Callback {
    alipay_as(fields, false)
}

/// The form with these fields, signed with or without `sign_type`.
pub fn alipay_as(fields: &[(String, Vec<u8>)], with_type: bool) -> Callback {
    let mut sent = fields.to_vec();
    sent.push(("sign_type".into(), b"RSA2".to_vec()));
    let mut signed = if with_type {
        sent.clone()
    } else {
        fields.to_vec()
    };
    signed.sort();
    let pieces: Vec<Vec<u8>> = signed
        .iter()
        .map(|(name, value)| [name.as_bytes(), b"=", value].concat())
        .collect();
    sent.push(("sign".into(), rsa(&pieces.join(&b'&')).into_bytes()));
    Callback::new("alipay", "fresh")
        .key("keys", &listed(public_key()))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form(&sent))
        .event("notify-1")
}

/// The form with these fields, signed as Alipay did before RSA2: SHA-1, and a key of 1,024 bits.
pub fn alipay_sha1(fields: &[(String, Vec<u8>)]) -> Callback {
    let mut sent = fields.to_vec();
    sent.sort();
    let pieces: Vec<Vec<u8>> = sent
        .iter()
        .map(|(name, value)| [name.as_bytes(), b"=", value].concat())
        .collect();
    sent.push(("sign_type".into(), b"RSA".to_vec()));
    let sign = openssl_sign("-sha1", &pieces.join(&b'&'));
    sent.push(("sign".into(), base64(&sign).into_bytes()));
    Callback::new("alipay", "SHA-1")
        .key("keys", &listed(&weak_key().1))
        .header("Content-Type", "application/x-www-form-urlencoded")
        .body(form(&sent))
        .event("notify-1")
}

/// `fields` as a form, everything but letters and digits escaped.
pub fn form(fields: &[(String, Vec<u8>)]) -> String {
    let escaped = |value: &[u8]| -> String {
        let one = |byte: &u8| match byte {
            b if b.is_ascii_alphanumeric() => char::from(*b).to_string(),
            b => format!("%{b:02X}"),
        };
        value.iter().map(one).collect()
    };
    let pairs: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("{}={}", escaped(name.as_bytes()), escaped(value)))
        .collect();
    pairs.join("&")
}

pub fn wechatpay_v2_fields() -> Vec<(String, String)> {
    [
        ("appid", "wx2421b1c4370ec43b"),
        ("attach", "支付测试 a&b=c <&>"),
        ("device_info", ""),
        ("nonce_str", "5d2b6c2a8db53831f7eda20af46e531c"),
        ("out_trade_no", "till-7"),
        ("result_code", "SUCCESS"),
        ("total_fee", "8800"),
        ("transaction_id", "tx-1"),
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// The document with these fields, signed.
pub fn wechatpay_v2(fields: &[(String, String)], sign_type: &str) -> Callback {
    let mut fields = fields.to_vec();
    fields.push(("sign_type".into(), sign_type.into()));
    let mut signed: Vec<_> = fields
        .iter()
        .filter(|(_, value)| !value.is_empty())
        .cloned()
        .collect();
    signed.sort();
    let pieces: Vec<String> = signed
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    let message = format!("{}&key={SECRET}", pieces.join("&"));
    let sign = match sign_type {
        "MD5" => hex(&Md5::digest(message.as_bytes())),
        _ => hex(&mac(SECRET.as_bytes(), &[message.as_bytes()])),
    };
    fields.push(("sign".into(), sign.to_uppercase()));
    Callback::new("wechatpay-v2", &format!("fresh {sign_type}"))
        .key("secrets", &listed(SECRET))
        .header("Content-Type", "text/xml")
        .body(document(&fields))
        .event("tx-1")
}

/// `fields` as WeChat Pay writes them.
pub fn document(fields: &[(String, String)]) -> String {
    let elements: Vec<String> = fields
        .iter()
        .map(|(name, value)| format!("  <{name}><![CDATA[{value}]]></{name}>\n"))
        .collect();
    format!("<xml>\n{}</xml>", elements.concat())
}

pub fn wechatpay_v3_notice(at: u64, body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    let (at, nonce) = (at.to_string(), "EcZ9Cmy4Xyx1i6RlJQzLcCyEqDa26NBz");
    let message = [at.as_bytes(), b"\n", nonce.as_bytes(), b"\n", body, b"\n"].concat();
    Callback::new("wechatpay-v3", "fresh")
        .key(
            "keys",
            &format!(
                "[{{ serial = \"{SERIAL}\", key = {} }}]",
                quoted(public_key())
            ),
        )
        .header("Wechatpay-Timestamp", &at)
        .header("Wechatpay-Nonce", nonce)
        .header("Wechatpay-Serial", SERIAL)
        .header("Wechatpay-Signature", &rsa(&message))
        .body(body)
}

/// A notice whose resource is `plain`, sealed with [`API_V3_KEY`].
pub fn wechatpay_v3_sealed(at: u64, plain: &str) -> Callback {
    let key = aead::UnboundKey::new(&aead::AES_256_GCM, API_V3_KEY.as_bytes()).expect("32 bytes");
    let mut sealed = plain.as_bytes().to_vec();
    aead::LessSafeKey::new(key)
        .seal_in_place_append_tag(
            aead::Nonce::assume_unique_for_key(*b"Kj7QIyUiYx1q"),
            aead::Aad::from(b"transaction"),
            &mut sealed,
        )
        .expect("sealed");
    let body = serde_json::json!({
        "id": "evt_1",
        "resource": {
            "algorithm": "AEAD_AES_256_GCM",
            "nonce": "Kj7QIyUiYx1q",
            "associated_data": "transaction",
            "ciphertext": base64(&sealed),
        },
    });
    wechatpay_v3_notice(at, body.to_string()).key("api_v3_key", &quoted(API_V3_KEY))
}

/// A provider that no preset knows: SHA-512 in upper-case hex, time and id in headers of their own.
pub fn custom(at: u64, body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    let at = at.to_string();
    let key = hmac::Key::new(hmac::HMAC_SHA512, SECRET.as_bytes());
    let message = [b"v0:n-1:", at.as_bytes(), b":", body].concat();
    let tag = hmac::sign(&key, &message);
    Callback::new("hmac", "fresh")
        .key("secrets", &listed(SECRET))
        .key(
            "hmac",
            "{ header = \"X-Sign\", separator = \" \", prefix = \"s=\", message = \"v0:{id}:{timestamp}:{body}\", \
             encoding = \"hex-upper\", timestamp_header = \"X-Time\", id_header = \"X-Nonce\", digest = \"sha512\" }",
        )
        .key("event", "\"header:X-Nonce\"")
        .header("X-Time", &at)
        .header("X-Nonce", "n-1")
        .header("X-Sign", &format!("k=1 s={}", hex(tag.as_ref()).to_uppercase()))
        .body(body)
        .event("n-1")
}

pub fn token(body: impl AsRef<[u8]>) -> Callback {
    let body = body.as_ref();
    Callback::new("token", "fresh")
        .key("secrets", &listed(SECRET))
        .key("token", "\"header:X-Token\"")
        .header("X-Token", SECRET)
        .body(body)
}
