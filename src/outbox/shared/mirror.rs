//! The mirror as the writer has it: what the writer changes in its file it changes in Redis, in the same order. No other
//! thread changes the records of this node, so they can be compared with the file at any time.
//!
//! New ones are sent beside the sync of the disk. All else follows the commit, and says what the file says by then. When the
//! connection is lost nothing is owed: the mirror's thread compares all of it once there is another.

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
use crate::outbox::ops::StoreRequest;
use crate::outbox::ops::{Beat, Counts};
use crate::outbox::store::by_id;
use crate::outbox::store::error::NotStored;
use crate::outbox::store::row::State;
use crate::outbox::store::rows;
use crate::thread::CooperativeYield;

/// One command carries as many records as have so many bytes, and one more.
const COMMAND_BYTES: usize = 1 << 20;

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
        let _ = self.events.try_send(MirrorEvent::Look); // full: the thread looks all the same
    }

    fn failed(&mut self, error: &StoreError) {
        self.disconnect(&error.to_string());
    }

    /// Whether new ones are refused just now.
    pub fn refuses(&self) -> bool {
        self.state.is_handing_over() || (self.is_required() && self.link.is_none())
    }

    /// How often the lease is to be held anew, at least: one beat may be missed.
    pub fn beat_every(&self) -> Duration {
        self.lease / 3
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
        let texts = keys::texts(ids);
        let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut command = Vec::new();
        keys::script(&mut command, keys::CHECK, &[&out, &moved], &texts);
        let Value::BulkString(digits) = self.ask(&command)? else {
            return None;
        };
        let there = ids.iter().zip(digits).filter(|(_, digit)| *digit == b'1');
        let there = there.map(|(id, _)| *id);
        Some(there.filter(|id| !self.gone.contains(id)).collect())
    }

    fn send_records(
        &mut self,
        records: &[(String, Vec<u8>)],
        wait: bool,
    ) -> Result<(), StoreError> {
        let Some(link) = &mut self.link else {
            return Ok(());
        };
        let store = &self.keys.store;
        let (out, stores) = (self.keys.out(store), self.keys.stores());
        let (mut command, mut from) = (Vec::new(), 0);
        if !records.is_empty() {
            // Redis may have lost everything since the last beat: records of a file that is not known there are never inherited.
            let parts = ["HSET", &stores, store, &self.node].map(str::as_bytes);
            store_command(&mut command, &parts);
            self.replies += 1;
        }
        while from < records.len() {
            let (mut to, mut bytes) = (from, 0);
            while to < records.len() && bytes < COMMAND_BYTES {
                bytes += records[to].1.len();
                to += 1;
            }
            let mut parts: Vec<&[u8]> = vec![b"HSET", out.as_bytes()];
            for (id, record) in &records[from..to] {
                parts.push(id.as_bytes());
                parts.push(record);
            }
            command.reserve(bytes + 64 * (to - from) + 64);
            store_command(&mut command, &parts);
            link.send(&command)?;
            command.clear();
            self.replies += 1;
            from = to;
        }
        if wait && self.state.has_replicas() {
            store_command(&mut command, &[b"WAIT", b"1", self.wait_ms.as_bytes()]);
            link.send(&command)?;
            self.replies += 1;
        }
        Ok(())
    }

    fn send_removed(&mut self, ids: &[String]) -> Result<(), StoreError> {
        let Some(link) = self.link.as_mut().filter(|_| !ids.is_empty()) else {
            return Ok(());
        };
        let out = self.keys.out(&self.keys.store);
        let mut parts: Vec<&[u8]> = vec![b"HDEL", out.as_bytes()];
        parts.extend(ids.iter().map(|id| id.as_bytes()));
        let mut command = Vec::new();
        store_command(&mut command, &parts);
        link.send(&command)?;
        self.replies += 1;
        Ok(())
    }

    /// Reads what is owed, and gives the last of it; `None`: Redis is away.
    fn receive(&mut self) -> Option<Value> {
        let mut last = Value::Nil;
        for _ in 0..std::mem::take(&mut self.replies) {
            match self.link.as_mut()?.receive() {
                Ok(value) => last = value,
                Err(error) => {
                    self.failed(&error);
                    return None;
                }
            }
        }
        self.link.is_some().then_some(last)
    }

    /// Holds the lease, and has the mirror's thread look when Redis has not what it should have: `kept` pending and dead.
    pub fn beat(&mut self, kept: u64) -> Beat {
        if self.state.is_released() {
            return Beat::Done; // others may take over
        }
        let store = self.keys.store.clone();
        let (lease, stores, out) = (
            self.keys.lease(&store),
            self.keys.stores(),
            self.keys.out(&store),
        );
        let mut command = Vec::new();
        keys::script(
            &mut command,
            keys::LEASE,
            &[&lease, &stores, &out],
            &[&self.instance, &self.lease_ms, &store, &self.node],
        );
        let Some(Value::Array(parts)) = self.ask(&command) else {
            return Beat::Done;
        };
        let [Value::BulkString(before), Value::Int(count)] = &parts[..] else {
            return Beat::Done;
        };
        let count = u64::try_from(*count).unwrap_or(0);
        self.state.set_mirrored(count);
        let is_ours = before == self.instance.as_bytes();
        if self.held && !is_ours && !before.is_empty() {
            self.foreign.error(format_args!(
                "the relay {} has a copy of this node's outbox file: what is in both is delivered twice, under the same id",
                String::from_utf8_lossy(before)
            ));
            // The other one sees this one too, and one of the two must be another file from now on.
            if self.instance.as_bytes() > before.as_slice() {
                return Beat::Copy;
            }
        }
        let lost = self.held && !is_ours;
        self.held = true;
        let expected = kept.saturating_sub(self.damaged.len() as u64);
        if lost || (self.state.is_complete() && count != expected) {
            self.state.set_complete(false);
            let _ = self.events.try_send(MirrorEvent::Look); // full: it looks all the same
        }
        Beat::Done
    }

    /// Others may take over what this node has, if they are to, and Redis has all of it.
    pub fn release(&mut self) {
        if !self.state.is_handing_over() || self.state.is_released() || !self.state.is_complete() {
            return;
        }
        let mut command = Vec::new();
        let lease = self.keys.lease(&self.keys.store);
        store_command(&mut command, &[b"DEL", lease.as_bytes()]);
        if self.ask(&command).is_some() {
            self.state.set_released();
            log::warn!("the outbox is handed over: other nodes take over what is in it");
            let _ = self.events.try_send(MirrorEvent::Look); // full: it looks all the same
        }
    }

    /// The file is known as `store` from now on.
    pub fn rename(&mut self, store: String) {
        self.state.set_store(&store);
        self.keys.store = store;
        self.held = false;
        self.state.set_complete(false);
        let _ = self.events.try_send(MirrorEvent::Look); // full: it looks all the same
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
        let own = self.keys.store.clone();
        let names = [
            self.keys.lease(store),
            self.keys.out(store),
            self.keys.moved(store),
            self.keys.moved(&own),
        ];
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut arguments = vec![MOVED_KEPT.as_millis().to_string()];
        arguments.extend(keys::texts(ids));
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut command = Vec::new();
        keys::script(&mut command, keys::TAKE, &names, &arguments);
        let Value::BulkString(digits) = self.ask(&command)? else {
            return None;
        };
        let taken = ids.iter().zip(digits).filter(|(_, digit)| *digit == b'1');
        Some(taken.map(|(id, _)| *id).collect())
    }

    fn ask(&mut self, command: &[u8]) -> Option<Value> {
        let link = self.link.as_mut()?;
        let reply = link.send(command).and_then(|()| link.receive());
        match reply {
            Ok(value) => Some(value),
            Err(error) => {
                self.failed(&error);
                None
            }
        }
    }
}
