//! The mirror as the writer has it: what the writer changes in its file it changes in Redis, in the same order. No other
//! thread changes the records of this node, so they can be compared with the file at any time.
//!
//! New ones are sent beside the sync of the disk. All else follows the commit, and says what the file says by then. When the
//! connection is lost nothing is owed: the mirror's thread compares all of it once there is another.

mod lease;
mod link;

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Sender;
use redis::Value;
use rusqlite::Connection;

use super::keys::{self, Keys};
use super::record::{self, New};
use super::state::SharedState;
use super::{MOVED_KEPT, MirrorEvent, SharedLink};
use crate::bus::{StoreConnection, StoreError, store_command};
use crate::config::SharedOutbox;
use crate::log_once::LogOnce;
use crate::notification::NotificationId;
use crate::outbox::ops::Counts;
use crate::outbox::ops::StoreRequest;
use crate::outbox::store::by_id;
use crate::outbox::store::error::NotStored;
use crate::outbox::store::row::State;
use crate::outbox::store::rows;
use crate::thread::CooperativeYield;

/// Removed while there was no connection, and remembered so that they do not come back. Beyond it they may be delivered twice.
const GONE_MAX: usize = 1_000_000;

/// The mirror, as the writer has it.
pub struct Mirror {
    pub keys: Keys,
    link: Option<StoreConnection>,
    instance: String,
    node: String,
    lease: Duration,
    lease_ms: String,
    wait_ms: String,
    state: Arc<SharedState>,
    events: Sender<MirrorEvent>,
    /// It had the lease at the last look.
    held: bool,
    gone: HashSet<NotificationId>,
    /// Damaged on disk, and not in Redis: there is nothing to be mirrored.
    damaged: HashSet<NotificationId>,
    /// Stored by this group.
    stored: HashSet<NotificationId>,
    replies: usize,
    foreign: LogOnce,
}

impl Mirror {
    pub fn new(
        keys: Keys,
        shared: &SharedLink,
        lease: Duration,
        state: Arc<SharedState>,
        events: Sender<MirrorEvent>,
    ) -> Self {
        Self {
            keys,
            link: None,
            instance: shared.link.instance().to_owned(),
            node: shared.node.clone(),
            lease,
            lease_ms: lease.as_millis().to_string(),
            wait_ms: (shared.link.response_ms() / 2).clamp(1, 1000).to_string(),
            state,
            events,
            held: false,
            gone: HashSet::new(),
            damaged: HashSet::new(),
            stored: HashSet::new(),
            replies: 0,
            foreign: LogOnce::new(),
        }
    }

    /// There is a connection now.
    pub fn connected(&mut self, link: StoreConnection) {
        self.link = Some(link);
        self.held = false;
        self.state.set_up();
    }

    /// The connection is to a server that is not the primary any more.
    pub fn disconnect(&mut self, why: &str) {
        self.link = None;
        if self.state.set_down(why.to_owned()) {
            log::warn!("the outbox is not mirrored in Redis: {why}");
        }
        self.ask_for_look();
    }

    /// Has the mirror's thread look whether Redis has what it should have.
    fn ask_for_look(&self) {
        let _ = self.events.try_send(MirrorEvent::Look); // full: it looks all the same
    }

    fn failed(&mut self, error: &StoreError) {
        self.disconnect(&error.to_string());
    }

    /// Whether new ones are refused just now.
    pub fn refuses(&self) -> bool {
        self.state.is_handing_over() || (self.is_required() && self.link.is_none())
    }

    /// Whether the commit waits for the mirror.
    pub fn is_required(&self) -> bool {
        self.state.mode == SharedOutbox::Require
    }

    /// Sends those of `stored` that the disk is about to take.
    pub fn begin(&mut self, stored: &[(Box<StoreRequest>, Result<i64, NotStored>)]) {
        self.stored.clear();
        let mut records = Vec::new();
        for (store, result) in stored {
            if result.is_err() || store.state == State::Done {
                continue;
            }
            let n = &store.notification;
            self.stored.insert(n.id);
            if self.link.is_some() {
                let new = New {
                    notification: n,
                    key: store.key,
                    state: store.state,
                    tries: store.tries,
                    why: &store.why,
                    steps: store.timeline.to_text(),
                };
                records.push((n.id.to_string(), record::encode(new)));
            }
        }
        if !records.is_empty()
            && let Err(error) = self.send_records(&records, true)
        {
            self.failed(&error);
        }
    }

    /// Waits until what was sent is in Redis, and on a replica if there is one; says whether it is.
    pub fn finish(&mut self) -> bool {
        if self.stored.is_empty() {
            return true;
        }
        let waits = self.state.has_replicas();
        let last = self.receive();
        // WAIT's: on how many replicas it is.
        let is_there = last.is_some_and(|last| !(waits && last == Value::Int(0)));
        let count = self.stored.len() as u64;
        match is_there {
            true => self.state.add_mirrored(count, 0),
            false => self.state.add_unmirrored(count),
        }
        is_there
    }

    /// What was sent is not in the file after all.
    pub fn withdraw(&mut self) {
        let ids: Vec<NotificationId> = self.stored.drain().collect();
        self.change(&[], ids);
    }

