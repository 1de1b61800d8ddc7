//! What this node sends to the other nodes, and how it receives from them.
//!
//! Two kinds of bus keep the same promises and pass the same tests: [`MemoryBus`] for one node alone, [`RedisBus`] for
//! several nodes. This module knows no socket of a backend: the node's sessions implement [`Sessions`] for it.
//!
//! *Invariant:* no verb here waits. What takes time is told later, through the reply of an envelope or a callback, and within
//! a few seconds: a bus that is down says so.

mod channel;
mod events;
mod frames;
mod hub;
mod memory;
mod presence;
mod redis;
mod remote_pending;
#[cfg(test)]
mod tests;
mod types;
mod verbs;

pub use self::channel::{BadChannel, CHANNEL_BYTES_MAX, Channel};
pub use self::events::{Events, NotEmitted};
pub use self::frames::msg_line;
pub use self::hub::{Event, EventListener, EventPayload, Hub, ListenerId, StateChange};
pub use self::memory::MemoryBus;
pub use self::presence::{NodePresence, OnPresence, Presence, Present};
pub use self::redis::{
    AckTimes, BusStartError, RedisBus, StoreConnection, StoreError, StoreLink,
    check as check_redis, store_command,
};
pub use self::types::{
    DATA_BYTES_MAX, Data, EventLease, LateReceipt, OnEmitted, OnLease, Reach, Ready, Stamp, Topic,
    Unreachable,
};
pub use self::verbs::{Arrivals, Bus, DedupeStore, Forward, Sessions};
