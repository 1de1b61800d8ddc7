//! Who is here: backend id → the mailbox of its session. The lock and the map never leave this file.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::mailbox::{Command, Mailbox, NotTaken};
use crate::bus::{Data, Sessions, Stamp};
use crate::envelope::{Envelope, Reply};
use crate::notification::{BackendId, Receipt, unix_us};
use crate::wire;

/// The node's sessions by backend id.
#[derive(Debug, Default)]
pub struct Registry {
    seats: Mutex<Seats>,
}

#[derive(Debug, Default)]
struct Seats {
    by_id: HashMap<BackendId, Seat>,
    /// The largest stamp that was given here or heard of.
    newest: Stamp,
}

#[derive(Debug)]
struct Seat {
    session: u64,
    stamp: Stamp,
    mailbox: Arc<Mailbox>,
}

/// Why an envelope was not taken; it comes back.
#[derive(Debug)]
pub enum NotSent {
    /// No session here has that id.
    Absent(Box<Envelope>),
    /// The session's mailbox is full.
    Full(Box<Envelope>),
}

/// Why data was not passed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotTold {
    /// No session here has that id.
    Absent,
    /// The session has not read what it was sent before.
    Full,
}

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seated {
    /// The id was free.
    New,
    /// An older session had it, and was told to give way.
    TookOver,
}

impl Registry {
    /// Puts `envelope` in the mailbox of its backend's session.
    ///
    /// # Errors
    /// The backend is not here, or its mailbox is full.
    pub fn send(&self, mut envelope: Box<Envelope>) -> Result<(), NotSent> {
        loop {
            let Some(mailbox) = self.mailbox(&envelope.notification.backend) else {
                return Err(NotSent::Absent(envelope));
            };
            match mailbox.push(envelope) {
                Ok(()) => return Ok(()),
                Err(NotTaken::Full(envelope)) => return Err(NotSent::Full(envelope)),
                // It left after the look. Whoever shuts a mailbox takes its seat away first, so the next look finds
                // another one, or none.
                Err(NotTaken::Shut(back)) => envelope = back,
            }
        }
    }

    /// Writes `data` to its backend's session.
    ///
    /// # Errors
    /// The backend is not here, or has not read what it was sent before.
    pub fn tell(&self, data: &Data) -> Result<(), NotTold> {
        let mailbox = self.mailbox(&data.to).ok_or(NotTold::Absent)?;
        let told = mailbox.tell(|out| {
            wire::line(out, "DATA")
                .arg("from", data.from.as_str())
                .end_with_data(data.bytes.len());
            out.extend_from_slice(&data.bytes);
            out.push(b'\n');
        });
        told.then_some(()).ok_or(NotTold::Full)
    }

    fn mailbox(&self, id: &BackendId) -> Option<Arc<Mailbox>> {
        let seats = self.seats.lock();
        seats.by_id.get(id).map(|seat| Arc::clone(&seat.mailbox))
    }

    /// Gives `id` to `session`. An older session of that id is told to give way, and what waits for it moves over.
    pub fn register(&self, id: &BackendId, session: u64, mailbox: &Arc<Mailbox>) -> Seated {
        let mut seats = self.seats.lock();
        // Under the lock, so that of two sessions here the later one has the larger stamp.
        seats.newest = unix_us().max(seats.newest + 1);
        let seat = Seat {
            session,
            stamp: seats.newest,
            mailbox: Arc::clone(mailbox),
        };
        let Some(older) = seats.by_id.insert(id.clone(), seat) else {
            return Seated::New;
        };
        // Under the lock, so that nothing taken later can get into the new mailbox first. It waits for moves of memory
        // only.
        let left_over = older.mailbox.bequeath(mailbox);
        drop(seats);
        older.mailbox.command(Command::GiveWay);
        drop(left_over); // none, unless the queue's bound could change; dropping tells the sender
        Seated::TookOver
    }

    /// Frees `id` if it is still `session`'s, and not its successor's; says whether it was.
    pub fn remove(&self, id: &BackendId, session: u64) -> bool {
        let mut seats = self.seats.lock();
        let mine = seats
            .by_id
            .get(id)
            .is_some_and(|seat| seat.session == session);
        if mine {
            seats.by_id.remove(id);
        }
        mine
    }

    /// How many MSG the session of `id` may have unacknowledged; `None` if it is not here.
    pub fn credit(&self, id: &BackendId) -> Option<usize> {
        let mailbox = self.mailbox(id)?;
        let credit = mailbox.outgoing().credit;
        Some(credit)
    }

    /// How many backends are here.
    pub fn len(&self) -> usize {
        self.seats.lock().by_id.len()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many envelopes wait in all mailboxes together.
    pub fn waiting(&self) -> usize {
        let seats = self.seats.lock();
        seats
            .by_id
            .values()
            .map(|seat| seat.mailbox.waiting())
            .sum()
    }
}

/// What the bus asks of the sessions here.
impl Sessions for Registry {
    fn hand_over(&self, envelope: Box<Envelope>) -> bool {
        match self.send(envelope) {
            Ok(()) => true,
            Err(NotSent::Full(envelope)) => {
                envelope.settle(Receipt::Busy);
                true
            }
            Err(NotSent::Absent(envelope)) => {
                envelope.settle(Receipt::Gone);
                false
            }
        }
    }

    fn pass_on(&self, data: &Data, reply: Reply) -> bool {
        let told = self.tell(data);
        reply.settle(match told {
            Ok(()) => Receipt::Ack,
            Err(NotTold::Full) => Receipt::Busy,
            Err(NotTold::Absent) => Receipt::Gone,
        });
        told != Err(NotTold::Absent)
    }

    fn stamp(&self, backend: &BackendId) -> Option<Stamp> {
        let seats = self.seats.lock();
        seats.by_id.get(backend).map(|seat| seat.stamp)
    }

    fn stamps(&self) -> Vec<(BackendId, Stamp)> {
        let seats = self.seats.lock();
        let all = seats.by_id.iter();
        all.map(|(id, seat)| (id.clone(), seat.stamp)).collect()
    }

    fn witness(&self, stamp: Stamp) {
        let mut seats = self.seats.lock();
        seats.newest = seats.newest.max(stamp);
    }

    fn give_way(&self, backend: &BackendId, stamp: Stamp) -> Vec<Box<Envelope>> {
        let older = {
            let mut seats = self.seats.lock();
            if seats.by_id.get(backend).map(|seat| seat.stamp) != Some(stamp) {
                return Vec::new(); // it has left, or a newer one has come
            }
            seats.by_id.remove(backend)
        };
        let Some(older) = older else {
            return Vec::new();
        };
        // Shut after the seat is gone: a sender that finds it shut looks again, and finds nobody.
        older.mailbox.shut();
        let waiting = std::iter::from_fn(|| older.mailbox.take()).collect();
        older.mailbox.command(Command::GiveWay);
        waiting
    }
}
