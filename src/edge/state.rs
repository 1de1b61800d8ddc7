//! What a connection does, as one number: its own thread and one that wants to evict it change it without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The request is whole: the relay owes an answer, and it cannot be evicted.
const BUSY: u64 = 0;

/// It was told to end.
const GONE: u64 = u64::MAX;

/// Set in a waiting state when a part of the request is here already.
const BEGUN: u64 = 1;

/// [`BUSY`], [`GONE`], or since when the connection has been waiting.
#[derive(Debug)]
pub struct ConnectionState(AtomicU64);

/// A state as it was at one moment. Of two that wait the smaller one has waited longer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct SeenState(u64);

/// Waiting since `at`, with no part of a request.
fn waiting(at: Duration) -> u64 {
    // + 1, so that it never equals BUSY.
    (at.as_micros() as u64 + 1) << 1
}

impl ConnectionState {
    /// It waits since `at`.
    pub fn waiting(at: Duration) -> Self {
        Self(AtomicU64::new(waiting(at)))
    }

    /// From `at` on it waits for its next request. Only to be called while it is busy.
    pub fn waits(&self, at: Duration) {
        self.0.store(waiting(at), Ordering::SeqCst);
    }

    /// From now on it only waits to be closed: no other has waited longer.
    pub fn lingers(&self) {
        self.0.store(BEGUN, Ordering::SeqCst);
    }

    /// A part of its request is here.
    pub fn has_begun(&self) {
        let seen = self.seen();
        if seen.is_idle() {
            // Fails only if it was evicted meanwhile, which its thread will notice.
            let _ = self.change(seen, seen.0 | BEGUN);
        }
    }

    /// Its request is whole. `false`: it was evicted before.
    pub fn is_whole(&self) -> bool {
        let seen = self.seen();
        seen.0 != GONE && self.change(seen, BUSY)
    }

    /// Whether it was evicted.
    pub fn is_gone(&self) -> bool {
        self.seen().0 == GONE
    }

    /// Whether it waits since `at`, with no part of a request.
    pub fn waits_since(&self, at: Duration) -> bool {
        self.seen().0 == waiting(at)
    }

    /// What it is now.
    pub fn seen(&self) -> SeenState {
        SeenState(self.0.load(Ordering::SeqCst))
    }

    /// Evicts it, if its state is still `seen`.
    pub fn end(&self, seen: SeenState) -> bool {
        self.change(seen, GONE)
    }

    fn change(&self, seen: SeenState, to: u64) -> bool {
        let changed = self
            .0
            .compare_exchange(seen.0, to, Ordering::SeqCst, Ordering::SeqCst);
        changed.is_ok()
    }
}

impl SeenState {
    /// Whether it waits for anything.
    pub fn is_waiting(self) -> bool {
        !matches!(self.0, BUSY | GONE)
    }

    /// Whether it waits with no part of a request received.
    pub fn is_idle(self) -> bool {
        self.is_waiting() && self.0 & BEGUN == 0
    }

    /// Whether it only waits to be closed.
    pub fn is_lingering(self) -> bool {
        self.0 == BEGUN
    }
}
