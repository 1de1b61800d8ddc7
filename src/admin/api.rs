//! What the admin port says in JSON: the types that it writes and that the command line reads. doc/api.md describes them.
//!
//! A reader must ignore fields that it does not know: later versions add some.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

pub use super::status::BusState;

/// The answer to `GET /session`: who asks, and what that one may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionInfo {
    /// The node that answers.
    pub node: String,
    /// The relay's version.
    pub version: String,
    /// `admin`, the name of a read token, or `anybody`.
    pub name: String,
    /// May see headers and bodies.
    pub bodies: bool,
    /// May deliver again, drop and disconnect.
    pub act: bool,
    /// Whether there is a login to end.
    pub login: bool,
    /// What `node=` may be, to ask another node through this one: `admin.nodes`.
    pub others: Vec<String>,
}

/// The answer to `GET /notifications`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listed {
    /// The node that answers.
    pub node: String,
    /// Changes with the list. Sent back as `since`, it makes the answer `unchanged` and empty until there is something new.
    pub version: String,
    pub unchanged: bool,
    /// Newest first.
    pub notifications: Vec<Summary>,
    /// What `before` is for the next page; `None`: there are no more.
    pub next: Option<String>,
    /// How many the outbox has; `None`: there is none.
    pub outbox: Option<OutboxCounts>,
}

/// How many the outbox has.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxCounts {
    pub pending: u64,
    pub done: u64,
    pub dead: u64,
    /// Of the pending ones those for backends of which the node has not heard since its start.
    #[serde(default)]
    pub unknown_backend: u64,
}

/// A notification in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Summary {
    pub id: String,
    /// When it was taken, in Unix milliseconds.
    pub at: u64,
    pub backend: String,
    pub route: String,
    pub event: Option<String>,
    /// `pending`, `done`, `dead` for what is in the outbox; else `waiting` (its provider waits), or the outcome.
    pub state: String,
    /// Milliseconds from taking it to the ACK, if there was one.
    pub took_ms: Option<u64>,
    /// MSG written, as far as that is known.
    pub tries: Option<u32>,
    /// Why it was not delivered, the last time.
    pub why: Option<String>,
}

/// A notification with what happened to it; the answers to `GET /trace` and `GET /outbox` have a list of them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traced {
    /// Its row in the outbox, if it is there.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub seq: Option<i64>,
    pub id: String,
    pub backend: String,
    pub route: String,
    pub verified: String,
    pub event: Option<String>,
    /// When it was taken, in Unix milliseconds.
    pub at: u64,
    /// As in [`Summary`], but `under way` instead of `waiting`.
    pub state: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub tries: Option<u32>,
    /// Of headers and body together.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub bytes: Option<u64>,
    /// Why it was not delivered, the last time.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub why: Option<String>,
    pub timeline: Vec<TraceStep>,
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceStep {
    /// When, in Unix milliseconds.
    pub at: u64,
    /// One word.
    pub what: String,
    pub detail: String,
}

/// The answer to `GET /trace`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceAnswer {
    /// The node that answers.
    #[serde(default)]
    pub node: String,
    pub found: Vec<Traced>,
}

/// The answer to `GET /notifications/ID/content`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    pub id: String,
    /// `outbox`, `memory`, or `none`: it is not kept (any more).
    pub kept: String,
    /// The disk has changed it; then there is nothing to show.
    pub damaged: bool,
    /// The request line and the forwarded headers; what is no UTF-8 in them is replaced.
    pub head: String,
    /// The body in base 64 (RFC 4648, with padding).
    pub body_base64: String,
}

/// The answer to what changes notifications: `POST /outbox/retry` and `POST /outbox/drop`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Changed {
    pub changed: u64,
    /// Left alone: a session has them in hand.
    pub in_hand: u64,
    /// What `after` is for the next ones; `None`: there are no more.
    pub next: Option<i64>,
}

/// The answer to `POST /outbox/forget`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Forgotten {
    /// The node that answers.
    pub node: String,
    /// Events of this name that this node knew as delivered or stored: one for each route and backend.
    pub forgotten: u64,
}

