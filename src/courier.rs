//! The way to a backend, wherever it is: its session on this node, else whichever node holds it.

use std::fmt;
use std::sync::Arc;

use crate::bus::Forward;
use crate::notification::{BackendId, Receipt};
use crate::parcel::Parcel;
use crate::session::{NotSent, Registry};

/// Takes parcels to backends. Fresh notifications and redeliveries go the same way.
#[derive(Clone)]
pub struct Courier {
    registry: Arc<Registry>,
    bus: Arc<dyn Forward>,
}

impl fmt::Debug for Courier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Courier").finish_non_exhaustive()
    }
}

impl Courier {
    /// A courier who looks in `registry` first and then asks `bus`.
    pub fn new(registry: Arc<Registry>, bus: Arc<dyn Forward>) -> Self {
        Self { registry, bus }
    }

    /// Takes `parcel` on its way. Its reply is told what comes of it, in this call or later. Never waits.
    pub fn take(&self, parcel: Box<Parcel>) {
        match self.registry.send(parcel) {
            Ok(()) => {}
            Err(NotSent::Full(parcel)) => parcel.settle(Receipt::Busy),
            Err(NotSent::Absent(parcel)) => self.bus.forward(parcel),
        }
    }

    /// How many MSG the session of `backend` may have unacknowledged; `None` if it is not on this node.
    pub fn credit(&self, backend: &BackendId) -> Option<usize> {
        self.registry.credit(backend)
    }
}
