//! Whether a callback is a provider's own: one file for each engine of signatures, and the presets that use them.
//!
//! Pure: raw bytes, keys and the time in, a verdict out. Nothing here does I/O, reads a clock or knows a route. Keys are
//! prepared when the configuration is read, so that a request costs no more than its digest. What could be read in two ways
//! (a field that is there twice, a second signature header) is refused, because the backend might read it the other way.
//!
//! A refusal never says by how much a signature was wrong, and what compares is the crypto crate's, in constant time.

mod adyen;
mod alipay;
mod der;
mod describe;
pub mod draft;
mod fields;
pub mod jws;
mod jws_presets;
pub mod key_set;
mod keys;
pub mod preset;
pub mod presets;
mod signed;
mod signed_presets;
#[cfg(test)]
mod tests;
mod wechatpay_v2;
mod wechatpay_v3;

use std::fmt;
use std::time::Duration;

use crate::request::{self, Parts, Selector};

pub use self::adyen::Adyen;
pub use self::alipay::Alipay;
pub use self::der::oid;
pub use self::draft::{CannotSign, Draft};
pub use self::jws::{Chain, Claim, Jws, Signer, Trusted};
pub use self::keys::{BadKey, MacKey, RsaBits, RsaKey, new_test_key};
pub use self::preset::{JwsPreset, PresetClaim};
pub use self::signed::{
    Algorithm, Encoding, FieldSource, Part, Shape, SignatureAt, Signed, Template, Time, Url,
    ValueForm,
};
pub use self::wechatpay_v2::WechatpayV2;
pub use self::wechatpay_v3::{ApiV3Key, WechatpayV3};

/// The most signatures that are looked at in one request; more are refused. Providers send two while a secret is rotated.
pub const SIGNATURES_MAX: usize = 16;

/// The most secrets or keys of one route: a rotation needs two.
pub const KEYS_MAX: usize = 16;

/// The name of a route that checks nothing.
pub const NONE: &str = "none";

/// The parts of a request that can be signed.
#[derive(Clone, Copy)]
pub struct Request<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The path and the query, as sent.
    pub target: &'a str,
    /// Every header, in the order sent.
    pub headers: &'a [(&'a str, &'a str)],
    /// The path's `{id}` segment as it was sent, if the route's path has one.
    pub path_id: Option<&'a str>,
    /// What follows the `?` of the target.
    pub query: &'a str,
    /// The body, byte for byte.
    pub body: &'a [u8],
}

/// Shows neither headers nor body: they are the provider's secrets.
impl fmt::Debug for Request<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Request({} body bytes)", self.body.len())
    }
}

impl<'a> Request<'a> {
    /// The one value of the header called `name`, in any case.
    ///
    /// # Errors
    /// There is none, or more than one.
    fn header(&self, name: &str) -> Result<&'a str, Refused> {
        let values = self.headers.iter();
        let mut values = values
            .filter(|(its, _)| its.eq_ignore_ascii_case(name))
            .map(|(_, value)| *value);
        match (values.next(), values.next()) {
            (Some(value), None) => Ok(value),
            (None, _) => Err(Refused::Missing(name.into())),
            (Some(_), Some(_)) => Err(Refused::Repeated(name.into())),
        }
    }

    /// The body as it is to be read: without a byte order mark.
    ///
    /// # Errors
    /// It is compressed, or in parts.
    fn readable_body(&self) -> Result<&'a [u8], Refused> {
        request::body_text(self.headers, self.body).map_err(Refused::Malformed)
    }

    /// What selectors point into.
    pub fn parts(&self) -> Parts<'a> {
        Parts {
            path_id: self.path_id,
            query: self.query,
            headers: self.headers,
            body: self.body,
            opened: None,
        }
    }
}

/// Why a request is not believed. Names places, never values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// This header or field, which the check needs, is not there.
    Missing(Box<str>),
    /// This header or field is there more than once.
    Repeated(Box<str>),
    /// It cannot be read as what the provider signs; says why.
    Malformed(&'static str),
    /// What is signed says two things, of which another is as likely; says which field is in doubt.
    Ambiguous(Box<str>),
    /// More fields, signatures or items than any provider sends; says of what.
    TooMany(&'static str),
    /// Signed longer ago, or further ahead, than the tolerance.
    Expired,
    /// WeChat Pay's own test of whether signatures are checked: a false one, marked as such.
    Probe,
    /// The key that it names is not among the route's.
    UnknownKey,
    /// Its certificates are none that the route believes; says why.
    Untrusted(&'static str),
    /// It is signed, and made for another application, environment or audience; names what differs.
    OtherClaim(Box<str>),
    /// No key of the route made this signature for these bytes.
    Mismatch,
}

impl Refused {
    /// One word for metrics.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Repeated(_) => "repeated",
            Self::Malformed(_) => "malformed",
            Self::Ambiguous(_) => "ambiguous",
            Self::TooMany(_) => "too-many",
            Self::Expired => "expired",
            Self::Probe => "probe",
            Self::UnknownKey => "unknown-key",
            Self::Untrusted(_) => "untrusted",
            Self::OtherClaim(_) => "other-claim",
            Self::Mismatch => "mismatch",
        }
    }
}

