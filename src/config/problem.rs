//! What is wrong with one value: a sentence that says so and says what is allowed.

use std::fmt;

/// The sentence. Where, and for which key, is told by [`ConfigError`](super::ConfigError).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem(String);

impl Problem {
    /// What another module's error says.
    pub fn of(sentence: impl fmt::Display) -> Self {
        Self(sentence.to_string())
    }
}

impl From<String> for Problem {
    fn from(sentence: String) -> Self {
        Self(sentence)
    }
}

impl From<&str> for Problem {
    fn from(sentence: &str) -> Self {
        Self(sentence.to_owned())
    }
}

impl From<Problem> for String {
    fn from(problem: Problem) -> Self {
        problem.0
    }
}
