//! Times by the million in a table of fixed size: buckets whose width grows with the value, as HdrHistogram has them.

use std::time::Duration;

/// Each doubling is cut into two to this power of buckets: a value is known to within 1/128 of itself.
const FINE_BITS: u32 = 7;

const FINE: usize = 1 << FINE_BITS;

/// Values below [`FINE`] exactly, and then one row for each of the other powers of two of a `u64`.
const BUCKETS: usize = FINE * (64 - FINE_BITS as usize + 1);

/// How many times each duration was seen; 58 KiB, whatever it has seen.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: Vec<u64>,
    count: u64,
    max_ns: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            counts: vec![0; BUCKETS],
            count: 0,
            max_ns: 0,
        }
    }
}

impl Histogram {
    /// Counts one value, in nanoseconds.
    pub fn record(&mut self, ns: u64) {
        self.counts[bucket(ns)] += 1;
        self.count += 1;
        self.max_ns = self.max_ns.max(ns);
    }

    /// The value that `share` (0 to 1) of all do not exceed; zero if there are none.
    pub fn quantile(&self, share: f64) -> Duration {
        let rank = ((self.count as f64 * share).ceil() as u64).clamp(1, self.count.max(1));
        let mut seen = 0;
        for (at, &count) in self.counts.iter().enumerate() {
            seen += count;
            if seen >= rank {
                return Duration::from_nanos(highest(at).min(self.max_ns));
            }
        }
        Duration::ZERO
    }

    /// The largest value, exactly; zero if there are none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max_ns)
    }
}

fn bucket(ns: u64) -> usize {
    if ns < FINE as u64 {
        return ns as usize;
    }
    let shift = ns.ilog2() - FINE_BITS;
    // The leading one and the FINE_BITS after it: FINE to 2 × FINE - 1.
    let leading = (ns >> shift) as usize;
    FINE * shift as usize + leading
}

/// The largest value that falls into bucket `at`.
fn highest(at: usize) -> u64 {
    if at < FINE {
        return at as u64;
    }
    let shift = (at / FINE - 1) as u32;
    let leading = (at % FINE + FINE) as u64;
    (leading << shift) + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_value_falls_into_a_bucket_that_is_near_to_it() {
        let mut value: u64 = 1;
        let mut before = 0;
        while value < u64::MAX / 3 {
            for near in [value - 1, value, value + 1] {
                let top = highest(bucket(near));
                assert!(top >= near && top - near <= near / 128, "{near} in {top}");
            }
            assert!(bucket(value) >= before);
            before = bucket(value);
            value = value * 3 / 2 + 1;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(highest(BUCKETS - 1), u64::MAX);
    }

    #[test]
    fn quantiles_are_those_of_the_sorted_list() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.99), Duration::ZERO);
        for ms in (1..=1000).rev() {
            histogram.record(ms * 1_000_000);
        }
        for (share, ms) in [(0.0, 1), (0.5, 500), (0.99, 990), (0.999, 999), (1.0, 1000)] {
            let got = histogram.quantile(share).as_secs_f64() * 1000.0;
            assert!(
                (got - f64::from(ms)).abs() <= f64::from(ms) / 100.0,
                "{got} for {ms}"
            );
        }
        assert_eq!(histogram.max(), Duration::from_secs(1));
        (0..9000).for_each(|_| histogram.record(5));
        assert_eq!(histogram.quantile(0.5), Duration::from_nanos(5));
    }
}
