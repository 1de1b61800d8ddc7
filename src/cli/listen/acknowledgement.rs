//! What the relay is told of a notification.

/// A NACK's reason is cut to this many characters: even with every one escaped its line stays within the limit.
const REASON_CHARS_MAX: usize = 80;

/// What to tell the relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acknowledgement {
    /// It is taken.
    Ack,
    /// It is refused, because.
    Nack(String),
}

impl Acknowledgement {
    /// It is refused; `why` is cut to what a NACK has room for.
    pub fn refused(why: &str) -> Self {
        Self::Nack(why.chars().take(REASON_CHARS_MAX).collect())
    }
}
