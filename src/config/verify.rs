//! How a route checks signatures: its preset, and the keys of relay.toml that each kind takes.
//!
//! Keys are read and prepared here, so that what is wrong with one is said with its line, and a request finds it ready.

mod braces;
mod custom_hmac;
mod jws;
mod keys;
mod message;
mod signed;
mod token;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac::HMAC_SHA256;

use self::keys::{allow_sha1, keys, more_fields, rsa_keys, rsa_keys_with_serial, secrets};
use super::address::is_loopback;
use super::path::{PathTemplate, Segment};
use super::reader::{Field, Problem, Section};
use super::secret::secret_text;
use super::spelling;
use super::units::{DAY, SECOND};
use super::values::{duration, not_known, text_within};
use crate::verify::preset::{Preset, Scheme};
use crate::verify::presets;
use crate::verify::{
    Adyen, Alipay, ApiV3Key, Engine, MacKey, NONE, RsaBits, RsaKey, Url, Verifier, WechatpayV2,
    WechatpayV3,
};

/// Stripe, Paddle, Standard Webhooks and WeChat Pay all say five minutes.
const TOLERANCE: Duration = Duration::from_secs(300);

/// The longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 1024;

/// The longest `url`, prefix, separator and message, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// The keys of a route that belong to one kind of check or another.
const KEYS: [&str; 14] = [
    "secrets",
    "keys",
    "allow_test",
    "allow_sha1",
    "more_fields",
    "unsigned_items",
    "api_v3_key",
    "tolerance",
    "url",
    "hmac",
    "signed",
    "jws",
    "claims",
    "token",
];

/// What a route says of its check.
pub struct Check<'a> {
    /// `verify`, if the route has it.
    pub field: Option<Field<'a>>,
    /// The preset that it names; `None`: nothing, `"none"`, or something wrong.
    pub preset: Option<&'static Preset>,
    /// What checks; `None`: nothing does, or something is wrong.
    pub verifier: Option<Arc<Verifier>>,
    /// The name, or something about the preset's keys, is wrong, which is noted.
    pub is_broken: bool,
}

/// Reads `verify` and all keys that belong to it; `path` is the route's, if it has a right one, and `http_listen` where providers
/// reach it.
pub fn verify<'a>(
    s: &mut Section<'a>,
    path: Option<&PathTemplate>,
    http_listen: SocketAddr,
) -> Check<'a> {
    let named = s.or("verify", None, name);
    let mut check = Check {
        field: s.field("verify"),
        preset: named.flatten(),
        verifier: None,
        is_broken: named.is_none(),
    };
    match check.preset {
        Some(preset) => {
            check.verifier = verifier(s, preset, path, http_listen);
            check.is_broken = check.verifier.is_none();
        }
        // What of it would be right depends on what is wrong.
        None if check.is_broken => {
            for key in KEYS {
                s.field(key);
            }
        }
        None => no_use(s, NONE, &[]),
    }
    check
}

/// What checks as `preset` says; `None` if something about its keys is wrong, which is noted.
fn verifier(
    s: &mut Section<'_>,
    preset: &'static Preset,
    path: Option<&PathTemplate>,
    http_listen: SocketAddr,
) -> Option<Arc<Verifier>> {
    let before = s.asked().len();
    let engine = engine(s, preset.scheme, path);
    let name = preset.name;
    let verifier = engine.map(|engine| Verifier { name, engine });
    if s.asked().contains(&"keys") {
        let allowed = allow_test(s, http_listen);
        let has_test_key = verifier.as_ref().is_some_and(Verifier::has_test_key);
        if has_test_key
            && allowed == Some(false)
            && let Some(field) = s.field("keys")
        {
            field.hide().refuse(NOT_ALLOWED);
        }
    }
    // What the engine asked for is what it takes.
    let takes = s.asked()[before..].to_vec();
    no_use(s, name, &takes);
    verifier.map(Arc::new)
}

const NOT_ALLOWED: &str = "a test key of payrelay keys test is among them, and whoever has its file can sign as the provider; \
    set allow_test = true in this route while you test, or take it away";

