//! The backends that are connected here: backend id → the mailbox of its session. The lock and the map never leave this file.

mod list;

use std::collections::HashMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::mailbox::{Command, Mailbox, NotAccepted};
use crate::bus::{Data, Sessions, Stamp};
use crate::envelope::{Envelope, Reply};
use crate::notification::{BackendId, Receipt, unix_us};
use crate::wire;

/// The node's sessions by backend id.
#[derive(Debug, Default)]
pub struct Registry {
    entries: Mutex<Entries>,
}

#[derive(Debug, Default)]
struct Entries {
    by_id: HashMap<BackendId, Entry>,
    /// The largest stamp that was given here or heard of.
    newest: Stamp,
}

#[derive(Clone, Debug)]
struct Entry {
    /// The session's number; a connection that is accepted later has a larger one.
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

/// What became of a registration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Registered {
    /// The id was free.
    New,
    /// An older session had it, and has been told that it is taken over.
    TookOver,
    /// A session whose connection was accepted later has the id, and keeps it.
    Superseded,
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
                Err(NotAccepted::Full(envelope)) => return Err(NotSent::Full(envelope)),
                // The session ended after the look. Its entry was removed before its mailbox was shut, so the next look finds
                // another session, or none.
                Err(NotAccepted::Shut(back)) => envelope = back,
            }
        }
    }

    /// Writes `data` to its backend's session. `Gone`: no session here has that id; `Busy`: it has not read what it was sent before.
    #[must_use = "a Gone may be on another node"]
    pub fn tell(&self, data: &Data) -> Receipt {
        let Some(mailbox) = self.mailbox(&data.to) else {
            return Receipt::Gone;
        };
        let told = mailbox.tell(|out| {
            wire::line(out, "DATA")
                .arg("from", data.from.as_str())
                .end_with_data(data.bytes.len());
            out.extend_from_slice(&data.bytes);
            out.push(b'\n');
        });
        match told {
            true => Receipt::Ack,
            false => Receipt::Busy,
        }
    }

    fn mailbox(&self, id: &BackendId) -> Option<Arc<Mailbox>> {
        let entries = self.entries.lock();
        entries
            .by_id
            .get(id)
            .map(|entry| Arc::clone(&entry.mailbox))
    }

    /// Gives `id` to `session`. What waits for an older session of that id moves over to `mailbox`, and the older session's
    /// thread is told.
    ///
    /// A node that was stopped for a while reads many HELLOs at once, and the threads that do are in no order: the
    /// connection that was accepted last is the one that the backend still has.
    pub fn register(&self, id: &BackendId, session: u64, mailbox: &Arc<Mailbox>) -> Registered {
        let mut entries = self.entries.lock();
        if entries
            .by_id
            .get(id)
            .is_some_and(|entry| entry.session > session)
        {
            return Registered::Superseded;
        }
        // Under the lock, so that of two sessions here the later one has the larger stamp.
        entries.newest = unix_us().max(entries.newest + 1);
        let entry = Entry {
            session,
            stamp: entries.newest,
            mailbox: Arc::clone(mailbox),
        };
        let Some(older) = entries.by_id.insert(id.clone(), entry) else {
            return Registered::New;
        };
        // Under the lock, so that no later envelope can get into the new mailbox first. It moves memory only.
        let left_over = older.mailbox.transfer_to(mailbox);
        drop(entries);
        older.mailbox.command(Command::TakenOver);
        drop(left_over); // none, since the two mailboxes have one size; dropping it tells the senders
        Registered::TookOver
    }

    /// Frees `id` if it is still `session`'s, and not its successor's; says whether it was.
    pub fn remove(&self, id: &BackendId, session: u64) -> bool {
        let mut entries = self.entries.lock();
        let mine = entries
            .by_id
            .get(id)
            .is_some_and(|entry| entry.session == session);
        if mine {
            entries.by_id.remove(id);
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
        self.entries.lock().by_id.len()
    }

    /// Whether no backend is here.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many envelopes wait in all mailboxes together.
    pub fn waiting(&self) -> usize {
        let entries = self.entries.lock();
        entries
            .by_id
            .values()
            .map(|entry| entry.mailbox.waiting())
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
        let is_here = told != Receipt::Gone;
        reply.settle(told);
        is_here
    }

    fn stamp(&self, backend: &BackendId) -> Option<Stamp> {
        let entries = self.entries.lock();
        entries.by_id.get(backend).map(|entry| entry.stamp)
    }

    fn stamps(&self) -> Vec<(BackendId, Stamp)> {
        let entries = self.entries.lock();
        let all = entries.by_id.iter();
        all.map(|(id, entry)| (id.clone(), entry.stamp)).collect()
    }

    fn witness(&self, stamp: Stamp) {
        let mut entries = self.entries.lock();
        entries.newest = entries.newest.max(stamp);
    }

    fn yield_to_newer(&self, backend: &BackendId, stamp: Stamp) -> Vec<Box<Envelope>> {
        let older = {
            let mut entries = self.entries.lock();
            if entries.by_id.get(backend).map(|entry| entry.stamp) != Some(stamp) {
                return Vec::new(); // it has left, or a newer one has come
            }
            entries.by_id.remove(backend)
        };
        let Some(older) = older else {
            return Vec::new();
        };
        // Shut after the entry is gone: a sender that finds the mailbox shut looks again, and finds no session.
        let waiting = older.mailbox.shut_and_take_all().collect();
        older.mailbox.command(Command::TakenOver);
        waiting
    }
}
