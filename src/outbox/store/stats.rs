//! How much is in the outbox, and whether the disk takes more: kept in memory, for whoever asks.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;

use super::count_delta::CountDelta;
use super::row::State;
use super::unknown::UnknownBackends;

/// Counts by state, and the disk's last refusal.
#[derive(Debug, Default)]
pub struct Stats {
    /// In the order of [`State`].
    counts: [AtomicU64; 3],
    ailment: Mutex<Option<String>>,
    broken: AtomicBool,
    disk_free_bytes: AtomicU64,
    log_bytes: AtomicU64,
    unknown: Mutex<UnknownBackends>,
}

impl Stats {
    /// With what is on disk at the start: pending, done, dead.
    pub fn of(totals: [u64; 3]) -> Self {
        Self {
            counts: totals.map(AtomicU64::new),
            ..Self::default()
        }
    }

    /// A transaction has changed the counts.
    pub fn moved(&self, delta: &CountDelta) {
        for state in [State::Pending, State::Done, State::Dead] {
            let count = &self.counts[state as usize];
            // One thread writes, so nothing is lost in between.
            let before = count.load(Ordering::Relaxed);
            count.store(
                before.saturating_add_signed(delta.of(state)),
                Ordering::Relaxed,
            );
        }
    }

    fn count(&self, state: State) -> u64 {
        self.counts[state as usize].load(Ordering::Relaxed)
    }

    /// How many are to be delivered.
    pub fn pending(&self) -> u64 {
        self.count(State::Pending)
    }

    /// How many are acknowledged and not deleted yet.
    pub fn done(&self) -> u64 {
        self.count(State::Done)
    }

    /// How many are dead letters.
    pub fn dead(&self) -> u64 {
        self.count(State::Dead)
    }

    /// How many there are in each state, in the order of [`State`].
    pub fn totals(&self) -> [u64; 3] {
        [self.pending(), self.done(), self.dead()]
    }

    /// How many there are.
    pub fn kept(&self) -> u64 {
        self.pending() + self.done() + self.dead()
    }

    /// How much room the disk has, and how long the log is.
    pub fn set_disk(&self, free_bytes: u64, log_bytes: u64) {
        self.disk_free_bytes.store(free_bytes, Ordering::Relaxed);
        self.log_bytes.store(log_bytes, Ordering::Relaxed);
    }

    /// How much room the disk has for this user, in bytes.
    pub fn disk_free_bytes(&self) -> u64 {
        self.disk_free_bytes.load(Ordering::Relaxed)
    }

    /// How long the log is, in bytes.
    pub fn log_bytes(&self) -> u64 {
        self.log_bytes.load(Ordering::Relaxed)
    }

    /// The backends that were never here, as far as something is pending for them.
    pub fn set_unknown(&self, unknown: UnknownBackends) {
        *self.unknown.lock() = unknown;
    }

    /// The same, as of a few seconds ago.
    pub fn unknown(&self) -> UnknownBackends {
        self.unknown.lock().clone()
    }

    /// Why the disk did not take the last change; `None`: it did.
    pub fn set_ailing(&self, words: Option<String>) {
        if !self.broken.load(Ordering::Relaxed) {
            *self.ailment.lock() = words;
        }
    }

    /// Whether the disk did not take the last change.
    pub fn is_ailing(&self) -> bool {
        self.ailment.lock().is_some()
    }

    /// Why the disk did not take the last change, if it did not.
    pub fn ailment(&self) -> Option<String> {
        self.ailment.lock().clone()
    }

    /// The file is damaged: nothing more is written to it.
    pub fn set_broken(&self) {
        self.broken.store(true, Ordering::Relaxed);
    }

    /// Whether the file was found damaged.
    pub fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}
