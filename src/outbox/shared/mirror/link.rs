//! The mirror's connection: what is sent in one go, and the replies that are owed for it.

use redis::Value;

use super::Mirror;
use crate::bus::{StoreError, store_command};

/// One command carries as many records as have so many bytes, and one more.
const COMMAND_BYTES: usize = 1 << 20;

impl Mirror {
    pub(super) fn send_records(
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

    pub(super) fn send_removed(&mut self, ids: &[String]) -> Result<(), StoreError> {
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
    pub(super) fn receive(&mut self) -> Option<Value> {
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

    pub(super) fn ask(&mut self, command: &[u8]) -> Option<Value> {
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
