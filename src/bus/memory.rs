//! The bus of a node that is alone: there is nobody else to ask.

use std::sync::Arc;

use super::{Arrivals, Bus};
use crate::notification::{BackendId, Receipt};
use crate::parcel::Parcel;

/// One node, no Redis.
pub struct MemoryBus {
    arrivals: Arc<dyn Arrivals>,
}

impl MemoryBus {
    /// A bus that tells `arrivals` who has come to this node.
    pub fn new(arrivals: Arc<dyn Arrivals>) -> Self {
        Self { arrivals }
    }
}

impl Bus for MemoryBus {
    fn forward(&self, parcel: Box<Parcel>) {
        // A parcel comes here when its backend is not on this node, and there is no other.
        parcel.settle(Receipt::Gone);
    }

    fn attach(&self, backend: &BackendId) {
        self.arrivals.here(backend);
    }

    fn detach(&self, _backend: &BackendId) {}

    fn unwell(&self) -> Option<String> {
        None
    }
}
