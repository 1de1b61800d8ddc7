//! The engine `jws`: a signed JSON document in compact form (RFC 7515), which is the payment itself (Apple) or says who sends
//! it (Google's push token), by a chain of certificates that leads to a root of the route, or by a key that it names.
//!
//! No address is ever asked for a key: what is not in the route's files is not believed.

use std::borrow::Cow;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use serde_json::Value;
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert,
};

use super::draft::{CannotSign, Draft, with_value};
use super::keys::{BadKey, RsaBits, RsaHash, RsaKey, is_test_key, unbase64, unpem};
use super::{Refused, Request, Tolerance, der};
use crate::request::{Missing, Selector, json, place};

/// How long a token of a test key is valid, in seconds: as long as Google's.
const TOKEN_LIFE_S: u64 = 3600;

/// The longest header of a document, in bytes as it stands there. Apple's has three certificates, 4 KiB together.
const HEADER_BYTES_MAX: usize = 32 * 1024;

/// The most certificates of a chain: the signer's, its issuer's, and a root, which is not believed for being there.
const CHAIN_MAX: usize = 3;

/// How far ahead of this machine's clock the time may be at which a certificate must be valid, in seconds.
const AHEAD_MAX_S: u64 = 300;

/// What such a route checks, and with what.
#[derive(Clone, Debug, PartialEq)]
pub struct Jws {
    /// Where the document stands.
    pub place: Selector,
    /// What stands before it, in any case of its letters: `Bearer `.
    pub prefix: Box<str>,
    /// Who may have signed it.
    pub signer: Signer,
    /// What it must say.
    pub claims: Vec<Claim>,
    /// How far beyond its own times (`exp`, `nbf`) it is believed; `None`: they are not looked at.
    pub tolerance: Tolerance,
}

/// Who may have signed a document.
#[derive(Clone, Debug, PartialEq)]
pub enum Signer {
    /// ES256, by the certificate in its header, whose chain leads to one of these.
    Chain(Chain),
    /// RS256, by the one of these keys that its header names.
    Named(Vec<RsaKey>),
}

/// Chains that are believed.
#[derive(Clone, Debug, PartialEq)]
pub struct Chain {
    /// Root certificates, in DER.
    pub roots: Vec<Vec<u8>>,
    /// An extension that the signer's certificate has, in DER.
    pub leaf_oid: Option<Vec<u8>>,
    /// An extension that its issuer's certificate has.
    pub issuer_oid: Option<Vec<u8>>,
    /// Where the time stands at which the certificates must be valid, in milliseconds.
    pub time: Vec<String>,
    /// Test keys, which sign with RS256 in the chain's place.
    pub test: Vec<RsaKey>,
}

/// What a route may believe a chain for.
#[derive(Clone, Debug, PartialEq)]
pub enum Trusted {
    /// A root certificate, in DER.
    Root(Vec<u8>),
    /// A key of `payrelay keys test`.
    Test(RsaKey),
}

/// What a document must say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// Its name, for the log.
    pub name: Box<str>,
    /// Where it stands: in one of these places.
    pub at: Vec<Vec<String>>,
    /// What it may be.
    pub allowed: Vec<String>,
}

/// Every purpose of a key is right: what is asked of a certificate is said by its extensions.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

/// A document taken apart.
struct Parts<'t> {
    header: Vec<u8>,
    payload: Vec<u8>,
    signed: &'t str,
    signature: Vec<u8>,
}

impl Jws {
    /// Whether the document of `request` is signed by whom it should be, and says what it must.
    pub(super) fn verify(&self, request: &Request<'_>, now_unix_s: u64) -> Result<(), Refused> {
        let text = self.text(request)?;
        let parts = Parts::of(&text)?;
        // An extension that must be understood changes what is signed (RFC 7515 section 4.1.11).
        match json::at(&parts.header, &["crit".to_owned()]) {
            Err(Missing::Nowhere(_)) => {}
            _ => return Err(Refused::Malformed("its header has critical extensions")),
        }
        let algorithm = header_text(&parts.header, "alg")?;
        match (&self.signer, &*algorithm) {
            (Signer::Chain(chain), "ES256") => chain.verify(&parts, now_unix_s)?,
            (signer, "RS256") => {
                let kid = header_text(&parts.header, "kid")?;
                let mut keys = signer.named().iter();
                let key = keys.find(|key| key.serial() == Some(&kid));
                let key = key.ok_or(Refused::UnknownKey)?;
                let digest = RsaHash::Sha256.of(parts.signed.as_bytes());
                let verified = key.verifies(RsaHash::Sha256, &digest, &parts.signature);
                verified.then_some(()).ok_or(Refused::Mismatch)?;
            }
            _ => {
                return Err(Refused::Malformed(
                    "it is signed by another algorithm than ES256 or RS256",
                ));
            }
        }
        self.check_times(&parts.payload, now_unix_s)?;
        self.claims
            .iter()
            .try_for_each(|claim| claim.check(&parts.payload))
    }

