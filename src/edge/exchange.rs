//! One request and its answer: from the moment it is handed over until the peer has been written to.
//!
//! The answer is written by whichever thread has it, straight to the peer. Whoever serves the connection, a poller or its own
//! thread, meanwhile waits for the peer's next request, so an answer wakes nobody. Only when the socket does not take all of it,
//! or the connection is to end, is there something to do for the one who serves it: here called the connection's thread.

use std::net::Shutdown;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::channel::{Channel, Sent};

/// How long a send that cannot wait may take. It ends long before, unless its thread panics.
const SENDING_MAX: Duration = Duration::from_secs(5);

/// Where a connection's current exchange stands.
#[derive(Debug, Default)]
pub struct Exchange {
    state: Mutex<State>,
    answered: Condvar,
}

#[derive(Debug, Default)]
enum State {
    /// No request has been handed over yet.
    #[default]
    None,
    /// The answer is owed. The connection's thread is with the handler, or waits for just that: it needs no waking up.
    Handed,
    /// The answer is owed, and the connection's thread may be waiting for the next request.
    Owed,
    /// Whoever has the answer is sending it this very moment, without the lock: the peer may have read it, and have asked
    /// the next thing, before the sender's thread is let on.
    Sending(Meanwhile),
    /// It has been written, and the connection goes on.
    Written(Instant),
    /// It is not yet written as a whole: this is left; nothing, if only the channel still has some of it.
    Left(Vec<u8>, Fate),
    /// It has been written, and was the last.
    Last,
    /// The connection's thread has answered in the owing one's place.
    Forfeited,
}

impl State {
    fn stage(&self) -> Stage {
        match self {
            Self::None => Stage::Clear,
            Self::Handed | Self::Owed => Stage::Owed,
            Self::Sending(_) => Stage::Sending,
            Self::Written(at) => Stage::Written(*at),
            Self::Left(..) => Stage::Left,
            Self::Last | Self::Forfeited => Stage::Last,
        }
    }
}

/// What the connection's thread does while the answer is being sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Meanwhile {
    /// It is with the handler, or waits for just that.
    Waits,
    /// It may be waiting for the next request.
    WaitsForPeer,
    /// It has more from the peer than it can use yet, sees to other things, and is to be called.
    ToBeCalled,
}

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits for the next request.
    Keep,
    /// It is closed.
    Close,
}

/// What came of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Paid {
    /// It went out whole, and the connection waits for the next request.
    GoesOn,
    /// The connection's thread sees to the rest, or to the end.
    Ends,
    /// It went out, as far as it goes without waiting, and the connection's thread is to be called.
    Call,
    /// The deadline was first.
    TooLate,
}

/// What the connection's thread finds when it asks for the exchange.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// The answer is still owed when the time is over; it is the caller's to give now.
    Forfeited,
    /// The answer went out at this moment; the connection goes on.
    Written(Instant),
    /// This is still to be written, and then the connection has this fate.
    Left(Vec<u8>, Fate),
    /// The answer went out, and was the last.
    Last,
}

/// Where an exchange stands, for whoever only looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// There has been none yet.
    Clear,
    /// The answer is owed.
    Owed,
    /// It is being sent.
    Sending,
    /// It went out at this moment; the connection goes on.
    Written(Instant),
    /// Some of it is still to be written.
    Left,
    /// Nothing more is to be written, nor asked.
    Last,
}

impl Exchange {
    /// A request is about to be handed over.
    pub fn begin(&self) {
        *self.state.lock() = State::Handed;
    }

    /// The handler has returned. `true`: the connection's thread may wait for the peer now; `false`: there is something to
    /// settle first.
    pub fn may_wait_for_peer(&self) -> bool {
        let mut state = self.state.lock();
        match *state {
            State::Handed => {
                *state = State::Owed;
                true
            }
            State::Sending(_) => {
                *state = State::Sending(Meanwhile::WaitsForPeer);
                true
            }
            State::Owed | State::Written(_) => true,
            State::None | State::Left(..) | State::Last | State::Forfeited => false,
        }
    }

    /// Where it stands.
    pub fn stage(&self) -> Stage {
        self.state.lock().stage()
    }

