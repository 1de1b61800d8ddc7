//! Named fields signed as `name=value&name=value`, sorted by name: what Alipay, WeChat Pay v2 and most game channels have in
//! common.
//!
//! Nothing in such a text says where a value ends: the value `1&total_amount=9` and two fields look alike in it. So one text
//! has several *readings*: each picks some of the places where `&name=` stands as the beginnings of fields, with their names
//! in order and none twice. Only one reading of a text is believed, the one with
//!
//! 1. the most fields of those that the provider always sends; among these
//! 2. the most of those that it is known to send; among these
//! 3. the fewest fields of unknown names cut off from a value that may hold any text (a merchant's own, or a product's name);
//! 4. the fewest places left inside other values where a field could begin.
//!
//! If two readings are equal in all of that, neither is believed. So no text is ever believed in two readings, and a genuine
//! notification is refused only if its values imitate fields so well that nothing tells the two apart.

#[cfg(test)]
mod tests;

use std::borrow::Cow;

use super::Refused;
use crate::request::FIELDS_MAX;

/// The most places in one text where a field could begin. Fields and what looks like fields in values.
const STARTS_MAX: usize = 2 * FIELDS_MAX;

/// The most of a field's name that is shown to the operator.
const NAME_BYTES_SHOWN: usize = 64;

/// The fields of one message, sorted by name, each there once.
pub struct Fields<'a>(Vec<NameValue<'a>>);

/// A name and its value, decoded.
pub type NameValue<'a> = (Cow<'a, [u8]>, Cow<'a, [u8]>);

/// What is known of a provider's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<'k> {
    /// Names that every notification has.
    pub always: &'k [&'k str],
    /// Names that some notifications have.
    pub sometimes: &'k [&'k str],
    /// More such names, of the route's configuration.
    pub more: &'k [String],
    /// Names whose values are the merchant's or the buyer's own text. A text of the provider's own is none: an unknown field
    /// after one of these is taken for a part of it.
    pub free_text: &'k [&'k str],
    /// Names that are never in the text, such as the signature's own.
    pub never: &'k [&'k str],
}

impl<'a> Fields<'a> {
    /// Takes `fields`, each of which may be there once.
    ///
    /// # Errors
    /// There are too many, one is there twice, or a name is none.
    pub fn new<I>(fields: I) -> Result<Self, Refused>
    where
        I: Iterator<Item = Result<NameValue<'a>, Refused>>,
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
        Ok(Self(all))
    }

    /// Every field.
    pub fn iter(&self) -> impl Iterator<Item = &NameValue<'a>> {
        self.0.iter()
    }

    /// The value of the field called `name`.
    pub fn get(&self, name: &[u8]) -> Option<&[u8]> {
        let at = self
            .0
            .binary_search_by(|(its, _)| its.as_ref().cmp(name))
            .ok()?;
        Some(&self.0[at].1)
    }

    /// The text over the fields whose names `signs` picks, `join` between them.
    pub fn text(&self, skips_empty: bool, join: &str, signs: impl Fn(&[u8]) -> bool) -> Text {
        let mut bytes = Vec::with_capacity(1024);
        let mut begins = Vec::with_capacity(self.0.len());
        for (name, value) in &self.0 {
            if !signs(name) || (skips_empty && value.is_empty()) {
                continue;
            }
            if !begins.is_empty() {
                bytes.extend_from_slice(join.as_bytes());
            }
            begins.push(bytes.len());
            bytes.extend_from_slice(name);
            bytes.push(b'=');
            bytes.extend_from_slice(value);
        }
        Text {
            bytes,
            begins,
            join: join.into(),
            skips_empty,
        }
    }
}

/// A signed text, and the reading that it was made of.
pub struct Text {
    /// What is signed.
    pub bytes: Vec<u8>,
    /// Where each field begins.
    begins: Vec<usize>,
    join: Box<str>,
    skips_empty: bool,
}

impl Text {
    /// A text of values without names.
    pub fn of_values(bytes: Vec<u8>) -> Self {
        Self {
            bytes,
            begins: Vec::new(),
            join: "".into(),
            skips_empty: true,
        }
    }

    /// Whether this is the likeliest reading of the text, and the only one so likely. To be asked once the signature is
    /// right: it takes longer than that.
    ///
    /// # Errors
    /// It is not.
    pub fn check_reading(&self, known: &Known<'_>) -> Result<(), Refused> {
        readings::check(self, known)
    }
}