    /// Fills in what the document must say, and signs it with a test key.
    pub(super) fn sign(&self, draft: &mut Draft, now_unix_s: u64) -> Result<(), CannotSign> {
        let name = |name: &str| vec![name.to_owned()];
        let mut payload = match self.is_in_body() {
            true => draft.opened.clone(),
            false => Vec::new(),
        };
        let mut fill = |at: &[String], value: Value| {
            let is_there = !payload.is_empty() && scalar(&payload, at)?.is_some();
            if !is_there {
                let no_room = || CannotSign::Place(place(&Selector::Opened(at.to_vec())));
                payload = with_value(&payload, at, value).ok_or_else(no_room)?;
            }
            Ok::<(), CannotSign>(())
        };
        for claim in &self.claims {
            if let (Some(at), Some(allowed)) = (claim.at.first(), claim.allowed.first()) {
                fill(at, allowed.as_str().into())?;
            }
        }
        match &self.signer {
            Signer::Chain(chain) => fill(&chain.time, (now_unix_s * 1000).into())?,
            Signer::Named(_) => fill(&name("exp"), (now_unix_s + TOKEN_LIFE_S).into())?,
        }
        let test = self.signer.named().iter().find(|key| key.is_test());
        let key = test.ok_or(CannotSign::NoTestKey)?;
        let header = with_value(b"", &name("alg"), "RS256")
            .and_then(|header| with_value(&header, &name("kid"), key.serial()))
            .unwrap_or_default();
        let [header, payload] = [header, payload].map(|part| URL_SAFE_NO_PAD.encode(part));
        let signed = format!("{header}.{payload}");
        let signature = key.sign(&RsaHash::Sha256.of(signed.as_bytes()));
        let signature = signature.ok_or(CannotSign::NoTestKey)?;
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        draft.set(&self.place, &format!("{}{token}", self.prefix))
    }

    /// Whether the signature covers what `selector` points at.
    pub(super) fn covers(&self, selector: &Selector) -> bool {
        // A bearer token signs nothing of the body: whoever has it may say anything while it is valid.
        matches!(self.place, Selector::Header(_))
            || matches!(selector, Selector::Opened(_))
            || *selector == self.place
    }

    /// Whether the header called `name`, in lower case, is looked at.
    pub(super) fn reads_header(&self, name: &str) -> bool {
        matches!(&self.place, Selector::Header(names) if names.iter().any(|its| its == name))
    }

    /// Whether the document stands in the body.
    pub(super) fn is_in_body(&self) -> bool {
        !matches!(self.place, Selector::Header(_))
    }

    /// What the document in `body` says.
    pub(super) fn open(&self, body: &[u8]) -> Option<Result<Vec<u8>, &'static str>> {
        if !self.is_in_body() {
            return None;
        }
        let request = Request {
            method: "POST",
            target: "",
            headers: &[],
            path_id: None,
            query: "",
            body,
        };
        let opened = self
            .text(&request)
            .and_then(|text| Ok(Parts::of(&text)?.payload));
        Some(opened.map_err(|_| "the body has no signed document in it"))
    }

    fn text<'r>(&self, request: &Request<'r>) -> Result<Cow<'r, str>, Refused> {
        const NONE: Refused =
            Refused::Malformed("where the signed document should be there is none");
        let text = match request
            .parts()
            .value(&self.place)
            .map_err(super::signed::missing)?
        {
            Cow::Borrowed(bytes) => str::from_utf8(bytes).ok().map(Cow::Borrowed),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        };
        let text = text.ok_or(NONE)?;
        let length = self.prefix.len();
        let begins = text.get(..length).ok_or(NONE)?;
        if !begins.eq_ignore_ascii_case(&self.prefix) {
            return Err(NONE);
        }
        Ok(match text {
            Cow::Borrowed(text) => text[length..].into(),
            Cow::Owned(text) => text[length..].to_owned().into(),
        })
    }

    /// Refuses a document before or after the time for which it was made (RFC 7519 sections 4.1.4 and 4.1.5).
    fn check_times(&self, payload: &[u8], now_unix_s: u64) -> Result<(), Refused> {
        let Some(tolerance) = self.tolerance else {
            return Ok(());
        };
        let around = tolerance.as_secs();
        match (seconds(payload, "exp")?, &self.signer) {
            (Some(until), _) if until.saturating_add(around) < now_unix_s => {
                return Err(Refused::Expired);
            }
            (None, Signer::Named(_)) => {
                return Err(Refused::Missing("exp in the signed document".into()));
            }
            _ => {}
        }
        match seconds(payload, "nbf")? {
            Some(from) if from > now_unix_s.saturating_add(around) => Err(Refused::Expired),
            _ => Ok(()),
        }
    }
}

