//! What `/readyz` and `/status` say of the bus, and who is connected where.

use serde::{Deserialize, Serialize};

use crate::bus::{Bus, Presence};

/// How the bus is.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct BusState {
    /// `memory`, `redis`, `redis-sentinel` or `redis-cluster`.
    pub kind: String,
    pub up: bool,
    /// Why it is not up.
    pub reason: Option<String>,
    /// Since this node last heard its own word; `None`: it needs none.
    pub canary_age_ms: Option<u64>,
    pub subscriptions_wanted: usize,
    pub subscriptions_standing: usize,
    /// The primaries in use.
    #[serde(default)]
    pub primaries: Vec<String>,
    #[serde(default)]
    pub buckets: usize,
    #[serde(default)]
    pub buckets_up: usize,
}

impl BusState {
    /// How `bus` is now.
    pub fn of(bus: &dyn Bus) -> Self {
        let (reason, now) = (bus.unwell(), bus.readings());
        Self {
            kind: bus.kind().to_owned(),
            up: reason.is_none(),
            reason,
            canary_age_ms: now
                .canary_age
                .map(|age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX)),
            subscriptions_wanted: now.subscriptions_wanted,
            subscriptions_standing: now.subscriptions_standing,
            primaries: now.primaries,
            buckets: now.buckets,
            buckets_up: now.buckets_up,
        }
    }
}

/// The answer to `/status`.
#[derive(Debug, Serialize)]
pub struct Status<'a> {
    /// The node that was asked.
    pub node: &'a str,
    /// As this node knows it.
    pub bus: &'a BusState,
    /// What all nodes said.
    #[serde(flatten)]
    pub presence: &'a Presence,
}
