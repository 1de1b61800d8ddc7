//! What this node says to the others, and how it hears of them. The rest of the house knows the verbs, not the carrier.

mod memory;

pub use memory::MemoryBus;

use std::time::Duration;

use crate::notification::{BackendId, EventKey};
use crate::parcel::Parcel;

/// Carries parcels between nodes.
pub trait Bus: Send + Sync {
    /// Carries `parcel` to the node that holds its backend's session. Its reply is told whatever comes of it; at once,
    /// if no node holds it. Never waits.
    fn forward(&self, parcel: Box<Parcel>);

    /// The backend has its session here now. Returns when other nodes can reach it.
    fn attach(&self, backend: &BackendId);

    /// The backend has no session here any more.
    fn detach(&self, backend: &BackendId);

    /// Why other nodes cannot be reached, if they cannot: a reason for `/readyz`.
    fn unwell(&self) -> Option<String>;
}

/// What a node's outbox wants to hear.
pub trait Arrivals: Send + Sync {
    /// A backend has got a session on some node, this one included. Called from threads that must not wait, and often for
    /// nothing: it says that trying is worth while, not that anything is there to be tried.
    fn here(&self, backend: &BackendId);
}

/// Nobody wants to hear it.
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