impl Signer {
    /// Keys that a document may name.
    pub(super) fn named(&self) -> &[RsaKey] {
        match self {
            Self::Named(keys) => keys,
            Self::Chain(chain) => &chain.test,
        }
    }
}

impl<'t> Parts<'t> {
    fn of(text: &'t str) -> Result<Self, Refused> {
        const NONE: Refused =
            Refused::Malformed("it is no signed document in compact form (RFC 7515)");
        let (signed, signature) = text.rsplit_once('.').ok_or(NONE)?;
        let (header, payload) = signed.split_once('.').ok_or(NONE)?;
        if header.len() > HEADER_BYTES_MAX {
            return Err(Refused::TooMany(
                "bytes in the header of the signed document",
            ));
        }
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| NONE);
        Ok(Self {
            header: decode(header)?,
            payload: decode(payload)?,
            signed,
            signature: decode(signature)?,
        })
    }
}

impl Chain {
    fn verify(&self, parts: &Parts<'_>, now_unix_s: u64) -> Result<(), Refused> {
        let [leaf, issuer] = certificates(&parts.header)?;
        let has = |der: &[u8], oid: &Option<Vec<u8>>| {
            oid.as_ref().is_none_or(|oid| der::has_extension(der, oid))
        };
        if !has(&leaf, &self.leaf_oid) || !has(&issuer, &self.issuer_oid) {
            return Err(Refused::Untrusted(
                "its certificates are made for another purpose",
            ));
        }
        let ms = scalar(&parts.payload, &self.time)?.and_then(|text| text.parse::<u64>().ok());
        let signed_at =
            ms.ok_or(Refused::Malformed("the time of its signature is no number"))? / 1000;
        if signed_at > now_unix_s.saturating_add(AHEAD_MAX_S) {
            return Err(Refused::Expired);
        }
        let at = UnixTime::since_unix_epoch(std::time::Duration::from_secs(signed_at));
        let (leaf, issuers) = (CertificateDer::from(leaf), [CertificateDer::from(issuer)]);
        let unreadable = |_| Refused::Malformed("its certificate cannot be read");
        let signer = EndEntityCert::try_from(&leaf).map_err(unreadable)?;
        let roots: Vec<CertificateDer<'_>> = self.roots.iter().map(|der| der[..].into()).collect();
        let anchors: Result<Vec<TrustAnchor<'_>>, _> =
            roots.iter().map(anchor_from_trusted_cert).collect();
        let anchors = anchors.map_err(unreadable)?;
        let path = signer.verify_for_usage(
            webpki::ALL_VERIFICATION_ALGS,
            &anchors,
            &issuers,
            at,
            AnyUsage,
            None,
            None,
        );
        let path = path.map_err(|_| {
            Refused::Untrusted(
                "its certificates do not lead to a root of the route, or were not valid then",
            )
        })?;
        // By its own issuer, whose purpose was looked at.
        if path.intermediate_certificates().count() != 1 {
            return Err(Refused::Untrusted(
                "its certificate was issued by another than the next in its chain",
            ));
        }
        let spki = signer.subject_public_key_info();
        let key = ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, spki.as_ref())
            .map_err(|_| Refused::Malformed("its certificate has no key for ES256"))?;
        let verified = key.verify_sig(parts.signed.as_bytes(), &parts.signature);
        verified.map_err(|_| Refused::Mismatch)
    }
}

