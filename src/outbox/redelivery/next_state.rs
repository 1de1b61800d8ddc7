//! What a receipt means for a stored notification: done, again after a wait, or never again. Pure.

use std::time::Duration;

use crate::backoff::doubled;
use crate::config;
use crate::notification::{Again, Receipt};
use crate::outbox::store::row::State;

/// What is to be noted of a notification.
#[derive(Debug, PartialEq, Eq)]
pub struct NextState {
    pub state: State,
    /// Not to be sent before, in the outbox's time.
    pub due: i64,
    /// The step in its timeline.
    pub what: &'static str,
    pub why: String,
}

impl NextState {
    /// What a receipt means for what was sent for the `tries`th time; `now` is the outbox's time.
    pub fn of(
        receipt: &Receipt,
        tries: u32,
        now: i64,
        settings: &config::OutboxConfig,
        random: u64,
    ) -> Self {
        let ms = |wait: Duration| now.saturating_add(wait.as_millis() as i64);
        let (first, max) = (settings.retry_first, settings.retry_max);
        let again = |wait: Option<Duration>, what, why: String| Self {
            state: State::Pending,
            due: ms(wait.unwrap_or_else(|| backoff(first, max, tries, random))),
            what,
            why,
        };
        let next = match receipt {
            Receipt::Ack => Self {
                state: State::Done,
                due: 0,
                what: "acked",
                why: String::new(),
            },
            Receipt::Nack(nack) => {
                let reason = nack.reason.as_deref().unwrap_or("no reason given");
                let why = format!("refused: {reason}");
                match nack.again {
                    Again::Whenever => again(None, "nacked", why),
                    Again::After(wait) => again(Some(wait), "nacked", why),
                    Again::Never => Self {
                        state: State::Dead,
                        due: 0,
                        what: "nacked",
                        why: format!("refused for good: {reason}"),
                    },
                }
            }
            Receipt::Gone => again(
                None,
                "lost",
                "the session ended before it was acknowledged".into(),
            ),
            Receipt::Expired => again(
                None,
                "unanswered",
                "not acknowledged within tcp.ack_timeout".into(),
            ),
            Receipt::Busy => again(None, "busy", "no room for it".into()),
            Receipt::Unreachable => again(None, "unreachable", "the bus was down".into()),
        };
        // Every so often, and not from then on: an operator's retry gets as many again.
        if next.state == State::Pending && tries.is_multiple_of(settings.max_tries) {
            return next.in_vain(tries);
        }
        next
    }

    fn in_vain(self, tries: u32) -> Self {
        let why = &self.why;
        Self {
            state: State::Dead,
            why: format!("sent {tries} times in vain (outbox.max_tries); the last time: {why}"),
            ..self
        }
    }
}

/// The wait before the `n`th redelivery: `first`, doubling up to `max`, less up to a quarter.
pub fn backoff(first: Duration, max: Duration, n: u32, random: u64) -> Duration {
    let wait = doubled(first, max, n);
    wait - wait.mul_f64((random % 1000) as f64 / 4000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_their_limit_and_never_agree() {
        let (first, max) = (Duration::from_secs(1), Duration::from_secs(300));
        for (n, most) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (9, 256),
            (10, 300),
            (4_000_000, 300),
        ] {
            let most = Duration::from_secs(most);
            assert_eq!(backoff(first, max, n, 0), most);
            let least = backoff(first, max, n, 999);
            assert!(least < most && least > most.mul_f64(0.74), "{least:?}");
        }
    }
}
