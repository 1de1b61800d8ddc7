//! The lease of this node's file: as long as it is held, nobody takes over what is in it.

use std::time::Duration;

use redis::Value;

use super::Mirror;
use crate::bus::store_command;
use crate::outbox::ops::Beat;
use crate::outbox::shared::keys;

impl Mirror {
    /// How often the lease is to be held anew, at least: one beat may be missed.
    pub fn beat_every(&self) -> Duration {
        self.lease / 3
    }

    /// Holds the lease, and has the mirror's thread look when Redis has not what it should have: `kept` pending and dead.
    pub fn beat(&mut self, kept: u64) -> Beat {
        if self.state.is_released() {
            return Beat::Done; // others may take over
        }
        let store = &self.keys.store;
        let names = [
            self.keys.lease(store),
            self.keys.stores(),
            self.keys.out(store),
        ];
        let arguments = [&self.instance, &self.lease_ms, store, &self.node];
        let command = keys::script(keys::LEASE, &names, &arguments);
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
            self.ask_for_look();
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
            self.ask_for_look();
        }
    }

    /// The file is known as `store` from now on.
    pub fn rename(&mut self, store: String) {
        self.state.set_store(&store);
        self.keys.store = store;
        self.held = false;
        self.state.set_complete(false);
        self.ask_for_look();
    }
}
