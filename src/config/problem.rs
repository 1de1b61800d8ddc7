//! What is wrong with one value: a sentence that says so and says what is allowed.
//!
//! Nothing here reads a file; where and for which key a problem arose is told by [`ConfigError`](super::ConfigError).

use std::fmt;

use super::selector::BadSelector;
use super::verify::BadVerify;
use crate::verify::BadKey;

/// What is wrong with one key, or with the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// In words.
    Sentence(String),
    /// The key must be there; says what it is for.
    Missing(&'static str),
    /// A word that is not among those known.
    NotOneOf(&'static [&'static str]),
    /// No key of the kind that the provider uses.
    Key(BadKey),
    /// No check of a signature.
    Verify(BadVerify),
    /// No selector, or one that contradicts the path.
    Selector(BadSelector),
    /// No header that can be forwarded.
    Header(BadHeader),
}

/// Why a header is not forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadHeader {
    /// Not a header's name.
    Name,
    /// It concerns one connection only and ends at the relay.
    HopByHop,
    /// The relay tells the length itself.
    Length,
    /// Callers' copies of the relay's own headers are dropped.
    Own,
}

impl Problem {
    /// What `sentence` says.
    pub fn of(sentence: impl fmt::Display) -> Self {
        Self::Sentence(sentence.to_string())
    }
}

impl From<String> for Problem {
    fn from(sentence: String) -> Self {
        Self::Sentence(sentence)
    }
}

impl From<&str> for Problem {
    fn from(sentence: &str) -> Self {
        Self::of(sentence)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sentence(sentence) => f.write_str(sentence),
            Self::Missing(what) => write!(f, "is missing; {what}"),
            Self::NotOneOf(allowed) => {
                f.write_str("not known; allowed:")?;
                for (n, word) in allowed.iter().enumerate() {
                    write!(f, "{} \"{word}\"", if n == 0 { "" } else { "," })?;
                }
                Ok(())
            }
            Self::Key(bad) => bad.fmt(f),
            Self::Verify(bad) => bad.fmt(f),
            Self::Selector(bad) => bad.fmt(f),
            Self::Header(bad) => bad.fmt(f),
        }
    }
}

impl fmt::Display for BadHeader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Name => "not a header's name: 1 to 128 of A-Z a-z 0-9 ! # $ % & ' * + - . ^ _ ` | ~",
            Self::HopByHop => "this header concerns one connection only and ends at the relay; leave it out",
            Self::Length => "the MSG frame tells the body's length; leave it out",
            Self::Own => "x-payrelay-* headers are the relay's own and never come from a provider; leave it out",
        })
    }
}
