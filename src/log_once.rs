//! Limits repeated log lines: one line a cause in ten seconds, with the number of lines left out.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The shortest time between two lines of one cause.
const INTERVAL: Duration = Duration::from_secs(10);

/// One cause of log lines. Shared by threads without a lock.
#[derive(Debug, Default)]
pub struct LogOnce {
    /// When the last line was due, in milliseconds of the process's clock, plus 1; 0: never.
    last: AtomicU64,
    left_out: AtomicU64,
}

impl LogOnce {
    /// Reports one occurrence. `Some(n)`: write the line; `n` occurrences since the last line were not logged. `None`: do not.
    pub fn occurred(&self) -> Option<u64> {
        self.occurred_at(clock())
    }

    fn occurred_at(&self, now: Duration) -> Option<u64> {
        let now = now.as_millis() as u64 + 1;
        let last = self.last.load(Ordering::Relaxed);
        let is_due = last == 0 || now.saturating_sub(last) >= INTERVAL.as_millis() as u64;
        // Of two threads that find the line due, one writes it.
        let is_ours = is_due
            && self
                .last
                .compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if is_ours {
            return Some(self.left_out.swap(0, Ordering::Relaxed));
        }
        self.left_out.fetch_add(1, Ordering::Relaxed);
        None
    }
}

/// The time since the first call.
fn clock() -> Duration {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_in_ten_seconds_and_every_occurrence_is_counted() {
        let cause = LogOnce::default();
        let at = |ms| cause.occurred_at(Duration::from_millis(ms));
        assert_eq!(at(0), Some(0));
        for _ in 0..1000 {
            assert_eq!(at(9_999), None);
        }
        assert_eq!(at(10_000), Some(1000));
        assert_eq!(at(10_001), None);
        assert_eq!(at(60_000), Some(1));
        assert!(LogOnce::default().occurred().is_some());
    }
}
