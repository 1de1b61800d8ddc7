//! How many redeliveries are sent: so many a second for the whole node, evenly, so that a backlog of one backend does not take
//! the processors and the disk away from the fresh notifications of the others. Pure: whoever asks brings the time.

use std::time::{Duration, Instant};

/// How much of the schedule may be made up at once after a delay.
const SLACK: Duration = Duration::from_millis(2);

/// So many in a second; at once the one whose turn it is, and what [`SLACK`] is worth.
#[derive(Debug)]
pub struct RateLimiter {
    /// From one to the next.
    interval: Duration,
    /// By the schedule, the next one goes then; `None`: none has gone.
    next: Option<Instant>,
}

impl RateLimiter {
    /// At most `rate` in a second, which is 1 to 1,000,000.
    pub fn per_second(rate: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / rate.clamp(1, 1_000_000),
            next: None,
        }
    }

    /// How many may go at `now`.
    pub fn room(&self, now: Instant) -> usize {
        let late = match self.next {
            Some(next) if next > now => return 0,
            Some(next) => now.duration_since(next).min(SLACK),
            None => SLACK,
        };
        1 + (late.as_nanos() / self.interval.as_nanos()) as usize
    }

    /// One goes at `now`. There must be [`room`](Self::room) for it.
    pub fn take(&mut self, now: Instant) {
        let earliest = now.checked_sub(SLACK).unwrap_or(now);
        let next = self.next.map_or(earliest, |next| next.max(earliest));
        self.next = Some(next + self.interval);
    }

    /// When to look again, if there is no room at `now`: not for the next one alone, since a wake-up costs more than it, and
    /// not so late that its turn is lost.
    pub fn wake(&self, now: Instant) -> Instant {
        match self.next {
            Some(next) if next > now => next + SLACK / 2,
            _ => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes whatever may go, looking every `step`, for `lasts`: when each went.
    fn run(
        limiter: &mut RateLimiter,
        from: Instant,
        lasts: Duration,
        step: Duration,
    ) -> Vec<Duration> {
        let mut went = Vec::new();
        let mut passed = Duration::ZERO;
        while passed < lasts {
            let now = from + passed;
            for _ in 0..limiter.room(now) {
                limiter.take(now);
                went.push(passed);
            }
            passed += step;
        }
        went
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_second_has_as_many_as_the_rate_and_one_burst_however_often_it_is_looked_at() {
        for (rate, step_us, burst) in [
            (1, 700, 1),
            (50, 300, 1),
            (50, 1_100, 1),
            (1_000, 100, 3),
            (10_000, 50, 21),
            (10_000, 1_100, 21),
            (1_000_000, 250, 2_001),
        ] {
            let mut limiter = RateLimiter::per_second(rate);
            let step = Duration::from_micros(step_us);
            let went = run(&mut limiter, Instant::now(), 3 * SECOND, step);
            assert_eq!(
                went.iter().filter(|at| at.is_zero()).count(),
                burst,
                "{rate}/s"
            );
            let most = rate as usize + burst;
            for (first, beyond) in went.iter().zip(went.iter().skip(most)) {
                assert!(*beyond - *first >= SECOND, "over {most} from {first:?} on");
            }
            // And no fewer: nothing that is due is given away.
            assert!(
                went.len() >= 3 * rate as usize,
                "{} at {rate}/s",
                went.len()
            );
        }
    }

    #[test]
    fn time_that_was_not_used_is_not_saved_up() {
        let (mut limiter, now) = (RateLimiter::per_second(10_000), Instant::now());
        limiter.take(now);
        let later = now + 60 * SECOND;
        assert_eq!(limiter.room(later), 21);
        for left in (0..21).rev() {
            limiter.take(later);
            assert_eq!(limiter.room(later), left);
        }
        let wake = limiter.wake(later);
        assert!(
            limiter.room(wake) > 10 && wake - later < SLACK,
            "{:?}",
            wake - later
        );
        assert_eq!(limiter.wake(wake), wake);
    }

    #[test]
    fn a_slow_pace_goes_one_by_one() {
        let (mut limiter, now) = (RateLimiter::per_second(1), Instant::now());
        assert_eq!(limiter.room(now), 1);
        limiter.take(now);
        let wake = limiter.wake(now);
        assert_eq!((limiter.room(now), wake), (0, now + SECOND - SLACK / 2));
        assert_eq!(limiter.room(now + SECOND - SLACK * 2), 0);
        assert_eq!(limiter.room(wake), 1);
    }
}
