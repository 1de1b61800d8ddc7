//! `application/x-www-form-urlencoded` bytes, cut and decoded without any thought of a charset.
//!
//! Form parsers decode to UTF-8 and lose what is none; a signature is over the bytes.

use std::borrow::Cow;

/// The fields of a form or a query, in the order sent, names and values still encoded. A field without `=` has an empty value.
pub fn fields(form: &[u8]) -> impl Iterator<Item = (&[u8], &[u8])> {
    let pairs = form.split(|&b| b == b'&').filter(|pair| !pair.is_empty());
    pairs.map(|pair| {
        let cut = pair.iter().position(|&b| b == b'=').unwrap_or(pair.len());
        let (name, value) = pair.split_at(cut);
        (name, value.strip_prefix(b"=").unwrap_or(value))
    })
}

/// Percent-decodes `bytes`, and `+` to a space; `None` if a `%` stands without its two digits.
pub fn decode(bytes: &[u8]) -> Option<Cow<'_, [u8]>> {
    percent_decode(bytes, true)
}

/// Percent-decodes `bytes`, in which `+` may be a plus, as in a path; `None` if a `%` stands without its two digits.
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
                let digit = |b: u8| (b as char).to_digit(16);
                (digit(*high)? << 4 | digit(*low)?) as u8
            }
            other => *other,
        });
    }
    Some(Cow::Owned(decoded))
}
