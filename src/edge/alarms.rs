//! Whom to look at when, though nothing has come from them.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Instant;

/// How many may be kept that were replaced since, or whose connection has gone, beyond as many as there are connections.
const OUTDATED_MAX: usize = 64;

/// Alarms of connections, by their numbers; the earliest first. Which of a connection's is in force, the connection knows.
#[derive(Debug, Default)]
pub struct Alarms(BinaryHeap<Reverse<(Instant, u64)>>);

impl Alarms {
    /// `number` is to be looked at then.
    pub fn set(&mut self, when: Instant, number: u64) {
        self.0.push(Reverse((when, number)));
    }

    /// When the next one rings.
    pub fn next(&self) -> Option<Instant> {
        self.0.peek().map(|Reverse((when, _))| *when)
    }

    /// Takes one out that rings by `now`.
    pub fn take_due(&mut self, now: Instant) -> Option<(Instant, u64)> {
        if self.next()? > now {
            return None;
        }
        self.0.pop().map(|Reverse(alarm)| alarm)
    }

    /// Forgets those that are not `in_force`, when there are too many of them beside the `connections`. Else those of
    /// connections that come and go, a thousand a second, would pile up until each would have rung.
    pub fn tidy(&mut self, connections: usize, in_force: impl Fn(Instant, u64) -> bool) {
        if self.0.len() > 2 * connections + OUTDATED_MAX {
            self.0
                .retain(|Reverse((when, number))| in_force(*when, *number));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn they_ring_in_their_order_and_not_before() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut alarms = Alarms::default();
        for (second, number) in [(3, 1), (1, 2), (2, 1)] {
            alarms.set(at(second), number);
        }
        assert_eq!(alarms.next(), Some(at(1)));
        assert_eq!(alarms.take_due(start), None);
        assert_eq!(alarms.take_due(at(2)), Some((at(1), 2)));
        assert_eq!(alarms.take_due(at(2)), Some((at(2), 1)));
        assert_eq!(alarms.take_due(at(2)), None);
    }

    #[test]
    fn who_comes_and_goes_leaves_nothing_that_piles_up() {
        let start = Instant::now();
        let later = start + Duration::from_secs(60);
        let mut alarms = Alarms::default();
        for number in 0..10 {
            alarms.set(later, number);
        }
        for number in 10..10_000 {
            alarms.set(start, number);
            alarms.tidy(10, |_, number| number < 10);
            assert!(alarms.0.len() <= 2 * 10 + OUTDATED_MAX);
        }
        let still = std::iter::from_fn(|| alarms.take_due(later));
        assert_eq!(still.filter(|(when, _)| *when == later).count(), 10);
    }
}
