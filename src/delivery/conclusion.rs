//! How a wait ends.

use crate::notification::{Again, Nack, Outcome};

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
