//! RSA keys: a provider's, of a PEM, a certificate or a JSON Web Key, and test keys, which sign in a provider's place.

use std::fmt;
use std::sync::Arc;

use aws_lc_rs::digest::{self, Digest};
use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der, PublicKeyX509Der};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    KeyPair, ParsedPublicKey, RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY,
    RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RSA_PKCS1_SHA256, RsaKeyPair,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::{BadKey, unpem};
use crate::escape::hex_upper;
use crate::verify::der::{BIT_STRING, INTEGER, SEQUENCE, element};

/// What a test key is called in its file: no program takes it for another key.
const TEST_LABEL: &str = "PAYRELAY TEST KEY";

/// The serial of every test key.
const TEST_SERIAL: &str = "PAYRELAY-TEST";

/// The hash under an RSA signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaHash {
    /// SHA-1, for providers that have nothing better.
    Sha1,
    /// SHA-256.
    Sha256,
}

impl RsaHash {
    /// A hash under way.
    pub(in crate::verify) fn begin(self) -> digest::Context {
        digest::Context::new(match self {
            Self::Sha1 => &digest::SHA1_FOR_LEGACY_USE_ONLY,
            Self::Sha256 => &digest::SHA256,
        })
    }

    /// The hash of `text`.
    pub(in crate::verify) fn of(self, text: &[u8]) -> Digest {
        let mut hash = self.begin();
        hash.update(text);
        hash.finish()
    }
}

/// The shortest RSA key that a route takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RsaBits {
    /// 2,048 bits.
    Usual,
    /// 1,024 bits, for providers that give no longer ones.
    Weak,
}

/// A provider's RSA key.
#[derive(Clone)]
pub struct RsaKey {
    sha1: Arc<ParsedPublicKey>,
    sha256: Arc<ParsedPublicKey>,
    serial: Option<Box<str>>,
    /// The private half of a key of `payrelay keys test`.
    test: Option<Arc<RsaKeyPair>>,
}

impl RsaKey {
    /// Reads every public key (SPKI) and certificate of a PEM, or the base64 of an SPKI alone.
    ///
    /// Of a certificate only key and serial number are taken; who issued it and until when it is valid is not looked at,
    /// since whoever wrote the configuration has chosen it.
    ///
    /// # Errors
    /// One of them is none of these, or not RSA with as many bits.
    pub fn read_all(text: &str, bits: RsaBits) -> Result<Vec<Self>, BadKey> {
        let blocks = unpem(text)?;
        blocks
            .into_iter()
            .map(|block| Self::new(block, bits))
            .collect()
    }

    /// A key of a JSON Web Key Set (RFC 7518 section 6.3.1): modulus and exponent, called `kid`.
    ///
    /// # Errors
    /// They are no RSA key of 2,048 bits and more.
    pub(in crate::verify) fn of_jwk(kid: &str, n: &[u8], e: &[u8]) -> Result<Self, BadKey> {
        let key = sequence(&[integer(n), integer(e)].concat());
        // rsaEncryption, without parameters (RFC 8017 appendix A).
        const ALGORITHM: [u8; 15] = [
            0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05,
            0x00,
        ];
        let bits = wrapped(BIT_STRING, &[&[0][..], &key].concat());
        let spki = sequence(&[&ALGORITHM[..], &bits].concat());
        let mut all = Self::new(("PUBLIC KEY", spki), RsaBits::Usual)?;
        all.serial = Some(kid.into());
        Ok(all)
    }

