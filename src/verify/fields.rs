//! Named fields signed as `name=value&name=value`, sorted by name: what Alipay and WeChat Pay v2 have in common.
//!
//! Nothing in such a message says where a value ends: the value `1&total_amount=9` and two fields look alike in it. So
//! fields are refused whose message could be cut in another way into fields that a merchant looks at.

use std::borrow::Cow;

use super::Refused;

/// The most fields; providers send about forty.
pub const FIELDS_MAX: usize = 256;

/// The fields of one message, sorted by name, each there once.
pub struct Fields<'a>(Vec<Field<'a>>);

/// A name and its value, decoded.
pub type Field<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

impl<'a> Fields<'a> {
    /// Takes `fields` if they can be read in one way only. `known` are the names that a merchant looks at.
    ///
    /// # Errors
    /// There are too many, one is there twice, a name is none, or a value has in it what looks like another field.
    pub fn new<I>(fields: I, known: &[&str]) -> Result<Self, Refused>
    where
        I: Iterator<Item = Result<Field<'a>, Refused>>,
    {
        let mut all = Vec::with_capacity(48);
        for field in fields {
            let (name, value) = field?;
            if all.len() == FIELDS_MAX {
                return Err(Refused::TooMany("fields"));
            }
            if name.is_empty() || !name.iter().all(is_of_name) {
                return Err(Refused::Malformed(
                    "a field's name has other characters than names have",
                ));
            }
            all.push((name, value));
        }
        all.sort_by(|(a, _), (b, _)| a.cmp(b));
        if all.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Refused::Repeated("field".into()));
        }
        let all = Self(all);
        let is_field = |name: &[u8]| {
            known.iter().any(|known| known.as_bytes() == name) || all.get(name).is_some()
        };
        if all.0.iter().any(|(_, value)| hides_field(value, is_field)) {
            return Err(Refused::Malformed(
                "a value has in it what could be read as another field",
            ));
        }
        Ok(all)
    }

    /// The value of the field called `name`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self
            .0
            .binary_search_by(|(its, _)| its.as_ref().cmp(name))
            .ok()?;
        Some(&self.0[at].1)
    }

    /// The message over the fields that `signs` picks by name and value, in pieces.
    pub fn message(&self, signs: impl Fn(&[u8], &[u8]) -> bool, mut piece: impl FnMut(&[u8])) {
        let picked = self.0.iter().filter(|(name, value)| signs(name, value));
        for (at, (name, value)) in picked.enumerate() {
            if at > 0 {
                piece(b"&");
            }
            piece(name);
            piece(b"=");
            piece(value);
        }
    }
}

fn is_of_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-$".contains(byte)
}

/// Whether `value` contains `&name=` with the name of a field.
fn hides_field(value: &[u8], is_field: impl Fn(&[u8]) -> bool) -> bool {
    let mut rest = value;
    while let Some(at) = rest.iter().position(|&b| b == b'&') {
        rest = &rest[at + 1..];
        let name = rest
            .iter()
            .position(|b| !is_of_name(b))
            .unwrap_or(rest.len());
        if rest.get(name) == Some(&b'=') && is_field(&rest[..name]) {
            return true;
        }
    }
    false
}
