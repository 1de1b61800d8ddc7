//! Walking TOML's tree: which key is where, and what type it has.
//!
//! A section is read key by key; whatever key was not asked for by the time it is closed is unknown. No key of
//! relay.toml is named here, and nothing here stops at the first error.

use std::cell::Cell;
use std::fmt;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::diagnostics::{Diagnostics, Unknown};
use super::error::Position;
use super::spelling;

/// What is wrong with one value: a sentence that says so and says what is allowed. Where, and for which key, is told by
/// [`ConfigError`](super::ConfigError).
pub type Problem = String;

/// What a text of relay.toml begins with where a person has yet to put a value: such a file is refused.
pub const FILL_IN: &str = "FILL IN";

/// One table that is being read; empty if the file does not have it.
pub struct Section<'a> {
    report: &'a Diagnostics<'a>,
    key: String,
    at: usize,
    table: Option<&'a DeTable<'a>>,
    asked: Vec<&'static str>,
}

impl<'a> Section<'a> {
    /// The whole document.
    pub fn root(report: &'a Diagnostics<'a>, table: &'a DeTable<'a>) -> Self {
        Self {
            report,
            key: String::new(),
            at: report.end(),
            table: Some(table),
            asked: Vec::new(),
        }
    }

    /// The value of `key`, if the file has one.
    pub fn field(&mut self, key: &'static str) -> Option<Field<'a>> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let value = self.table?.get(key)?;
        Some(self.below(self.key_of(key), value))
    }

    /// The value of `key` as `read` takes it; `None` if it is not there, or is wrong, which is noted.
    pub fn read<T>(
        &mut self,
        key: &'static str,
        read: impl FnOnce(&Field<'a>) -> Result<T, Problem>,
    ) -> Option<T> {
        self.field(key)?.read(read)
    }

    /// The value of `key` as `read` takes it, or `default`; `None` if it is wrong, which is noted.
    pub fn or<T>(
        &mut self,
        key: &'static str,
        default: T,
        read: impl FnOnce(&Field<'a>) -> Result<T, Problem>,
    ) -> Option<T> {
        match self.field(key) {
            Some(field) => field.read(read),
            None => Some(default),
        }
    }

    /// The keys that were asked for so far, in this order.
    pub fn asked(&self) -> &[&'static str] {
        &self.asked
    }

    /// The table under `key`; an empty one if it is not there, or is no table, which is noted.
    pub fn section(&mut self, key: &'static str) -> Section<'a> {
        let nothing = Section {
            report: self.report,
            key: self.key_of(key),
            at: self.at,
            table: None,
            asked: Vec::new(),
        };
        // Hidden: what stands where a whole section should might be anything, a secret too.
        match self.field(key) {
            Some(field) => field.hide().read(Field::section).unwrap_or(nothing),
            None => nothing,
        }
    }

    /// The value of a dotted key, if the file has it; does not count as asked for.
    pub fn find(&self, dotted: &str) -> Option<Field<'a>> {
        let mut table = self.table?;
        let (sections, key) = dotted.rsplit_once('.').unwrap_or(("", dotted));
        for section in sections.split('.').filter(|section| !section.is_empty()) {
            table = table.get(section)?.get_ref().as_table()?;
        }
        let above = if self.key.is_empty() { "" } else { "." };
        Some(self.below(format!("{}{above}{dotted}", self.key), table.get(key)?))
    }

    /// The value of `key` as `read` takes it; `None` if it is wrong, or is not there, which is noted: `what` says what it is for.
    pub fn required<T>(
        &mut self,
        key: &'static str,
        what: &str,
        read: impl FnOnce(&Field<'a>) -> Result<T, Problem>,
    ) -> Option<T> {
        let field = self.field(key);
        if field.is_none() {
            self.refuse(key, format!("is missing; {what}"));
        }
        field?.read(read)
    }

    /// Every value of the table by its name: for tables whose names are the file's own.
    pub fn entries(&self) -> Vec<(&'a str, Field<'a>)> {
        let entries = self.table.into_iter().flatten();
        let entries = entries.map(|(name, value)| (&**name.get_ref(), value));
        entries
            .map(|(name, value)| (name, self.below(self.key_of(name), value)))
            .collect()
    }

    /// The value that is called `key` in errors.
    fn below(&self, key: String, value: &'a Spanned<DeValue<'a>>) -> Field<'a> {
        Field {
            report: self.report,
            key,
            value,
            hidden: Cell::new(false),
        }
    }

    /// Notes that `key`, which is not there, should be.
    pub fn refuse(&self, key: &str, problem: impl Into<Problem>) {
        let key = self.key_of(key);
        self.report.add(self.at, &key, None, problem.into());
    }

    /// Ends the reading: every key that nobody asked for is unknown.
    pub fn close(self) {
        for (name, _) in self.table.into_iter().flatten() {
            let word = name.get_ref().as_ref();
            if !self.asked.contains(&word) {
                self.report.add_unknown(Unknown {
                    at: name.span().start,
                    section: heading(&self.key),
                    key: self.key_of(word),
                    word: word.to_owned(),
                    asked: self.asked.clone(),
                });
            }
        }
        self.report.add_known(heading(&self.key), self.asked);
    }

    fn key_of(&self, key: &str) -> String {
        let bare = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-');
        let key = if !key.is_empty() && key.chars().all(bare) {
            spelling::cut(key)
        } else {
            spelling::quoted(key)
        };
        if self.key.is_empty() {
            key
        } else {
            format!("{}.{key}", self.key)
        }
    }
}

/// A section as it is headed: `[http]`, and `[[route]]` for each of the routes.
fn heading(key: &str) -> String {
    match key.split_once("[") {
        Some((list, rest)) => {
            let below = rest.split_once("].").map(|(_, below)| below);
            below.map_or(format!("[[{list}]]"), |below| {
                format!("{below} of a {list}")
            })
        }
        None => format!("[{key}]"),
    }
}

/// One value, with its key and its place.
pub struct Field<'a> {
    report: &'a Diagnostics<'a>,
    key: String,
    value: &'a Spanned<DeValue<'a>>,
    hidden: Cell<bool>,
}

impl<'a> Field<'a> {
    /// From now on no error shows this value, or what is in it.
    pub fn hide(&self) -> &Self {
        self.hidden.set(true);
        self
    }