impl Claim {
    fn check(&self, payload: &[u8]) -> Result<(), Refused> {
        let mut found = None;
        for at in &self.at {
            match (scalar(payload, at)?, &found) {
                (Some(_), Some(_)) => return Err(Refused::Repeated(self.name.clone())),
                (Some(value), None) => found = Some(value),
                (None, _) => {}
            }
        }
        let found = found.ok_or_else(|| Refused::Missing(self.name.clone()))?;
        let is_allowed = self.allowed.contains(&found);
        is_allowed
            .then_some(())
            .ok_or_else(|| Refused::OtherClaim(self.name.clone()))
    }
}

/// The signer's certificate and its issuer's, of a header with a chain of three.
fn certificates(header: &[u8]) -> Result<[Vec<u8>; 2], Refused> {
    const CHAIN: Refused =
        Refused::Malformed("its header has no chain of three certificates (x5c)");
    let at = |n: usize| json::at(header, &["x5c".to_owned(), n.to_string()]);
    if at(CHAIN_MAX).is_ok() {
        return Err(CHAIN);
    }
    let mut read = [0, 1, 2].map(|n| {
        let text = at(n).ok().flatten()?.into_text();
        unbase64(&text)
    });
    match (read[0].take(), read[1].take(), &read[2]) {
        (Some(leaf), Some(issuer), Some(_)) => Ok([leaf, issuer]),
        _ => Err(CHAIN),
    }
}

fn header_text(header: &[u8], name: &str) -> Result<String, Refused> {
    let found = scalar(header, &[name.to_owned()])?;
    found.ok_or_else(|| {
        Refused::Missing(format!("{name} in the header of the signed document").into())
    })
}

fn seconds(payload: &[u8], name: &str) -> Result<Option<u64>, Refused> {
    let Some(text) = scalar(payload, &[name.to_owned()])? else {
        return Ok(None);
    };
    let digits = text.split('.').next().unwrap_or_default();
    let seconds = digits
        .parse()
        .map_err(|_| Refused::Malformed("a time in it is no number"))?;
    Ok(Some(seconds))
}

/// The text, number, true or false at `pointer`; `None`: it is not there.
fn scalar(json: &[u8], pointer: &[String]) -> Result<Option<String>, Refused> {
    match json::at(json, pointer) {
        Ok(Some(scalar)) => Ok(Some(scalar.into_text())),
        Ok(None) => Err(Refused::Malformed("a claim is an object or a list")),
        Err(Missing::Nowhere(_)) => Ok(None),
        Err(Missing::Twice(_)) => Err(Refused::Repeated(
            place(&Selector::Json(pointer.to_vec())).into(),
        )),
        Err(_) => Err(Refused::Malformed("what was signed is no JSON object")),
    }
}

