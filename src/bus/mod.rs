//! What this node says to the others, and how it hears of them. The rest of the house knows the verbs, not the carrier.

mod memory;

pub use memory::MemoryBus;

use crate::notification::BackendId;
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