/// `allow_test`, no if it is not there; `None` if it is wrong, which is noted.
fn allow_test(s: &mut Section<'_>, http_listen: SocketAddr) -> Option<bool> {
    let Some(field) = s.field("allow_test") else {
        return Some(false);
    };
    if !field.read(Field::flag)? {
        return Some(false);
    }
    if !is_loopback(http_listen) {
        field.refuse(format!(
            "test keys are believed only where nobody else can send: http.listen ({http_listen}) is not loopback; listen on \
             127.0.0.1, or remove this"
        ));
        return None;
    }
    field.warn("whoever has the file of a test key can sign as the provider; remove this, and the key, before real payments come");
    Some(true)
}

/// What a GET must be signed with before it is answered as the proof of an address; `None` if something is wrong, which is
/// noted.
pub fn signed_proof(s: &mut Section<'_>) -> Option<Arc<Verifier>> {
    let (name, engine) = ("signed", signed::read(s, None)?);
    let verifier = Verifier { name, engine };
    if verifier.has_test_key() {
        if let Some(field) = s.field("keys") {
            field.hide().refuse("a test key cannot ask for a proof");
        }
        return None;
    }
    Some(verifier.into())
}

/// What people call providers besides, and what they mean.
const OTHER_NAMES: &[(&[&str], &str)] = &[
    (
        &[
            "wechatpay",
            "wechat",
            "wxpay",
            "weixin",
            "weixinpay",
            "wx",
            "tenpay",
            "微信",
            "微信支付",
        ],
        "\"wechatpay-v3\" (JSON, with a header Wechatpay-Signature) or \"wechatpay-v2\" (XML, with an element sign)",
    ),
    (&["ali", "zhifubao", "支付宝"], "\"alipay\""),
    (&["yipay", "easypay", "易支付"], "\"epay\""),
    (&["yinlian", "chinapay", "银联", "云闪付"], "\"unionpay\""),
    (
        &["appstore", "app-store", "ios", "iap", "苹果"],
        "\"apple\"",
    ),
    (&["google", "googleplay", "谷歌"], "\"google-play\""),
    (&["huawei", "华为"], "\"huawei-iap\""),
    (&["抖音"], "\"douyin\""),
    (&["快手"], "\"kuaishou\""),
    (&["小米"], "\"xiaomi\""),
    (&["off", "false", "no"], "\"none\""),
];

/// The preset that is probably meant by `text`, which is none, in quotes; or the choice between two, in words.
pub fn meant_preset(text: &str) -> Option<String> {
    let mut others = OTHER_NAMES.iter();
    if let Some((_, meant)) = others.find(|(others, _)| others.contains(&text)) {
        return Some((*meant).to_owned());
    }
    let known: Vec<&str> = presets::all().map(|preset| preset.name).collect();
    spelling::nearest(text, &known).map(|meant| format!("\"{meant}\""))
}

