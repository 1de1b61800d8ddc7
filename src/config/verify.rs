//! How a route checks signatures: its preset, and the keys of relay.toml that each kind takes.
//!
//! Keys are read and prepared here, so that what is wrong with one is said with its line, and a request finds it ready.

mod custom_hmac;
mod keys;
mod message;
mod signed;
mod token;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac::HMAC_SHA256;

use self::keys::{allow_sha1, keys, rsa_keys, rsa_keys_with_serial, secrets};
pub use self::message::BadMessage;
use super::PathTemplate;
use super::Segment;
use super::problem::Problem;
use super::reader::{Field, Section};
use super::secret::secret_text;
use super::spelling;
use super::units::{DAY, SECOND};
use super::values::duration;
use crate::verify::presets::{self, Preset, Scheme};
use crate::verify::{
    Adyen, Alipay, ApiV3Key, BadText, Engine, MacKey, NONE, RsaBits, RsaKey, Url, Verifier,
    WechatpayV2, WechatpayV3,
};

/// Stripe, Paddle, Standard Webhooks and WeChat Pay all say five minutes.
const TOLERANCE: Duration = Duration::from_secs(300);

/// The longest secret, in bytes.
const SECRET_BYTES_MAX: usize = 1024;

/// The longest `url`, prefix, separator and message, in bytes.
const TEXT_BYTES_MAX: usize = 1024;

/// The keys of a route that belong to one kind of check or another.
const KEYS: [&str; 10] = [
    "secrets",
    "keys",
    "allow_sha1",
    "unsigned_items",
    "api_v3_key",
    "tolerance",
    "url",
    "hmac",
    "signed",
    "token",
];

/// Why a route's check is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BadVerify {
    /// No such preset.
    Unknown(Option<&'static str>),
    /// A key that this preset makes no use of, and those that it does.
    NoUse {
        /// The preset.
        of: &'static str,
        /// The keys that it takes.
        takes: Vec<&'static str>,
    },
    /// `allow_unverified` in a route that verifies.
    Verified,
    /// A secret of more than 1,024 bytes.
    SecretTooLong(usize),
    /// A public key without the serial that requests name it by.
    NoSerial,
    /// Not a serial.
    Serial,
    /// Not an address.
    Url,
    /// `{id}` in the address, and none in the path.
    UrlId,
    /// Not a message template.
    Message(BadMessage),
    /// Not a text that is signed.
    SignedText(BadText),
    /// Not what ends an id.
    Before,
    /// Dead letters, and no outbox for them.
    NoOutbox,
    /// Not where fields come from.
    Shape,
    /// `fields` without `{fields}`, or the other way round.
    Fields,
    /// Not the place of a token.
    TokenPlace,
    /// A text of the `hmac` table is empty, too long or has control characters.
    Text,
    /// Not one printable character.
    Separator,
    /// The time is to be an item of a header that has no items.
    ItemWithoutSeparator,
    /// The time is to be in two places.
    TwoTimes,
}