    /// Where it stands, for a thread that has more from the peer and serves others meanwhile: if the answer is being sent,
    /// it will be called when that is over.
    pub fn stage_or_call(&self) -> Stage {
        let mut state = self.state.lock();
        if let State::Sending(meanwhile) = &mut *state {
            *meanwhile = Meanwhile::ToBeCalled;
        }
        state.stage()
    }

    /// Waits until the answer is written, or `deadline`.
    pub fn settle(&self, deadline: Instant) -> Found {
        let mut state = self.state.lock();
        loop {
            match &mut *state {
                State::Handed | State::Owed => {
                    // From here on the condition wakes us; what the peer has sent beyond stays to be read.
                    *state = State::Handed;
                    if self.answered.wait_until(&mut state, deadline).timed_out()
                        && let State::Handed | State::Owed = *state
                    {
                        *state = State::Forfeited;
                        return Found::Forfeited;
                    }
                }
                State::Sending(meanwhile) => {
                    *meanwhile = Meanwhile::Waits;
                    let by = Instant::now() + SENDING_MAX;
                    if self.answered.wait_until(&mut state, by).timed_out()
                        && let State::Sending(_) = *state
                    {
                        *state = State::Last; // who knows how much of it went out
                    }
                }
                State::Written(at) => return Found::Written(*at),
                State::Left(rest, fate) => {
                    let found = Found::Left(std::mem::take(rest), *fate);
                    *state = State::Last;
                    return found;
                }
                State::None | State::Last | State::Forfeited => return Found::Last,
            }
        }
    }

    /// Nobody needs the answer any more, or the caller gives it; says whether one was owed.
    pub fn forfeit(&self) -> bool {
        let mut state = self.state.lock();
        let was_owed = matches!(*state, State::Handed | State::Owed);
        if was_owed {
            *state = State::Forfeited;
        }
        drop(state);
        self.answered.notify_one();
        was_owed
    }

    /// The caller is about to send the answer, if one is still owed; `false`: none is. Nobody else sends until
    /// [`Exchange::has_sent`]. No lock is held meanwhile. Measured: the peer that reads the answer is often let run before the
    /// thread that has sent it, and whoever then reads what it asks next would wait for that thread.
    pub fn begin_to_send(&self) -> bool {
        let mut state = self.state.lock();
        let meanwhile = match *state {
            State::Handed => Meanwhile::Waits,
            State::Owed => Meanwhile::WaitsForPeer,
            State::None
            | State::Sending(_)
            | State::Written(_)
            | State::Left(..)
            | State::Last
            | State::Forfeited => return false,
        };
        *state = State::Sending(meanwhile);
        true
    }

    /// So much of `answer` was `sent` over `channel` as it took without waiting. `begins_to_wait` is called when the connection
    /// goes on, before its thread can see that it does, with whether more has come from the peer already.
    pub fn has_sent(
        &self,
        sent: Sent,
        mut answer: Vec<u8>,
        fate: Fate,
        channel: &Channel,
        begins_to_wait: impl FnOnce(bool),
    ) -> Paid {
        let mut state = self.state.lock();
        let State::Sending(meanwhile) = *state else {
            return Paid::TooLate;
        };
        *state = match sent {
            // Its thread is woken by ending what the peer sends, so nothing can follow.
            Sent::Part(sent) if meanwhile == Meanwhile::WaitsForPeer => {
                State::Left(answer.split_off(sent), Fate::Close)
            }
            Sent::Part(sent) => State::Left(answer.split_off(sent), fate),
            Sent::Whole if fate == Fate::Keep => {
                begins_to_wait(meanwhile == Meanwhile::ToBeCalled);
                State::Written(Instant::now())
            }
            Sent::Whole | Sent::Gone => State::Last,
        };
        let goes_on = matches!(*state, State::Written(_));
        drop(state);
        self.answered.notify_one();
        match meanwhile {
            Meanwhile::ToBeCalled => Paid::Call,
            Meanwhile::Waits | Meanwhile::WaitsForPeer if goes_on => Paid::GoesOn,
            Meanwhile::Waits => Paid::Ends,
            Meanwhile::WaitsForPeer => {
                // Its thread then finds what is left to do.
                channel.shutdown(Shutdown::Read);
                Paid::Ends
            }
        }
    }

    /// What was left has been written after all.
    pub fn all_written(&self, now: Instant) {
        *self.state.lock() = State::Written(now);
    }
}
