//! What this node says to the others, and how it hears of them. The rest of the house knows the verbs, not the carrier.
//!
//! Two carriers keep the same promises and pass the same tests: [`MemoryBus`] for a node that is alone, [`RedisBus`] for
//! several. This room knows no socket of a backend: what it needs of the node's sessions, they implement as [`Sessions`].
//!
//! *Invariant:* no verb here waits. What takes time is told later, through the reply of an envelope or a callback, and that
//! never comes later than a few seconds: a carrier that has died says so.

mod abroad;
pub mod events;
mod frames;
mod memory;
mod redis;
mod roll;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use self::events::{Channel, Event, Events};
pub use self::frames::msg_line;
pub use self::memory::MemoryBus;
pub use self::redis::{RedisBus, StartError};
pub use self::roll::{NodeRoll, Roll};
use crate::envelope::{Envelope, Reply};
use crate::metrics::BusReadings;
use crate::notification::{BackendId, EventKey};

/// The largest message that the bus carries besides its head line, in bytes: the largest body that can be configured
/// (64 MiB), and the headers forwarded with it.
pub const DATA_BYTES_MAX: usize = (64 << 20) + (64 << 10);

/// Carries envelopes to other nodes.
pub trait Forward: Send + Sync {
    /// Carries `envelope` to the node that holds its backend's session. Its reply is told whatever comes of it; at once,
    /// if no node holds it or the bus is down.
    fn forward(&self, envelope: Box<Envelope>);
}

/// Carries envelopes, data and events between nodes, and to this node where that is their way.
pub trait Bus: Forward {
    /// Carries a backend's data to another backend on another node. `reply` is told as an envelope's is: `Ack` when it has
    /// been written to the session.
    fn carry(&self, data: Data, reply: Reply);

    /// Carries `payload` to every listener of `channel`, on this node too. `told` hears on how many nodes there was one.
    fn emit(&self, channel: &Channel, payload: &[u8], told: Told);

    /// Something about `topic` has changed on this node: look again whether it is wanted here. If other nodes do not reach
    /// it yet, `ready` is kept and called when they do, or when that cannot be waited for.
    fn look_again(&self, topic: Topic, ready: Option<Ready>) -> Reach;

    /// What carries: `memory` or `redis`.
    fn kind(&self) -> &'static str;

    /// Why other nodes cannot be reached, if they cannot: a reason for `/readyz`.
    fn unwell(&self) -> Option<String>;

    /// For the metrics.
    fn readings(&self) -> BusReadings;

    /// What the nodes know together of events; `None`: this node is alone. A claim that its node neither keeps nor frees
    /// runs out after `hold`.
    fn ledger(&self, hold: Duration) -> Option<Arc<dyn Ledger>>;

    /// Asks every node who is connected to it; `then` hears within two seconds.
    fn call_the_roll(&self, then: Box<dyn FnOnce(Roll) + Send>);
}

/// Hears on how many nodes somebody listened, or that the bus is down.
pub type Told = Box<dyn FnOnce(Result<u64, Unreachable>) + Send>;

/// Called once, when what was asked for stands. Must not wait.
pub type Ready = Box<dyn FnOnce() + Send>;

/// Whether other nodes reach a topic on this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// They do; a callback was dropped without being called.
    Settled,
    /// They do not, and cannot be told: the bus is down. They will once it is back. A callback was dropped.
    Down,
    /// Not yet; the callback will be called.
    Soon,
}

/// The bus is down, or too much waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bus to the other nodes is down")
    }
}

impl std::error::Error for Unreachable {}

/// What a node can be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What is for this backend.
    Backend(BackendId),
    /// The events of this channel.
    Event(Channel),
}

/// Data from one backend to another.
#[derive(Debug)]
pub struct Data {
    /// Who sent it.
    pub from: BackendId,
    /// Whom it is for.
    pub to: BackendId,
    /// What was sent, byte for byte.
    pub bytes: Vec<u8>,
}

/// Where in the history of all nodes a session began: a larger stamp is the newer session.
///
/// A hybrid clock: Unix microseconds, but always beyond every stamp this node has seen or heard of. So a node whose clock
/// lags behind does not lose its new sessions to older ones elsewhere. Microseconds, because thousands of backends come back
/// in the same second: in milliseconds each would push this clock a step ahead of the other nodes'.
pub type Stamp = u64;

/// The sessions of this node, as the bus knows them.
pub trait Sessions: Send + Sync {
    /// Hands `envelope` to its backend's session; the reply is told in any case. Whether there was a session.
    fn hand_over(&self, envelope: Box<Envelope>) -> bool;

    /// Hands `data` to its backend's session; the reply is told in any case. Whether there was a session.
    fn pass_on(&self, data: &Data, reply: Reply) -> bool;

    /// The stamp of `backend`'s session, if it is here.
    fn stamp(&self, backend: &BackendId) -> Option<Stamp>;

    /// Every backend here, with its session's stamp.
    fn stamps(&self) -> Vec<(BackendId, Stamp)>;

    /// Another node has used `stamp`: new sessions here shall get larger ones.
    fn witness(&self, stamp: Stamp);

    /// A newer session of `backend` is on another node: the one here that has `stamp` ends. What waited for it comes
    /// back.
    fn yield_to_newer(&self, backend: &BackendId, stamp: Stamp) -> Vec<Box<Envelope>>;
}

/// Wants to know when a backend has come, on any node: there may be something kept for it.
pub trait Arrivals: Send + Sync {
    /// `backend` has a session, here or elsewhere. Must not wait.
    fn here(&self, backend: &BackendId);
}

/// Nothing is kept for anybody.
impl Arrivals for () {
    fn here(&self, _backend: &BackendId) {}
}

/// What the nodes know together of events, so that a provider's retry that comes in at another node is known there too.
///
/// A claim that its node neither keeps nor frees, because it died, must run out by itself, soon after
/// `delivery.ack_deadline`: until then the provider's retries are refused.
pub trait Ledger: Send + Sync {
    /// Claims the event `key` for this node; `then` learns, in this call or later, on any thread, whose it is. Never waits;
    /// where the others cannot be asked it says so ([`Claim::Unknown`]) instead of guessing.
    fn claim(&self, key: &EventKey, then: Claimed);

    /// The event was delivered or stored: keep it known for `window`.
    fn keep(&self, key: &EventKey, window: Duration);

    /// The event was not delivered, and is not stored: whoever brings it next shall have it.
    fn free(&self, key: &EventKey);
}

/// Learns whose an event is. It must not wait.
pub type Claimed = Box<dyn FnOnce(Claim) + Send>;

/// Whose an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// This node's, from now on.
    Mine,
    /// It was delivered or stored by another node.
    Kept,
    /// Another node has it under way.
    Taken,
    /// The others cannot be asked. A second delivery is better than none.
    Unknown,
}