impl fmt::Display for BadVerify {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(meant) => {
                f.write_str("not known; ")?;
                if let Some(meant) = meant {
                    write!(f, "did you mean \"{meant}\"? ")?;
                }
                write!(f, "allowed: \"{NONE}\"")?;
                presets::all().try_for_each(|preset| write!(f, ", \"{}\"", preset.name))
            }
            Self::NoUse { of, takes } if takes.is_empty() => {
                write!(f, "has no meaning with verify = \"{of}\"; remove it, or set verify")
            }
            Self::NoUse { of, takes } => {
                write!(f, "has no meaning with verify = \"{of}\", which takes {}", takes.join(", "))
            }
            Self::Verified => f.write_str("contradicts verify: this route takes no unverified callbacks; remove one of the two"),
            Self::SecretTooLong(bytes) => write!(f, "{bytes} bytes are too many; at most {SECRET_BYTES_MAX}"),
            Self::NoSerial => f.write_str(
                "a public key does not say which it is; write { serial = \"PUB_KEY_ID_…\", key = \"…\" }, as the provider's console shows",
            ),
            Self::Serial => f.write_str("a serial is 1 to 128 of A-Z a-z 0-9 _ -, as the header Wechatpay-Serial has it"),
            Self::Url => f.write_str(
                "the address as the provider was told it, such as \"https://pay.example/square\": https:// or http://, printable ASCII, \
                 {id} at most once",
            ),
            Self::UrlId => f.write_str("{id} stands for the id in the path, and this route's path has none"),
            Self::Message(bad) => bad.fmt(f),
            Self::SignedText(bad) => bad.fmt(f),
            Self::Before => f.write_str("1 to 16 printable ASCII characters are needed, such as \"_\""),
            Self::NoOutbox => f.write_str("dead letters lie in the outbox, and this relay has none; set delivery.undelivered = \"store\""),
            Self::Shape => f.write_str(
                "allowed: \"query\", \"form\", \"param\" (the query if there is no body, else the form), \"xml\", \"json\", \
                 \"json:/pointer\", or the place of a text that is JSON, such as \"form:data\"",
            ),
            Self::Fields => f.write_str("fields says what {fields} in text stands for: one is there, and the other is not"),
            Self::TokenPlace => f.write_str("allowed: \"header:NAME\", \"query:NAME\", \"basic\""),
            Self::Text => write!(f, "1 to {TEXT_BYTES_MAX} bytes of printable ASCII are needed"),
            Self::Separator => f.write_str("one printable ASCII character is needed, such as \",\""),
            Self::ItemWithoutSeparator => f.write_str("needs separator, which divides the header into items"),
            Self::TwoTimes => f.write_str("contradicts timestamp_header; remove one of the two"),
        }
    }
}

impl From<BadVerify> for Problem {
    fn from(bad: BadVerify) -> Self {
        Self::Verify(bad)
    }
}

/// What a route says of its check.
pub enum Said {
    /// `verify = "none"`, or nothing.
    Nothing,
    /// Something wrong, which is noted.
    Wrong,
    /// A preset; without a verifier if something about its keys is wrong, which is noted.
    Preset(&'static Preset, Option<Arc<Verifier>>),
}

/// `verify` as the file has it, and what it says.
pub struct Check<'a> {
    /// The key, if the route has it.
    pub field: Option<Field<'a>>,
    /// What it says.
    pub said: Said,
}

impl Check<'_> {
    /// The preset, if there is one.
    pub fn preset(&self) -> Option<&'static Preset> {
        match &self.said {
            Said::Preset(preset, _) => Some(preset),
            Said::Nothing | Said::Wrong => None,
        }
    }

    /// The verifier, if there is one that works.
    pub fn verifier(&self) -> Option<&Arc<Verifier>> {
        match &self.said {
            Said::Preset(_, verifier) => verifier.as_ref(),
            Said::Nothing | Said::Wrong => None,
        }
    }
}

/// Reads `verify` and all keys that belong to it; `path` is the route's, if it has a right one.
pub fn verify<'a>(s: &mut Section<'a>, path: Option<&PathTemplate>) -> Check<'a> {
    let field = s.field("verify");
    let preset = field.as_ref().map(|field| field.read(name));
    let said = match preset {
        None | Some(Some(None)) => {
            no_use(s, NONE, &[]);
            Said::Nothing
        }
        Some(None) => {
            // What of it would be right depends on what is wrong.
            for key in KEYS {
                s.field(key);
            }
            Said::Wrong
        }
        Some(Some(Some(preset))) => {
            let (engine, takes) = engine(s, preset.scheme, path);
            no_use(s, preset.name, &takes);
            let name = preset.name;
            Said::Preset(
                preset,
                engine.map(|engine| Verifier { name, engine }.into()),
            )
        }
    };
    Check { field, said }
}

/// What a GET must be signed with before it is answered as the proof of an address; `None` if something is wrong, which is
/// noted.
pub fn signed_proof(s: &mut Section<'_>) -> Option<Arc<Verifier>> {
    let (engine, _) = signed::read(s, None);
    let name = "signed";
    engine.map(|engine| Verifier { name, engine }.into())
}

