//! The text that is signed, as a template.

use super::Algorithm;
use crate::request::Selector;

/// A text with placeholders.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(pub Vec<Part>);

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Itself.
    Literal(Box<str>),
    /// The sorted fields.
    Fields,
    /// The body.
    Body,
    /// The CRC-32 of the body, in decimal.
    BodyCrc32,
    /// The secret.
    Secret,
    /// The MD5 of the secret, in lower-case hex.
    SecretMd5,
    /// The method.
    Method,
    /// Path and query.
    Target,
    /// The address that the provider was told.
    Url,
    /// The time.
    Timestamp,
    /// A value.
    Value(Selector, ValueForm),
    /// The values of these parts, sorted, one after the other.
    Ordered(Vec<Part>),
}

/// How a value is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ValueForm {
    /// It may be missing; then nothing stands in its place.
    pub may_be_missing: bool,
    /// In lower case, whatever it is sent in.
    pub is_lower_case: bool,
}

/// The address that the provider was told, as it signs it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    before: Box<str>,
    /// What follows the id, if there is one in it.
    after: Option<Box<str>>,
}

impl Url {
    /// Takes `text`, in which `{id}` stands for the path's id.
    pub fn new(text: &str) -> Self {
        match text.split_once("{id}") {
            None => Self {
                before: text.into(),
                after: None,
            },
            Some((before, after)) => Self {
                before: before.into(),
                after: Some(after.into()),
            },
        }
    }

    /// Whether its end is the path's id.
    pub(super) fn ends_with_id(&self) -> bool {
        self.after.as_deref() == Some("")
    }

    /// Gives `sink` the address with `id`.
    pub(super) fn write(&self, id: &str, sink: &mut dyn FnMut(&[u8])) {
        sink(self.before.as_bytes());
        if let Some(after) = &self.after {
            sink(id.as_bytes());
            sink(after.as_bytes());
        }
    }
}

impl Template {
    /// Every part, those of `{ordered(…)}` too.
    pub fn parts(&self) -> impl Iterator<Item = &Part> {
        self.0.iter().flat_map(|part| match part {
            Part::Ordered(parts) => parts.iter(),
            other => std::slice::from_ref(other).iter(),
        })
    }

    /// Whether `part` is in it.
    pub fn has(&self, part: &Part) -> bool {
        self.parts().any(|its| its == part)
    }

    /// Refuses a text that protects nothing.
    ///
    /// # Errors
    /// It does not; says why.
    pub fn check(&self, algorithm: Algorithm) -> Result<(), &'static str> {
        let is_said = |part: &Part| {
            matches!(
                part,
                Part::Fields | Part::Body | Part::BodyCrc32 | Part::Value(..)
            )
        };
        if !self.parts().any(is_said) {
            return Err(
                "nothing of the payment would be signed; {fields}, {body} or a value is needed",
            );
        }
        let times = |part: &Part| self.parts().filter(|its| *its == part).count();
        if times(&Part::Fields) > 1 || times(&Part::Body) > 1 {
            return Err("{fields} and {body} may be there once");
        }
        let has_secret = self.has(&Part::Secret) || self.has(&Part::SecretMd5);
        if algorithm.rsa().is_none() && !algorithm.is_hmac() && !has_secret {
            return Err("a digest of a text without {secret} can be made by anybody");
        }
        Ok(())
    }

    /// Something follows the secret that may be longer: who has one genuine text and its digest can go on where that ended, and
    /// needs no secret for it (length extension). An HMAC is not so.
    pub fn can_be_continued(&self, algorithm: Algorithm) -> bool {
        let is_secret = |part: &Part| matches!(part, Part::Secret | Part::SecretMd5);
        let is_fixed = |part: &Part| matches!(part, Part::Literal(_));
        let is_digest = algorithm.rsa().is_none() && !algorithm.is_hmac();
        let last = self.0.iter().rposition(is_secret);
        is_digest && last.is_some_and(|last| !self.0[last + 1..].iter().all(is_fixed))
    }

    /// Two neighbours between which nothing tells where one ends: the provider's fault, and worth a warning.
    pub fn has_open_seam(&self) -> bool {
        let is_value = |part: &Part| matches!(part, Part::Value(..));
        self.0
            .windows(2)
            .any(|pair| is_value(&pair[0]) && is_value(&pair[1]))
    }
}
