//! Ctrl-C and SIGTERM as something to wait for: the first asks, the second ends the process.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::{Receiver, bounded};
use payrelay::thread::{self, JoinOnDrop};
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use signal_hook::iterator::{Handle, Signals};

use super::failure::EXIT_FAILURE;

/// Hears the signals that end a program, from its making to its drop.
#[derive(Debug)]
pub struct Stop {
    asked: Receiver<()>,
    signals: Handle,
    _thread: JoinOnDrop,
}

impl Drop for Stop {
    fn drop(&mut self) {
        self.signals.close(); // ends the thread's loop
    }
}

/// Makes SIGINT and SIGTERM end the process where it stands, from when `is_second` is set.
///
/// # Errors
/// The system refuses a handler.
pub fn end_on_signals_if(is_second: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let code = i32::from(EXIT_FAILURE);
        flag::register_conditional_shutdown(signal, code, Arc::clone(is_second))?;
    }
    Ok(())
}

impl Stop {
    /// # Errors
    /// The system refuses a handler, or has no room for another thread.
    pub fn listen() -> io::Result<Self> {
        let again = Arc::new(AtomicBool::new(false));
        end_on_signals_if(&again)?;
        let mut signals = Signals::new([SIGINT, SIGTERM])?;
        let handle = signals.handle();
        let (ask, asked) = bounded(1);
        let thread = thread::spawn("signals", thread::SMALL_STACK_BYTES, move || {
            for _ in signals.forever() {
                again.store(true, Ordering::SeqCst);
                // Full: it was asked already.
                let _ = ask.try_send(());
            }
        })?;
        Ok(Self {
            asked,
            signals: handle,
            _thread: thread,
        })
    }

    /// One message once a signal has come.
    pub fn asked(&self) -> &Receiver<()> {
        &self.asked
    }
}
