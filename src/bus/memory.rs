//! The bus of one node alone: there is no other node.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::channel::Channel;
use super::hub::Hub;
use super::presence::{NodePresence, OnPresence, Presence};
use super::types::{Data, OnEmitted, Reach, Ready, Topic};
use super::verbs::{Arrivals, Bus, DedupeStore, Forward, Sessions};
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

    fn emit(&self, channel: &Channel, payload: &[u8], on_emitted: OnEmitted) {
        let heard = self.hub.dispatch(channel, payload);
        on_emitted(Ok(heard.into()));
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

    fn dedupe_store(&self, _hold: Duration) -> Option<Arc<dyn DedupeStore>> {
        None
    }

    fn presence(&self, then: OnPresence) {
        let backends = self.sessions.stamps();
        then(Presence {
            nodes: vec![NodePresence::here(self.instance.clone(), backends)],
            silent: Vec::new(),
            trouble: None,
        });
    }
}
