//! The bus of a node that is alone: there is nobody else to ask.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::events::Hub;
use super::roll::{NodeRoll, Roll};
use super::{Arrivals, Bus, Channel, Data, Forward, Ledger, Reach, Ready, Sessions, Told, Topic};
use crate::envelope::{Envelope, Reply};
use crate::metrics::BusReadings;
use crate::notification::Receipt;

/// One node, no Redis.
pub struct MemoryBus {
    instance: String,
    sessions: Arc<dyn Sessions>,
    hub: Arc<Hub>,
    arrivals: Arc<dyn Arrivals>,
}

impl fmt::Debug for MemoryBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "MemoryBus({})", self.instance)
    }
}

impl MemoryBus {
    /// The bus of the node called `instance`.
    pub fn new(
        instance: String,
        sessions: Arc<dyn Sessions>,
        hub: Arc<Hub>,
        arrivals: Arc<dyn Arrivals>,
    ) -> Self {
        Self {
            instance,
            sessions,
            hub,
            arrivals,
        }
    }
}

impl Forward for MemoryBus {
    fn forward(&self, envelope: Box<Envelope>) {
        // An envelope comes here when its backend is not on this node, and there is no other.
        envelope.settle(Receipt::Gone);
    }
}

impl Bus for MemoryBus {
    fn carry(&self, _data: Data, reply: Reply) {
        reply.settle(Receipt::Gone);
    }

    fn emit(&self, channel: &Channel, payload: &[u8], told: Told) {
        let heard = self.hub.dispatch(channel, payload);
        told(Ok(heard.into()));
    }

    fn look_again(&self, topic: Topic, _ready: Option<Ready>) -> Reach {
        if let Topic::Backend(backend) = &topic
            && self.sessions.stamp(backend).is_some()
        {
            self.arrivals.here(backend);
        }
        Reach::Settled
    }

    fn kind(&self) -> &'static str {
        "memory"
    }

    fn unwell(&self) -> Option<String> {
        None
    }

    fn readings(&self) -> BusReadings {
        BusReadings::default()
    }

    fn ledger(&self, _hold: Duration) -> Option<Arc<dyn Ledger>> {
        None
    }

    fn call_the_roll(&self, then: Box<dyn FnOnce(Roll) + Send>) {
        let backends = self.sessions.stamps();
        then(Roll {
            nodes: vec![NodeRoll::here(self.instance.clone(), backends)],
            silent: Vec::new(),
            trouble: None,
        });
    }
}
