//! What is not counted as it happens but read when somebody asks, and the gauges that show it.

use std::sync::atomic::Ordering;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::bus::{BusGauges, BusReadings};
use super::certificates::CertificateGauges;
use super::outbox::OutboxReadings;
use super::registered;
use super::threads::Threads;
use crate::heartbeat::ThreadReading;

/// What is not counted as it happens but read when somebody asks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    /// Notifications that wait in the mailboxes of all sessions, beyond what is sent and unacknowledged.
    pub queue_depth: usize,
    /// Open connections of providers.
    pub http_connections: usize,
    /// Requests of providers that are owed an answer.
    pub http_in_flight: usize,
    /// File descriptors the relay may still hand to connections.
    pub fd_budget_free: usize,
    /// File descriptors the relay may hand to connections at all.
    pub fd_budget: usize,
    /// Lines that the log could not take, since the start.
    pub log_lines_lost: u64,
    /// The loops that serve everybody.
    pub threads: Vec<ThreadReading>,
    /// Whether the relay can relay, as `/readyz` says.
    pub ready: bool,
    /// The key of each listener's certificate, and its end in Unix seconds.
    pub certificates: Vec<(&'static str, i64)>,
    /// Of the bus.
    pub bus: BusReadings,
    /// What is in the outbox, if there is one.
    pub outbox: Option<OutboxReadings>,
}

/// The gauges that [`Readings`] fill.
pub(super) struct ReadingGauges {
    queue_depth: Gauge,
    http_connections: Gauge,
    http_in_flight: Gauge,
    fd_budget_free: Gauge,
    fd_budget: Gauge,
    ready: Gauge,
    certificates: CertificateGauges,
    threads: Threads,
    log_lines_lost: Counter,
    bus: BusGauges,
}

impl ReadingGauges {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            bus: BusGauges::register(registry),
            certificates: CertificateGauges::register(registry),
            threads: Threads::register(registry),
            log_lines_lost: registered(
                registry,
                "payrelay_log_lines_lost",
                "Lines that the log could not take: its disk is full, or its reader too slow",
            ),
            queue_depth: registered(
                registry,
                "payrelay_queue_depth",
                "Notifications waiting in the sessions' mailboxes",
            ),
            http_connections: registered(
                registry,
                "payrelay_http_connections",
                "Open connections of providers",
            ),
            http_in_flight: registered(
                registry,
                "payrelay_http_in_flight",
                "Requests of providers that are owed an answer",
            ),
            fd_budget_free: registered(
                registry,
                "payrelay_fd_budget_free",
                "File descriptors still free for connections",
            ),
            fd_budget: registered(
                registry,
                "payrelay_fd_budget",
                "File descriptors set aside for connections",
            ),
            ready: registered(registry, "payrelay_ready", "1 while /readyz is 200, else 0"),
        }
    }

    pub(super) fn set(&self, readings: &Readings) {
        // Saturates: no count of this process comes near i64::MAX.
        let value = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.queue_depth.set(value(readings.queue_depth));
        self.http_connections.set(value(readings.http_connections));
        self.http_in_flight.set(value(readings.http_in_flight));
        self.fd_budget_free.set(value(readings.fd_budget_free));
        self.fd_budget.set(value(readings.fd_budget));
        self.ready.set(readings.ready.into());
        self.certificates.set(&readings.certificates);
        self.threads.set(&readings.threads);
        let lost = self.log_lines_lost.inner();
        lost.fetch_max(readings.log_lines_lost, Ordering::Relaxed);
        self.bus.set(&readings.bus);
    }
}