/// The answer to `POST /outbox/hand-over`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HandedOver {
    /// The node that answers.
    pub node: String,
    /// Pending ones and dead letters that no other node has yet.
    pub left: u64,
    /// Those of them that are damaged on disk and stay.
    pub damaged: u64,
}

/// The answer to `POST /outbox/import`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Imported {
    /// Added.
    pub imported: u64,
    /// Left as they are: they are in this outbox, under the same id.
    pub known: u64,
    /// There was no room for the others.
    pub full: bool,
}

/// The answer to `GET /backends`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BackendsAnswer {
    /// The node that answers.
    pub node: String,
    /// Those with a session on it, or with something in its outbox.
    pub backends: Vec<Backend>,
}

/// One backend, as one node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Backend {
    pub id: String,
    /// `None`: it is not connected to this node.
    pub session: Option<SessionEntry>,
    /// What this node's outbox has for it.
    pub pending: u64,
    pub dead: u64,
    /// Something is pending for it, and this node has not heard of it since its start.
    #[serde(default)]
    pub unknown: bool,
    /// If so: a backend that may be meant.
    #[serde(default)]
    pub like: Option<String>,
}

/// A backend's session.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// As in the log and in the timelines.
    pub number: u64,
    pub since_unix_ms: u64,
    /// How many MSG it may have unanswered.
    pub credit: usize,
    /// How many it has.
    pub in_flight: usize,
    /// How many wait for it beyond those.
    pub waiting: usize,
    /// Its latest ACK or NACK.
    pub last_answer_unix_ms: Option<u64>,
}

/// The answer to `GET /health`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct HealthAnswer {
    /// The node that answers.
    pub node: String,
    /// The relay's version.
    pub version: String,
    pub uptime_ms: u64,
    /// As `/readyz` has it.
    pub ready: bool,
    pub reasons: Vec<String>,
    pub bus: BusState,
    /// `None`: there is none.
    pub outbox: Option<OutboxState>,
    pub sessions: u64,
    pub http_connections: usize,
    /// Requests of providers that are owed an answer.
    pub http_in_flight: usize,
    /// Notifications that wait in the sessions' mailboxes.
    pub queued: usize,
    pub memory_bytes: u64,
    pub fd_free: usize,
    pub fd_total: usize,
    /// Of the last hour, those in which something ended; oldest first.
    pub minutes: Vec<MinuteFigures>,
    /// Since the start, the latest first.
    pub refusals: Vec<RefusalCount>,
    /// Of the configuration in force, as `payrelay check` says them.
    pub warnings: Vec<String>,
    /// Of the configuration in force.
    #[serde(default)]
    pub routes: Vec<RouteInfo>,
}

/// A route.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RouteInfo {
    /// As in the log and in the metrics.
    pub name: String,
    pub path: String,
    /// What its signature covers, in words; `None`: nothing is checked.
    pub checks: Option<String>,
}

/// The outbox in numbers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OutboxState {
    pub pending: u64,
    pub done: u64,
    pub dead: u64,
    /// How long the oldest pending one has been stored.
    pub oldest_ms: u64,
    /// Of the pending ones those for backends of which the node has not heard since its start.
    #[serde(default)]
    pub unknown_backend: u64,
    /// Those backends, as far as most is pending for them.
    #[serde(default)]
    pub unknown_backends: Vec<UnknownBackendEntry>,
}

/// A backend of which the node has not heard since its start, with something pending.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownBackendEntry {
    pub id: String,
    pub pending: u64,
    /// One that the node has heard of and that may be meant.
    pub like: Option<String>,
}

/// What ended within one minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MinuteFigures {
    pub from_unix_ms: u64,
    /// How many by outcome.
    pub outcomes: BTreeMap<String, u32>,
    /// ACKs of notifications that this node took, before their providers were answered.
    pub acks: u64,
    /// Within how many milliseconds half of them came: one of 1, 2, 5, 10 … 5000; `None`: later, or there were none.
    pub p50_ms: Option<u64>,
    pub p99_ms: Option<u64>,
}

/// One reason of refusals.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefusalCount {
    /// `http` (a request), `signature` (a callback), `session` (a backend).
    pub kind: String,
    /// The route, of a callback.
    pub route: Option<String>,
    pub reason: String,
    pub count: u64,
    pub last_unix_ms: u64,
}
