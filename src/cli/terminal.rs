//! What a terminal gets beyond the words: colour, and a line that changes. A pipe or a file gets neither.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use anstream::stream::RawStream;
use anstream::{AutoStream, ColorChoice};
use anstyle::{AnsiColor, Style};

/// What a colour says. The words say it too.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Odd,
    /// Somebody must act.
    Bad,
    /// The head of a table, or where something is.
    Head,
}

impl Tone {
    /// That of a notification's state or outcome.
    pub fn of_state(state: &str) -> Self {
        match state {
            "done" | "delivered" | "duplicate" => Self::Good,
            "pending" | "stored" | "waiting" | "under way" => Self::Odd,
            _ => Self::Bad,
        }
    }

    fn style(self) -> Style {
        match self {
            Self::Good => AnsiColor::Green.on_default(),
            Self::Odd => AnsiColor::Yellow.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Head => Style::new().bold(),
        }
    }
}

/// `text` for standard output.
pub fn out(tone: Tone, text: impl Display) -> String {
    painted(&io::stdout(), tone, text)
}

/// `text` for standard error.
pub fn err(tone: Tone, text: impl Display) -> String {
    painted(&io::stderr(), tone, text)
}

/// In colour where `stream` is a terminal that has colours, and the environment does not forbid them (`NO_COLOR`, `CLICOLOR=0`,
/// `TERM=dumb`).
fn painted<S: RawStream>(stream: &S, tone: Tone, text: impl Display) -> String {
    match AutoStream::choice(stream) {
        ColorChoice::Never => text.to_string(),
        _ => {
            let style = tone.style();
            format!("{style}{text}{style:#}")
        }
    }
}

/// A line on standard error that changes as something goes on, for a person at a terminal. Dropping it clears it.
#[derive(Debug)]
pub struct ProgressLine {
    shown: bool,
}

impl ProgressLine {
    pub fn new() -> Self {
        Self {
            shown: io::stderr().is_terminal(),
        }
    }

    /// `words` in the place of what the line said.
    pub fn show(&self, words: impl Display) {
        if self.shown {
            // With standard error closed there is nobody to tell.
            let _ = write!(io::stderr(), "\r\x1b[K{words}");
        }
    }

    /// Says something that stays, in a line of its own.
    pub fn say(&self, words: impl Display) {
        self.show("");
        super::say(words);
    }
}

impl Drop for ProgressLine {
    fn drop(&mut self) {
        self.show("");
    }
}
