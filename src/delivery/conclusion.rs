//! How a wait ends.

use crate::notification::{Again, Nack, Outcome, Receipt};

/// How a wait ends.
pub struct Conclusion {
    pub outcome: Outcome,
    /// The backend's refusal, if that is what it was.
    pub nack: Option<Nack>,
    /// A session has it in hand still, and will tell what came of it.
    pub held: bool,
}

impl Conclusion {
    /// An end that is final: nobody will be heard of any more.
    pub fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            nack: None,
            held: false,
        }
    }

    /// An end that comes before the session has told what came of the MSG.
    pub fn held(outcome: Outcome) -> Self {
        Self {
            outcome,
            nack: None,
            held: true,
        }
    }

    /// The end that `receipt` is, on a node that stops or not.
    pub fn of_receipt(receipt: Receipt, is_draining: bool) -> Self {
        let outcome = match receipt {
            Receipt::Ack => Outcome::Delivered,
            Receipt::Nack(nack) => {
                return Self {
                    outcome: Outcome::Refused,
                    nack: Some(nack),
                    held: false,
                };
            }
            Receipt::Busy => Outcome::Busy,
            Receipt::Expired => Outcome::TimedOut,
            Receipt::Gone if is_draining => Outcome::Draining,
            Receipt::Gone => Outcome::Offline,
            Receipt::Unreachable => Outcome::Unreachable,
        };
        Self::of(outcome)
    }

    /// Why the notification was not delivered, in words.
    pub fn why(&self) -> String {
        match (&self.nack, self.outcome) {
            (Some(nack), _) => {
                let reason = nack.reason.as_deref().unwrap_or("no reason given");
                format!("refused: {reason}")
            }
            (None, Outcome::TimedOut) => "no ACK within delivery.ack_deadline".into(),
            (None, outcome) => outcome.as_str().into(),
        }
    }

    /// It is never to be delivered, for this reason.
    pub fn never(why: &str) -> Self {
        Self {
            outcome: Outcome::Refused,
            nack: Some(Nack {
                again: Again::Never,
                reason: Some(why.into()),
            }),
            held: false,
        }
    }
}
