//! What becomes of a node's notifications when it is gone: a living node takes them over, in the order in which they were taken.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use redis::Value;

use super::keys;
use super::state::Gone;
use super::worker::{Interrupted, Worker};
use crate::bus::StoreConnection;
use crate::heartbeat::Pulse;
use crate::notification::NotificationId;
use crate::outbox::ops::MirrorOp;

/// How long one node alone takes over from another. It says so anew with each page.
const TAKEOVER_FOR: Duration = Duration::from_secs(10);

/// The most that are taken over in one go.
const IDS_MAX: usize = 4_000_000;

impl Worker {
    /// Looks for nodes whose lease has run out.
    pub(super) fn look_for_the_dead(
        &mut self,
        link: &mut StoreConnection,
        pulse: &Pulse,
    ) -> Result<(), Interrupted> {
        let stores = link.ask(&[b"HGETALL", self.keys.stores().as_bytes()])?;
        let stores = texts(stores);
        let known: HashSet<&String> = stores.iter().step_by(2).collect();
        self.silent.retain(|store, _| known.contains(store));
        let (mut others, mut gone) = (0, Vec::new());
        for pair in stores.chunks_exact(2) {
            let [store, name] = pair else { continue };
            if *store == self.keys.store {
                continue;
            }
            let lease = link.ask(&[b"EXISTS", self.keys.lease(store).as_bytes()])?;
            if lease != Value::Int(0) {
                others += 1;
                self.silent.remove(store);
                continue;
            }
            let count = link.ask(&[b"HLEN", self.keys.out(store).as_bytes()])?;
            gone.push(Gone {
                store: store.clone(),
                node: name.clone(),
                count: match count {
                    Value::Int(count) => u64::try_from(count).unwrap_or(0),
                    _ => 0,
                },
            });
        }
        if self.state.set_others(others) {
            log::info!("the shared outbox: {others} other nodes share theirs in this Redis");
        }
        self.state.set_gone(gone.clone());
        for Gone { store, node, .. } in gone {
            let since = *self
                .silent
                .entry(store.clone())
                .or_insert_with(Instant::now);
            // The lease has half of the time.
            if since.elapsed() >= self.inherit_after / 2 && !self.state.is_handing_over() {
                self.inherit(link, pulse, &store, &node)?;
            }
        }
        Ok(())
    }

    /// Takes over what the file called `store` had.
    fn inherit(
        &mut self,
        link: &mut StoreConnection,
        pulse: &Pulse,
        store: &str,
        name: &str,
    ) -> Result<(), Interrupted> {
        let names = [
            self.keys.stores(),
            self.keys.out(store),
            self.keys.lease(store),
        ];
        if self.script(link, keys::FORGET, &names, &[store])? == Value::Int(1) {
            self.silent.remove(store);
            return Ok(());
        }
        if !self.takes_over_alone(link, store, TAKEOVER_FOR)? {
            return Ok(());
        }
        let mut ids = Vec::new();
        let mut cursor = "0".to_owned();
        loop {
            self.may_go_on(pulse)?;
            let (next, page) = self.ids_page(link, store, &cursor)?;
            ids.extend(page);
            cursor = next;
            if cursor == "0" || ids.len() >= IDS_MAX {
                break;
            }
        }
        // An id sorts by the time at which it was taken.
        ids.sort_unstable();
        ids.dedup();
        log::warn!(
            "the node {name} is gone: this node takes over the {} notifications that it had",
            ids.len()
        );
        let taken = self.take_over(link, pulse, store, &ids)?;
        log::warn!("took over {taken} notifications of the node {name}");
        self.takes_over_alone(link, store, Duration::ZERO)?;
        Ok(())
    }

    fn take_over(
        &mut self,
        link: &mut StoreConnection,
        pulse: &Pulse,
        store: &str,
        ids: &[NotificationId],
    ) -> Result<u64, Interrupted> {
        let (mut rest, mut taken) = (ids, 0);
        while !rest.is_empty() {
            self.may_go_on(pulse)?;
            if !self.takes_over_alone(link, store, TAKEOVER_FOR)? {
                break;
            }
            let (found, read) = self.records(link, store, rest)?;
            rest = &rest[read..];
            if found.is_empty() {
                continue;
            }
            let from = store.to_owned();
            let inherited = self.ask(|tell| MirrorOp::Inherit(from, found, tell))?;
            taken += inherited.taken;
            self.state.add_inherited(store, inherited.taken);
            if inherited.full {
                log::error!(
                    "the outbox is full (outbox.max_messages, outbox.max_bytes): the rest stays in Redis until there is room"
                );
                // Not at every look.
                self.silent.remove(store);
                break;
            }
            if inherited.stopped {
                break;
            }
        }
        Ok(taken)
    }

    /// Whether this node alone takes over from `store`, for so long from now on.
    fn takes_over_alone(
        &self,
        link: &mut StoreConnection,
        store: &str,
        time: Duration,
    ) -> Result<bool, Interrupted> {
        let key = self.keys.takeover(store);
        let own = self.shared.link.instance();
        let ms = time.as_millis().to_string();
        let reply = self.script(link, keys::TAKEOVER, &[&key], &[own, &ms])?;
        Ok(reply == Value::Int(1))
    }
}

/// The texts of a list.
fn texts(value: Value) -> Vec<String> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8_lossy(bytes).into_owned(),
        Value::SimpleString(text) => text.clone(),
        _ => String::new(),
    };
    match &value {
        Value::Array(values) => values.iter().map(text).collect(),
        Value::Map(pairs) => pairs
            .iter()
            .flat_map(|(key, value)| [text(key), text(value)])
            .collect(),
        _ => Vec::new(),
    }
}
