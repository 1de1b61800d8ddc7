//! What is counted of the bus: whether it stands, how it hears, and what it could not carry.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::ResultLabels;
use super::registered;

/// The bus's counters; clones count together.
#[derive(Clone, Debug)]
pub struct BusMetrics {
    up: Gauge,
    downs: Counter,
    batches: Counter,
    commands: Counter,
    forwarded: Counter,
    received: Counter,
    lost: Lost,
    events: Events,
}

#[derive(Clone, Debug)]
struct Lost {
    full: Counter,
    receipt: Counter,
    not_understood: Counter,
}

impl Lost {
    fn register(registry: &mut Registry) -> Self {
        let family: Family<WhyLabels, Counter> = registered(
            registry,
            "payrelay_bus_refused",
            "What the bus could not carry. full: refused, the sender knows; receipt: another node hears nothing and tries \
             again; not-understood: from a node of another version, or a stranger",
        );
        let of = |why| family.get_or_create_owned(&WhyLabels { why });
        Self {
            full: of("full"),
            receipt: of("receipt"),
            not_understood: of("not-understood"),
        }
    }
}

#[derive(Clone, Debug)]
struct Events {
    sent: Counter,
    lost: Counter,
}

impl Events {
    fn register(registry: &mut Registry) -> Self {
        let family: Family<ResultLabels, Counter> = registered(
            registry,
            "payrelay_events",
            "EVENT frames for sessions; lost: the session did not read fast enough",
        );
        let of = |result| family.get_or_create_owned(&ResultLabels { result });
        Self {
            sent: of("sent"),
            lost: of("lost"),
        }
    }
}

/// What is read when somebody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BusReadings {
    /// Since the last canary was sent that came back, of the bucket where that is longest; `None`: there is no canary.
    pub canary_age: Option<Duration>,
    /// How long the last one was on its way.
    pub canary_lag: Duration,
    /// Channels that this node wants to hear.
    pub subscriptions_wanted: usize,
    /// Channels that Redis has confirmed.
    pub subscriptions_standing: usize,
    /// Parts into which the names are divided: 1 but in a cluster; 0 without Redis.
    pub buckets: usize,
    /// Buckets that can be used now.
    pub buckets_up: usize,
    /// The primaries in use.
    pub primaries: Vec<String>,
    /// Sentinels that are configured.
    pub sentinels: usize,
    /// Sentinels that answered the last time.
    pub sentinels_answering: usize,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WhyLabels {
    why: &'static str,
}

impl BusMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            up: registered(
                registry,
                "payrelay_bus_up",
                "1 while other nodes can be reached (always, on a node without [redis])",
            ),
            downs: registered(registry, "payrelay_bus_downs", "How often the bus failed"),
            batches: registered(
                registry,
                "payrelay_bus_batches",
                "Round trips in which commands went to Redis",
            ),
            commands: registered(registry, "payrelay_bus_commands", "Commands sent to Redis"),
            forwarded: registered(
                registry,
                "payrelay_bus_forwarded",
                "Notifications and data sent towards other nodes",
            ),
            received: registered(
                registry,
                "payrelay_bus_received",
                "Notifications that came from other nodes",
            ),
            lost: Lost::register(registry),
            events: Events::register(registry),
        }
    }

    /// Whether other nodes can be reached now.
    pub fn up(&self, up: bool) {
        if self.up.set(i64::from(up)) == 1 && !up {
            self.downs.inc();
        }
    }

    /// A round trip with that many commands.
    pub fn batch(&self, commands: usize) {
        self.batches.inc();
        self.commands.inc_by(commands as u64);
    }

    /// A notification went towards another node.
    pub fn forwarded(&self) {
        self.forwarded.inc();
    }

    /// One came from another node.
    pub fn received(&self) {
        self.received.inc();
    }

    /// The queue to Redis is full.
    pub fn refused(&self) {
        self.lost.full.inc();
    }

    /// What became of a notification could not be told to the node it came from.
    pub fn receipt_lost(&self) {
        self.lost.receipt.inc();
    }

    /// A message is of no kind that this version knows.
    pub fn not_understood(&self) {
        self.lost.not_understood.inc();
    }

    /// An EVENT was written to a session.
    pub fn event_sent(&self) {
        self.events.sent.inc();
    }

    /// A session had no room for one.
    pub fn event_lost(&self) {
        self.events.lost.inc();
    }
}

/// The gauges that [`BusReadings`] fill.
pub(super) struct BusGauges {
    canary_age: Gauge<f64, AtomicU64>,
    canary_lag: Gauge<f64, AtomicU64>,
    wanted: Gauge,
    standing: Gauge,
    buckets: Gauge,
    buckets_up: Gauge,
    primaries: Gauge,
    sentinels: Gauge,
    sentinels_answering: Gauge,
}

impl BusGauges {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            canary_age: registered(
                registry,
                "payrelay_bus_canary_age_seconds",
                "Since this node last heard its own word on the bus; it sends one every second",
            ),
            canary_lag: registered(
                registry,
                "payrelay_bus_canary_lag_seconds",
                "How long the last such word was on its way",
            ),
            wanted: registered(
                registry,
                "payrelay_bus_subscriptions_wanted",
                "Channels this node wants to hear",
            ),
            standing: registered(
                registry,
                "payrelay_bus_subscriptions_standing",
                "Channels that Redis has confirmed to this node",
            ),
            buckets: registered(
                registry,
                "payrelay_bus_buckets",
                "Parts into which the names in Redis are divided: 256 in a cluster, else 1; 0 without [redis]",
            ),
            buckets_up: registered(
                registry,
                "payrelay_bus_buckets_up",
                "Parts that can be used now; the backends of the others are not reached on other nodes",
            ),
            primaries: registered(
                registry,
                "payrelay_bus_primaries",
                "Redis primaries in use: the shards of a cluster, else 1",
            ),
            sentinels: registered(
                registry,
                "payrelay_bus_sentinels",
                "Sentinels in redis.sentinels",
            ),
            sentinels_answering: registered(
                registry,
                "payrelay_bus_sentinels_answering",
                "Sentinels that name a primary; a failover is followed by the word of more than half of all",
            ),
        }
    }

    pub(super) fn set(&self, readings: &BusReadings) {
        let value = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let age = readings.canary_age.unwrap_or_default();
        self.canary_age.set(age.as_secs_f64());
        self.canary_lag.set(readings.canary_lag.as_secs_f64());
        self.wanted.set(value(readings.subscriptions_wanted));
        self.standing.set(value(readings.subscriptions_standing));
        self.buckets.set(value(readings.buckets));
        self.buckets_up.set(value(readings.buckets_up));
        self.primaries.set(value(readings.primaries.len()));
        self.sentinels.set(value(readings.sentinels));
        self.sentinels_answering
            .set(value(readings.sentinels_answering));
    }
}
