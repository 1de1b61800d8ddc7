//! A thread that makes one side of the load: a bell to end it, and what it has seen.

use std::io;

use crossbeam_channel::{Receiver, bounded};
use payrelay::thread::{self, JoinOnDrop};

use super::poller::Bell;

/// One side at work. Dropping it asks the thread to end, and waits for it.
#[derive(Debug)]
pub struct LoadThread<T> {
    bell: Bell,
    done: Receiver<T>,
    // Waits for it once the bell has rung.
    _thread: JoinOnDrop,
}

impl<T> Drop for LoadThread<T> {
    fn drop(&mut self) {
        self.bell.ring();
    }
}

impl<T: Send + 'static> LoadThread<T> {
    /// Starts `work` in a thread called `name`; it ends when `bell` rings.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(
        name: &str,
        bell: Bell,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (tell, done) = bounded(1);
        let thread = thread::spawn(name, thread::SMALL_STACK_BYTES, move || {
            // Nobody to tell means that nobody wants to know.
            let _ = tell.send(work());
        })?;
        Ok(Self {
            bell,
            done,
            _thread: thread,
        })
    }

    /// One message, once it has ended.
    pub fn done(&self) -> &Receiver<T> {
        &self.done
    }

    /// Asks it to end: backends say BYE, providers post no more and end when what is on its way has been answered.
    pub fn finish(&self) {
        self.bell.ring();
    }
}
