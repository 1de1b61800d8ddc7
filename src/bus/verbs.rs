//! What the bus can be asked, and what it asks of this node: the traits between this module and the others.

use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::presence::OnPresence;
use super::types::{Data, LateReceipt, OnEmitted, OnLease, Reach, Ready, Stamp, Topic};
use crate::envelope::{Envelope, Reply};
use crate::metrics::BusReadings;
use crate::notification::{BackendId, EventKey};

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
    fn emit(&self, channel: &Channel, payload: &[u8], on_emitted: OnEmitted);

    /// Something about `topic` has changed on this node: look again whether it is wanted here. If other nodes do not reach
    /// it yet, `ready` is kept and called when they do, or when that cannot be waited for.
    fn look_again(&self, topic: Topic, ready: Option<Ready>) -> Reach;

    /// What carries: `memory`, `redis`, `redis-sentinel` or `redis-cluster`.
    fn kind(&self) -> &'static str;

    /// Why other nodes cannot be reached, if they cannot: a reason for `/readyz`.
    fn unwell(&self) -> Option<String>;

    /// For the metrics.
    fn readings(&self) -> BusReadings;

    /// What the nodes know together of events; `None`: this node is alone. A claim that its node neither keeps nor frees
    /// runs out after `hold`.
    fn dedupe_store(&self, hold: Duration) -> Option<Arc<dyn DedupeStore>>;

    /// Asks every node who is connected to it; `then` hears within two seconds.
    fn presence(&self, then: OnPresence);
}

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

/// What the bus tells the outbox, on any thread. Must not wait.
pub trait Arrivals: Send + Sync {
    /// `backend` has a session, here or on another node: what is stored for it can be sent.
    fn here(&self, backend: &BackendId);

    /// A backend was sent `late.id`, and its node says so after this node had stopped waiting for that.
    fn late(&self, late: LateReceipt);
}

/// Nothing is stored.
impl Arrivals for () {
    fn here(&self, _backend: &BackendId) {}

    fn late(&self, _late: LateReceipt) {}
}

/// What the nodes know together of events, so that a provider's retry that comes in at another node is known there too.
///
/// A claim that its node neither keeps nor frees, because it died, must run out by itself, soon after
/// `delivery.ack_deadline`: until then the provider's retries are refused.
pub trait DedupeStore: Send + Sync {
    /// Claims the event `key` for this node; `then` learns, in this call or later, on any thread, whose it is. Never waits;
    /// where the others cannot be asked it says so ([`EventLease::Unknown`]) instead of guessing.
    fn claim(&self, key: &EventKey, then: OnLease);

    /// The event was delivered or stored: keep it known for `window`.
    fn keep(&self, key: &EventKey, window: Duration);

    /// The event was not delivered, and is not stored: whoever brings it next shall have it.
    fn free(&self, key: &EventKey);
}
