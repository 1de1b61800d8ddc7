//! Bytes as hexadecimal digits, and as `%XX` in addresses and forms. Pure.

use std::borrow::Cow;

const LOWER: &[u8; 16] = b"0123456789abcdef";
const UPPER: &[u8; 16] = b"0123456789ABCDEF";

/// `bytes` in lower-case hex.
pub fn hex(bytes: &[u8]) -> String {
    digits(bytes, LOWER)
}

/// `bytes` in upper-case hex.
pub fn hex_upper(bytes: &[u8]) -> String {
    digits(bytes, UPPER)
}

fn digits(bytes: &[u8], digits: &[u8; 16]) -> String {
    let mut out = String::with_capacity(2 * bytes.len());
    for byte in bytes {
        out.push(char::from(digits[usize::from(byte >> 4)]));
        out.push(char::from(digits[usize::from(byte & 15)]));
    }
    out
}

/// The bytes of hex in either case; `None` if a digit is none, or one is missing.
pub fn unhex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2);
    pairs
        .map(|pair| match pair {
            [high, low] => byte(*high, *low),
            _ => None,
        })
        .collect()
}

fn byte(high: u8, low: u8) -> Option<u8> {
    let digit = |b: u8| (b as char).to_digit(16);
    Some((digit(high)? << 4 | digit(low)?) as u8)
}

/// `bytes` with all but letters, digits and `-._` as `%XX`.
pub fn percent_encoded(bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    for &byte in bytes {
        match byte {
            b if b.is_ascii_alphanumeric() || b"-._".contains(&b) => out.push(char::from(b)),
            b => {
                out.push('%');
                out.push_str(&hex_upper(&[b]));
            }
        }
    }
    out
}

/// Percent-decodes `bytes`; `plus_is_space` in forms, not in paths. `None` if a `%` stands without its two digits.
pub fn percent_decode(bytes: &[u8], plus_is_space: bool) -> Option<Cow<'_, [u8]>> {
    let is_code = |&b: &u8| b == b'%' || (plus_is_space && b == b'+');
    if !bytes.iter().any(is_code) {
        return Some(Cow::Borrowed(bytes));
    }
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let [first, tail @ ..] = rest {
        rest = tail;
        decoded.push(match first {
            b'+' if plus_is_space => b' ',
            b'%' => {
                let [high, low, after @ ..] = tail else {
                    return None;
                };
                rest = after;
                byte(*high, *low)?
            }
            other => *other,
        });
    }
    Some(Cow::Owned(decoded))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hex_is_read_as_it_is_written() {
        for (bytes, text) in [(&b""[..], ""), (b"\x00\x9f\xff", "009fff")] {
            assert_eq!(hex(bytes), text);
            assert_eq!(hex_upper(bytes), text.to_uppercase());
            assert_eq!(unhex(text).as_deref(), Some(bytes));
            assert_eq!(unhex(&text.to_uppercase()).as_deref(), Some(bytes));
        }
        for bad in ["0", "0g", "+1", "123", "é"] {
            assert_eq!(unhex(bad), None, "{bad}");
        }
    }

    #[test]
    fn percent_codes_are_read_as_they_are_written() {
        let all: Vec<u8> = (0..=255).collect();
        let text = percent_encoded(&all);
        assert!(text.starts_with("%00%01") && text.ends_with("%FF"));
        assert_eq!(
            percent_decode(text.as_bytes(), true).as_deref(),
            Some(&all[..])
        );
        let plus = |plus_is_space| percent_decode(b"a+b%2b", plus_is_space);
        assert_eq!(plus(true).as_deref(), Some(&b"a b+"[..]));
        assert_eq!(plus(false).as_deref(), Some(&b"a+b+"[..]));
        for bad in ["%", "%4", "%zz", "%+1", "a%2"] {
            assert_eq!(percent_decode(bad.as_bytes(), false), None, "{bad}");
        }
    }
}
