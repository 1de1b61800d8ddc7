//! What both sides of a run write down for each other: who was answered ok, and who has arrived.
//!
//! One bit for each notification and side, so a run of a hundred million takes 25 MB and a short one next to nothing.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::stamp::NOTIFICATIONS_MAX;

const BITS_PER_CHUNK: u64 = 64 * 1024;

/// A bit for each notification, allocated as they are reached.
#[derive(Debug)]
pub struct Bitmap(Vec<OnceLock<Vec<AtomicU64>>>);

impl Bitmap {
    fn new() -> Self {
        let chunks = NOTIFICATIONS_MAX.div_ceil(BITS_PER_CHUNK);
        Self((0..chunks).map(|_| OnceLock::new()).collect())
    }

    /// Sets bit `n`; says whether it was set before. Beyond the most there can be, nothing is.
    pub fn set(&self, n: u64) -> bool {
        let Some(chunk) = self.0.get((n / BITS_PER_CHUNK) as usize) else {
            return false;
        };
        let words = chunk.get_or_init(|| {
            let words = BITS_PER_CHUNK / 64;
            (0..words).map(|_| AtomicU64::new(0)).collect()
        });
        let bit = 1 << (n % 64);
        words[(n % BITS_PER_CHUNK / 64) as usize].fetch_or(bit, Ordering::SeqCst) & bit != 0
    }

    /// Whether `n` is marked.
    pub fn has(&self, n: u64) -> bool {
        let word = self.word(n / 64);
        word & 1 << (n % 64) != 0
    }

    /// 64 notifications at once, the `at`th lot.
    fn word(&self, at: u64) -> u64 {
        let words_per_chunk = BITS_PER_CHUNK / 64;
        let chunk = self.0.get((at / words_per_chunk) as usize);
        chunk.and_then(OnceLock::get).map_or(0, |words| {
            words[(at % words_per_chunk) as usize].load(Ordering::SeqCst)
        })
    }
}

/// The run's common book.
#[derive(Debug)]
pub struct RunState {
    began: Instant,
    /// Answered ok.
    pub ok: Bitmap,
    /// Received by the backend it was for.
    pub arrived: Bitmap,
    /// How many have been posted; they are numbered from 0.
    pub posted: AtomicU64,
    /// How many have been answered, one way or another.
    pub answered: AtomicU64,
    /// How many have arrived, each counted once.
    pub received: AtomicU64,
}

impl RunState {
    /// An empty one; the run's clock starts.
    pub fn open() -> Self {
        Self {
            began: Instant::now(),
            ok: Bitmap::new(),
            arrived: Bitmap::new(),
            posted: AtomicU64::new(0),
            answered: AtomicU64::new(0),
            received: AtomicU64::new(0),
        }
    }

    /// Nanoseconds since the run's clock was started.
    pub fn now_ns(&self) -> u64 {
        self.began.elapsed().as_nanos() as u64
    }

    /// How many were answered ok and have not arrived.
    pub fn missing(&self) -> u64 {
        let lots = self.posted.load(Ordering::SeqCst).div_ceil(64);
        (0..lots)
            .map(|at| (self.ok.word(at) & !self.arrived.word(at)).count_ones())
            .map(u64::from)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_answered_ok_and_did_not_arrive_is_missing() {
        let state = RunState::open();
        let all = [
            0,
            63,
            64,
            BITS_PER_CHUNK - 1,
            BITS_PER_CHUNK,
            3 * BITS_PER_CHUNK + 5,
        ];
        state.posted.store(3 * BITS_PER_CHUNK + 6, Ordering::SeqCst);
        for n in all {
            assert!(!state.ok.set(n) && state.ok.has(n) && !state.arrived.has(n));
        }
        state.arrived.set(1); // arrived and answered otherwise: not lost
        assert_eq!(state.missing(), all.len() as u64);
        for (left, n) in all.into_iter().enumerate().rev() {
            assert!(!state.arrived.set(n));
            assert!(state.arrived.set(n), "a second time");
            assert_eq!(state.missing(), left as u64);
        }
        assert!(
            !state.ok.set(NOTIFICATIONS_MAX + BITS_PER_CHUNK),
            "beyond the book"
        );
    }
}
