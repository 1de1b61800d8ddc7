//! One request and its answer: from the moment it is handed over until the peer has been written to.
//!
//! The answer is written by whichever thread has it, straight to the peer. The connection's own thread meanwhile waits for
//! the peer's next request, so an answer wakes nobody. Only when the socket does not take all of it, or the connection is to
//! end, has the connection's thread something to do.

use std::fmt;
use std::net::Shutdown;
use std::sync::Arc;
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::framing::Shape;
use super::front::House;
use super::guests::Guest;
use super::refusal::Refusal;
use super::reply::{self, After};
use super::socket::send_now;
use crate::claims::Reply;

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
    /// It has been written, and the connection goes on.
    Written(Instant),
    /// It is not yet written as a whole: this is left.
    Left(Vec<u8>, Fate),
    /// It has been written, and was the last.
    Last,
    /// The connection's thread has answered in the owing one's place.
    Forfeited,
}

/// What becomes of the connection after the answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It waits for the next request.
    Keep,
    /// It is closed.
    Close,
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
            State::Owed | State::Written(_) => true,
            State::None | State::Left(..) | State::Last | State::Forfeited => false,
        }
    }

    /// When the answer went out, if it did and the connection goes on; `None`: there is something to settle.
    pub fn written(&self) -> Option<Instant> {
        match *self.state.lock() {
            State::Written(at) => Some(at),
            State::None
            | State::Handed
            | State::Owed
            | State::Left(..)
            | State::Last
            | State::Forfeited => None,
        }
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

    /// Nobody needs the answer any more.
    pub fn forfeit(&self) {
        let mut state = self.state.lock();
        if let State::Handed | State::Owed = *state {
            *state = State::Forfeited;
        }
        drop(state);
        self.answered.notify_one();
    }

    /// What was left has been written after all.
    pub fn all_written(&self, now: Instant) {
        *self.state.lock() = State::Written(now);
    }
}

/// The right, and the duty, to answer one request. Dropped unused, it answers 503: the peer must not wait in vain.
pub struct Ticket {
    guest: Option<Arc<Guest>>,
    house: Arc<House>,
    shape: Shape,
}

impl Ticket {
    /// For the request of `shape` that `guest` has sent.
    pub(super) fn new(guest: Arc<Guest>, house: Arc<House>, shape: Shape) -> Self {
        Self {
            guest: Some(guest),
            house,
            shape,
        }
    }

    /// Answers. Does not wait, whatever the peer does.
    pub fn pay(mut self, reply: &Reply) {
        self.write(reply);
    }

    /// Answers with a refusal, counted.
    pub fn refuse(mut self, refusal: Refusal) {
        self.house.watcher.refused(refusal.word());
        let reply = refusal.reply(self.house.name);
        self.write(&reply);
    }

