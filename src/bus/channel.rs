//! The name of an event channel.

use std::fmt;
use std::sync::Arc;

/// The longest name of a channel, in bytes: with it, a line of the protocol has room for the other keys.
pub const CHANNEL_BYTES_MAX: usize = 128;

/// A channel's name: 1 to 128 of `A-Z a-z 0-9 . _ - : /`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// Why a text is no channel's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadChannel {
    /// It has no bytes, or more than [`CHANNEL_BYTES_MAX`]; the number is how many.
    Length(usize),
    /// It has a byte outside `A-Z a-z 0-9 . _ - : /`; the number is that byte's place, from 0.
    BadByte(usize),
}

impl fmt::Display for BadChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(
                f,
                "a channel's name has 1 to {CHANNEL_BYTES_MAX} bytes, this one {bytes}"
            ),
            Self::BadByte(at) => write!(
                f,
                "a channel's name is made of A-Z a-z 0-9 . _ - : / only; byte {} is something else",
                at + 1
            ),
        }
    }
}

impl std::error::Error for BadChannel {}

impl Channel {
    /// Takes `text` as a channel's name.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, BadChannel> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:/".contains(&b);
        if !(1..=CHANNEL_BYTES_MAX).contains(&text.len()) {
            return Err(BadChannel::Length(text.len()));
        }
        match text.bytes().position(|b| !allowed(b)) {
            Some(at) => Err(BadChannel::BadByte(at)),
            None => Ok(Self(text.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
