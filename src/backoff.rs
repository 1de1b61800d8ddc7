//! How long to wait before trying again: longer each time, and seldom the same for two who try.

use std::time::Duration;

/// Waits that double, each drawn between half of its bound and the bound, so that all who lost one server do not come back to it
/// in the same moment.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    failures: u32,
}

impl Backoff {
    /// Waits of at most `first`, then of at most twice that, up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self {
            first,
            longest,
            failures: 0,
        }
    }

    /// It has worked: the next wait is a short one again.
    pub fn reset(&mut self) {
        self.failures = 0;
    }

    /// The wait after one more failure.
    pub fn next_wait(&mut self) -> Duration {
        self.failures = self.failures.saturating_add(1);
        let bound = doubled(self.first, self.longest, self.failures);
        bound.mul_f64(1.0 - fastrand::f64() / 2.0)
    }

    /// The same where the other side may have `asked` for a wait: nobody comes earlier, and up to half as much later.
    pub fn next_wait_asked(&mut self, asked: Option<Duration>) -> Duration {
        let spread = |asked: Duration| asked.mul_f64(1.0 + fastrand::f64() / 2.0);
        self.next_wait().max(asked.map_or(Duration::ZERO, spread))
    }
}

/// `first`, doubled with each of `failures` beyond the first, and at most `longest`.
pub fn doubled(first: Duration, longest: Duration, failures: u32) -> Duration {
    let times = 1 << failures.saturating_sub(1).min(30);
    first.saturating_mul(times).min(longest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_and_are_never_short_of_half_their_bound() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(ms(100), ms(500));
        for _ in 0..2 {
            for bound in [100, 200, 400, 500, 500].map(ms) {
                let wait = backoff.next_wait();
                assert!(bound / 2 <= wait && wait <= bound, "{wait:?} of {bound:?}");
            }
            backoff.reset();
        }
        assert_eq!(doubled(ms(1), ms(9), u32::MAX), ms(9));
    }

    #[test]
    fn the_other_side_may_ask_for_more_and_never_gets_less() {
        let ms = Duration::from_millis;
        for _ in 0..100 {
            let mut backoff = Backoff::new(ms(100), ms(10_000));
            let asked = backoff.next_wait_asked(Some(ms(1000)));
            assert!(ms(1000) <= asked && asked <= ms(1500), "{asked:?}");
            assert!(backoff.next_wait_asked(None) <= ms(200));
            assert!(backoff.next_wait_asked(Some(ms(1))) >= ms(200));
        }
    }
}
