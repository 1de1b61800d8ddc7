//! Keys, as operators paste them: text, hex, base64, PEM; and as the engines need them: prepared.
//!
//! Their `Debug` shows nothing of a secret, and no error repeats a part of one.

mod rsa;

use std::fmt;

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

pub(super) use self::rsa::is_test_key;
pub use self::rsa::{RsaBits, RsaHash, RsaKey, new_test_key};

use crate::escape::unhex;

/// Why a text is no key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadKey {
    /// There is nothing in it.
    Empty,
    /// Not an even number of hex digits.
    NotHex,
    /// Not base64.
    NotBase64,
    /// A PEM that does not end, or has in it what is no base64.
    BrokenPem,
    /// A PEM of something else.
    OtherPem,
    /// A private key, which nobody but the provider should have.
    Private,
    /// A test key that was changed, or is none.
    BrokenTest,
    /// A certificate in which no key can be found.
    BrokenCertificate,
    /// Not an RSA key of 1,024 to 8,192 bits.
    NotRsa,
    /// An RSA key of less than 2,048 bits.
    WeakRsa,
    /// More keys in one PEM than a route takes.
    TooMany,
    /// Two keys in one PEM where one is named.
    NotOne,
    /// A PEM of something else where a root certificate is needed.
    NoRoot,
    /// No JSON Web Key Set with an RSA key in it.
    NotKeySet,
    /// Not 32 bytes.
    NotApiV3,
}

impl fmt::Display for BadKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "it is empty and protects nothing; copy it from the provider's console",
            Self::NotHex => "not hex: an even number of 0-9 a-f is needed, as the provider's console shows it",
            Self::NotBase64 => "not base64; copy the whole secret from the provider's console",
            Self::BrokenPem => {
                "a PEM without its end, or with something else in it than base64; copy all of it, from -----BEGIN to -----END"
            }
            Self::OtherPem => {
                "a PEM of something else; needed: PUBLIC KEY or CERTIFICATE, as the provider's console gives it"
            }
            Self::Private => "a private key; needed: the provider's public key or certificate",
            Self::BrokenTest => "not a test key that can be read; make another with: payrelay keys test --out FILE",
            Self::BrokenCertificate => "not a certificate that can be read",
            Self::NotRsa => "not an RSA public key of 2048 to 8192 bits",
            Self::WeakRsa => {
                "an RSA key of less than 2048 bits, which can be broken; let the provider make a longer one. \
                 If it cannot: allow_sha1 = true, where the preset takes it"
            }
            Self::TooMany => "more than 16 keys in one PEM; keep those that still sign",
            Self::NotOne => "a PEM with several keys, and one serial for them; give each an entry of its own",
            Self::NoRoot => "a root certificate in PEM form is needed (-----BEGIN CERTIFICATE-----)",
            Self::NotKeySet => {
                "no JSON Web Key Set with an RSA key in it; let payrelay keys fetch write the file"
            }
            Self::NotApiV3 => "an APIv3 key has exactly 32 bytes",
        })
    }
}

impl std::error::Error for BadKey {}

/// A secret that messages are signed with.
#[derive(Clone)]
pub struct MacKey {
    secret: Box<[u8]>,
    key: hmac::Key,
}

impl MacKey {
    /// The bytes of `text` as they stand.
    ///
    /// # Errors
    /// There are none.
    pub fn from_text(digest: hmac::Algorithm, text: &str) -> Result<Self, BadKey> {
        Self::new(digest, text.as_bytes().to_vec())
    }

    /// What `text` says in hex.
    ///
    /// # Errors
    /// It is no hex, or empty.
    pub fn from_hex(digest: hmac::Algorithm, text: &str) -> Result<Self, BadKey> {
        Self::new(digest, unhex(text).ok_or(BadKey::NotHex)?)
    }

    /// What `text` says in base64.
    ///
    /// # Errors
    /// It is no base64, or empty.
    pub fn from_base64(digest: hmac::Algorithm, text: &str) -> Result<Self, BadKey> {
        Self::new(
            digest,
            STANDARD.decode(text).map_err(|_| BadKey::NotBase64)?,
        )
    }

    fn new(digest: hmac::Algorithm, secret: Vec<u8>) -> Result<Self, BadKey> {
        if secret.is_empty() {
            return Err(BadKey::Empty);
        }
        Ok(Self {
            key: hmac::Key::new(digest, &secret),
            secret: secret.into(),
        })
    }

    /// A message about to be signed.
    pub(super) fn begin(&self) -> hmac::Context {
        hmac::Context::with_key(&self.key)
    }

    /// The secret itself, for the one engine that hashes it.
    pub(super) fn secret(&self) -> &[u8] {
        &self.secret
    }
}

/// By the secret's bytes; only the operator's own files are compared so.
impl PartialEq for MacKey {
    fn eq(&self, other: &Self) -> bool {
        self.secret == other.secret
    }
}

impl fmt::Debug for MacKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MacKey(…)")
    }
}

/// Strict base64: no whitespace, padded, no stray bits. As text that is the same signature in no second way.
pub fn unbase64(text: &str) -> Option<Vec<u8>> {
    STANDARD.decode(text).ok()
}

/// A block of a PEM: its label and its bytes.
pub(super) type Block<'t> = (&'t str, Vec<u8>);

/// The blocks of a PEM; text without one is taken for the base64 of a public key.
pub(super) fn unpem(text: &str) -> Result<Vec<Block<'_>>, BadKey> {
    const BEGIN: &str = "-----BEGIN ";
    let Some((_, mut rest)) = text.split_once(BEGIN) else {
        return Ok(vec![(
            "PUBLIC KEY",
            unbase64_lines(text, BadKey::NotBase64)?,
        )]);
    };
    let mut blocks = Vec::new();
    loop {
        if blocks.len() == super::KEYS_MAX {
            return Err(BadKey::TooMany);
        }
        let (label, body) = rest.split_once("-----").ok_or(BadKey::BrokenPem)?;
        let end = format!("-----END {label}-----");
        let (body, after) = body.split_once(&end).ok_or(BadKey::BrokenPem)?;
        blocks.push((label, unbase64_lines(body, BadKey::BrokenPem)?));
        match after.split_once(BEGIN) {
            Some((_, next)) => rest = next,
            None => return Ok(blocks),
        }
    }
}

fn unbase64_lines(text: &str, bad: BadKey) -> Result<Vec<u8>, BadKey> {
    let digits: String = text.split_ascii_whitespace().collect();
    if digits.is_empty() {
        return Err(BadKey::Empty);
    }
    STANDARD.decode(digits).map_err(|_| bad)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pem_has_as_many_keys_as_a_route_and_no_more() {
        let pem = new_test_key().expect("random numbers");
        let read = |keys| RsaKey::read_all(&pem.repeat(keys), RsaBits::Usual).map(|all| all.len());
        assert_eq!(read(crate::verify::KEYS_MAX), Ok(crate::verify::KEYS_MAX));
        assert_eq!(read(crate::verify::KEYS_MAX + 1), Err(BadKey::TooMany));
    }
}
