//! The outbox's own time, by which waits, ages and expiry are counted: time that the relay has lived through.
//!
//! It never follows the system's clock, which may be days wrong at a start and be corrected later: then everything that is
//! pending would be too old at once. Within a run it is monotonic. From one run to the next it goes on where it was; the
//! time between counts when the machine was not restarted, for then its uptime says how long that was. Across a restart
//! nothing proves how long the machine was off, and nothing is counted. What people read carries the system's time beside it.

use std::fmt;
use std::fs;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use crate::notification::unix_ms;

/// A difference below this is no jump of the system's clock, in milliseconds.
const JUMP_MS: i64 = 60_000;

/// Time that nothing proves is worth a word above this, in milliseconds.
const OFF_MS: i64 = 3_600_000;

/// A moment by three clocks, in milliseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moment {
    /// The outbox's own.
    pub clock_ms: i64,
    /// The system's, since 1970.
    pub wall_ms: i64,
    /// Since the machine was started.
    pub boot_ms: i64,
}

/// The machine's clocks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct System {
    pub wall_ms: i64,
    pub boot_ms: i64,
    /// Which start of the machine `boot_ms` counts from; empty: unknown.
    pub boot_id: String,
}

impl System {
    /// What they show now.
    pub fn now() -> Self {
        let id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Self {
            wall_ms: wall_ms(),
            boot_ms: boot_ms(),
            boot_id: id.trim().to_owned(),
        }
    }
}

/// The time between the last run's last write and now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// By the system's clock.
    pub wall_ms: i64,
    /// By the uptime of the machine, if it was not restarted; this is what counts.
    pub proven_ms: Option<i64>,
}

impl Gap {
    /// By how much the system's clock, which nothing proves, is ahead of what counts; `None`: not worth a word.
    pub fn uncounted_ms(&self) -> Option<i64> {
        let jump = self.wall_ms - self.proven_ms.unwrap_or(0);
        let is_usual = match self.proven_ms {
            Some(_) => -JUMP_MS..=JUMP_MS,
            None => -JUMP_MS..=OFF_MS,
        };
        (!is_usual.contains(&jump)).then_some(jump)
    }
}

impl fmt::Display for Gap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let jump = self.uncounted_ms().unwrap_or(0);
        let span = Span(jump.unsigned_abs());
        match (self.proven_ms, jump < 0) {
            (_, true) => write!(
                f,
                "the system's clock was set back by {span} since the relay last wrote"
            ),
            (Some(_), false) => write!(
                f,
                "the system's clock was set forward by {span} since the relay last wrote"
            ),
            (None, false) => write!(
                f,
                "by the system's clock {span} have passed since the relay last wrote, and the machine was restarted meanwhile"
            ),
        }
    }
}

/// Milliseconds as people say them.
struct Span(u64);

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let minutes = (self.0 + 30_000) / 60_000;
        match (minutes / 1440, minutes / 60 % 24, minutes % 60) {
            (0, 0, minutes) => write!(f, "{minutes} min"),
            (0, hours, minutes) => write!(f, "{hours} h {minutes} min"),
            (days, hours, _) => write!(f, "{days} d {hours} h"),
        }
    }
}

/// Milliseconds that never run backward, and never jump.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    base_ms: i64,
    started: Instant,
}

impl Clock {
    /// Goes on from `last`, which was written in the run of the machine called `boot_id`. A time of 0: there was none; then it
    /// begins at the system's time.
    pub fn resume(last: Moment, boot_id: &str, now: &System) -> (Self, Option<Gap>) {
        let begin = |base_ms| Self {
            base_ms,
            started: Instant::now(),
        };
        if last.clock_ms == 0 {
            return (begin(now.wall_ms), None);
        }
        let is_same_boot = !boot_id.is_empty() && boot_id == now.boot_id;
        let proven_ms = is_same_boot.then(|| (now.boot_ms - last.boot_ms).max(0));
        let gap = Gap {
            wall_ms: now.wall_ms - last.wall_ms,
            proven_ms,
        };
        let clock = begin(last.clock_ms.saturating_add(proven_ms.unwrap_or(0)));
        (clock, (last.wall_ms > 0).then_some(gap))
    }

    /// Now.
    pub fn now_ms(&self) -> i64 {
        let since = self.started.elapsed().as_millis();
        self.base_ms
            .saturating_add(i64::try_from(since).unwrap_or(i64::MAX))
    }

    /// Now, by all clocks.
    pub fn moment(&self) -> Moment {
        Moment {
            clock_ms: self.now_ms(),
            wall_ms: wall_ms(),
            boot_ms: boot_ms(),
        }
    }

    /// How long it is from now until `ms`.
    pub fn until(&self, ms: i64) -> Duration {
        Duration::from_millis(u64::try_from(ms - self.now_ms()).unwrap_or(0))
    }
}

fn wall_ms() -> i64 {
    i64::try_from(unix_ms()).unwrap_or(i64::MAX)
}

fn boot_ms() -> i64 {
    let now = clock_gettime(ClockId::Boottime);
    now.tv_sec * 1000 + now.tv_nsec / 1_000_000
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: i64 = 3_600_000;
    const DAY: i64 = 24 * HOUR;

    fn last() -> Moment {
        Moment {
            clock_ms: 500 * DAY,
            wall_ms: 600 * DAY,
            boot_ms: 3 * DAY,
        }
    }

    /// By how much the clock has moved when the system's has by `wall_ms`, the machine's uptime by `boot_ms`.
    fn moved(wall_ms: i64, boot_ms: i64, boot_id: &str) -> (i64, Option<i64>) {
        let now = System {
            wall_ms: last().wall_ms + wall_ms,
            boot_ms: last().boot_ms + boot_ms,
            boot_id: "this".into(),
        };
        let (clock, gap) = Clock::resume(last(), boot_id, &now);
        let moved = clock.now_ms() - last().clock_ms;
        // A test may be held up between the two.
        let jump = gap.and_then(|gap| gap.uncounted_ms());
        (moved / 10_000 * 10_000, jump)
    }

    #[test]
    fn it_goes_on_by_what_the_machine_has_lived_through() {
        assert_eq!(moved(HOUR, HOUR, "this"), (HOUR, None));
        for jump in [-10 * DAY, -HOUR, HOUR, 8 * DAY] {
            assert_eq!(moved(HOUR + jump, HOUR, "this"), (HOUR, Some(jump)));
        }
        // The uptime of a restored snapshot may be less.
        assert_eq!(moved(0, -HOUR, "this"), (0, None));
    }

    #[test]
    fn what_nothing_proves_is_not_counted() {
        for boot_id in ["other", ""] {
            assert_eq!(moved(HOUR / 2, -2 * DAY, boot_id), (0, None));
            for jump in [-10 * DAY, -HOUR, 2 * HOUR, 8 * DAY] {
                assert_eq!(moved(jump, -2 * DAY, boot_id), (0, Some(jump)));
            }
        }
    }

    #[test]
    fn a_new_one_begins_at_the_systems_time() {
        let now = System::now();
        let (clock, gap) = Clock::resume(Moment::default(), "", &now);
        assert!(gap.is_none() && clock.now_ms() >= now.wall_ms);
        assert!(!now.boot_id.is_empty() && clock.moment().boot_ms >= now.boot_ms);
        let soon = clock.now_ms() + 500;
        assert!(clock.until(soon) <= Duration::from_millis(500));
        assert_eq!(clock.until(soon - 600), Duration::ZERO);
    }
}
