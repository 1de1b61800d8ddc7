//! What the relay counts, and the text Prometheus reads.
//!
//! A leaf: every module may count here, and this file calls none of them. Nobody outside sees a label set or a registry,
//! only verbs. What is counted once per notification goes through a handle resolved beforehand: no lock on a map, no
//! allocation.
//!
//! Labels come from closed sets and from the configured routes, never from a request. A route that a reload removed
//! keeps its series until the process ends.

mod bus;
mod certificates;
mod classic;
mod labels;
mod outbox;
mod process;
mod readings;
mod refusals;
mod threads;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Metric, Registry};

pub use self::bus::{BusMetrics, BusReadings};
use self::labels::{
    BackendLabels, CodeLabels, OutcomeLabels, ReasonLabels, ResultLabels, RouteLabel,
    RouteReasonLabels, VersionLabels,
};
use self::outbox::OutboxMetrics;
pub use self::outbox::{OutboxReadings, SharedReadings};
pub use self::process::resident_bytes;
use self::readings::ReadingGauges;
pub use self::readings::Readings;
pub use self::refusals::RefusalReason;
use self::refusals::Refusals;
use crate::notification::{Outcome, Receipt};

/// The `Content-Type` of [`Metrics::text`]: the classic format, which every scraper of the last ten years reads.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of `payrelay_ack_seconds`, in seconds. A local backend answers within 1 ms; the default
/// `delivery.ack_deadline` is 4 s.
const ACK_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Why sessions close; these series exist from the start, so that a first increase is seen by `rate()`.
const CLOSE_REASONS: [&str; 9] = [
    "takeover", "operator", "drain", "idle", "slow", "protocol", "peer", "bye", "error",
];

/// A new metric at zero, which is shown as `name`.
fn registered<M: Metric + Clone + Default>(registry: &mut Registry, name: &str, help: &str) -> M {
    registered_as(registry, name, help, M::default())
}

/// `metric`, which is shown as `name` from now on.
fn registered_as<M: Metric + Clone>(
    registry: &mut Registry,
    name: &str,
    help: &str,
    metric: M,
) -> M {
    registry.register(name, help, metric.clone());
    metric
}

/// Everything the relay counts. Shared as an `Arc`; every verb takes `&self` and is cheap.
pub struct Metrics {
    registry: Registry,
    notifications: Family<OutcomeLabels, Counter>,
    http_refusals: Family<ReasonLabels, Counter>,
    signature_refusals: Family<RouteReasonLabels, Counter>,
    refusals: Arc<Refusals>,
    receipts: Receipts,
    ack_seconds: Histogram,
    sessions: Gauge,
    sessions_opened: Counter,
    sessions_closed: Family<ReasonLabels, Counter>,
    session_refusals: Family<CodeLabels, Counter>,
    in_flight: Gauge,
    http_worker_requests: Counter,
    bus: BusMetrics,
    outbox: OutboxMetrics,
    readings: ReadingGauges,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// The counters of one route, resolved once: keep it beside the route.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    /// In the order of [`Outcome::ALL`].
    by_outcome: [Counter; Outcome::ALL.len()],
    route: RouteLabel,
    signature_refusals: Family<RouteReasonLabels, Counter>,
    refusals: Arc<Refusals>,
}

impl RouteMetrics {
    /// A callback on this route was not believed. `reason` is one word of a closed set.
    pub fn signature_refused(&self, reason: &'static str) {
        let route = self.route.clone();
        self.refusals.count("signature", Some(&route.0), reason);
        self.signature_refusals
            .get_or_create(&RouteReasonLabels { route, reason })
            .inc();
    }

