//! The connections that have not said a good HELLO: when there is no room left, the oldest of them makes it.
//!
//! Whoever connects without a token must not keep backends out that have one: a backend says HELLO at once, so of a crowd of
//! silent connections one of the others is always older.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use super::mailbox::{Command, Mailbox};

/// The connections of a node that are in the phase of greeting, by their numbers, so in the order of accept.
#[derive(Debug, Default)]
pub struct NewSessions(Mutex<BTreeMap<u64, Arc<Mailbox>>>);

impl NewSessions {
    /// Connection `number` was accepted.
    pub fn add(&self, number: u64, mailbox: &Arc<Mailbox>) {
        self.0.lock().insert(number, Arc::clone(mailbox));
    }

    /// Connection `number` has said a good HELLO, or is over. `false`: its place was given to another before.
    pub fn remove(&self, number: u64) -> bool {
        let mailbox = self.0.lock().remove(&number);
        // Here, without the lock: the last owner of a mailbox closes its descriptors.
        mailbox.is_some()
    }

    /// Tells the oldest to make room; `false`: there is none.
    pub fn displace(&self) -> bool {
        let oldest = self.0.lock().pop_first();
        if let Some((_, mailbox)) = &oldest {
            mailbox.command(Command::MakeRoom);
        }
        oldest.is_some()
    }
}
