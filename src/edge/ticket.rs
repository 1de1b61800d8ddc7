//! The right to answer one request, in whatever hands it is.
//!
//! Here an answer gets its form; where it stands is `exchange`'s business.

use std::fmt;
use std::sync::Arc;

use super::channel::Sent;
use super::exchange::{Fate, Paid};
use super::framing::Shape;
use super::guests::Guest;
use super::house::House;
use super::refusal::Refusal;
use super::reply::{self, After};
use crate::claims::Reply;

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
        if let Some(sending) = self.begin(reply) {
            let sent = sending.send();
            sending.end(sent);
        }
    }

    /// The first of three steps to answer; `None`: no answer is owed any more.
    pub(super) fn begin(&mut self, reply: &Reply) -> Option<Sending<'_>> {
        let guest = self.guest.take()?;
        let fate = match self.shape.keep_alive && !self.house.guests.is_closing() {
            true => Fate::Keep,
            false => Fate::Close,
        };
        let after = match (fate, self.shape.http_1_0) {
            (Fate::Keep, false) => After::Keep,
            (Fate::Keep, true) => After::SayKeep,
            (Fate::Close, _) => After::SayClose,
        };
        let mut answer = Vec::new();
        reply::render(&mut answer, reply, after, self.shape.is_head);
        let owed = guest.exchange.begin_to_send();
        owed.then_some(Sending {
            guest,
            house: &self.house,
            answer,
            fate,
        })
    }
}

/// An answer that is being sent.
pub(super) struct Sending<'a> {
    guest: Arc<Guest>,
    house: &'a House,
    answer: Vec<u8>,
    fate: Fate,
}

impl Sending<'_> {
    /// The second step. Does not wait.
    pub(super) fn send(&self) -> Sent {
        self.guest.channel.send_now(&self.answer)
    }

    /// The last step: what came of it.
    pub(super) fn end(self, sent: Sent) {
        let Self {
            guest,
            house,
            answer,
            fate,
        } = self;
        let begins = |begun| guest.waits(house.guests.epoch(), begun);
        let paid = guest
            .exchange
            .has_sent(sent, answer, fate, &guest.channel, begins);
        if matches!(paid, Paid::GoesOn | Paid::Call) {
            house.guests.has_begun_to_wait(&guest);
        }
        if paid == Paid::Call
            && let Some(poller) = house.poller(&guest)
        {
            poller.call(guest.number);
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
    use std::time::{Duration, Instant};

    use crossbeam_channel::unbounded;

    use super::*;
    use crate::edge::channel::Channel;
    use crate::edge::exchange::{Found, Stage};
    use crate::edge::framing::Body;
    use crate::edge::guests::{Admission, Guests, Seat};
    use crate::edge::tests::{alone, wait_asleep};
    use crate::edge::{Handler, IDLE_MAX, Limits, Request};
    use crate::fds::FdBudget;
    use crate::thread::{SMALL_STACK_BYTES, spawn};

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
        let Admission::Seated(seat) = guests.admit(
            Channel::new(stream, None),
            peer,
            usize::MAX,
            &FdBudget::with(1),
            |_| (),
        ) else {
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
            tls: None,
            peers: Default::default(),
            pollers: Vec::new(),
            no_thread: Default::default(),
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

    #[test]
    fn what_is_being_sent_is_not_owed_and_is_waited_for() {
        alone(
            "edge::ticket::tests::what_is_being_sent_is_not_owed_and_is_waited_for",
            || {
                let (_seat, guest, mut ticket, mut client) = handed().expect("a connection");
                let reply = reply();
                let sending = ticket.begin(&reply).expect("it is owed");
                assert_eq!(guest.exchange.stage(), Stage::Sending);
                assert!(!guest.exchange.forfeit());
                let theirs = Arc::clone(&guest);
                let (say, said) = unbounded();
                let past = Instant::now();
                let waiter = spawn("settler", SMALL_STACK_BYTES, move || {
                    let _ = say.send(theirs.exchange.settle(past));
                });
                wait_asleep("settler");
                assert!(said.is_empty());
                let sent = sending.send();
                sending.end(sent);
                assert!(matches!(said.recv(), Ok(Found::Written(_))));
                assert!(received(&mut client).ends_with("paid"));
                drop(waiter);
            },
        );
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
