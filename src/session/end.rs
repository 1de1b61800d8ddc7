//! Why a session ends: the word for it, and when the backend may come back.

/// Why a session ends; the word for the metrics and the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The peer closed, or broke.
    Peer,
    /// It said BYE.
    Bye,
    Takeover,
    /// A person has disconnected it.
    Operator,
    Drain,
    Idle,
    Slow,
    /// It did not keep to the protocol, or may not enter.
    Protocol,
}

impl End {
    /// The word in BYE, in the metrics and in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Peer => "peer",
            Self::Bye => "bye",
            Self::Takeover => "takeover",
            Self::Operator => "operator",
            Self::Drain => "drain",
            Self::Idle => "idle",
            Self::Slow => "slow",
            Self::Protocol => "protocol",
        }
    }

    /// When the backend may come back, in seconds: a takeover's loser and a slow one should not at once.
    pub fn retry_s(self) -> u32 {
        match self {
            Self::Peer | Self::Bye | Self::Drain | Self::Idle => 1,
            Self::Takeover | Self::Operator | Self::Slow => 5,
            Self::Protocol => 30,
        }
    }
}
