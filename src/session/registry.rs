//! Who is here: backend id → the mailbox of its session. The lock and the map never leave this file.

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::mailbox::{Command, Mailbox, NotTaken};
use crate::notification::BackendId;
use crate::parcel::Parcel;

/// The node's sessions by backend id.
#[derive(Debug, Default)]
pub struct Registry {
    seats: Mutex<HashMap<BackendId, Seat>>,
}

#[derive(Debug)]
struct Seat {
    session: u64,
    mailbox: Arc<Mailbox>,
}

/// Why a parcel was not taken; it comes back.
#[derive(Debug)]
pub enum NotSent {
    /// No session here has that id.
    Absent(Box<Parcel>),
    /// The session's mailbox is full.
    Full(Box<Parcel>),
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
    /// Puts `parcel` in the mailbox of its backend's session.
    ///
    /// # Errors
    /// The backend is not here, or its mailbox is full.
    pub fn send(&self, mut parcel: Box<Parcel>) -> Result<(), NotSent> {
        loop {
            let seat = self
                .seats
                .lock()
                .get(&parcel.notification.backend)
                .map(|seat| Arc::clone(&seat.mailbox));
            let Some(mailbox) = seat else {
                return Err(NotSent::Absent(parcel));
            };
            match mailbox.push(parcel) {
                Ok(()) => return Ok(()),
                Err(NotTaken::Full(parcel)) => return Err(NotSent::Full(parcel)),
                // It left after the look. Whoever shuts a mailbox takes its seat away first, so the next look finds
                // another one, or none.
                Err(NotTaken::Shut(back)) => parcel = back,
            }
        }
    }

    /// Gives `id` to `session`. An older session of that id is told to give way, and what waits for it moves over.
    pub fn register(&self, id: &BackendId, session: u64, mailbox: &Arc<Mailbox>) -> Seated {
        let seat = Seat {
            session,
            mailbox: Arc::clone(mailbox),
        };
        let mut seats = self.seats.lock();
        let Some(older) = seats.insert(id.clone(), seat) else {
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
        let mine = seats.get(id).is_some_and(|seat| seat.session == session);
        if mine {
            seats.remove(id);
        }
        mine
    }

    /// How many MSG the session of `id` may have unacknowledged; `None` if it is not here.
    pub fn credit(&self, id: &BackendId) -> Option<usize> {
        let mailbox = self
            .seats
            .lock()
            .get(id)
            .map(|seat| Arc::clone(&seat.mailbox))?;
        Some(mailbox.outgoing().credit)
    }

    /// How many backends are here.
    pub fn len(&self) -> usize {
        self.seats.lock().len()
    }

    /// Whether nobody is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many parcels wait in all mailboxes together.
    pub fn waiting(&self) -> usize {
        let seats = self.seats.lock();
        seats.values().map(|seat| seat.mailbox.waiting()).sum()
    }
}
