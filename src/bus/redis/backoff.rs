//! How long to wait before connecting again: longer each time, and never the same for two nodes.

use std::collections::hash_map::RandomState;
use std::hash::{BuildHasher, Hasher};
use std::time::Duration;

/// The first wait, at most.
const FIRST: Duration = Duration::from_millis(100);

/// The longest: within 1 s of Redis's return every backend can be reached again, the resubscription included.
const LONGEST: Duration = Duration::from_millis(500);

/// Waits that double, with jitter: a Redis that comes back is not met by every node in the same moment.
#[derive(Debug, Default)]
pub struct Backoff {
    failures: u32,
}

impl Backoff {
    /// The wait after one more failure: between half of the bound and the bound.
    pub fn next(&mut self) -> Duration {
        let bound = LONGEST.min(FIRST * 2u32.pow(self.failures.min(8)));
        self.failures += 1;
        // Seeded by the system for each; good enough for spreading waits.
        let random = RandomState::new().build_hasher().finish() as u32;
        bound / 2 + (bound / 2).mul_f64(f64::from(random) / f64::from(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_the_longest_and_are_never_short_of_half_their_bound() {
        let mut backoff = Backoff::default();
        for bound_ms in [100, 200, 400, 500, 500, 500, 500] {
            let wait = backoff.next();
            let bound = Duration::from_millis(bound_ms);
            assert!(bound / 2 <= wait && wait <= bound, "{wait:?} of {bound:?}");
        }
    }
}