    fn write(&mut self, reply: &Reply) {
        let Some(guest) = self.guest.take() else {
            return;
        };
        let fate = match self.shape.keep_alive && !self.house.guests.is_closing() {
            true => Fate::Keep,
            false => Fate::Close,
        };
        let after = match (fate, self.shape.http_1_0) {
            (Fate::Keep, false) => After::Keep,
            (Fate::Keep, true) => After::SayKeep,
            (Fate::Close, _) => After::SayClose,
        };
        let mut out = Vec::new();
        reply::render(&mut out, reply, after, self.shape.is_head);

        let exchange = &guest.exchange;
        // Held over a send that cannot wait: nobody but this connection's own thread wants it.
        let mut state = exchange.state.lock();
        let peer_is_waited_for = match *state {
            State::Handed => false,
            State::Owed => true,
            // The deadline was first.
            State::None | State::Written(_) | State::Left(..) | State::Last | State::Forfeited => {
                return;
            }
        };
        let sent = send_now(&guest.stream, &out);
        *state = match sent {
            // Its thread is woken by ending what the peer sends, so nothing can follow.
            Some(sent) if sent < out.len() && peer_is_waited_for => {
                State::Left(out.split_off(sent), Fate::Close)
            }
            Some(sent) if sent < out.len() => State::Left(out.split_off(sent), fate),
            Some(_) if fate == Fate::Keep => {
                // Before the state says so: then the connection's thread may make it busy again.
                guest.waits(self.house.guests.epoch(), false);
                State::Written(Instant::now())
            }
            Some(_) | None => State::Last,
        };
        let goes_on = matches!(*state, State::Written(_));
        drop(state);
        exchange.answered.notify_one();
        if goes_on {
            self.house.guests.has_begun_to_wait(&guest);
        } else if peer_is_waited_for {
            // Its thread then finds what is left to do. Fails only if the peer is gone.
            let _ = guest.stream.shutdown(Shutdown::Read);
        }
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if self.guest.is_some() {
            self.house.watcher.refused(Refusal::Unanswered.word());
            let reply = Refusal::Unanswered.reply(self.house.name);
            self.write(&reply);
        }
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.guest {
            Some(guest) => write!(f, "Ticket({})", guest.peer),
            None => f.write_str("Ticket(used)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{self, Read};
    use std::net::{TcpListener, TcpStream};
    use std::time::Duration;

    use super::*;
    use crate::edge::framing::Body;
    use crate::edge::guests::{Admission, Guests, Seat};
    use crate::edge::{Handler, IDLE_MAX, Limits, Request};
    use crate::fds::FdBudget;

    struct Nobody;

    impl Handler for Nobody {
        fn handle(&self, _: &Request<'_>, _: Ticket) {}
    }

    /// A connection with a request handed over, and nobody who serves it.
    fn handed() -> io::Result<(Seat, Arc<Guest>, Ticket, TcpStream)> {
        let guests = Arc::new(Guests::new());
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let client = TcpStream::connect(listener.local_addr()?)?;
        client.set_nonblocking(true)?;
        let (stream, peer) = listener.accept()?;
        let Admission::Seated(seat) =
            guests.admit(stream, peer, usize::MAX, &FdBudget::with(1), |_| ())
        else {
            return Err(io::ErrorKind::StorageFull.into());
        };
        let guest = seat
            .guest()
            .map(Arc::clone)
            .ok_or(io::ErrorKind::NotFound)?;
        let house = Arc::new(House {
            name: "http",
            limits: Limits {
                max_connections: 1,
                max_body: 0,
                request_deadline: Duration::ZERO,
                answer_deadline: Duration::ZERO,
            },
            handler: Arc::new(Nobody),
            watcher: Arc::new(()),
            guests,
            idle_max: IDLE_MAX,
        });
        let shape = Shape {
            body: Body::Length(0),
            http_1_0: false,
            keep_alive: true,
            expects_continue: false,
            is_head: false,
        };
        assert!(guest.is_whole());
        guest.exchange.begin();
        let ticket = Ticket::new(Arc::clone(&guest), house, shape);
        Ok((seat, guest, ticket, client))
    }

    fn reply() -> Reply {
        Reply {
            status: 200,
            head: Vec::new(),
            body: b"paid".to_vec(),
        }
    }

    fn received(client: &mut TcpStream) -> String {
        let mut bytes = [0; 1024];
        let read = client.read(&mut bytes).unwrap_or(0);
        String::from_utf8_lossy(&bytes[..read]).into_owned()
    }

    #[test]
    fn whoever_is_first_answers_and_the_other_says_nothing() -> io::Result<()> {
        let past = Instant::now();
        let (_seat, guest, ticket, mut client) = handed()?;
        ticket.pay(&reply());
        assert!(matches!(guest.exchange.settle(past), Found::Written(_)));
        assert!(received(&mut client).ends_with("\r\n\r\npaid"));

        for owed in [false, true] {
            let (_seat, guest, ticket, mut client) = handed()?;
            assert!(!owed || guest.exchange.may_wait_for_peer());
            assert_eq!(guest.exchange.settle(past), Found::Forfeited);
            ticket.pay(&reply());
            assert_eq!(received(&mut client), "");
            assert_eq!(guest.exchange.settle(past), Found::Last);
        }
        Ok(())
    }
}