/// The certificates of a PEM, each of which is a root; or test keys.
///
/// # Errors
/// There is something else in it, or one cannot be read.
pub fn roots(text: &str) -> Result<Vec<Trusted>, BadKey> {
    if is_test_key(text) {
        let keys = RsaKey::read_all(text, RsaBits::Usual)?;
        return Ok(keys.into_iter().map(Trusted::Test).collect());
    }
    let blocks = unpem(text)?;
    blocks
        .into_iter()
        .map(|(label, der)| {
            let readable = anchor_from_trusted_cert(&CertificateDer::from(&der[..])).is_ok();
            match label {
                "CERTIFICATE" if readable => Ok(Trusted::Root(der)),
                "CERTIFICATE" => Err(BadKey::BrokenCertificate),
                _ => Err(BadKey::NoRoot),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(name: &str) -> Selector {
        Selector::Json(vec![name.to_owned()])
    }

    fn jws(place: Selector) -> Jws {
        Jws {
            place,
            prefix: "".into(),
            signer: Signer::Named(Vec::new()),
            claims: Vec::new(),
            tolerance: None,
        }
    }

    #[test]
    fn a_document_in_the_body_covers_itself_and_what_it_says() {
        let jws = jws(json("signedPayload"));
        let opened = Selector::Opened(vec!["data".to_owned()]);
        assert!(jws.covers(&opened) && jws.covers(&json("signedPayload")));
        for beside in [json("data"), Selector::Header(vec!["x-id".to_owned()])] {
            assert!(!jws.covers(&beside), "{beside:?}");
        }
        assert!(jws.is_in_body() && !jws.reads_header("x-id"));
        let body = format!(r#"{{"signedPayload":"e30.{}.AA"}}"#, "eyJhIjoxfQ");
        assert_eq!(jws.open(body.as_bytes()), Some(Ok(br#"{"a":1}"#.to_vec())));
        assert!(matches!(jws.open(b"{}"), Some(Err(_))));
    }

    #[test]
    fn a_document_in_a_header_is_nothing_to_open_and_lets_the_body_say_anything() {
        let jws = jws(Selector::Header(vec!["authorization".to_owned()]));
        assert!(jws.covers(&json("data")));
        assert!(!jws.is_in_body() && jws.reads_header("authorization"));
        assert_eq!(jws.open(b"{}"), None);
    }

    #[test]
    fn a_document_follows_its_prefix_in_any_case_and_nothing_else() {
        let mut jws = jws(Selector::Header(vec!["authorization".to_owned()]));
        jws.prefix = "Bearer ".into();
        for (value, document) in [
            ("Bearer e30.e30.AA", Some("e30.e30.AA")),
            ("bEARER e30.e30.AA", Some("e30.e30.AA")),
            ("Bearer ", Some("")),
            ("Basic: e30.e30.AA", None),
            ("e30.e30.AA", None),
            ("Bearer", None),
            ("", None),
        ] {
            let request = Request {
                method: "POST",
                target: "",
                headers: &[("Authorization", value)],
                path_id: None,
                query: "",
                body: b"",
            };
            let found = jws.text(&request).ok();
            assert_eq!(found.as_deref(), document, "{value}");
        }
    }

    #[test]
    fn a_document_is_believed_within_its_own_times_and_the_tolerance() {
        let mut named = jws(Selector::Header(vec!["authorization".to_owned()]));
        named.tolerance = Some(std::time::Duration::from_secs(60));
        let mut chained = named.clone();
        chained.signer = Signer::Chain(Chain {
            roots: Vec::new(),
            leaf_oid: None,
            issuer_oid: None,
            time: Vec::new(),
            test: Vec::new(),
        });
        for (payload, wanted) in [
            (r#"{"exp":940}"#, Ok(())),
            (r#"{"exp":"940.9"}"#, Ok(())),
            (r#"{"exp":939}"#, Err("expired")),
            (r#"{"exp":940,"nbf":1}"#, Ok(())),
            (r#"{"exp":940,"nbf":1060}"#, Ok(())),
            (r#"{"exp":940,"nbf":1061}"#, Err("expired")),
            (r#"{"exp":940,"exp":941}"#, Err("repeated")),
            (r#"{"exp":"soon"}"#, Err("malformed")),
            (r#"{"exp":-1}"#, Err("malformed")),
            (r#"{"exp":null}"#, Err("malformed")),
            // Without an end a token would be believed for ever.
            (r#"{"nbf":1}"#, Err("missing")),
        ] {
            let found = |jws: &Jws| jws.check_times(payload.as_bytes(), 1000);
            assert_eq!(found(&named).map_err(|r| r.word()), wanted, "{payload}");
            // What a chain signs has a time of its own.
            let wanted = wanted.or_else(|why| if why == "missing" { Ok(()) } else { Err(why) });
            assert_eq!(found(&chained).map_err(|r| r.word()), wanted, "{payload}");
        }
        named.tolerance = None;
        assert_eq!(named.check_times(b"{}", 1000), Ok(()));
    }

    #[test]
    fn a_header_is_as_long_as_a_chain_needs_and_no_longer() {
        let read = |bytes: usize| Parts::of(&format!("{}.e30.AA", "A".repeat(bytes))).map(|_| ());
        assert_eq!(read(HEADER_BYTES_MAX), Ok(()));
        let longer = read(HEADER_BYTES_MAX + 4);
        assert!(matches!(longer, Err(Refused::TooMany(_))), "{longer:?}");
        for none in [
            "",
            "e30",
            "e30.e30",
            "e30.e30.A",
            "e3 .e30.AA",
            "e30.e30.AA=",
            "e30.e30.e30.AA",
        ] {
            let refused = Parts::of(none).map(|_| ());
            assert!(matches!(refused, Err(Refused::Malformed(_))), "{none}");
        }
    }
}
