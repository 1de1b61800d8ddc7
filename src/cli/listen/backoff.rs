//! How long to wait before connecting again.

use std::hash::{BuildHasher, RandomState};
use std::time::Duration;

/// The shortest wait.
const FIRST: Duration = Duration::from_millis(500);

/// The longest wait.
const MOST: Duration = Duration::from_secs(30);

/// Waits that double from 0.5 s to 30 s, each drawn between half and the whole of its step, so that the backends of a
/// restarted relay do not all come back at once.
#[derive(Debug)]
pub struct Backoff {
    step: Duration,
}

impl Backoff {
    pub fn new() -> Self {
        Self { step: FIRST * 2 }
    }

    /// The connection stood: the next wait is a short one again.
    pub fn reset(&mut self) {
        *self = Self::new();
    }

    /// The next wait; at least `asked`, if the relay said how long.
    pub fn next(&mut self, asked: Option<Duration>) -> Duration {
        // The keys of RandomState are random, and so is the hash of nothing under them.
        self.after(asked, RandomState::new().hash_one(()))
    }

    fn after(&mut self, asked: Option<Duration>, random: u64) -> Duration {
        let share = random as f64 / u64::MAX as f64;
        let wait = (self.step / 2).mul_f64(1.0 + share);
        self.step = (self.step * 2).min(MOST);
        match asked {
            // Nobody comes early; the half is spread.
            Some(asked) => wait.max(asked.mul_f64(1.0 + share / 2.0)),
            None => wait,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(random: u64, asked: Option<Duration>) -> Vec<f64> {
        let mut backoff = Backoff::new();
        (0..8)
            .map(|_| backoff.after(asked, random).as_secs_f64())
            .collect()
    }

    #[test]
    fn waits_double_between_their_limits() {
        assert_eq!(waits(0, None), [0.5, 1.0, 2.0, 4.0, 8.0, 15.0, 15.0, 15.0]);
        assert_eq!(
            waits(u64::MAX, None),
            [1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0, 30.0]
        );
    }

    #[test]
    fn the_relay_may_ask_for_more_and_never_gets_less() {
        let asked = Some(Duration::from_secs(5));
        assert_eq!(waits(0, asked)[..5], [5.0, 5.0, 5.0, 5.0, 8.0]);
        assert_eq!(waits(u64::MAX, asked)[..3], [7.5, 7.5, 7.5]);
    }

    #[test]
    fn after_a_connection_stood_the_waits_are_short_again() {
        let mut backoff = Backoff::new();
        for _ in 0..9 {
            backoff.next(None);
        }
        backoff.reset();
        assert!(backoff.next(None) <= Duration::from_secs(1));
    }
}
