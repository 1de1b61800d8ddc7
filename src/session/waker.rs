//! Wakes a session's thread while it sleeps in `poll`.
//!
//! The order that loses no wake-up: the thread says that it sleeps, and only then looks once more for work. Another thread
//! adds work, and only then wakes.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::event::{EventfdFlags, eventfd};

/// An eventfd, written only while its thread sleeps.
#[derive(Debug)]
pub struct Waker {
    fd: OwnedFd,
    /// The thread sleeps, or is about to.
    is_asleep: AtomicBool,
}

impl Waker {
    /// A waker of a thread that is awake.
    ///
    /// # Errors
    /// No file descriptor is left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            fd: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            is_asleep: AtomicBool::new(false),
        })
    }

    /// The descriptor to poll; readable after [`Waker::wake`].
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// The thread is about to sleep. It must look for work once more before it does.
    pub fn prepare_sleep(&self) {
        self.is_asleep.store(true, Ordering::SeqCst);
    }

    /// The thread is awake. `was_woken`: the descriptor was readable.
    pub fn awake(&self, was_woken: bool) {
        self.is_asleep.store(false, Ordering::SeqCst);
        if was_woken {
            let mut count = [0; 8];
            // Nothing to read: an earlier read took this wake-up too.
            let _ = rustix::io::read(&self.fd, &mut count);
        }
    }

    /// Wakes the thread if it sleeps, or is about to.
    pub fn wake(&self) {
        if self.is_asleep.swap(false, Ordering::SeqCst) {
            // Fails only if the count would overflow, and then the descriptor is readable already.
            let _ = rustix::io::write(&self.fd, &1u64.to_ne_bytes());
        }
    }
}
