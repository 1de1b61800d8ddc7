//! How a command fails: its exit code, and the words on standard error.

use std::fmt::Display;
use std::io::{self, Write};

use super::terminal::{self, Tone};
use crate::client::http::HttpError;

/// The operation failed.
pub const EXIT_FAILURE: u8 = 1;
/// The arguments make no sense; clap's own code too.
pub const EXIT_USAGE: u8 = 2;
/// The configuration is wrong: EX_CONFIG of sysexits.h.
pub const EXIT_CONFIG: u8 = 78;

/// Why a subcommand ends with a code other than 0.
#[derive(Debug)]
pub struct Failure {
    /// The exit code.
    pub code: u8,
    /// What to print on standard error; empty if all is said.
    pub words: String,
}

impl Failure {
    /// The operation failed: exit 1.
    pub fn new(words: impl Display) -> Self {
        Self::with_code(EXIT_FAILURE, words)
    }

    /// The same, of a file or an address: `place: error`.
    pub fn at(place: impl Display, error: impl Display) -> Self {
        Self::new(format_args!("{place}: {error}"))
    }

    /// The system has no room for what the command needs.
    pub fn cannot_start(error: io::Error) -> Self {
        Self::new(format_args!("cannot start: {error}"))
    }

    /// Standard output takes no more.
    pub fn cannot_print(error: io::Error) -> Self {
        Self::new(format_args!("cannot write to standard output: {error}"))
    }

    /// There is no answer of the relay at `place`; `port` is what the hint says of it: nothing, or `, with its admin port`.
    pub fn no_answer(error: &HttpError, port: &str, place: &str) -> Self {
        match error {
            HttpError::Connect(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => {
                Self::new(format_args!(
                    "{error}; is the relay running{port} at {place}?"
                ))
            }
            error => Self::at(place, error),
        }
    }

    /// The arguments make no sense together: exit 2.
    pub fn usage(words: impl Display) -> Self {
        Self::with_code(EXIT_USAGE, words)
    }

    /// The configuration does not allow it: exit 78.
    pub fn config(words: impl Display) -> Self {
        Self::with_code(EXIT_CONFIG, words)
    }

    /// With an exit code of its own.
    pub fn with_code(code: u8, words: impl Display) -> Self {
        Self {
            code,
            words: format!("payrelay: {words}"),
        }
    }

    /// Every error of a configuration, each on its line, which begins with the file and the place as editors and `grep` expect it.
    pub fn config_lines(words: String) -> Self {
        Self {
            code: EXIT_CONFIG,
            words,
        }
    }

    /// Says it on standard error.
    pub fn tell(&self) {
        if !self.words.is_empty() {
            // With standard error closed there is nobody left to tell.
            let lines: Vec<String> = self.words.lines().map(place_painted).collect();
            let _ = writeln!(io::stderr(), "{}", lines.join("\n"));
        }
    }
}

/// The line of an error, what it begins with (the file's place, or `payrelay`) in colour.
fn place_painted(line: &str) -> String {
    match line.split_once(": ") {
        Some((place, words)) => format!("{}: {words}", terminal::err(Tone::Bad, place)),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_port_asks_whether_the_relay_runs() {
        let refused = HttpError::Connect(io::ErrorKind::ConnectionRefused.into());
        let words = Failure::no_answer(&refused, "", "127.0.0.1:8080").words;
        assert!(
            words.ends_with("is the relay running at 127.0.0.1:8080?"),
            "{words}"
        );
    }
}