fn name(field: &Field<'_>) -> Result<Option<&'static Preset>, Problem> {
    let text = field.text("a string")?;
    if text == NONE {
        return Ok(None);
    }
    presets::named(text).map(Some).ok_or_else(|| {
        let mut known = vec![NONE];
        known.extend(presets::all().map(|preset| preset.name));
        let nothing = || spelling::nearest(text, &[NONE]).map(|none| format!("\"{none}\""));
        not_known(meant_preset(text).or_else(nothing), &known)
    })
}

/// Notes every key that belongs to other presets.
fn no_use(s: &mut Section<'_>, of: &'static str, takes: &[&'static str]) {
    let instead = match takes {
        [] => "; remove it, or set verify".to_owned(),
        takes => format!(", which takes {}", takes.join(", ")),
    };
    for key in KEYS.iter().filter(|key| !takes.contains(key)) {
        if let Some(field) = s.field(key) {
            let field = field.hide();
            field.refuse(format!("has no meaning with verify = \"{of}\"{instead}"));
        }
    }
}

/// The engine, if its keys are all right. It asks for every key that it takes, in the order in which errors list them.
fn engine(s: &mut Section<'_>, scheme: Scheme, path: Option<&PathTemplate>) -> Option<Engine> {
    match scheme {
        Scheme::CustomHmac => custom_hmac::read(s, path),
        Scheme::Signed(preset) => signed::of_preset(s, preset, path),
        Scheme::CustomSigned => signed::read(s, path),
        Scheme::Jws(preset) => jws::of_preset(s, preset),
        Scheme::CustomJws => jws::read(s),
        Scheme::Token => token::read(s),
        Scheme::Alipay => {
            s.field("keys");
            let allows_sha1 = allow_sha1(s);
            let bits = match allows_sha1 {
                // Whether a wrong value means it is not known, and one error is enough.
                None | Some(true) => RsaBits::Weak,
                Some(false) => RsaBits::Usual,
            };
            let keys = keys(s, RsaKey::eq, |field| rsa_keys(field, bits));
            let more_fields = more_fields(s);
            Some(Engine::Alipay(Alipay {
                keys: keys?,
                allows_sha1: allows_sha1?,
                more_fields: more_fields?,
            }))
        }
        Scheme::WechatpayV2 => {
            let keys = secrets(s, |text| MacKey::from_text(HMAC_SHA256, text));
            let more_fields = more_fields(s);
            Some(Engine::WechatpayV2(WechatpayV2 {
                keys: keys?,
                more_fields: more_fields?,
            }))
        }
        Scheme::WechatpayV3 => {
            // Requests name a key by its serial, so one serial cannot have two.
            let same = |a: &keys::Named, b: &keys::Named| a.0 == b.0;
            let keys = keys(s, same, rsa_keys_with_serial);
            let api_v3_key = s.or("api_v3_key", None, |field| {
                ApiV3Key::new(&secret_text(field)?)
                    .map(Some)
                    .map_err(|bad| bad.to_string())
            });
            let tolerance = tolerance(s);
            Some(Engine::WechatpayV3(WechatpayV3 {
                keys: keys?,
                tolerance: tolerance?,
                api_v3_key: api_v3_key?,
            }))
        }
        Scheme::Adyen => {
            let keys = secrets(s, |text| MacKey::from_hex(HMAC_SHA256, text));
            let keeps_unsigned = keys::unsigned_items(s);
            Some(Engine::Adyen(Adyen {
                keys: keys?,
                keeps_unsigned: keeps_unsigned?,
            }))
        }
    }
}

const MISSING_SECRETS: &str = "the provider's secret is needed to check its signatures: secrets = [\"…\"], \
    or where it is: \"env:NAME\", \"file:PATH\"";

const MISSING_KEYS: &str = "the provider's public key or certificate is needed to check its signatures: \
    keys = [\"file:PATH\"], or the PEM itself";

const MISSING_URL: &str = "the provider signs the address that it was told; give it, as in \
    url = \"https://pay.example/square\"";

/// The value of `key`, which must be there.
fn required<T>(
    s: &mut Section<'_>,
    key: &'static str,
    missing: &'static str,
    read: impl Fn(&Field<'_>) -> Result<T, Problem>,
) -> Option<T> {
    s.required(key, missing, |field| read(field.hide())) // somebody may have put the secret itself there
}

/// A text of a table: printable, and not empty.
fn text(field: &Field<'_>) -> Result<String, Problem> {
    let rule = format!("1 to {TEXT_BYTES_MAX} bytes of printable ASCII are needed");
    let is_printable = |b: u8| b.is_ascii_graphic() || b == b' ';
    text_within(field, TEXT_BYTES_MAX, is_printable, &rule)
}

/// `tolerance`, or what is usual; `None` if it is wrong.
fn tolerance(s: &mut Section<'_>) -> Option<crate::verify::Tolerance> {
    s.or("tolerance", Some(TOLERANCE), |field| {
        if let Ok("off") = field.text("a string") {
            field.warn("whoever has one genuine callback can send it again for ever");
            return Ok(None);
        }
        duration(SECOND..=DAY)(field).map(Some)
    })
}

fn required_url(s: &mut Section<'_>, path: Option<&PathTemplate>) -> Option<Url> {
    required(s, "url", MISSING_URL, |field| url(field, path))
}

fn url(field: &Field<'_>, path: Option<&PathTemplate>) -> Result<Url, Problem> {
    let text = field.text("a string")?;
    let host = text
        .strip_prefix("https://")
        .or(text.strip_prefix("http://"));
    let printable = text.bytes().all(|b| b.is_ascii_graphic());
    let ids = text.matches("{id}").count();
    if host.is_none_or(|host| host.is_empty() || host.starts_with('/'))
        || !printable
        || ids > 1
        || text.len() > TEXT_BYTES_MAX
    {
        return Err(
            "the address as the provider was told it, such as \"https://pay.example/square\": https:// or http://, \
             printable ASCII, {id} at most once"
                .into(),
        );
    }
    if ids == 1 && path.is_some_and(|path| !path.segments.contains(&Segment::Id)) {
        return Err("{id} stands for the id in the path, and this route's path has none".into());
    }
    Ok(Url::new(text))
}
