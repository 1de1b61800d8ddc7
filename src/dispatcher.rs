//! The way to a backend, wherever it is: its session on this node, else whichever node holds it.

use std::sync::Arc;

use crate::bus::Forward;
use crate::envelope::Envelope;
use crate::notification::{BackendId, Receipt};
use crate::session::{NotSent, Registry};

/// Takes envelopes to backends. Fresh notifications and redeliveries go the same way.
#[derive(Clone)]
pub struct Dispatcher {
    registry: Arc<Registry>,
    bus: Arc<dyn Forward>,
}

impl Dispatcher {
    /// A dispatcher who looks in `registry` first and then asks `bus`.
    pub fn new(registry: Arc<Registry>, bus: Arc<dyn Forward>) -> Self {
        Self { registry, bus }
    }

    /// Takes `envelope` on its way. Its reply is told what comes of it, in this call or later. Never waits.
    pub fn take(&self, envelope: Box<Envelope>) {
        match self.registry.send(envelope) {
            Ok(()) => {}
            Err(NotSent::Full(envelope)) => envelope.settle(Receipt::Busy),
            Err(NotSent::Absent(envelope)) => self.bus.forward(envelope),
        }
    }

    /// How many MSG the session of `backend` may have unacknowledged; `None` if it is not on this node.
    pub fn credit(&self, backend: &BackendId) -> Option<usize> {
        self.registry.credit(backend)
    }
}