/// For the operator's log, not for whoever sent the request.
impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing(place) => write!(f, "there is no {place}"),
            Self::Repeated(place) => write!(f, "there is more than one {place}"),
            Self::Malformed(why) | Self::Untrusted(why) => f.write_str(why),
            Self::OtherClaim(name) => write!(
                f,
                "its {name} is none that the route's claims allow; it is signed, and made for another application or environment"
            ),
            Self::Ambiguous(why) => f.write_str(why),
            Self::TooMany(what) => write!(f, "too many {what}"),
            Self::Expired => f.write_str(
                "it was signed too long ago or too far ahead; if it is the provider's own, look at this machine's clock",
            ),
            Self::Probe => f.write_str(
                "WeChat Pay tests whether this route refuses false signatures (WECHATPAY/SIGNTEST/); it does",
            ),
            Self::UnknownKey => f.write_str("it names a key that is not among the route's keys"),
            Self::Mismatch => f.write_str("no key of the route made this signature for this body"),
        }
    }
}

impl std::error::Error for Refused {}

/// What is known of a request that was believed, beyond that.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Believed {
    /// What makes a retry the same event, where it takes more than a selector to say it.
    pub event: Option<String>,
    /// Nothing of it is signed, and the route says that it is to be kept all the same: answered ok, and no backend's.
    pub is_unsigned: bool,
}

/// How long before and after its signature's time a request is believed; `None`: for ever.
pub type Tolerance = Option<Duration>;

/// A route's check, with its keys prepared.
#[derive(Clone, Debug, PartialEq)]
pub struct Verifier {
    /// What `verified=` says.
    pub name: &'static str,
    /// How it is checked.
    pub engine: Engine,
}

// Keys are compared by the bytes they were made of, which have no NaN.
impl Eq for Verifier {}

/// How a request is checked.
#[derive(Clone, Debug, PartialEq)]
pub enum Engine {
    /// Alipay's form.
    Alipay(Alipay),
    /// WeChat Pay's XML.
    WechatpayV2(WechatpayV2),
    /// WeChat Pay's JSON.
    WechatpayV3(WechatpayV3),
    /// Adyen's items.
    Adyen(Adyen),
    /// A text made of parts of the request, or a password.
    Signed(Box<Signed>),
    /// A signed JSON document.
    Jws(Jws),
}

impl Verifier {
    /// Whether `request` is the provider's own, at `now_unix_s`.
    ///
    /// # Errors
    /// It is not, or cannot be told to be.
    pub fn verify(&self, request: &Request<'_>, now_unix_s: u64) -> Result<Believed, Refused> {
        let nothing_more = |()| Believed::default();
        match &self.engine {
            Engine::Alipay(engine) => engine.verify(request).map(nothing_more),
            Engine::WechatpayV2(engine) => engine.verify(request).map(nothing_more),
            Engine::WechatpayV3(engine) => engine.verify(request, now_unix_s).map(nothing_more),
            Engine::Adyen(engine) => engine.verify(request),
            Engine::Signed(engine) => engine.verify(request, now_unix_s).map(nothing_more),
            Engine::Jws(engine) => engine.verify(request, now_unix_s).map(nothing_more),
        }
    }

    /// Signs `draft` as the provider would, by the text that the check is made of.
    fn sign(&self, draft: &mut Draft, now_unix_s: u64) -> Result<(), CannotSign> {
        match &self.engine {
            Engine::Alipay(engine) => engine.sign(draft, now_unix_s),
            Engine::WechatpayV2(engine) => engine.sign(draft, now_unix_s),
            Engine::WechatpayV3(engine) => engine.sign(draft, now_unix_s),
            Engine::Adyen(engine) => engine.sign(draft),
            Engine::Signed(engine) => engine.sign(draft, now_unix_s),
            Engine::Jws(engine) => engine.sign(draft, now_unix_s),
        }
    }

    /// Whether a key of `payrelay keys test` is among those that may have signed.
    pub fn has_test_key(&self) -> bool {
        match &self.engine {
            Engine::Alipay(engine) => engine.keys.iter().any(RsaKey::is_test),
            Engine::WechatpayV3(engine) => engine.keys.iter().any(|(_, key)| key.is_test()),
            Engine::Signed(engine) => engine.keys.iter().any(RsaKey::is_test),
            Engine::Jws(engine) => engine.signer.named().iter().any(RsaKey::is_test),
            Engine::WechatpayV2(_) | Engine::Adyen(_) => false,
        }
    }

