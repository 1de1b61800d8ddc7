//! How the relay is, for those who watch over it: the load balancer, the service manager, a person.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::bus::Bus;
use crate::heartbeat;
use crate::outbox::Outbox;
use crate::session::Registry;

/// The parts of a running relay that can say how they are.
pub struct Vitals {
    draining: Arc<AtomicBool>,
    bus: Arc<dyn Bus>,
    outbox: Option<Arc<Outbox>>,
    registry: Arc<Registry>,
}

/// How the relay was at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Why it cannot relay; empty: it can.
    pub not_ready: Vec<String>,
    /// Backends that are connected to this node.
    pub backends: usize,
    /// Notifications in the outbox that wait for their backend.
    pub pending: u64,
    /// Dead letters in the outbox.
    pub dead: u64,
}

impl Vitals {
    /// Asks these parts.
    pub fn new(
        draining: Arc<AtomicBool>,
        bus: Arc<dyn Bus>,
        outbox: Option<Arc<Outbox>>,
        registry: Arc<Registry>,
    ) -> Self {
        Self {
            draining,
            bus,
            outbox,
            registry,
        }
    }

    /// Why the relay cannot relay just now, one word or short phrase each; empty: it can.
    pub fn not_ready(&self) -> Vec<String> {
        let draining = self.draining.load(Ordering::Relaxed);
        let draining = draining.then(|| "draining".to_owned());
        let outbox = self.outbox.as_ref().and_then(|outbox| outbox.unwell());
        let threads = heartbeat::ailments().into_iter();
        draining
            .into_iter()
            .chain(threads.filter_map(|ailment| ailment.is_vital.then_some(ailment.words)))
            .chain(self.bus.unwell())
            .chain(outbox)
            .collect()
    }

    /// How the relay is now.
    pub fn condition(&self) -> Condition {
        let outbox = self.outbox.as_ref().map(|outbox| outbox.readings());
        let outbox = outbox.unwrap_or_default();
        Condition {
            not_ready: self.not_ready(),
            backends: self.registry.len(),
            pending: outbox.pending,
            dead: outbox.dead,
        }
    }
}

impl fmt::Debug for Vitals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Vitals")
    }
}

/// One line for people.
impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.not_ready.is_empty() {
            true => f.write_str("ready")?,
            false => write!(f, "NOT READY: {}", self.not_ready.join("; "))?,
        }
        let count = |n, one, many| if n == 1 { one } else { many };
        write!(
            f,
            "; {} {} connected, {} {} pending, {} dead",
            self.backends,
            count(self.backends as u64, "backend", "backends"),
            self.pending,
            count(self.pending, "notification", "notifications"),
            self.dead
        )
    }
}