fn is_of_name(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.-$".contains(byte)
}

/// The readings of a text, and which of them is the likeliest.
mod readings {
    use super::{Known, NAME_BYTES_SHOWN, Refused, STARTS_MAX, Text, is_of_name};

    /// A place where a field could begin.
    struct Start<'t> {
        at: usize,
        name: &'t [u8],
        kind: Kind,
        is_free_text: bool,
    }

    #[derive(Clone, Copy, PartialEq, Eq)]
    enum Kind {
        Always,
        Sometimes,
        Unknown,
    }

    /// How likely a reading is, the most telling first: fields that are always there, known fields; less the unknown fields cut
    /// off from free text; less the beginnings inside values that are no free text.
    #[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
    struct Likelihood([i16; 4]);

    impl Likelihood {
        /// With one more field.
        fn with(self, start: &Start<'_>) -> Self {
            self.plus(match start.kind {
                Kind::Always => [1, 0, 0, 0],
                Kind::Sometimes => [0, 1, 0, 0],
                Kind::Unknown => [0, 0, 0, 0],
            })
        }

        /// With `between` beginnings in the value of the field `of`, after which `next` begins.
        fn with_value(self, of: &Start<'_>, between: usize, next: Option<&Start<'_>>) -> Self {
            let is_cut = next.is_some_and(|next| next.kind == Kind::Unknown);
            self.plus(match (of.is_free_text, is_cut) {
                (true, true) => [0, 0, -1, 0],
                (true, false) => [0, 0, 0, 0],
                (false, _) => [0, 0, 0, -(between as i16)],
            })
        }

        fn plus(self, more: [i16; 4]) -> Self {
            Self(std::array::from_fn(|at| self.0[at] + more[at]))
        }
    }

    /// Refuses `text` if its reading is not the one likeliest.
    pub fn check(text: &Text, known: &Known<'_>) -> Result<(), Refused> {
        let is_apart = &*text.join == "&";
        let starts = match is_apart {
            true => starts(&text.bytes, known)?,
            false => starts_of_known(&text.bytes, known)?,
        };
        let own = &text.begins;
        // The usual case: nothing in a value looks like a field, and every other reading has fewer fields.
        let all_own = is_apart && starts.len() == own.len();
        let cut_off = |pair: &[Start<'_>]| pair[0].is_free_text && pair[1].kind == Kind::Unknown;
        if all_own && !starts.windows(2).any(cut_off) {
            return Ok(());
        }
        let mine = likelihood_of(&starts, own);
        let (best, readings) = best(text, &starts);
        (mine == Some(best) && readings == 1)
            .then_some(())
            .ok_or_else(|| ambiguous(&starts, own))
    }

    /// Which field is in doubt, and what the operator can do. Names only: values are the payment's.
    fn ambiguous(starts: &[Start<'_>], own: &[usize]) -> Refused {
        let shown = |start: &Start<'_>| {
            let name = &start.name[..start.name.len().min(NAME_BYTES_SHOWN)];
            String::from_utf8_lossy(name).into_owned()
        };
        let mut last: Option<&Start<'_>> = None;
        let mut hidden = None;
        for start in starts {
            let is_field = own.binary_search(&start.at).is_ok();
            if let Some(last) = last {
                let (of, name) = (shown(last), shown(start));
                if is_field && last.is_free_text && start.kind == Kind::Unknown {
                    return Refused::Ambiguous(
                        format!(
                            "whether {name} is a field or a part of the text in {of} cannot be told; if the provider sends a \
                             field {name}, write more_fields = [\"{name}\"] in the route"
                        )
                        .into(),
                    );
                }
                if !is_field && hidden.is_none() {
                    hidden = Some(format!(
                        "the value of {of} holds {name}=, which could be a field of its own; give the provider such a value \
                         encoded (base64, say)"
                    ));
                }
            }
            if is_field {
                last = Some(start);
            }
        }
        let otherwise = || "a value has in it what could be read as another field".to_owned();
        Refused::Ambiguous(hidden.unwrap_or_else(otherwise).into())
    }

    fn starts<'t>(text: &'t [u8], known: &Known<'_>) -> Result<Vec<Start<'t>>, Refused> {
        let has = |names: &[&str], name: &[u8]| names.iter().any(|its| its.as_bytes() == name);
        let mut starts = Vec::with_capacity(48);
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let length = rest.iter().position(|b| !is_of_name(b));
            if let Some(length @ 1..) = length
                && rest[length] == b'='
                && !has(known.never, &rest[..length])
            {
                if starts.len() == STARTS_MAX {
                    return Err(Refused::TooMany("fields in values"));
                }
                let name = &rest[..length];
                let is_more = || known.more.iter().any(|its| its.as_bytes() == name);
                let kind = match () {
                    () if has(known.always, name) => Kind::Always,
                    () if has(known.sometimes, name) || is_more() => Kind::Sometimes,
                    () => Kind::Unknown,
                };
                starts.push(Start {
                    at,
                    name,
                    kind,
                    is_free_text: has(known.free_text, name),
                });
            }
            match rest.iter().position(|&b| b == b'&') {
                Some(next) => at += next + 1,
                None => break,
            }
        }
        Ok(starts)
    }

    /// The same where nothing stands between two fields: only known names are taken for fields.
    fn starts_of_known<'t>(text: &'t [u8], known: &Known<'_>) -> Result<Vec<Start<'t>>, Refused> {
        let mut starts = Vec::with_capacity(48);
        let always = known.always.iter().map(|&name| (name, Kind::Always));
        let more = known.more.iter().map(String::as_str);
        let sometimes = known.sometimes.iter().copied().chain(more);
        let sometimes = sometimes.map(|name| (name, Kind::Sometimes));
        let names: Vec<_> = always.chain(sometimes).collect();
        for at in 0..text.len() {
            for (name, kind) in &names {
                if text[at..].starts_with(name.as_bytes())
                    && text.get(at + name.len()) == Some(&b'=')
                {
                    if starts.len() == STARTS_MAX {
                        return Err(Refused::TooMany("fields in values"));
                    }
                    starts.push(Start {
                        at,
                        name: &text[at..at + name.len()],
                        kind: *kind,
                        is_free_text: known.free_text.contains(name),
                    });
                }
            }
        }
        Ok(starts)
    }

    fn likelihood_of(starts: &[Start<'_>], own: &[usize]) -> Option<Likelihood> {
        let mut sum = Likelihood::default();
        let mut last: Option<usize> = None;
        for &at in own {
            let found = starts.binary_search_by(|start| start.at.cmp(&at)).ok()?;
            if let Some(last) = last {
                sum = sum.with_value(&starts[last], found - last - 1, Some(&starts[found]));
            }
            sum = sum.with(&starts[found]);
            last = Some(found);
        }
        let last = last?;
        Some(sum.with_value(&starts[last], starts.len() - last - 1, None))
    }

    /// The likelihood of the likeliest reading, and how many there are of it (2: at least two).
    fn best(text: &Text, starts: &[Start<'_>]) -> (Likelihood, u8) {
        // What the readings are worth whose last field so far begins at each start.
        let mut until: Vec<Option<(Likelihood, u8)>> = Vec::with_capacity(starts.len());
        let mut best = (Likelihood::default(), 0);
        for (n, start) in starts.iter().enumerate() {
            let mut here =
                (n == 0 && start.at == 0).then(|| (Likelihood::default().with(start), 1));
            for (at, (before, known)) in starts[..n].iter().zip(&until).enumerate() {
                let Some((likelihood, readings)) = *known else {
                    continue;
                };
                let is_empty = before.at + before.name.len() + 1 + text.join.len() == start.at;
                let overlaps = before.at + before.name.len() >= start.at;
                if before.name >= start.name || overlaps || (text.skips_empty && is_empty) {
                    continue;
                }
                let likelihood = likelihood
                    .with_value(before, n - at - 1, Some(start))
                    .with(start);
                here = Some(better(here, (likelihood, readings)));
            }
            until.push(here);
            let ends_empty = start.at + start.name.len() + 1 == text.bytes.len();
            if let Some((likelihood, readings)) = here
                && !(text.skips_empty && ends_empty)
            {
                let likelihood = likelihood.with_value(start, starts.len() - n - 1, None);
                best = better((best.1 > 0).then_some(best), (likelihood, readings));
            }
        }
        best
    }

    fn better(one: Option<(Likelihood, u8)>, other: (Likelihood, u8)) -> (Likelihood, u8) {
        match one {
            None => other,
            Some(one) if one.0 > other.0 => one,
            Some(one) if one.0 == other.0 => (one.0, one.1.saturating_add(other.1).min(2)),
            Some(_) => other,
        }
    }
}