fn name(field: &Field<'_>) -> Result<Option<&'static Preset>, Problem> {
    let text = field.text("a string")?;
    if text == NONE {
        return Ok(None);
    }
    presets::named(text).map(Some).ok_or_else(|| {
        let known: Vec<_> = presets::all()
            .map(|preset| preset.name)
            .chain([NONE])
            .collect();
        BadVerify::Unknown(spelling::nearest(text, &known)).into()
    })
}

/// Notes every key that belongs to other presets.
fn no_use(s: &mut Section<'_>, of: &'static str, takes: &[&'static str]) {
    for key in KEYS {
        if !takes.contains(&key)
            && let Some(field) = s.field(key)
        {
            let takes = takes.to_vec();
            field.hide().refuse(BadVerify::NoUse { of, takes });
        }
    }
}

/// The engine, if its keys are all right, and which keys it takes.
fn engine(
    s: &mut Section<'_>,
    scheme: Scheme,
    path: Option<&PathTemplate>,
) -> (Option<Engine>, Vec<&'static str>) {
    match scheme {
        Scheme::CustomHmac => custom_hmac::read(s, path),
        Scheme::Signed(preset) => signed::of_preset(s, preset, path),
        Scheme::CustomSigned => signed::read(s, path),
        Scheme::Token => token::read(s),
        Scheme::Alipay => {
            let allows_sha1 = allow_sha1(s);
            let bits = match allows_sha1 {
                // Whether a wrong value means it is not known, and one error is enough.
                None | Some(true) => RsaBits::Weak,
                Some(false) => RsaBits::Usual,
            };
            let keys = keys(s, RsaKey::eq, |field| rsa_keys(field, bits));
            let engine = || {
                Some(Alipay {
                    keys: keys?,
                    allows_sha1: allows_sha1?,
                })
            };
            (engine().map(Engine::Alipay), vec!["keys", "allow_sha1"])
        }
        Scheme::WechatpayV2 => {
            let keys = secrets(s, |text| MacKey::from_text(HMAC_SHA256, text));
            let engine = keys.map(|keys| Engine::WechatpayV2(WechatpayV2 { keys }));
            (engine, vec!["secrets"])
        }
        Scheme::WechatpayV3 => {
            // Requests name a key by its serial, so one serial cannot have two.
            let same = |a: &keys::Named, b: &keys::Named| a.0 == b.0;
            let keys = keys(s, same, rsa_keys_with_serial);
            let tolerance = tolerance(s);
            let api_v3_key = s.field("api_v3_key");
            let api_v3_key = api_v3_key.map(|field| {
                field.read(|field| ApiV3Key::new(&secret_text(field)?).map_err(Problem::Key))
            });
            let engine = || {
                Some(WechatpayV3 {
                    keys: keys?,
                    tolerance: tolerance?,
                    api_v3_key: api_v3_key.map_or(Some(None), |key| key.map(Some))?,
                })
            };
            let takes = vec!["keys", "api_v3_key", "tolerance"];
            (engine().map(Engine::WechatpayV3), takes)
        }
        Scheme::Adyen => {
            let keys = secrets(s, |text| MacKey::from_hex(HMAC_SHA256, text));
            let keeps_unsigned = keys::unsigned_items(s);
            let engine = || {
                Some(Adyen {
                    keys: keys?,
                    keeps_unsigned: keeps_unsigned?,
                })
            };
            (
                engine().map(Engine::Adyen),
                vec!["secrets", "unsigned_items"],
            )
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
    match s.field(key) {
        // Hidden: somebody may have put the secret itself there.
        Some(field) => field.hide().read(read),
        None => {
            s.refuse(key, Problem::Missing(missing));
            None
        }
    }
}

/// `tolerance`, or what is usual; `None` if it is wrong.
fn tolerance(s: &mut Section<'_>) -> Option<crate::verify::Tolerance> {
    let Some(field) = s.field("tolerance") else {
        return Some(Some(TOLERANCE));
    };
    field.read(|field| {
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
        return Err(BadVerify::Url.into());
    }
    if ids == 1 && path.is_some_and(|path| !path.segments.contains(&Segment::Id)) {
        return Err(BadVerify::UrlId.into());
    }
    Ok(Url::new(text))
}
