//! How a text is signed.

use aws_lc_rs::{digest, hmac};
use md5::{Digest as _, Md5};

use crate::verify::keys::{MacKey, RsaHash};

/// How a text is signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// MD5 of a text with the secret in it.
    Md5,
    /// SHA-1 of such a text.
    Sha1,
    /// SHA-256 of such a text.
    Sha256,
    /// SHA-512 of such a text.
    Sha512,
    /// HMAC with SHA-1.
    HmacSha1,
    /// HMAC with SHA-256.
    HmacSha256,
    /// HMAC with SHA-512.
    HmacSha512,
    /// RSA, PKCS#1 v1.5, with SHA-1.
    RsaSha1,
    /// RSA, PKCS#1 v1.5, with SHA-256.
    RsaSha256,
    /// None: the secret itself stands where a signature would.
    Password,
}

impl Algorithm {
    /// All that sign, by the words of relay.toml.
    pub const ALL: [(&'static str, Self); 9] = [
        ("md5", Self::Md5),
        ("sha1", Self::Sha1),
        ("sha256", Self::Sha256),
        ("sha512", Self::Sha512),
        ("hmac-sha1", Self::HmacSha1),
        ("hmac-sha256", Self::HmacSha256),
        ("hmac-sha512", Self::HmacSha512),
        ("rsa-sha1", Self::RsaSha1),
        ("rsa-sha256", Self::RsaSha256),
    ];

    /// The hash that RSA signs; `None`: it is not RSA.
    pub fn rsa(self) -> Option<RsaHash> {
        match self {
            Self::RsaSha1 => Some(RsaHash::Sha1),
            Self::RsaSha256 => Some(RsaHash::Sha256),
            _ => None,
        }
    }

    /// Whether the secret is an HMAC's key, and need not be in the text.
    pub fn is_hmac(self) -> bool {
        matches!(self, Self::HmacSha1 | Self::HmacSha256 | Self::HmacSha512)
    }

    /// Whether nobody would choose it today.
    pub fn is_weak(self) -> bool {
        matches!(self, Self::Md5 | Self::Sha1 | Self::RsaSha1)
    }

    /// The hash under an HMAC's key.
    pub fn of_key(self) -> hmac::Algorithm {
        match self {
            Self::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Self::HmacSha512 => hmac::HMAC_SHA512,
            _ => hmac::HMAC_SHA256,
        }
    }
}

/// A digest or an HMAC under way.
#[expect(
    clippy::large_enum_variant,
    reason = "on the stack for one request; a box would be an allocation for each"
)]
pub enum Running {
    Md5(Md5),
    Digest(digest::Context),
    Mac(hmac::Context),
}

impl Running {
    /// Begins; `None`: it is RSA, or there is no secret, without which anybody could sign.
    pub fn begin(algorithm: Algorithm, secret: Option<&MacKey>) -> Option<Self> {
        let secret = secret?;
        let digest = |algorithm| Self::Digest(digest::Context::new(algorithm));
        Some(match algorithm {
            Algorithm::Md5 => Self::Md5(Md5::new()),
            Algorithm::Sha1 => digest(&digest::SHA1_FOR_LEGACY_USE_ONLY),
            Algorithm::Sha256 => digest(&digest::SHA256),
            Algorithm::Sha512 => digest(&digest::SHA512),
            Algorithm::HmacSha1 | Algorithm::HmacSha256 | Algorithm::HmacSha512 => {
                Self::Mac(secret.begin())
            }
            Algorithm::RsaSha1 | Algorithm::RsaSha256 | Algorithm::Password => return None,
        })
    }

    pub fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Md5(hash) => hash.update(bytes),
            Self::Digest(hash) => hash.update(bytes),
            Self::Mac(mac) => mac.update(bytes),
        }
    }

    /// Gives `then` what it came to.
    pub fn finish<T>(self, then: impl FnOnce(&[u8]) -> T) -> T {
        match self {
            Self::Md5(hash) => then(&hash.finalize()),
            Self::Digest(hash) => then(hash.finish().as_ref()),
            Self::Mac(mac) => then(mac.sign().as_ref()),
        }
    }
}
