//! Keys by their names: a JSON Web Key Set (RFC 7517), as Google publishes one.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::KEYS_MAX;
use super::keys::{BadKey, RsaBits, RsaKey, is_test_key};

/// The keys of a JSON Web Key Set, or a test key.
///
/// # Errors
/// It is neither.
pub fn named_keys(text: &str) -> Result<Vec<RsaKey>, BadKey> {
    match is_test_key(text) {
        true => RsaKey::read_all(text, RsaBits::Usual),
        false => key_set(text),
    }
}

/// The RSA keys of a JSON Web Key Set (RFC 7517), by their names.
///
/// # Errors
/// It is none, or has no key that can be used.
pub fn key_set(text: &str) -> Result<Vec<RsaKey>, BadKey> {
    #[derive(Deserialize)]
    struct Set {
        keys: Vec<Key>,
    }
    #[derive(Deserialize)]
    struct Key {
        kid: Option<String>,
        kty: String,
        n: Option<String>,
        e: Option<String>,
    }
    let set: Set = serde_json::from_str(text).map_err(|_| BadKey::NotKeySet)?;
    let mut all = Vec::new();
    for key in set.keys {
        // Keys of other kinds sign nothing that is taken here.
        if let (Some(kid), "RSA", Some(n), Some(e)) = (key.kid, &*key.kty, key.n, key.e) {
            if all.len() == KEYS_MAX {
                return Err(BadKey::TooMany);
            }
            let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| BadKey::NotKeySet);
            let (n, e) = (decode(&n)?, decode(&e)?);
            if n.len() > 2048 || e.len() > 16 {
                return Err(BadKey::NotRsa);
            }
            all.push(RsaKey::of_jwk(&kid, &n, &e)?);
        }
    }
    match all.is_empty() {
        true => Err(BadKey::NotKeySet),
        false => Ok(all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_set_has_the_keys_that_can_sign_and_as_many_as_a_route() {
        let key = |n: usize, kty: &str| {
            let modulus = URL_SAFE_NO_PAD.encode([&vec![0xff; 255][..], &[n as u8 | 1]].concat());
            format!(r#"{{"kid":"k{n}","kty":"{kty}","n":"{modulus}","e":"AQAB","use":"sig"}}"#)
        };
        let set = |keys: &[String]| key_set(&format!(r#"{{"keys":[{}]}}"#, keys.join(",")));
        let many = |count| -> Vec<String> { (0..count).map(|n| key(n, "RSA")).collect() };
        let names = |keys: &[RsaKey]| -> Vec<String> {
            keys.iter()
                .filter_map(|key| key.serial().map(str::to_owned))
                .collect()
        };
        let read = set(&[
            key(1, "EC"),
            key(2, "RSA"),
            r#"{"kty":"RSA","kid":"bare"}"#.to_owned(),
        ]);
        assert_eq!(names(&read.expect("a key")), ["k2"]);
        let most = KEYS_MAX;
        assert_eq!(set(&many(most)).map(|keys| keys.len()), Ok(most));
        assert_eq!(set(&many(most + 1)), Err(BadKey::TooMany));
        assert_eq!(set(&[key(1, "EC")]), Err(BadKey::NotKeySet));
        assert_eq!(key_set("[]"), Err(BadKey::NotKeySet));
        // Those that are passed over do not count.
        let mixed = [many(most), vec![key(1, "EC")]].concat();
        assert_eq!(set(&mixed).map(|keys| keys.len()), Ok(most));
    }
}
