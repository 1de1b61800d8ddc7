//! Places in a text, as editors count them.
//!
//! Nothing here knows what the text says.

use std::fmt;

/// A line and a column, both from 1; columns in characters, a tab is one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

impl fmt::Display for Place {
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
    pub fn place(&self, at: usize) -> Place {
        let at = at.min(self.text.len());
        let line = self.line(at);
        let start = self.starts[line - 1];
        let line_on = &self.text[start..];
        let before = line_on.char_indices().take_while(|(n, _)| start + n < at);
        // A byte order mark is no character of the first line to whoever looks at it in an editor.
        let shown = before.filter(|(n, c)| start + n > 0 || *c != '\u{feff}');
        Place {
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
