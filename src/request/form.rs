//! `application/x-www-form-urlencoded` bytes, cut and decoded without any thought of a charset.
//!
//! Form parsers decode to UTF-8 and lose what is none; a signature is over the bytes.

use std::borrow::Cow;

use crate::escape::percent_decode;

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
