//! Keeps a flood of bad signatures from flooding the log: one line a route now and then, with the number of those before.

use std::sync::atomic::{AtomicU64, Ordering};

/// A line about one route at most so often.
const PAUSE_MS: u64 = 10_000;

/// When a route last complained, and how often it has kept silent since.
#[derive(Debug, Default)]
pub struct Complaints {
    last_unix_ms: AtomicU64,
    silent: AtomicU64,
}

impl Complaints {
    /// Whether to say it; if so, how many complaints before this one were not said.
    pub fn may_speak(&self, now_unix_ms: u64) -> Option<u64> {
        let last = self.last_unix_ms.load(Ordering::Relaxed);
        // Also when the clock was set back: silence for ever would be worse than a line too many.
        let due = last == 0 || now_unix_ms.abs_diff(last) >= PAUSE_MS;
        let claimed = due
            && self
                .last_unix_ms
                .compare_exchange(last, now_unix_ms, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if claimed {
            return Some(self.silent.swap(0, Ordering::Relaxed));
        }
        self.silent.fetch_add(1, Ordering::Relaxed);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_is_one_line_in_ten_seconds_and_none_is_lost_from_the_count() {
        let complaints = Complaints::default();
        let now = 1_764_000_000_000;
        assert_eq!(complaints.may_speak(now), Some(0));
        for _ in 0..1000 {
            assert_eq!(complaints.may_speak(now + 9_999), None);
        }
        assert_eq!(complaints.may_speak(now + 10_000), Some(1000));
        assert_eq!(complaints.may_speak(now + 10_001), None);
        assert_eq!(
            complaints.may_speak(now - 3_600_000),
            Some(1),
            "the clock was set back"
        );
    }
}