    /// A provider was answered on this route, because of `outcome`.
    pub fn answered(&self, outcome: Outcome) {
        self.by_outcome[outcome as usize].inc();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// All counters at zero; the process's own figures are read from `/proc/self` when somebody asks.
    pub fn new() -> Self {
        let mut all = Registry::default();
        all.register_collector(Box::new(process::Process::new()));
        let registry = &mut all;
        let build: Family<VersionLabels, Gauge> = registered(
            registry,
            "payrelay_build_info",
            "The running version, always 1",
        );
        let version = env!("CARGO_PKG_VERSION");
        build.get_or_create(&VersionLabels { version }).set(1);
        let all_metrics = Self {
            notifications: registered(
                registry,
                "payrelay_notifications",
                "Notifications answered to providers, by route and outcome",
            ),
            http_refusals: registered(
                registry,
                "payrelay_http_refusals",
                "HTTP requests refused before they became a notification",
            ),
            signature_refusals: registered(
                registry,
                "payrelay_signature_refusals",
                "Callbacks whose signature was not the provider's, by route and reason",
            ),
            refusals: Arc::default(),
            receipts: Receipts::register(registry),
            ack_seconds: registered_as(
                registry,
                "payrelay_ack_seconds",
                "Time from sending a notification to the backend to its ACK",
                Histogram::new(ACK_SECONDS),
            ),
            sessions: registered(
                registry,
                "payrelay_sessions",
                "Sessions of backends that have said HELLO",
            ),
            sessions_opened: registered(registry, "payrelay_sessions_opened", "Sessions opened"),
            sessions_closed: registered(
                registry,
                "payrelay_sessions_closed",
                "Sessions closed, by reason",
            ),
            session_refusals: registered(
                registry,
                "payrelay_session_refusals",
                "Backends' connections refused or broken off with a fatal error, by its code",
            ),
            in_flight: registered(
                registry,
                "payrelay_in_flight",
                "Notifications whose provider waits for an answer",
            ),
            http_worker_requests: registered(
                registry,
                "payrelay_http_worker_requests",
                "Requests that the tiny_http workers (http.workers) have taken",
            ),
            bus: BusMetrics::register(registry),
            outbox: OutboxMetrics::register(registry),
            readings: ReadingGauges::register(registry),
            registry: all,
        };
        for reason in CLOSE_REASONS {
            let labels = ReasonLabels { reason };
            let _ = all_metrics.sessions_closed.get_or_create(&labels);
        }
        all_metrics
    }

    /// The counters of the route called `name`. Asking twice gives the same counters.
    pub fn route(&self, name: &str) -> RouteMetrics {
        let route: Arc<str> = classic::label_escaped(name).into();
        let by_outcome = Outcome::ALL.map(|outcome| {
            self.notifications.get_or_create_owned(&OutcomeLabels {
                route: RouteLabel(Arc::clone(&route)),
                outcome: outcome.as_str(),
            })
        });
        RouteMetrics {
            by_outcome,
            route: RouteLabel(route),
            signature_refusals: self.signature_refusals.clone(),
            refusals: Arc::clone(&self.refusals),
        }
    }

    /// An HTTP worker has taken a request.
    pub fn http_worker_request(&self) {
        self.http_worker_requests.inc();
    }

    /// A request was refused before it became a notification. `reason` is one word of a closed set.
    pub fn http_refused(&self, reason: &'static str) {
        self.refusals.count("http", None, reason);
        self.http_refusals
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// A session told what came of a notification.
    pub fn receipt(&self, receipt: &Receipt) {
        match receipt {
            Receipt::Ack => self.receipts.ack.inc(),
            Receipt::Nack(_) => self.receipts.nack.inc(),
            Receipt::Gone => self.receipts.gone.inc(),
            Receipt::Busy => self.receipts.busy.inc(),
            Receipt::Expired => self.receipts.expired.inc(),
            Receipt::Unreachable => self.receipts.unreachable.inc(),
        };
    }

    /// An ACK came after the provider had been answered.
    pub fn late_ack(&self) {
        self.receipts.late.inc();
    }

    /// A backend acknowledged a notification this long after it was sent.
    pub fn ack_after(&self, elapsed: Duration) {
        self.ack_seconds.observe(elapsed.as_secs_f64());
    }

    /// A backend has said HELLO and was accepted.
    pub fn session_opened(&self) {
        self.sessions.inc();
        self.sessions_opened.inc();
    }

    /// A session that had been opened is over: takeover, operator, drain, idle, slow, protocol, peer, bye or error.
    pub fn session_closed(&self, reason: &'static str) {
        self.sessions.dec();
        self.sessions_closed
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// A backend's connection was refused, or broken off, with a fatal ERR of this `code`.
    pub fn session_refused(&self, code: &'static str) {
        self.refusals.count("session", None, code);
        self.session_refusals
            .get_or_create(&CodeLabels { code })
            .inc();
    }

    /// What was refused since the start, the latest first.
    pub fn refusals(&self) -> Vec<RefusalReason> {
        self.refusals.latest()
    }

    /// How many sessions there are.
    pub fn sessions(&self) -> i64 {
        self.sessions.get()
    }

    /// The counters of the bus.
    pub fn bus(&self) -> BusMetrics {
        self.bus.clone()
    }

    /// One more provider waits for its answer.
    pub fn in_flight_add(&self) {
        self.in_flight.inc();
    }

    /// One provider less waits for its answer.
    pub fn in_flight_sub(&self) {
        self.in_flight.dec();
    }

    /// Everything as text, see [`CONTENT_TYPE`].
    pub fn text(&self, readings: &Readings) -> String {
        self.readings.set(readings);
        self.outbox.set(readings.outbox.as_ref());
        let mut text = String::new();
        // A String takes everything that is written to it; the process's figures are left out if unreadable.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        classic::from_open_metrics(&text)
    }
}

/// The counters of `payrelay_receipts_total`, one for each result.
struct Receipts {
    ack: Counter,
    nack: Counter,
    gone: Counter,
    busy: Counter,
    expired: Counter,
    unreachable: Counter,
    late: Counter,
}

impl Receipts {
    fn register(registry: &mut Registry) -> Self {
        let family: Family<ResultLabels, Counter> = registered(
            registry,
            "payrelay_receipts",
            "What came of handing notifications to sessions; late: an ACK after the provider was answered",
        );
        let of = |result| family.get_or_create_owned(&ResultLabels { result });
        Self {
            ack: of("ack"),
            nack: of("nack"),
            gone: of("gone"),
            busy: of("busy"),
            expired: of("expired"),
            unreachable: of("unreachable"),
            late: of("late"),
        }
    }
}

#[cfg(test)]
mod tests;
