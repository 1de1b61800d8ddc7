//! How this node is, for people: what a look at the metrics would tell, and what a scraper would have kept of the last hour.

use std::collections::BTreeMap;

use super::api::{
    HealthAnswer, MinuteFigures, OutboxState, RefusalCount, RouteInfo, UnknownBackendEntry,
};
use super::reply::AdminReply;
use super::{Admin, BusState};
use crate::config::Config;
use crate::metrics::resident_bytes;
use crate::notification::{Outcome, unix_ms};
use crate::trace::Minute;

/// The most refusals that are told, the latest.
const REFUSALS_MAX: usize = 50;

/// How `admin`'s node is.
pub fn health(admin: &Admin) -> AdminReply {
    let now = (admin.read_now)();
    let reasons = (admin.not_ready)();
    let minutes = admin.sources.trace.minutes(unix_ms());
    let unknown = admin.sources.outbox.iter();
    let unknown = unknown.flat_map(|outbox| outbox.unknown_backends().some);
    let unknown = unknown.map(|one| UnknownBackendEntry {
        id: one.id,
        pending: one.pending,
        like: one.like,
    });
    let unknown = unknown.collect();
    let refusals = admin.metrics.refusals().into_iter().take(REFUSALS_MAX);
    AdminReply::json(
        200,
        &HealthAnswer {
            node: admin.node.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_ms: admin.started.elapsed().as_millis() as u64,
            ready: reasons.is_empty(),
            reasons,
            bus: BusState::of(&*admin.bus),
            outbox: now.outbox.map(|outbox| OutboxState {
                pending: outbox.pending,
                done: outbox.done,
                dead: outbox.dead,
                oldest_ms: outbox.oldest.as_millis() as u64,
                unknown_backend: outbox.unknown_backends.min(outbox.pending),
                unknown_backends: unknown,
            }),
            sessions: admin.metrics.sessions().max(0) as u64,
            http_connections: now.http_connections,
            http_in_flight: now.http_in_flight,
            queued: now.queue_depth,
            memory_bytes: resident_bytes(),
            fd_free: now.fd_budget_free,
            fd_total: now.fd_budget,
            minutes: minutes.iter().map(figures).collect(),
            refusals: refusals
                .map(|refusal| RefusalCount {
                    kind: refusal.kind.to_owned(),
                    route: refusal.route.as_deref().map(str::to_owned),
                    reason: refusal.reason.to_owned(),
                    count: refusal.count,
                    last_unix_ms: refusal.last_unix_ms,
                })
                .collect(),
            warnings: admin.warnings.read().clone(),
            routes: admin.routes.read().clone(),
        },
    )
}

/// The routes of `config`.
pub fn routes(config: &Config) -> Vec<RouteInfo> {
    config.routes.iter().map(RouteInfo::of).collect()
}

fn figures(minute: &Minute) -> MinuteFigures {
    let names = Outcome::ALL
        .iter()
        .map(|outcome| outcome.as_str().to_owned());
    let outcomes: BTreeMap<String, u32> = names.zip(minute.outcomes).collect();
    MinuteFigures {
        from_unix_ms: minute.from_unix_ms,
        outcomes,
        acks: minute.acks.iter().map(|&count| u64::from(count)).sum(),
        p50_ms: minute.ack_ms(50),
        p99_ms: minute.ack_ms(99),
    }
}
