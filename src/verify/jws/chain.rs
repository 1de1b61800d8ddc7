//! Chains of certificates that lead to a root of the route.

use std::time::Duration;

use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED, ParsedPublicKey};
use rustls::pki_types::{CertificateDer, TrustAnchor, UnixTime};
use webpki::{
    EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, anchor_from_trusted_cert,
};

use super::{Parts, scalar};
use crate::request::json;
use crate::verify::keys::{BadKey, RsaBits, RsaKey, is_test_key, unbase64, unpem};
use crate::verify::{Refused, der};

/// The most certificates of a chain: the signer's, its issuer's, and a root, which is not believed for being there.
const CHAIN_MAX: usize = 3;

/// How far ahead of this machine's clock the time may be at which a certificate must be valid, in seconds.
const AHEAD_MAX_S: u64 = 300;

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

/// Every purpose of a key is right: what is asked of a certificate is said by its extensions.
struct AnyUsage;

impl ExtendedKeyUsageValidator for AnyUsage {
    fn validate(&self, _: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        Ok(())
    }
}

impl Chain {
    pub(super) fn verify(&self, parts: &Parts<'_>, now_unix_s: u64) -> Result<(), Refused> {
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
        let at = UnixTime::since_unix_epoch(Duration::from_secs(signed_at));
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
