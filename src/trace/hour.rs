//! How the last hour went, a minute at a time: outcomes, and how long ACKs took.

use std::collections::VecDeque;

use crate::notification::Outcome;

/// How many minutes are kept, the one that runs among them.
pub const MINUTES: usize = 60;

/// Upper bounds of the steps in which the time to the ACK is counted, in milliseconds. What is longer has a step of its own.
pub const ACK_MS: [u64; 12] = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000];

const MINUTE_MS: u64 = 60_000;

/// What ended within one minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Minute {
    /// When it began, in Unix milliseconds.
    pub from_unix_ms: u64,
    /// How many ended how, in the order of [`Outcome::ALL`].
    pub outcomes: [u32; Outcome::ALL.len()],
    /// How many ACKs came within each of [`ACK_MS`], but not within the one before; the last: later.
    pub acks: [u32; ACK_MS.len() + 1],
}

impl Minute {
    /// The least of [`ACK_MS`] within which `percent` of the ACKs came; `None` if there were none, or if that was beyond the
    /// last.
    pub fn ack_ms(&self, percent: u64) -> Option<u64> {
        let all: u64 = self.acks.iter().map(|&count| u64::from(count)).sum();
        let mut within = 0;
        let steps = self.acks.iter().zip(ACK_MS);
        steps.into_iter().find_map(|(&count, ms)| {
            within += u64::from(count);
            (all > 0 && within * 100 >= all * percent).then_some(ms)
        })
    }
}

/// The minutes, oldest first.
#[derive(Debug, Default)]
pub struct Hour(VecDeque<Minute>);

impl Hour {
    /// A notification ended at `at_unix_ms`; its MSG had been sent at `sent_unix_ms`.
    pub fn count(&mut self, outcome: Outcome, at_unix_ms: u64, sent_unix_ms: Option<u64>) {
        let from_unix_ms = at_unix_ms - at_unix_ms % MINUTE_MS;
        // A clock that is set back counts on in the latest minute.
        if self
            .0
            .back()
            .is_none_or(|last| last.from_unix_ms < from_unix_ms)
        {
            if self.0.len() >= MINUTES {
                self.0.pop_front();
            }
            self.0.push_back(Minute {
                from_unix_ms,
                ..Minute::default()
            });
        }
        let Some(minute) = self.0.back_mut() else {
            return;
        };
        minute.outcomes[outcome as usize] += 1;
        if let (Outcome::Delivered, Some(sent)) = (outcome, sent_unix_ms) {
            let took = at_unix_ms.saturating_sub(sent);
            minute.acks[ACK_MS.partition_point(|&bound| bound < took)] += 1;
        }
    }

    /// Those of the hour before `now_unix_ms`.
    pub fn minutes(&self, now_unix_ms: u64) -> Vec<Minute> {
        let since = now_unix_ms.saturating_sub(MINUTES as u64 * MINUTE_MS);
        let fresh = self.0.iter().filter(|minute| minute.from_unix_ms > since);
        fresh.copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn minutes_count_outcomes_and_acks_and_go_after_an_hour() {
        let mut hour = Hour::default();
        let start = 1_764_000_000_000 - 1_764_000_000_000 % MINUTE_MS;
        for took in [0, 1, 3, 700, 9000] {
            hour.count(
                Outcome::Delivered,
                start + 30_000 + took,
                Some(start + 30_000),
            );
        }
        hour.count(Outcome::Stored, start + 59_999, None);
        hour.count(Outcome::Stored, start + 60_000, None);
        let minutes = hour.minutes(start + 60_001);
        assert_eq!(minutes.len(), 2);
        let first = minutes[0];
        assert_eq!((first.outcomes[0], first.outcomes[1]), (5, 1));
        assert_eq!(first.acks.iter().sum::<u32>(), 5);
        assert_eq!(
            (first.ack_ms(50), first.ack_ms(80), first.ack_ms(99)),
            (Some(5), Some(1000), None)
        );
        assert_eq!(minutes[1].ack_ms(50), None);
        for n in 0..200 {
            hour.count(Outcome::Busy, start + n * MINUTE_MS, None);
        }
        assert_eq!(hour.minutes(start + 199 * MINUTE_MS).len(), MINUTES);
        assert!(hour.minutes(start + 300 * MINUTE_MS).is_empty());
        hour.count(Outcome::Busy, start, None); // the clock went back
        assert_eq!(
            hour.minutes(start + 199 * MINUTE_MS)
                .last()
                .map(|last| last.outcomes[6]),
            Some(2)
        );
    }
}
