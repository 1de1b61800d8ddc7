//! Why a run ends before its time.

use std::fmt;
use std::io;

use payrelay::notification::BackendId;
use payrelay::wire::FrameError;

use crate::cli::text::one_line;
use crate::client::frames::ErrFrame;

/// What happened, and to whom.
#[derive(Debug)]
pub enum BenchError {
    /// The relay closed a backend's connection without a word.
    Closed(BackendId),
    /// A backend's connection broke.
    Broken(BackendId, io::Error),
    /// A backend was sent what is no frame.
    Frame(BackendId, FrameError),
    /// The relay refused something to a backend.
    Refused(BackendId, ErrFrame),
    /// The relay said BYE to a backend, for this reason.
    Bye(BackendId, String),
    /// A provider finds no relay any more.
    Connect(io::Error),
    /// The system does not tell what is ready.
    Poll(io::Error),
}

impl fmt::Display for BenchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(id) => write!(f, "the relay closed the connection of {id}"),
            Self::Broken(id, error) => write!(f, "the connection of {id} broke: {error}"),
            Self::Frame(id, error) => write!(f, "the relay sent {id} what is no frame: {error}"),
            Self::Refused(id, ErrFrame { code, msg, .. }) => {
                write!(
                    f,
                    "the relay tells {id}: {} ({})",
                    one_line(msg),
                    one_line(code)
                )
            }
            Self::Bye(id, reason) => match reason.as_str() {
                "takeover" => write!(
                    f,
                    "another backend connected as {id} and took over; a second benchmark needs another --prefix"
                ),
                "drain" => f.write_str("the relay is stopping"),
                other => write!(f, "the relay said BYE to {id} ({})", one_line(other)),
            },
            Self::Connect(error) => write!(f, "cannot connect to {error}"),
            Self::Poll(error) => write!(f, "cannot wait: {error}"),
        }
    }
}

impl std::error::Error for BenchError {}
