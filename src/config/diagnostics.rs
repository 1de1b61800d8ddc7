//! What was found wrong, or odd, in a file: noted while it is read, and told in its order.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;

use super::error::{ConfigError, ConfigErrors, Lines, Position};
use super::spelling;

/// What was found wrong, or odd, so far.
pub struct Diagnostics<'a> {
    file: &'a str,
    lines: Lines<'a>,
    end: usize,
    errors: RefCell<Vec<(usize, ConfigError)>>,
    warnings: RefCell<Vec<(usize, String)>>,
    has_secret: Cell<bool>,
    /// The keys that each section knows, by the section's name; of routes as they are headed.
    known: RefCell<BTreeMap<String, Vec<&'static str>>>,
    unknown: RefCell<Vec<Unknown>>,
}

/// A key that its section does not know.
pub struct Unknown {
    /// The byte where it begins.
    pub at: usize,
    /// Its section, as it is headed.
    pub section: String,
    /// With that of the section before it.
    pub key: String,
    /// As it is written.
    pub word: String,
    /// What its section knows.
    pub asked: Vec<&'static str>,
}

impl<'a> Diagnostics<'a> {
    pub fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            lines: Lines::new(text),
            end: text.len(),
            errors: RefCell::default(),
            warnings: RefCell::default(),
            has_secret: Cell::default(),
            known: RefCell::default(),
            unknown: RefCell::default(),
        }
    }

    /// Notes a problem at byte `at` of the text.
    pub fn add(&self, at: usize, key: &str, given: Option<String>, problem: String) {
        let error = ConfigError {
            file: self.file.to_owned(),
            place: Some(self.place(at)),
            key: key.to_owned(),
            given,
            problem,
        };
        self.errors.borrow_mut().push((at, error));
    }

    /// Notes something odd at byte `at` of the text, as a sentence.
    pub fn warn(&self, at: usize, key: &str, sentence: impl fmt::Display) {
        let sentence = format!("{}:{}: {key}: {sentence}", self.file, self.place(at));
        self.warnings.borrow_mut().push((at, sentence));
    }

    /// Notes a key that its section does not know.
    pub fn add_unknown(&self, unknown: Unknown) {
        self.unknown.borrow_mut().push(unknown);
    }

    /// Notes which keys a section knows, by its heading.
    pub fn add_known(&self, heading: String, keys: Vec<&'static str>) {
        self.known.borrow_mut().insert(heading, keys);
    }

    /// Notes that the text itself has a secret in it.
    pub fn note_secret(&self) {
        self.has_secret.set(true);
    }

    /// Where byte `at` is.
    pub fn place(&self, at: usize) -> Position {
        self.lines.place(at)
    }

    /// The line, from 1, of byte `at`.
    pub fn line(&self, at: usize) -> usize {
        self.lines.line(at)
    }

    /// The byte after the last: where something that is missing would be added.
    pub fn end(&self) -> usize {
        self.end
    }

    /// Whether any error was noted.
    pub fn is_bad(&self) -> bool {
        !self.errors.borrow().is_empty() || !self.unknown.borrow().is_empty()
    }

    /// Whether the text itself has a secret in it.
    pub fn has_secret(&self) -> bool {
        self.has_secret.get()
    }

    /// Every error, in the file's order.
    pub fn into_errors(self) -> ConfigErrors {
        for unknown in self.unknown.take() {
            let problem = unknown.problem(&self.known.borrow());
            self.add(unknown.at, &unknown.key, None, problem);
        }
        let mut errors = self.errors.into_inner();
        errors.sort_by_key(|(at, _)| *at);
        ConfigErrors(errors.into_iter().map(|(_, error)| error).collect())
    }

    /// Every warning, in the file's order.
    pub fn into_warnings(self) -> Vec<String> {
        let mut warnings = self.warnings.into_inner();
        warnings.sort_by_key(|(at, _)| *at);
        warnings.into_iter().map(|(_, sentence)| sentence).collect()
    }
}

impl Unknown {
    fn problem(&self, known: &BTreeMap<String, Vec<&'static str>>) -> String {
        let word = self.word.as_str();
        // Sections are in the root themselves, and what stands above all sections stands there alone.
        let has = |(heading, keys): &(&String, &Vec<&'static str>)| {
            **heading != self.section && heading.starts_with('[') && keys.contains(&word)
        };
        let others = known.iter().filter(has);
        let others: Vec<&str> = others.map(|(heading, _)| heading.as_str()).collect();
        let advice = match (spelling::nearest(word, &self.asked), others.as_slice()) {
            (_, ["[]"]) => format!("{word} belongs above the first section; "),
            (Some(meant), []) => format!("did you mean {meant}? "),
            (None, []) => String::new(),
            (_, others) => format!("{word} belongs below {}; ", others.join(" or ")),
        };
        format!("unknown key; {advice}known here: {}", self.asked.join(", "))
    }
}