    fn new((label, der): (&str, Vec<u8>), bits: RsaBits) -> Result<Self, BadKey> {
        if label == TEST_LABEL {
            return Self::of_test(&der);
        }
        let (spki, serial) = match label {
            "PUBLIC KEY" => (der, None),
            "CERTIFICATE" => {
                let (serial, spki) = certificate(&der).ok_or(BadKey::BrokenCertificate)?;
                (spki.to_vec(), Some(hex_upper(serial).into()))
            }
            label if label.ends_with("PRIVATE KEY") => return Err(BadKey::Private),
            _ => return Err(BadKey::OtherPem),
        };
        let least = match bits {
            RsaBits::Usual => 2048,
            RsaBits::Weak => 1024,
        };
        let length = modulus_bits(&spki).ok_or(BadKey::NotRsa)?;
        if !(1024..=8192).contains(&length) {
            return Err(BadKey::NotRsa);
        }
        if length < least {
            return Err(BadKey::WeakRsa);
        }
        let parse = |algorithm| {
            let key = ParsedPublicKey::new(algorithm, &spki).map_err(|_| BadKey::NotRsa);
            key.map(Arc::new)
        };
        Ok(Self {
            sha1: parse(&RSA_PKCS1_1024_8192_SHA1_FOR_LEGACY_USE_ONLY)?,
            sha256: parse(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY)?,
            serial,
            test: None,
        })
    }

    /// A key of [`new_test_key`].
    fn of_test(pkcs8: &[u8]) -> Result<Self, BadKey> {
        let pair = RsaKeyPair::from_pkcs8(pkcs8).map_err(|_| BadKey::BrokenTest)?;
        let spki: Result<PublicKeyX509Der<'_>, _> = pair.public_key().as_der();
        let spki = spki.map_err(|_| BadKey::BrokenTest)?;
        let key = Self::new(("PUBLIC KEY", spki.as_ref().to_vec()), RsaBits::Usual)?;
        Ok(Self {
            serial: Some(TEST_SERIAL.into()),
            test: Some(pair.into()),
            ..key
        })
    }

    /// Whether it is a key of `payrelay keys test`, and no provider's.
    pub fn is_test(&self) -> bool {
        self.test.is_some()
    }

    /// Signs the message with this SHA-256 (PKCS#1 v1.5); `None`: only the provider can.
    pub(in crate::verify) fn sign(&self, message: &Digest) -> Option<Vec<u8>> {
        let pair = self.test.as_ref()?;
        let mut signature = vec![0; pair.public_modulus_len()];
        let signed = pair.sign_digest(&RSA_PKCS1_SHA256, message, &mut signature);
        signed.ok().map(|()| signature)
    }

    /// The certificate's serial number, in upper-case hex without leading zeros; a public key has none.
    pub fn serial(&self) -> Option<&str> {
        self.serial.as_deref()
    }

    /// Whether it made `signature` (PKCS#1 v1.5) for the message with this hash.
    pub(in crate::verify) fn verifies(
        &self,
        hash: RsaHash,
        message: &Digest,
        signature: &[u8],
    ) -> bool {
        let key = match hash {
            RsaHash::Sha1 => &self.sha1,
            RsaHash::Sha256 => &self.sha256,
        };
        key.verify_digest_sig(message, signature).is_ok()
    }
}

impl PartialEq for RsaKey {
    fn eq(&self, other: &Self) -> bool {
        (*self.sha256).as_ref() == (*other.sha256).as_ref() && self.serial == other.serial
    }
}

impl fmt::Debug for RsaKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RsaKey({})", self.serial().unwrap_or("a public key"))
    }
}

/// Makes a key with which `payrelay send --sign` signs in a provider's place: the text of its file.
///
/// # Errors
/// The system gives no random numbers.
pub fn new_test_key() -> Result<String, Unspecified> {
    const LINE: usize = 64;
    let pair = RsaKeyPair::generate(KeySize::Rsa2048)?;
    let pkcs8: Pkcs8V1Der<'_> = pair.as_der()?;
    let mut text = format!("-----BEGIN {TEST_LABEL}-----\n");
    for line in STANDARD.encode(pkcs8.as_ref()).as_bytes().chunks(LINE) {
        text.extend(line.iter().copied().map(char::from));
        text.push('\n');
    }
    text += &format!("-----END {TEST_LABEL}-----\n");
    Ok(text)
}

/// Whether `text` is the file of a test key.
pub(in crate::verify) fn is_test_key(text: &str) -> bool {
    text.contains(TEST_LABEL)
}

fn sequence(content: &[u8]) -> Vec<u8> {
    wrapped(SEQUENCE, content)
}

