//! What the relay counts, and the text Prometheus reads.
//!
//! A leaf: every room may count here, and this file calls none of them. Nobody outside sees a label set or a registry,
//! only verbs. What is counted once per notification goes through a handle resolved beforehand: no lock on a map, no
//! allocation.
//!
//! Labels come from closed sets and from the configured routes, never from a request. A route that a reload removed
//! keeps its series until the process ends.

mod classic;
mod process;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use crate::notification::{Outcome, Receipt};

/// The `Content-Type` of [`Metrics::text`]: the classic format, which every scraper of the last ten years reads.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// Upper bounds of `payrelay_ack_seconds`, in seconds. A local backend answers within 1 ms; the default
/// `delivery.ack_deadline` is 4 s.
const ACK_SECONDS: [f64; 14] = [
    0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0,
];

/// Why sessions close; these series exist from the start, so that a first increase is seen by `rate()`.
const CLOSE_REASONS: [&str; 7] = [
    "takeover", "drain", "idle", "slow", "protocol", "peer", "error",
];

/// Everything the relay counts. Shared as an `Arc`; every verb takes `&self` and is cheap.
pub struct Metrics {
    registry: Registry,
    notifications: Family<OutcomeLabels, Counter>,
    http_refusals: Family<ReasonLabels, Counter>,
    receipts: Receipts,
    ack_seconds: Histogram,
    sessions: Gauge,
    sessions_opened: Counter,
    sessions_closed: Family<ReasonLabels, Counter>,
    session_refusals: Family<CodeLabels, Counter>,
    in_flight: Gauge,
    readings: ReadingGauges,
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

/// What is not counted as it happens but read when somebody asks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Notifications that wait in the mailboxes of all sessions, beyond what is sent and unacknowledged.
    pub queue_depth: usize,
    /// Open connections of providers.
    pub http_connections: usize,
    /// Lanes to the HTTP workers that carry a request.
    pub lanes_busy: usize,
    /// Lanes to the HTTP workers that are open.
    pub lanes: usize,
    /// File descriptors the relay may still hand to connections.
    pub fd_budget_free: usize,
    /// File descriptors the relay may hand to connections at all.
    pub fd_budget: usize,
}

/// The counters of one route, resolved once: keep it beside the route.
#[derive(Clone, Debug)]
pub struct RouteMetrics {
    /// In the order of [`Outcome::ALL`].
    by_outcome: [Counter; Outcome::ALL.len()],
}

impl RouteMetrics {
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
        let mut registry = Registry::default();
        let build = Family::<VersionLabels, Gauge>::default();
        build
            .get_or_create(&VersionLabels {
                version: env!("CARGO_PKG_VERSION"),
            })
            .set(1);
        registry.register(
            "payrelay_build_info",
            "The running version, always 1",
            build,
        );

        let notifications = Family::default();
        registry.register(
            "payrelay_notifications",
            "Notifications answered to providers, by route and outcome",
            notifications.clone(),
        );
        let http_refusals = Family::default();
        registry.register(
            "payrelay_http_refusals",
            "HTTP requests refused before they became a notification",
            http_refusals.clone(),
        );
        let receipts = Receipts::register(&mut registry);
        let ack_seconds = Histogram::new(ACK_SECONDS);
        registry.register(
            "payrelay_ack_seconds",
            "Time from sending a notification to the backend to its ACK",
            ack_seconds.clone(),
        );

        let sessions = Gauge::default();
        registry.register(
            "payrelay_sessions",
            "Sessions of backends that have said HELLO",
            sessions.clone(),
        );
        let sessions_opened = Counter::default();
        registry.register(
            "payrelay_sessions_opened",
            "Sessions opened",
            sessions_opened.clone(),
        );
        let sessions_closed = Family::<ReasonLabels, Counter>::default();
        for reason in CLOSE_REASONS {
            let _ = sessions_closed.get_or_create(&ReasonLabels { reason });
        }
        registry.register(
            "payrelay_sessions_closed",
            "Sessions closed, by reason",
            sessions_closed.clone(),
        );
        let session_refusals = Family::default();
        registry.register(
            "payrelay_session_refusals",
            "Connections of backends refused before they became a session, by error code",
            session_refusals.clone(),
        );
        let in_flight = Gauge::default();
        registry.register(
            "payrelay_in_flight",
            "Notifications whose provider waits for an answer",
            in_flight.clone(),
        );
        let readings = ReadingGauges::register(&mut registry);
        registry.register_collector(Box::new(process::Process::new()));

