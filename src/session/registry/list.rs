//! Who is here, one by one, for people; and the end of a session that a person wants.

use super::Registry;
use crate::bus::Stamp;
use crate::notification::BackendId;
use crate::session::mailbox::Command;

/// A session as people see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionState {
    pub backend: BackendId,
    /// Its number on this node.
    pub session: u64,
    /// When it began, and what tells it from an earlier one.
    pub stamp: Stamp,
    /// How many MSG it may have unanswered.
    pub credit: usize,
    /// How many it has.
    pub in_flight: usize,
    /// How many wait for it beyond those.
    pub waiting: usize,
    /// Its latest ACK or NACK, in Unix milliseconds; 0: none yet.
    pub answered_at_unix_ms: u64,
}

impl Registry {
    /// Every session here, by backend.
    pub fn list(&self) -> Vec<SessionState> {
        // Out of the lock first: each session's own is held while something is written to it.
        let entries = self.entries.lock();
        let all: Vec<_> = entries
            .by_id
            .iter()
            .map(|(id, entry)| (id.clone(), entry.clone()))
            .collect();
        drop(entries);
        let mut list: Vec<SessionState> = all
            .into_iter()
            .map(|(backend, entry)| {
                let waiting = entry.mailbox.waiting();
                let outgoing = entry.mailbox.outgoing();
                SessionState {
                    backend,
                    session: entry.session,
                    stamp: entry.stamp,
                    credit: outgoing.credit,
                    in_flight: outgoing.in_flight(),
                    waiting,
                    answered_at_unix_ms: outgoing.answered_at_unix_ms,
                }
            })
            .collect();
        list.sort_by(|one, other| one.backend.cmp(&other.backend));
        list
    }

    /// Ends the session of `backend` that began in the millisecond `since_unix_ms`, with a BYE; says whether there was one.
    pub fn disconnect(&self, backend: &BackendId, since_unix_ms: u64) -> bool {
        let entries = self.entries.lock();
        let entry = entries.by_id.get(backend);
        let entry = entry.filter(|entry| entry.stamp / 1000 == since_unix_ms);
        let mailbox = entry.map(|entry| entry.mailbox.clone());
        drop(entries);
        let told = mailbox.map(|mailbox| mailbox.command(Command::Disconnect));
        told.is_some()
    }
}
