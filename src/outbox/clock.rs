//! The outbox's own time: it never runs backward, not within a run and not over restarts.
//!
//! Waits, ages and expiry are reckoned in it, so that a system clock that is set back an hour neither holds a redelivery
//! up for an hour nor makes anything older than it is. What people read carries the system's time beside it.

use std::time::{Duration, Instant};

use crate::notification::unix_ms;

/// Milliseconds that begin at the system's time, or at the last time of the run before if that is later.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base_ms: u64,
    started: Instant,
}

impl Clock {
    /// A clock that goes on from `last_ms`, the latest time that is on disk.
    pub fn after(last_ms: u64) -> Self {
        Self {
            base_ms: unix_ms().max(last_ms),
            started: Instant::now(),
        }
    }

    /// Now.
    pub fn now_ms(&self) -> i64 {
        self.at(Instant::now())
    }

    /// The time at `instant`.
    pub fn at(&self, instant: Instant) -> i64 {
        let since = instant.saturating_duration_since(self.started);
        i64::try_from(u128::from(self.base_ms) + since.as_millis()).unwrap_or(i64::MAX)
    }

    /// How long it is from now until `ms`.
    pub fn until(&self, ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(ms - self.now_ms()).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_go_back_behind_the_run_before() {
        let hour = 3_600_000;
        let ahead = unix_ms() + hour; // the system's clock has been set back by this
        let clock = Clock::after(ahead);
        let now = clock.now_ms();
        assert!(now >= ahead as i64 && now < (ahead + hour) as i64);
        assert!(clock.until(now + 500) <= Duration::from_millis(500));
        assert_eq!(clock.until(now - 1), Duration::ZERO);
        assert!(Clock::after(0).now_ms() >= (ahead - hour) as i64);
    }
}
