//! What is wrong with a configuration, told so that a person can put it right without looking anything up: the list of errors, and
//! one error's place in the file, counted as editors count it.
//!
//! What is wrong is a sentence, written beside the condition that finds it. A secret's value never gets this far: the reader
//! withholds it.

use std::fmt;

/// Everything that is wrong with one configuration, in the file's order; there is at least one error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigErrors(pub(super) Vec<ConfigError>);

impl ConfigErrors {
    /// The one error of a file that could not be taken as text at all.
    pub(super) fn of_file(file: &str, place: Option<Position>, problem: String) -> Self {
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
    pub place: Option<Position>,
    /// The dotted key, as in `http.max_body` or `route[2].path` (the first route is 0); empty if it concerns no key.
    pub key: String,
    /// What the file gives, on one line and cut short; `None` for secrets, arrays, tables and what is not there.
    pub given: Option<String>,
    /// What is wrong with it, and what is allowed.
    pub problem: String,
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
        f.write_str(&self.problem)
    }
}

impl std::error::Error for ConfigError {}

/// A line and a column, both from 1; columns in characters, a tab is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A text whose line beginnings are known, so that a file full of errors does not take a walk through it for each.
pub struct Lines<'a> {
    text: &'a str,
    starts: Vec<usize>,
}

impl<'a> Lines<'a> {
    pub fn new(text: &'a str) -> Self {
        let after_line_ends = text.match_indices('\n').map(|(at, _)| at + 1);
        Self {
            text,
            starts: std::iter::once(0).chain(after_line_ends).collect(),
        }
    }

    /// The line, from 1, of byte `at`.
    pub fn line(&self, at: usize) -> usize {
        self.starts.partition_point(|&start| start <= at)
    }

    /// The place of byte `at`, or of the text's end if it is shorter.
    pub fn place(&self, at: usize) -> Position {
        let at = at.min(self.text.len());
        let line = self.line(at);
        let start = self.starts[line - 1];
        let line_on = &self.text[start..];
        let before = line_on.char_indices().take_while(|(n, _)| start + n < at);
        // A byte order mark is no character of the first line to whoever looks at it in an editor.
        let shown = before.filter(|(n, c)| start + n > 0 || *c != '\u{feff}');
        Position {
            line,
            column: shown.count() + 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_what_an_editor_shows() {
        let text = "\u{feff}a = 1\r\n\tb = \"支付\" # x\n\nc";
        let lines = Lines::new(text);
        for (needle, place) in [
            ("a", "1:1"),
            ("1", "1:5"),
            ("b", "2:2"),
            ("支", "2:7"),
            ("付", "2:8"),
            ("x", "2:13"),
            ("c", "4:1"),
        ] {
            let at = text.find(needle).unwrap();
            assert_eq!(lines.place(at).to_string(), place, "{needle}");
            assert_eq!(lines.line(at), lines.place(at).line);
        }
        assert_eq!(lines.place(text.len()).to_string(), "4:2");
        assert_eq!(lines.place(usize::MAX).to_string(), "4:2");
        assert_eq!(Lines::new("").place(0).to_string(), "1:1");
    }
}
