//! How a connection of `payrelay listen` ends, and what is known of it before it is closed.

use std::fmt::Display;
use std::io;
use std::time::{Duration, Instant};

use crate::cli::text::one_line;
use crate::client::frames::ErrFrame;

/// How a connection ended.
#[derive(Debug)]
pub enum Ended {
    /// As was wanted: a signal, or enough notifications.
    Finished,
    /// Another backend has the id now.
    TakenOver,
    /// The relay does not want this backend, and will not tomorrow.
    Refused(ErrFrame),
    /// Try again, not before the relay said.
    Lost {
        /// What happened.
        why: String,
        /// What the relay said.
        retry: Option<Duration>,
    },
    /// Standard output takes no more.
    CannotPrint(io::Error),
}

impl Ended {
    /// To be tried again; the relay has not said when.
    pub fn lost(why: impl Display) -> Self {
        Self::Lost {
            why: why.to_string(),
            retry: None,
        }
    }

    /// What the relay's BYE comes to.
    pub fn by_relay(reason: &str, retry: Option<Duration>) -> Self {
        match reason {
            "takeover" => Self::TakenOver,
            reason => Self::Lost {
                why: format!("the relay said goodbye ({})", one_line(reason)),
                retry,
            },
        }
    }
}

/// A write to the relay failed.
impl From<io::Error> for Ended {
    fn from(error: io::Error) -> Self {
        Self::lost(format_args!("the connection broke: {error}"))
    }
}

/// Nothing new is wanted any more.
#[derive(Debug)]
pub struct PendingEnd {
    /// What it is once the connection is closed; finished: this side said BYE, else the relay did.
    pub ended: Ended,
    /// When the connection counts as closed, whether the relay has closed it or not.
    pub until: Instant,
}

impl PendingEnd {
    /// Whether this side said BYE.
    pub fn is_ours(&self) -> bool {
        matches!(self.ended, Ended::Finished)
    }
}
