//! What is wrong with a configuration, told so that a person can put it right without looking anything up.
//!
//! Here are the list of errors and one error's place in the file; what can be wrong is [`Problem`]'s business. A secret's
//! value never gets this far: the reader withholds it.

use std::fmt;

use super::place::Place;
use super::problem::Problem;

/// Everything that is wrong with one configuration, in the file's order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(Vec<ConfigError>);

impl ConfigErrors {
    /// The errors, in the file's order; there is at least one.
    pub(super) fn new(errors: Vec<ConfigError>) -> Self {
        Self(errors)
    }

    /// The one error of a file that could not be taken as text at all.
    pub(super) fn of_file(file: &str, place: Option<Place>, problem: Problem) -> Self {
        Self(vec![ConfigError {
            file: file.to_owned(),
            place,
            key: String::new(),
            given: None,
            problem,
        }])
    }

    /// The errors one by one, in the file's order.
    pub fn iter(&self) -> std::slice::Iter<'_, ConfigError> {
        self.0.iter()
    }
}

impl<'a> IntoIterator for &'a ConfigErrors {
    type Item = &'a ConfigError;
    type IntoIter = std::slice::Iter<'a, ConfigError>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// One error a line, without a line end after the last.
impl fmt::Display for ConfigErrors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, error) in self.0.iter().enumerate() {
            if n > 0 {
                f.write_str("\n")?;
            }
            error.fmt(f)?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigErrors {}

/// One thing that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// The file, as the caller named it.
    pub file: String,
    /// Where in the file; `None` if the file could not be read.
    pub place: Option<Place>,
    /// The dotted key, as in `http.max_body` or `route[2].path` (the first route is 0); empty if it concerns no key.
    pub key: String,
    /// What the file gives, on one line and cut short; `None` for secrets, arrays, tables and what is not there.
    pub given: Option<String>,
    /// What is wrong with it, and what is allowed.
    pub problem: Problem,
}

/// `file:line:column: key = given: problem`, leaving out what there is not.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(place) = self.place {
            write!(f, ":{place}")?;
        }
        f.write_str(": ")?;
        if !self.key.is_empty() {
            f.write_str(&self.key)?;
            if let Some(given) = &self.given {
                write!(f, " = {given}")?;
            }
            f.write_str(": ")?;
        }
        self.problem.fmt(f)
    }
}

impl std::error::Error for ConfigError {}
