//! The figures of the outbox.

use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::{
    BackendLabels, Metrics, ReasonLabels, ResultLabels, RouteLabel, registered, registered_as,
};
use crate::notification::Receipt;

/// Upper bounds of `payrelay_outbox_commit_seconds`, in seconds: from a disk that only pretends to a disk in trouble.
const COMMIT_SECONDS: [f64; 12] = [
    0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5, 2.0,
];

/// What is in the outbox just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OutboxReadings {
    /// To be delivered.
    pub pending: u64,
    /// Acknowledged, not deleted yet.
    pub done: u64,
    /// Dead letters.
    pub dead: u64,
    /// How long the oldest one that is to be delivered has been there.
    pub oldest: Duration,
    /// Name, pending and dead of the backends that have most of both; not all of them.
    pub backends: Vec<(String, u64, u64)>,
    /// How much room the disk has for this user.
    pub disk_free_bytes: u64,
    /// How long SQLite's write-ahead log is.
    pub log_bytes: u64,
    /// Those pending for backends of which the node has not heard since its start.
    pub unknown_backends: u64,
    /// `None`: it is not shared.
    pub shared: Option<SharedReadings>,
}

/// How the mirror in Redis is just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SharedReadings {
    /// Notifications of this node that are in Redis, as far as is known.
    pub mirrored: u64,
    /// Notifications of this node that should be in Redis and are not, as far as is known.
    pub behind: u64,
    /// Notifications that were taken over from nodes that are gone, since the start.
    pub inherited: u64,
    /// Why nothing is mirrored, if so.
    pub trouble: Option<String>,
}

pub(super) struct OutboxMetrics {
    messages: Family<BackendLabels, Gauge>,
    done: Gauge,
    oldest: Gauge,
    disk_free: Gauge,
    log: Gauge,
    unknown: Gauge,
    mirrored: Gauge,
    behind: Gauge,
    inherited: Gauge,
    commits: Histogram,
    refusals: Family<ReasonLabels, Counter>,
    deaths: Family<ReasonLabels, Counter>,
    deliveries: Family<ResultLabels, Counter>,
}

impl OutboxMetrics {
    pub fn register(registry: &mut Registry) -> Self {
        let all = Self {
            messages: registered(
                registry,
                "payrelay_outbox_messages",
                "Notifications on disk, by state, of the backends that have most of them; other: of all other backends",
            ),
            done: registered(
                registry,
                "payrelay_outbox_done",
                "Acknowledged notifications on disk, until outbox.keep is over",
            ),
            oldest: registered(
                registry,
                "payrelay_outbox_oldest_seconds",
                "How long ago the oldest notification that is still to be delivered was stored; 0: there is none",
            ),
            disk_free: registered(
                registry,
                "payrelay_outbox_disk_free_bytes",
                "Room on the disk of the outbox, for the relay's user",
            ),
            log: registered(
                registry,
                "payrelay_outbox_log_bytes",
                "Length of the write-ahead log of the outbox; at outbox.max_log_bytes nothing is stored",
            ),
            unknown: registered(
                registry,
                "payrelay_outbox_unknown_backend",
                "Pending notifications of backends that have connected to no node since this one started: look for a typo in the notify_url",
            ),
            mirrored: registered(
                registry,
                "payrelay_outbox_mirrored",
                "Notifications of this node that are in Redis too (outbox.shared), as far as is known",
            ),
            behind: registered(
                registry,
                "payrelay_outbox_behind",
                "Notifications of this node that should be in Redis too (outbox.shared) and are not yet",
            ),
            inherited: registered(
                registry,
                "payrelay_outbox_inherited",
                "Notifications that this node has taken over from nodes that are gone (outbox.shared), since its start",
            ),
            commits: registered_as(
                registry,
                "payrelay_outbox_commit_seconds",
                "Time to write and sync a group of changes",
                Histogram::new(COMMIT_SECONDS),
            ),
            refusals: registered(
                registry,
                "payrelay_outbox_refusals",
                "Undelivered notifications that were not stored, so that their providers were told fail",
            ),
            deaths: registered(
                registry,
                "payrelay_outbox_dead_letters",
                "Notifications that became dead letters",
            ),
            deliveries: registered(
                registry,
                "payrelay_outbox_deliveries",
                "What came of offering stored notifications to their backends",
            ),
        };
        for reason in ["full", "no-space", "disk", "file", "log", "shared", "busy"] {
            let _ = all.refusals.get_or_create(&ReasonLabels { reason });
        }
        for reason in ["given-up", "expired"] {
            let _ = all.deaths.get_or_create(&ReasonLabels { reason });
        }
        all
    }

    pub fn set(&self, readings: Option<&OutboxReadings>) {
        let Some(readings) = readings else { return };
        let value = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        self.done.set(value(readings.done));
        self.oldest.set(value(readings.oldest.as_secs()));
        self.disk_free.set(value(readings.disk_free_bytes));
        self.log.set(value(readings.log_bytes));
        self.unknown.set(value(readings.unknown_backends));
        let shared = readings.shared.clone().unwrap_or_default();
        self.mirrored.set(value(shared.mirrored));
        self.behind.set(value(shared.behind));
        self.inherited.set(value(shared.inherited));
        // A backend that has nothing left drops out of the list.
        self.messages.clear();
        let set = |backend: &str, state, count| {
            let labels = BackendLabels {
                backend: RouteLabel(backend.into()),
                state,
            };
            self.messages.get_or_create(&labels).set(value(count));
        };
        let (mut pending, mut dead) = (readings.pending, readings.dead);
        for (name, its_pending, its_dead) in &readings.backends {
            set(name, "pending", *its_pending);
            set(name, "dead", *its_dead);
            pending = pending.saturating_sub(*its_pending);
            dead = dead.saturating_sub(*its_dead);
        }
        // Not an id that a backend can have.
        set("(other)", "pending", pending);
        set("(other)", "dead", dead);
    }
}

/// What happens to the outbox.
impl Metrics {
    /// A group of changes is on disk, this long after it was begun.
    pub fn outbox_committed(&self, elapsed: Duration) {
        self.outbox.commits.observe(elapsed.as_secs_f64());
    }

    /// A notification was not stored. `reason` is one word of a closed set.
    pub fn outbox_refused(&self, reason: &'static str) {
        self.outbox
            .refusals
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// So many stored notifications became dead letters. `reason` is one word of a closed set.
    pub fn outbox_died(&self, reason: &'static str, count: u64) {
        self.outbox
            .deaths
            .get_or_create(&ReasonLabels { reason })
            .inc_by(count);
    }

    /// A stored notification was offered to its backend, and this came of it.
    pub fn outbox_tried(&self, receipt: &Receipt) {
        let result = match receipt {
            Receipt::Ack => "ack",
            Receipt::Nack(_) => "nack",
            Receipt::Gone => "gone",
            Receipt::Busy => "busy",
            Receipt::Expired => "expired",
            Receipt::Unreachable => "unreachable",
        };
        self.outbox
            .deliveries
            .get_or_create(&ResultLabels { result })
            .inc();
    }
}
