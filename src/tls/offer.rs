//! What a client offers in its first message, for the log when nothing of it is taken. Pure.
//!
//! rustls says only that there is nothing in common; which client must change what, an operator sees from its offer.

use std::fmt;

use rustls::CipherSuite;
use rustls::crypto::aws_lc_rs::ALL_CIPHER_SUITES;

/// The most suites that are named.
const NAMED_MAX: usize = 8;

/// Suites without forward secrecy, or older: rustls has no names for them.
const OLD: [(u16, &str); 9] = [
    (0x000a, "TLS_RSA_WITH_3DES_EDE_CBC_SHA"),
    (0x002f, "TLS_RSA_WITH_AES_128_CBC_SHA"),
    (0x0033, "TLS_DHE_RSA_WITH_AES_128_CBC_SHA"),
    (0x0035, "TLS_RSA_WITH_AES_256_CBC_SHA"),
    (0x0039, "TLS_DHE_RSA_WITH_AES_256_CBC_SHA"),
    (0x003c, "TLS_RSA_WITH_AES_128_CBC_SHA256"),
    (0x003d, "TLS_RSA_WITH_AES_256_CBC_SHA256"),
    (0x009c, "TLS_RSA_WITH_AES_128_GCM_SHA256"),
    (0x009d, "TLS_RSA_WITH_AES_256_GCM_SHA384"),
];

/// The version and the cipher suites of a ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offer {
    /// 0x0303 is TLS 1.2, and what later versions say here too.
    version: u16,
    suites: Vec<CipherSuite>,
}

impl Offer {
    /// Reads the beginning of what a client sent; `None` if it is no ClientHello, or not all of its suites are there.
    ///
    /// A record (RFC 8446 section 5.1) with a handshake message in it (section 4), whose ClientHello (section 4.1.2) says version,
    /// 32 random bytes, the id of a session and the suites.
    pub fn read(sent: &[u8]) -> Option<Self> {
        let [22, _, _, _, _, 1, _, _, _, high, low, rest @ ..] = sent else {
            return None;
        };
        let rest = rest.get(32..)?;
        let (&session_id, rest) = rest.split_first()?;
        let rest = rest.get(usize::from(session_id)..)?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let suites = rest.get(..usize::from(u16::from_be_bytes(*length)))?;
        let suites = suites.chunks_exact(2).map(|two| [two[0], two[1]]);
        // Neither a signal about renegotiation or fallback nor a random one (RFC 8701) is a suite.
        let is_suite = |[a, b]: &[u8; 2]| {
            !(matches!((a, b), (0, 0xff) | (0x56, 0)) || a == b && a & 0x0f == 0x0a)
        };
        Some(Self {
            version: u16::from_be_bytes([*high, *low]),
            suites: suites
                .filter(is_suite)
                .map(|two| u16::from_be_bytes(two).into())
                .collect(),
        })
    }

    /// Whether the relay takes one of the suites, if its certificate fits.
    fn has_known(&self) -> bool {
        let mut known = ALL_CIPHER_SUITES.iter();
        known.any(|known| self.suites.contains(&known.suite()))
    }
}

/// What it offers, and what can be done.
impl fmt::Display for Offer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.version {
            0x0303.. => f.write_str("it offers TLS 1.2 or later")?,
            0x0302 => f.write_str("it offers TLS 1.1")?,
            0x0301 => f.write_str("it offers TLS 1.0")?,
            _ => f.write_str("it offers SSL 3")?,
        }
        for (n, suite) in self.suites.iter().take(NAMED_MAX).enumerate() {
            f.write_str(if n == 0 { " with " } else { ", " })?;
            match OLD.iter().find(|(number, _)| *number == u16::from(*suite)) {
                Some((_, name)) => f.write_str(name)?,
                None => write!(f, "{suite:?}")?,
            }
        }
        if let more @ 1.. = self.suites.len().saturating_sub(NAMED_MAX) {
            write!(f, " and {more} more")?;
        }
        f.write_str(match self.version >= 0x0303 && self.has_known() {
            true => {
                ": none that fits the key of the certificate; with a certificate of the other kind (RSA, in place of an elliptic curve) it can connect"
            }
            false => {
                ": none that the relay speaks (TLS 1.2 and 1.3, ECDHE with AES-GCM or ChaCha20); let a proxy end TLS for it (doc/proxies.md)"
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(version: [u8; 2], session_id: &[u8], suites: &[[u8; 2]]) -> Vec<u8> {
        let mut hello = vec![22, 3, 1, 0, 0, 1, 0, 0, 0, version[0], version[1]];
        hello.extend([7; 32]);
        hello.push(session_id.len() as u8);
        hello.extend(session_id);
        hello.extend((2 * suites.len() as u16).to_be_bytes());
        hello.extend(suites.iter().flatten());
        hello
    }

    #[test]
    fn an_offer_is_read_and_says_what_helps() {
        let cbc = hello(
            [3, 3],
            &[1; 32],
            &[[0, 0x2f], [0x0a, 0x0a], [0, 0xff], [0xc0, 0x13]],
        );
        assert_eq!(
            Offer::read(&cbc).expect("an offer").to_string(),
            "it offers TLS 1.2 or later with TLS_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA: none that the relay \
             speaks (TLS 1.2 and 1.3, ECDHE with AES-GCM or ChaCha20); let a proxy end TLS for it (doc/proxies.md)"
        );
        let rsa = Offer::read(&hello([3, 3], b"", &[[0xc0, 0x2f]])).expect("an offer");
        assert!(
            rsa.to_string().contains("a certificate of the other kind"),
            "{rsa}"
        );
        let old = Offer::read(&hello([3, 1], b"", &[[0xc0, 0x2f]; 10])).expect("an offer");
        let words = old.to_string();
        assert!(words.starts_with("it offers TLS 1.0 with"), "{words}");
        assert!(
            words.contains("and 2 more: none that the relay speaks"),
            "{words}"
        );
        for cut in 0..cbc.len() {
            assert_eq!(Offer::read(&cbc[..cut]), None, "{cut}");
        }
        assert_eq!(Offer::read(b"GET / HTTP/1.1\r\n\r\n"), None);
    }
}
