//! Where the answer to a connection's current request stands.
//!
//! The thread that learns the outcome writes the answer to the provider's socket, without waiting. Meanwhile the connection's
//! own thread blocks in a read of the next request, so that an answer wakes no thread of the relay. The connection's thread has
//! work to do only when the socket did not take the whole answer, or when the connection must end.

use std::net::Shutdown;
use std::time::Instant;

use super::channel::{SendProgress, Transport};
use crate::lock::{Condvar, Mutex};

/// Whether a connection goes on after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Persistence {
    /// The next request is read.
    Keep,
    /// The connection is closed.
    Close,
}

/// The answer to one connection's current request.
#[derive(Debug, Default)]
pub struct PendingAnswer {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
enum State {
    /// The connection has had no request yet.
    #[default]
    None,
    /// A request was handed over, and its answer is due.
    Due {
        /// The connection's thread may be blocked in a read; otherwise it waits on the condition, or will look.
        reading: bool,
    },
    /// The answer went out whole at this moment, and the connection goes on.
    Answered(Instant),
    /// The socket took a part of the answer; this is the rest.
    Unfinished(Vec<u8>, Persistence),
    /// No further answer is due or possible.
    Closed,
}

/// What the connection's thread learns about the last answer.
#[derive(Debug, PartialEq, Eq)]
pub enum Answered {
    /// It went out whole at this moment; the connection goes on.
    At(Instant),
    /// The connection's thread must write this rest.
    Unfinished(Vec<u8>, Persistence),
    /// It went out, or the peer is gone; the connection ends.
    Closed,
    /// No answer came before the deadline. From now on none is accepted: the caller answers instead.
    Expired,
}

impl PendingAnswer {
    /// A request is about to be handed over, and an answer is due from now on.
    pub fn begin(&self) {
        *self.state.lock() = State::Due { reading: false };
    }

    /// Whether the connection's thread may block in a read. `false`: it must look at the last answer first.
    pub fn may_read(&self) -> bool {
        match &mut *self.state.lock() {
            State::Due { reading } => {
                *reading = true;
                true
            }
            State::Answered(_) => true,
            State::None | State::Unfinished(..) | State::Closed => false,
        }
    }

    /// When the last answer went out whole, if it did.
    pub fn answered_at(&self) -> Option<Instant> {
        match *self.state.lock() {
            State::Answered(at) => Some(at),
            _ => None,
        }
    }

    /// Waits until the last answer has gone out, or `deadline`.
    pub fn wait(&self, deadline: Instant) -> Answered {
        let mut state = self.state.lock();
        loop {
            match &mut *state {
                State::Due { reading } => {
                    *reading = false;
                    let (again, is_late) = self.changed.wait_until(state, deadline);
                    state = again;
                    if is_late && matches!(*state, State::Due { .. }) {
                        *state = State::Closed;
                        return Answered::Expired;
                    }
                }
                State::Answered(at) => return Answered::At(*at),
                State::Unfinished(rest, persistence) => {
                    let found = Answered::Unfinished(std::mem::take(rest), *persistence);
                    *state = State::Closed;
                    return found;
                }
                State::None | State::Closed => return Answered::Closed,
            }
        }
    }

    /// Writes `answer` to `channel` as far as the socket takes it without waiting; `false`: no answer is due any more. Before
    /// the connection's thread can see that the connection goes on, `on_keep` is called.
    ///
    /// The lock is held over the write, which cannot block: the connection's thread must not write between two parts of it.
    pub fn write(
        &self,
        channel: &Transport,
        mut answer: Vec<u8>,
        persistence: Persistence,
        on_keep: impl FnOnce(Instant),
    ) -> bool {
        let mut state = self.state.lock();
        let State::Due { reading } = *state else {
            return false;
        };
        *state = match channel.send_now(&answer) {
            // A read that was ended to wake the thread cannot be taken up again.
            SendProgress::Part(sent) if reading => {
                State::Unfinished(answer.split_off(sent), Persistence::Close)
            }
            SendProgress::Part(sent) => State::Unfinished(answer.split_off(sent), persistence),
            SendProgress::Whole if persistence == Persistence::Keep => {
                let now = Instant::now();
                on_keep(now);
                State::Answered(now)
            }
            SendProgress::Whole | SendProgress::Gone => State::Closed,
        };
        let goes_on = matches!(*state, State::Answered(_));
        drop(state);
        if !reading {
            self.changed.notify_one();
        } else if !goes_on {
            channel.shutdown(Shutdown::Read); // wakes the connection's thread, which sees to the rest
        }
        true
    }

    /// The rest of the answer has gone out after all, and the connection goes on.
    pub fn finished(&self, now: Instant) {
        *self.state.lock() = State::Answered(now);
    }

    /// From now on no answer is accepted: the connection is being cut.
    pub fn abandon(&self) {
        let mut state = self.state.lock();
        if matches!(*state, State::Due { .. }) {
            *state = State::Closed;
        }
        drop(state);
        self.changed.notify_one();
    }
}
