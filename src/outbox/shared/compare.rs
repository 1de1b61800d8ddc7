//! Whether Redis has what the file has, and nothing else of it; and putting right what differs.

use redis::Value;

use super::keys::{self, CHECK, IDS};
use super::record;
use super::worker::{Interrupted, Worker};
use crate::bus::StoreConnection;
use crate::heartbeat::Pulse;
use crate::notification::NotificationId;
use crate::outbox::ops::MirrorOp;
use crate::outbox::store::by_id;
use crate::outbox::store::exported::Parsed;
use crate::outbox::store::row::State;
use crate::thread::CooperativeYield;

/// How many ids are looked at at once.
const PAGE: usize = 500;

/// How many records are read at once, and put into the file in one go: what is to be stored meanwhile waits for no more than that.
const RECORDS_AT_ONCE: usize = 32;

/// What of a page of records was read.
pub type Read = Vec<(NotificationId, Parsed)>;

impl Worker {
    /// Compares all of it, and puts right what differs.
    pub(super) fn compare(
        &self,
        link: &mut StoreConnection,
        pulse: &Pulse,
    ) -> Result<(), Interrupted> {
        // By then the writer holds the lease, so no other node takes anything over meanwhile.
        self.ask(MirrorOp::Count)?.ok_or(Interrupted::Down)?;
        self.fill_redis(link, pulse)?;
        let counts = self.ask(MirrorOp::Count)?.ok_or(Interrupted::Down)?;
        if counts.in_redis != counts.on_disk {
            self.fill_file(link, pulse)?;
        }
        let is_same = self.ask(MirrorOp::Conclude)?.ok_or(Interrupted::Down)?;
        if is_same {
            let moved = self.keys.moved(&self.keys.store);
            link.ask(&[b"DEL", moved.as_bytes()])?;
        }
        Ok(())
    }

    /// Puts into Redis what is only in the file, and drops from the file what others have taken over.
    pub(super) fn fill_redis(
        &self,
        link: &mut StoreConnection,
        pulse: &Pulse,
    ) -> Result<(), Interrupted> {
        let store = self.keys.store.clone();
        let (out, moved) = (self.keys.out(&store), self.keys.moved(&store));
        let mut after = 0;
        let (mut added, mut dropped) = (0, 0);
        loop {
            self.may_go_on(pulse)?;
            let page = by_id::kept_ids(&self.reading, after, PAGE)?;
            let Some((last, _)) = page.last() else { break };
            after = *last;
            let ids: Vec<NotificationId> = page.iter().map(|(_, id)| *id).collect();
            let reply = self.script(link, CHECK, &[&out, &moved], &keys::texts(&ids))?;
            let Value::BulkString(digits) = reply else {
                return Err(Interrupted::Lost("Redis gives a strange reply".into()));
            };
            let missing = keys::told(&ids, &digits, b'0');
            let taken = keys::told(&ids, &digits, b'2');
            added += missing.len();
            dropped += taken.len();
            for some in missing.chunks(PAGE / 2) {
                self.tell(MirrorOp::Put(some.to_vec()))?;
            }
            if !taken.is_empty() {
                self.tell(MirrorOp::Moved(taken))?;
            }
        }
        if added + dropped > 0 {
            log::info!(
                "the shared outbox: {added} were not in Redis and are put there; {dropped} were taken over by other nodes \
                 meanwhile and are theirs"
            );
        }
        Ok(())
    }

    /// Puts into the file what is only in Redis, and removes from Redis what is done.
    fn fill_file(&self, link: &mut StoreConnection, pulse: &Pulse) -> Result<(), Interrupted> {
        let store = self.keys.store.clone();
        let mut cursor = "0".to_owned();
        let mut recovered = 0;
        loop {
            self.may_go_on(pulse)?;
            let (next, ids) = self.ids_page(link, &store, &cursor)?;
            let (mut unknown, mut done) = (Vec::new(), Vec::new());
            for id in ids {
                match by_id::row_by_id(&self.reading, id)? {
                    None => unknown.push(id),
                    Some(row) if row.state == State::Done => done.push(id),
                    Some(_) => {}
                }
            }
            if !done.is_empty() {
                self.tell(MirrorOp::Put(done))?;
            }
            unknown.sort_unstable();
            let mut rest = &unknown[..];
            while !rest.is_empty() {
                let (found, taken) = self.records(link, &store, rest)?;
                rest = &rest[taken..];
                recovered += found.len();
                let found = found.into_iter().map(|(_, parsed)| parsed).collect();
                self.tell(MirrorOp::Recover(found))?;
            }
            cursor = next;
            if cursor == "0" {
                break;
            }
        }
        if recovered > 0 {
            log::warn!(
                "the shared outbox: {recovered} were in Redis and not in the file, which was lost or is an old one; they are \
                 delivered, some of them perhaps again"
            );
        }
        Ok(())
    }

    /// A page of the ids of the file called `store`, and where to go on; `0`: that was the last one.
    pub(super) fn ids_page(
        &self,
        link: &mut StoreConnection,
        store: &str,
        cursor: &str,
    ) -> Result<(String, Vec<NotificationId>), Interrupted> {
        let strange = || Interrupted::Lost("Redis gives a strange reply".into());
        let out = self.keys.out(store);
        let reply = self.script(link, IDS, &[&out], &[cursor, "1000"])?;
        let Value::Array(parts) = reply else {
            return Err(strange());
        };
        let [Value::BulkString(next), Value::Array(fields)] = &parts[..] else {
            return Err(strange());
        };
        let id = |field: &Value| match field {
            Value::BulkString(text) => NotificationId::parse(std::str::from_utf8(text).ok()?),
            _ => None,
        };
        let ids = fields.iter().filter_map(id).collect();
        Ok((String::from_utf8_lossy(next).into_owned(), ids))
    }

    /// The records of the first [`RECORDS_AT_ONCE`] of `ids`, and how many of `ids` that were. Those that are gone, or that another
    /// version wrote, are left out.
    pub(super) fn records(
        &self,
        link: &mut StoreConnection,
        store: &str,
        ids: &[NotificationId],
    ) -> Result<(Read, usize), Interrupted> {
        let out = self.keys.out(store);
        let some = &ids[..ids.len().min(RECORDS_AT_ONCE)];
        let texts = keys::texts(some);
        let mut parts: Vec<&[u8]> = vec![b"HMGET", out.as_bytes()];
        parts.extend(texts.iter().map(|text| text.as_bytes()));
        let Value::Array(values) = link.ask(&parts)? else {
            return Err(Interrupted::Lost("Redis gives a strange reply".into()));
        };
        let (mut found, mut yielding) = (Vec::new(), CooperativeYield::default());
        for (id, value) in some.iter().zip(values) {
            let Value::BulkString(value) = value else {
                continue;
            };
            yielding.yield_now();
            match record::parse(*id, &value, self.expire_ms) {
                Some(parsed) => found.push((*id, parsed)),
                None => log::error!(
                    "the shared outbox: the record of {id} is of another version of payrelay and is left where it is"
                ),
            }
        }
        Ok((found, some.len()))
    }
}