        Self {
            registry,
            notifications,
            http_refusals,
            receipts,
            ack_seconds,
            sessions,
            sessions_opened,
            sessions_closed,
            session_refusals,
            in_flight,
            readings,
        }
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
        RouteMetrics { by_outcome }
    }

    /// A request was refused before it became a notification. `reason` is one word of a closed set.
    pub fn http_refused(&self, reason: &'static str) {
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

    /// A session that had been opened is over: takeover, drain, idle, slow, protocol, peer or error.
    pub fn session_closed(&self, reason: &'static str) {
        self.sessions.dec();
        self.sessions_closed
            .get_or_create(&ReasonLabels { reason })
            .inc();
    }

    /// A connection was refused before it became a session; `code` is that of the ERR.
    pub fn session_refused(&self, code: &'static str) {
        self.session_refusals
            .get_or_create(&CodeLabels { code })
            .inc();
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
    late: Counter,
}

impl Receipts {
    fn register(registry: &mut Registry) -> Self {
        let family = Family::<ResultLabels, Counter>::default();
        let of = |result| family.get_or_create_owned(&ResultLabels { result });
        let all = Self {
            ack: of("ack"),
            nack: of("nack"),
            gone: of("gone"),
            busy: of("busy"),
            expired: of("expired"),
            late: of("late"),
        };
        registry.register(
            "payrelay_receipts",
            "What came of handing notifications to sessions; late: an ACK after the provider was answered",
            family,
        );
        all
    }
}

/// The gauges that [`Readings`] fill.
struct ReadingGauges {
    queue_depth: Gauge,
    http_connections: Gauge,
    lanes_busy: Gauge,
    lanes: Gauge,
    fd_budget_free: Gauge,
    fd_budget: Gauge,
}

impl ReadingGauges {
    fn register(registry: &mut Registry) -> Self {
        let mut gauge = |name: &str, help: &str| {
            let gauge = Gauge::default();
            registry.register(name, help, gauge.clone());
            gauge
        };
        Self {
            queue_depth: gauge(
                "payrelay_queue_depth",
                "Notifications waiting in the sessions' mailboxes",
            ),
            http_connections: gauge("payrelay_http_connections", "Open connections of providers"),
            lanes_busy: gauge(
                "payrelay_lanes_busy",
                "Lanes to the HTTP workers that carry a request",
            ),
            lanes: gauge("payrelay_lanes", "Open lanes to the HTTP workers"),
            fd_budget_free: gauge(
                "payrelay_fd_budget_free",
                "File descriptors still free for connections",
            ),
            fd_budget: gauge(
                "payrelay_fd_budget",
                "File descriptors set aside for connections",
            ),
        }
    }

    fn set(&self, readings: &Readings) {
        // Saturates: no count of this process comes near i64::MAX.
        let value = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.queue_depth.set(value(readings.queue_depth));
        self.http_connections.set(value(readings.http_connections));
        self.lanes_busy.set(value(readings.lanes_busy));
        self.lanes.set(value(readings.lanes));
        self.fd_budget_free.set(value(readings.fd_budget_free));
        self.fd_budget.set(value(readings.fd_budget));
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    route: RouteLabel,
    outcome: &'static str,
}

/// A route's name, escaped already: prometheus-client writes label values as they are.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RouteLabel(Arc<str>);

impl prometheus_client::encoding::EncodeLabelValue for RouteLabel {
    fn encode(
        &self,
        encoder: &mut prometheus_client::encoding::LabelValueEncoder<'_>,
    ) -> fmt::Result {
        fmt::Write::write_str(encoder, &self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CodeLabels {
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VersionLabels {
    version: &'static str,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::Nack;

    fn value(metrics: &Metrics, series: &str) -> Option<String> {
        let text = metrics.text(&Readings::default());
        text.lines()
            .find_map(|line| line.strip_prefix(series)?.strip_prefix(' '))
            .map(str::to_owned)
    }

    #[test]
    fn every_outcome_has_its_own_counter() {
        let metrics = Metrics::new();
        let route = metrics.route("alipay");
        for (times, outcome) in (1..).zip(Outcome::ALL) {
            for _ in 0..times {
                route.answered(outcome);
            }
        }
        for (times, outcome) in (1..).zip(Outcome::ALL) {
            let series = format!(
                "payrelay_notifications_total{{route=\"alipay\",outcome=\"{}\"}}",
                outcome.as_str()
            );
            assert_eq!(
                value(&metrics, &series),
                Some(format!("{times}")),
                "{series}"
            );
        }
    }

    #[test]
    fn a_route_asked_for_twice_counts_on() {
        let metrics = Metrics::new();
        metrics.route("r").answered(Outcome::Delivered);
        metrics.route("r").answered(Outcome::Delivered);
        let series = r#"payrelay_notifications_total{route="r",outcome="delivered"}"#;
        assert_eq!(value(&metrics, series).as_deref(), Some("2"));
    }

    #[test]
    fn a_route_name_cannot_break_out_of_its_label() {
        let metrics = Metrics::new();
        metrics.route("a\"b\\c\nd").answered(Outcome::Busy);
        let series = r#"payrelay_notifications_total{route="a\"b\\c\nd",outcome="busy"}"#;
        assert_eq!(value(&metrics, series).as_deref(), Some("1"));
    }

    #[test]
    fn every_receipt_has_its_own_counter() {
        let metrics = Metrics::new();
        let receipts = [
            ("ack", Receipt::Ack),
            ("nack", Receipt::Nack(Nack::default())),
            ("gone", Receipt::Gone),
            ("busy", Receipt::Busy),
            ("expired", Receipt::Expired),
        ];
        for (times, (_, receipt)) in (1..).zip(&receipts) {
            for _ in 0..times {
                metrics.receipt(receipt);
            }
        }
        metrics.late_ack();
        for (times, (word, _)) in (1..).zip(&receipts) {
            let series = format!("payrelay_receipts_total{{result=\"{word}\"}}");
            assert_eq!(
                value(&metrics, &series),
                Some(format!("{times}")),
                "{series}"
            );
        }
        let late = r#"payrelay_receipts_total{result="late"}"#;
        assert_eq!(value(&metrics, late).as_deref(), Some("1"));
    }

    #[test]
    fn sessions_and_waits_go_up_and_down() {
        let metrics = Metrics::new();
        metrics.session_opened();
        metrics.session_opened();
        metrics.session_closed("idle");
        metrics.session_refused("bad-token");
        metrics.in_flight_add();
        metrics.in_flight_add();
        metrics.in_flight_sub();
        metrics.http_refused("no-route");
        for (series, expected) in [
            ("payrelay_sessions", "1"),
            ("payrelay_sessions_opened_total", "2"),
            (r#"payrelay_sessions_closed_total{reason="idle"}"#, "1"),
            (r#"payrelay_sessions_closed_total{reason="takeover"}"#, "0"),
            (r#"payrelay_session_refusals_total{code="bad-token"}"#, "1"),
            ("payrelay_in_flight", "1"),
            (r#"payrelay_http_refusals_total{reason="no-route"}"#, "1"),
        ] {
            assert_eq!(
                value(&metrics, series).as_deref(),
                Some(expected),
                "{series}"
            );
        }
    }

    #[test]
    fn acks_fall_into_their_buckets() {
        let metrics = Metrics::new();
        metrics.ack_after(Duration::from_micros(400));
        metrics.ack_after(Duration::from_millis(30));
        metrics.ack_after(Duration::from_secs(60));
        for (series, expected) in [
            (r#"payrelay_ack_seconds_bucket{le="0.0005"}"#, "1"),
            (r#"payrelay_ack_seconds_bucket{le="0.025"}"#, "1"),
            (r#"payrelay_ack_seconds_bucket{le="0.05"}"#, "2"),
            (r#"payrelay_ack_seconds_bucket{le="10.0"}"#, "2"),
            (r#"payrelay_ack_seconds_bucket{le="+Inf"}"#, "3"),
            ("payrelay_ack_seconds_count", "3"),
        ] {
            assert_eq!(
                value(&metrics, series).as_deref(),
                Some(expected),
                "{series}"
            );
        }
    }

    #[test]
    fn readings_show_as_they_are_at_the_scrape() {
        let metrics = Metrics::new();
        let text = metrics.text(&Readings {
            queue_depth: 1,
            http_connections: 2,
            lanes_busy: 3,
            lanes: 4,
            fd_budget_free: 5,
            fd_budget: 6,
        });
        for line in [
            "payrelay_queue_depth 1",
            "payrelay_http_connections 2",
            "payrelay_lanes_busy 3",
            "payrelay_lanes 4",
            "payrelay_fd_budget_free 5",
            "payrelay_fd_budget 6",
        ] {
            assert!(text.lines().any(|have| have == line), "{line}");
        }
    }

    /// The rules of the text format 0.0.4 that a scraper rejects a page for.
    #[test]
    fn the_page_is_the_classic_format() {
        let metrics = Metrics::new();
        metrics.route("r").answered(Outcome::Delivered);
        let text = metrics.text(&Readings::default());
        assert!(text.ends_with('\n'));
        let mut typed: Option<(String, String)> = None;
        let mut families = std::collections::HashSet::new();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap_or_default();
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert!(families.insert(name.to_owned()), "twice: {line}");
                typed = Some((name.to_owned(), kind.to_owned()));
            } else if line.starts_with('#') {
                assert!(line.starts_with("# HELP "), "{line}");
            } else {
                let (family, kind) = typed.as_ref().expect("a TYPE before the first sample");
                let name = line.split(['{', ' ']).next().unwrap_or_default();
                let suffixes: &[&str] = if kind == "histogram" {
                    &["_sum", "_count", "_bucket"]
                } else {
                    &[""]
                };
                assert!(
                    suffixes.iter().any(|s| format!("{family}{s}") == name),
                    "{line} is not of {family}"
                );
                assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
                let number = line.rsplit(' ').next().unwrap_or_default();
                assert!(number.parse::<f64>().is_ok(), "{line}");
            }
        }
    }
}