    /// Follows a commit: what has another state in `file` now.
    pub fn follow(&mut self, file: &Connection, changed: &[(NotificationId, Option<State>)]) {
        let (mut put, mut removed) = (Vec::new(), Vec::new());
        for (id, state) in changed {
            match state {
                None | Some(State::Done) => removed.push(*id),
                Some(State::Pending | State::Dead) if !self.stored.contains(id) => put.push(*id),
                Some(State::Pending | State::Dead) => {}
            }
        }
        let records = self.records(file, &put, &mut removed);
        self.stored.clear();
        self.change(&records, removed);
    }

    /// Puts what the file says of `ids` into Redis.
    pub fn put(&mut self, file: &Connection, ids: &[NotificationId]) {
        let mut removed = Vec::new();
        let records = self.records(file, ids, &mut removed);
        self.change(&records, removed);
    }

    /// The records of `ids`; those that are none any more are added to `removed`.
    fn records(
        &mut self,
        file: &Connection,
        ids: &[NotificationId],
        removed: &mut Vec<NotificationId>,
    ) -> Vec<(String, Vec<u8>)> {
        let (mut records, mut yielding) = (Vec::new(), CooperativeYield::default());
        for id in ids {
            if self.link.is_none() {
                break;
            }
            // Unless providers wait for this group.
            if self.stored.is_empty() {
                yielding.yield_now();
            }
            let row = match by_id::row_by_id(file, *id) {
                Ok(row) => row,
                Err(error) => {
                    self.disconnect(&format!("the outbox cannot be read: {error}"));
                    return Vec::new();
                }
            };
            let Some(row) = row.filter(|row| row.state != State::Done) else {
                removed.push(*id);
                continue;
            };
            let payload = rows::payload(file, &row).ok().flatten();
            match payload.and_then(|payload| record::of_row(&row, payload)) {
                Some(record) => records.push((id.to_string(), record)),
                // Redis may have it whole still; then it lacks nothing.
                None if self.lacks(*id) => {
                    self.damaged.insert(*id);
                }
                None => {}
            }
        }
        records
    }

    /// Whether Redis, if it is there, does not have `id`.
    fn lacks(&mut self, id: NotificationId) -> bool {
        let out = self.keys.out(&self.keys.store);
        let mut command = Vec::new();
        let id = id.to_string();
        store_command(&mut command, &[b"HEXISTS", out.as_bytes(), id.as_bytes()]);
        self.ask(&command) == Some(Value::Int(0))
    }

    fn change(&mut self, records: &[(String, Vec<u8>)], removed: Vec<NotificationId>) {
        for id in &removed {
            self.damaged.remove(id);
        }
        if records.is_empty() && removed.is_empty() {
            return;
        }
        let texts = keys::texts(&removed);
        let sent = self.send_records(records, false);
        let sent = sent.and_then(|()| self.send_removed(&texts));
        if let Err(error) = sent {
            self.failed(&error);
        }
        match self.receive() {
            // The next look counts exactly.
            Some(_) => self.state.add_mirrored(0, removed.len() as u64),
            None if self.gone.len() < GONE_MAX => self.gone.extend(removed),
            None => {}
        }
    }

    /// Those of `ids` that are in Redis still, and were not removed from the file while Redis was away.
    pub fn still_there(&mut self, ids: &[NotificationId]) -> Option<HashSet<NotificationId>> {
        let store = &self.keys.store;
        let (out, moved) = (self.keys.out(store), self.keys.moved(store));
        let command = keys::script(keys::CHECK, &[&out, &moved], &keys::texts(ids));
        let Value::BulkString(digits) = self.ask(&command)? else {
            return None;
        };
        let there = keys::told(ids, &digits, b'1').into_iter();
        Some(there.filter(|id| !self.gone.contains(id)).collect())
    }

    /// How many are in Redis, and how many should be.
    pub fn count(&mut self, kept: u64) -> Option<Counts> {
        let mut command = Vec::new();
        let out = self.keys.out(&self.keys.store);
        store_command(&mut command, &[b"HLEN", out.as_bytes()]);
        let Value::Int(count) = self.ask(&command)? else {
            return None;
        };
        let in_redis = u64::try_from(count).unwrap_or(0);
        self.state.set_mirrored(in_redis);
        self.state.set_damaged(self.damaged.len());
        Some(Counts {
            in_redis,
            on_disk: kept.saturating_sub(self.damaged.len() as u64),
        })
    }

    /// Everything of the file was seen in Redis: if Redis does not have more, both have the same now. `None`: Redis is away.
    pub fn conclude(&mut self, kept: u64) -> Option<bool> {
        let counts = self.count(kept)?;
        let is_same = counts.in_redis == counts.on_disk;
        if is_same {
            self.gone.clear();
            self.state.set_complete(true);
        }
        Some(is_same)
    }

    /// Takes `ids` over from the file called `store`: those that were there still. `None`: Redis is away.
    pub fn take(&mut self, store: &str, ids: &[NotificationId]) -> Option<Vec<NotificationId>> {
        let names = [
            self.keys.lease(store),
            self.keys.out(store),
            self.keys.moved(store),
            self.keys.moved(&self.keys.store),
        ];
        let mut arguments = vec![MOVED_KEPT.as_millis().to_string()];
        arguments.extend(keys::texts(ids));
        let command = keys::script(keys::TAKE, &names, &arguments);
        let Value::BulkString(digits) = self.ask(&command)? else {
            return None;
        };
        Some(keys::told(ids, &digits, b'1'))
    }
}