    /// The value as `read` takes it; `None` if it is wrong, which is noted.
    pub fn read<T>(&self, read: impl FnOnce(&Self) -> Result<T, Problem>) -> Option<T> {
        read(self).map_err(|problem| self.refuse(problem)).ok()
    }

    /// Notes what is wrong with this value.
    pub fn refuse(&self, problem: impl Into<Problem>) {
        let problem = problem.into();
        self.report.add(self.at(), &self.key, self.given(), problem);
    }

    /// Notes something odd about this value, as a sentence.
    pub fn warn(&self, sentence: impl fmt::Display) {
        self.report.warn(self.at(), &self.key, sentence);
    }

    /// Notes that this value is a secret, in the file itself.
    pub fn note_secret(&self) {
        self.report.note_secret();
    }

    /// The byte where the value begins.
    pub fn at(&self) -> usize {
        self.value.span().start
    }

    /// The error of a value that is the same as one at byte `at`.
    pub fn again(&self, at: usize) -> Problem {
        let line = self.report.line(at);
        format!("the same as in line {line}; each may be there once")
    }

    /// Where the value begins.
    pub fn place(&self) -> Position {
        self.report.place(self.at())
    }

    /// The line where the value begins, from 1.
    pub fn line(&self) -> usize {
        self.report.line(self.at())
    }

    /// The value as text; `wanted` is what it should be, for the error.
    pub fn text(&self, wanted: &'static str) -> Result<&'a str, Problem> {
        match self.value.get_ref() {
            DeValue::String(text) if text.starts_with(FILL_IN) => {
                Err("is not filled in yet; put the value there that the text asks for".into())
            }
            DeValue::String(text) => Ok(text),
            _ => Err(self.wrong_type(wanted)),
        }
    }

    /// The value as a whole number; `None` if it is below 0 or above 2^64 - 1.
    pub fn whole(&self) -> Result<Option<u64>, Problem> {
        match self.value.get_ref() {
            DeValue::Integer(n) => Ok(u64::from_str_radix(n.as_str(), n.radix()).ok()),
            _ => Err(self.wrong_type("a whole number")),
        }
    }

    /// The value as true or false.
    pub fn flag(&self) -> Result<bool, Problem> {
        match self.value.get_ref() {
            DeValue::Boolean(yes) => Ok(*yes),
            _ => Err(self.wrong_type("true or false")),
        }
    }

    /// The value as a list of at most `most` values.
    pub fn list(&self, wanted: &'static str, most: usize) -> Result<Vec<Field<'a>>, Problem> {
        let DeValue::Array(items) = self.value.get_ref() else {
            let problem = self.wrong_type(wanted);
            return Err(match self.value.get_ref() {
                DeValue::String(_) if !wanted.contains("tables") => {
                    let key = self.key.rsplit('.').next().unwrap_or_default();
                    format!("{problem}; write {key} = [\"…\"]")
                }
                _ => problem,
            });
        };
        if items.len() > most {
            let found = items.len();
            return Err(format!("{found} entries; at most {most} are allowed"));
        }
        let field = |(n, value)| Field {
            report: self.report,
            key: format!("{}[{n}]", self.key),
            value,
            hidden: self.hidden.clone(),
        };
        Ok(items.iter().enumerate().map(field).collect())
    }

    /// Whether the value is a list without entries.
    pub fn is_empty_list(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Array(items) if items.is_empty())
    }

    /// Whether the value is a text.
    pub fn is_text(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::String(_))
    }

    /// Whether the value is a table.
    pub fn is_table(&self) -> bool {
        matches!(self.value.get_ref(), DeValue::Table(_))
    }

    /// The value as a table.
    pub fn section(&self) -> Result<Section<'a>, Problem> {
        match self.value.get_ref() {
            DeValue::Table(table) => Ok(Section {
                report: self.report,
                key: self.key.clone(),
                at: self.at(),
                table: Some(table),
                asked: Vec::new(),
            }),
            _ => Err(self.wrong_type("a table")),
        }
    }

    /// The error of a value that should be `wanted`.
    pub fn wrong_type(&self, wanted: &'static str) -> Problem {
        let found = match self.value.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "an array",
            DeValue::Table(_) => "a table",
        };
        format!("{wanted} is needed, this is {found}")
    }

    /// Arrays and tables are not shown: somebody may have put a secret into them.
    fn given(&self) -> Option<String> {
        if self.hidden.get() {
            return None;
        }
        match self.value.get_ref() {
            DeValue::String(text) => Some(spelling::quoted(text)),
            DeValue::Integer(n) => Some(spelling::cut(&n.to_string())),
            DeValue::Float(n) => Some(spelling::cut(n.as_str())),
            DeValue::Boolean(yes) => Some(yes.to_string()),
            DeValue::Datetime(when) => Some(when.to_string()),
            DeValue::Array(_) | DeValue::Table(_) => None,
        }
    }
}
