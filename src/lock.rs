//! The locks that every notification takes: a thread that finds one taken sleeps at once.
//!
//! parking_lot's locks, which the relay has everywhere else, call `sched_yield` up to seven times before they sleep. On a busy machine
//! Linux lets a thread that has yielded wait until the others have had their slices, although the lock is free after microseconds. These are the standard library's locks, which spin for a moment and then sleep. A panic of their owner
//! does not poison them, as with parking_lot.

#![expect(
    clippy::disallowed_types,
    reason = "this is what stands in their place"
)]

use std::sync::{self, PoisonError, TryLockError};
use std::time::Instant;

pub use std::sync::MutexGuard;

/// A lock that is taken on the way of every notification.
#[derive(Debug, Default)]
pub struct Mutex<T>(sync::Mutex<T>);

impl<T> Mutex<T> {
    /// Around `value`.
    pub const fn new(value: T) -> Self {
        Self(sync::Mutex::new(value))
    }

    /// Waits for the lock.
    pub fn lock(&self) -> MutexGuard<'_, T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The lock, if no other thread has it.
    pub fn try_lock(&self) -> Option<MutexGuard<'_, T>> {
        match self.0.try_lock() {
            Ok(guard) => Some(guard),
            Err(TryLockError::Poisoned(guard)) => Some(guard.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }
}

/// A condition to wait for with such a lock.
#[derive(Debug, Default)]
pub struct Condvar(sync::Condvar);

impl Condvar {
    /// That nobody waits for yet.
    pub const fn new() -> Self {
        Self(sync::Condvar::new())
    }

    /// Wakes one thread that waits.
    pub fn notify_one(&self) {
        self.0.notify_one();
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        self.0.notify_all();
    }

    /// Waits until it is woken or `deadline` has come, with `guard` released; says whether the deadline came first. May wake
    /// without a reason.
    pub fn wait_until<'a, T>(
        &self,
        guard: MutexGuard<'a, T>,
        deadline: Instant,
    ) -> (MutexGuard<'a, T>, bool) {
        let left = deadline.saturating_duration_since(Instant::now());
        let (guard, timeout) = self
            .0
            .wait_timeout(guard, left)
            .unwrap_or_else(PoisonError::into_inner);
        (guard, timeout.timed_out())
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_panic_of_its_owner_leaves_a_lock_usable() {
        let lock = Mutex::new(1);
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            let mut value = lock.lock();
            *value = 2;
            panic!("on purpose");
        }));
        assert!(panicked.is_err());
        assert_eq!(*lock.lock(), 2);
        assert_eq!(lock.try_lock().map(|value| *value), Some(2));
    }

    #[test]
    fn a_taken_lock_is_not_waited_for_by_try_lock() {
        let lock = Mutex::new(());
        let guard = lock.lock();
        assert!(lock.try_lock().is_none());
        drop(guard);
        assert!(lock.try_lock().is_some());
    }

    #[test]
    fn a_wait_ends_at_its_deadline() {
        let (lock, condition) = (Mutex::new(()), Condvar::new());
        let deadline = Instant::now() + Duration::from_millis(5);
        let mut guard = lock.lock();
        loop {
            let (again, is_late) = condition.wait_until(guard, deadline);
            if is_late {
                break;
            }
            guard = again;
        }
        assert!(Instant::now() >= deadline);
    }
}