/// An unsigned number of DER: no zeros before it, but one where its first bit would be a sign (X.690 section 8.3).
fn integer(bytes: &[u8]) -> Vec<u8> {
    let zeros = bytes.iter().take_while(|&&byte| byte == 0).count();
    let digits = &bytes[zeros..];
    let is_signed = digits.first().is_none_or(|byte| byte & 0x80 != 0);
    wrapped(INTEGER, &[&[0][..usize::from(is_signed)], digits].concat())
}

/// `content` of less than 64 KiB as an element of DER, its length in the fewest bytes (X.690 section 10.1).
fn wrapped(tag: u8, content: &[u8]) -> Vec<u8> {
    let [high, low] = (content.len() as u16).to_be_bytes();
    let length = match content.len() {
        0..=0x7f => &[low][..],
        0x80..=0xff => &[0x81, low],
        _ => &[0x82, high, low],
    };
    [&[tag], length, content].concat()
}

/// How long the modulus of an RSA key in an SPKI is (RFC 8017 appendix A.1.1, in RFC 5280 section 4.1).
fn modulus_bits(spki: &[u8]) -> Option<usize> {
    let (spki, _) = element(spki, SEQUENCE)?;
    let (_algorithm, rest) = element(spki.content, SEQUENCE)?;
    let (key, _) = element(rest, BIT_STRING)?;
    let (key, _) = element(key.content.strip_prefix(&[0])?, SEQUENCE)?;
    let (modulus, _) = element(key.content, INTEGER)?;
    let zeros = modulus.content.iter().take_while(|&&byte| byte == 0);
    let digits = &modulus.content[zeros.count()..];
    Some(8 * digits.len() - digits.first()?.leading_zeros() as usize)
}

/// The serial number without leading zeros, and the SPKI, of an X.509 certificate (RFC 5280 §4.1).
fn certificate(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const VERSION: u8 = 0xa0;
    let (certificate, _) = element(der, SEQUENCE)?;
    let (to_be_signed, _) = element(certificate.content, SEQUENCE)?;
    let mut fields = to_be_signed.content;
    if let Some((_, rest)) = element(fields, VERSION) {
        fields = rest;
    }
    let (serial, mut fields) = element(fields, INTEGER)?;
    // Its algorithm, issuer, validity and subject.
    for _ in 0..4 {
        (_, fields) = element(fields, SEQUENCE)?;
    }
    let (spki, _) = element(fields, SEQUENCE)?;
    let zeros = serial.content.iter().take_while(|&&byte| byte == 0).count();
    Some((&serial.content[zeros..], spki.whole))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_element_has_its_length_in_the_fewest_bytes() {
        for (length, head) in [
            (0, &[0x30, 0][..]),
            (0x7f, &[0x30, 0x7f]),
            (0x80, &[0x30, 0x81, 0x80]),
            (0xff, &[0x30, 0x81, 0xff]),
            (0x100, &[0x30, 0x82, 1, 0]),
            (0xffff, &[0x30, 0x82, 0xff, 0xff]),
        ] {
            let content = vec![7; length];
            assert_eq!(sequence(&content), [head, &content].concat());
        }
    }

    #[test]
    fn a_keys_length_is_that_of_its_modulus_to_the_bit() {
        // An odd number of so many bits, with zeros before it.
        let of = |bits: usize, zeros: usize| {
            let mut n = vec![0xff; zeros + bits.div_ceil(8)];
            n[..zeros].fill(0);
            n[zeros] = 0xff >> (n.len() * 8 - zeros * 8 - bits);
            RsaKey::of_jwk("kid", &n, &[1, 0, 1]).map(|key| key.serial().map(str::to_owned))
        };
        for zeros in [0, 1, 3] {
            assert_eq!(of(2048, zeros), Ok(Some("kid".to_owned())), "{zeros}");
            assert_eq!(of(8192, zeros), Ok(Some("kid".to_owned())), "{zeros}");
            assert_eq!(of(2047, zeros), Err(BadKey::WeakRsa), "{zeros}");
            assert_eq!(of(1024, zeros), Err(BadKey::WeakRsa), "{zeros}");
            assert_eq!(of(1023, zeros), Err(BadKey::NotRsa), "{zeros}");
            assert_eq!(of(8193, zeros), Err(BadKey::NotRsa), "{zeros}");
        }
    }
}