    /// How a test key signs, where the provider signs otherwise: then what a test key shows is less than what the provider's
    /// own callback would. `None`: as the provider does, or there is no test key.
    pub fn test_stands_in(&self) -> Option<&'static str> {
        match &self.engine {
            Engine::Signed(engine) if engine.algorithm == Algorithm::RsaSha1 => {
                Some("SHA-256, and this provider signs with SHA-1")
            }
            Engine::Jws(engine) if matches!(engine.signer, Signer::Chain(_)) => {
                Some("RS256, and this provider signs with ES256 and a chain of certificates")
            }
            _ => None,
        }
        .filter(|_| self.has_test_key())
    }

    /// Whether what `selector` points at is covered by the signature. The path is where the provider was told to send, and
    /// what a route may always go by; it counts as covered.
    pub fn covers(&self, selector: &Selector) -> bool {
        match (selector, &self.engine) {
            (Selector::Path | Selector::OfSignature, _) => true,
            (Selector::Inner(outer, _), _) => self.covers(outer),
            (Selector::All(all), _) => all.iter().all(|one| self.covers(one)),
            (_, Engine::Signed(engine)) => engine.covers(selector),
            (_, Engine::Jws(engine)) => engine.covers(selector),
            (Selector::Query(_) | Selector::Param(_), _) => false,
            (Selector::Header(names), Engine::WechatpayV3(_)) => {
                names.iter().all(|name| wechatpay_v3::signs_header(name))
            }
            (Selector::Header(_), _) => false,
            // The whole body is signed, whatever it is.
            (_, Engine::WechatpayV3(_)) => true,
            (Selector::Form(name), Engine::Alipay(_)) => alipay::signs(name),
            (Selector::Xml(_), Engine::WechatpayV2(_)) => true,
            (Selector::Json(pointer), Engine::Adyen(_)) => adyen::signs(pointer),
            (
                Selector::Form(_) | Selector::Json(_) | Selector::Xml(_) | Selector::Opened(_),
                Engine::Alipay(_) | Engine::WechatpayV2(_) | Engine::Adyen(_),
            ) => false,
        }
    }

    /// Whether the check looks at the header called `name`, in any case.
    pub fn reads_header(&self, name: &str) -> bool {
        let name = name.to_ascii_lowercase();
        match &self.engine {
            Engine::WechatpayV3(_) => wechatpay_v3::reads_header(&name),
            Engine::Signed(engine) => engine.reads_header(&name),
            Engine::Jws(engine) => engine.reads_header(&name),
            Engine::Alipay(_) | Engine::WechatpayV2(_) | Engine::Adyen(_) => false,
        }
    }

    /// Whether there is something sealed in the body, and a key for it.
    pub fn can_open(&self) -> bool {
        match &self.engine {
            Engine::WechatpayV3(engine) => engine.api_v3_key.is_some(),
            Engine::Jws(engine) => engine.is_in_body(),
            _ => false,
        }
    }

    /// What is sealed in the body, opened; `None` if this engine has nothing to open, or no key for it.
    ///
    /// # Errors
    /// It cannot be opened; says why.
    pub fn open(&self, body: &[u8]) -> Option<Result<Vec<u8>, &'static str>> {
        match &self.engine {
            Engine::WechatpayV3(engine) => engine.open(body),
            Engine::Jws(engine) => engine.open(body),
            _ => None,
        }
    }

    /// `query` without what must not go further: the token of a route that has it in the query. `None`: all may.
    pub fn query_without_token(&self, query: &str) -> Option<String> {
        match &self.engine {
            Engine::Signed(engine) => engine.query_without_password(query),
            _ => None,
        }
    }
}

/// What a signed time counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeUnit {
    /// Seconds since 1970.
    Seconds,
    /// Milliseconds since 1970.
    Milliseconds,
}

/// Refuses a time further than `tolerance` from `now_unix_s`.
fn check_time(
    signed_at: &str,
    unit: TimeUnit,
    now_unix_s: u64,
    tolerance: Tolerance,
) -> Result<(), Refused> {
    let (digits_max, a_second, why) = match unit {
        TimeUnit::Seconds => (
            12,
            1,
            "its timestamp is no number of seconds; if it is in milliseconds, set timestamp_unit = \"ms\"",
        ),
        TimeUnit::Milliseconds => (15, 1000, "its timestamp is no number of milliseconds"),
    };
    let digits = (1..=digits_max).contains(&signed_at.len())
        && signed_at.bytes().all(|b| b.is_ascii_digit());
    let signed_at = signed_at.parse::<u64>().ok().filter(|_| digits);
    let signed_at = signed_at.ok_or(Refused::Malformed(why))?;
    let now = now_unix_s.saturating_mul(a_second);
    match tolerance {
        Some(tolerance) if signed_at.abs_diff(now) > tolerance.as_secs() * a_second => {
            Err(Refused::Expired)
        }
        _ => Ok(()),
    }
}
