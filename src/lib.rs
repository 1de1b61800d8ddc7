//! payrelay takes payment callbacks over HTTP and hands them to Lua backends on plain TCP. It answers the provider only
//! as truthfully as it can prove.
//!
//! ```text
//!  provider ──HTTP(S)──▶ edge ──▶ http ──verify──▶ delivery ──▶ dispatcher ──▶ session ══TCP══▶ Lua backend
//!               ▲                                   │   ▲         └─▶ bus ─▶ Redis ─▶ other nodes
//!               └────────── answer ◀────────────────┤   └──────── receipt ◀── session, bus
//!                                                   └──▶ outbox ──redelivery──▶ dispatcher
//! ```
//!
//! Threads, the path of a notification and where to start for a change: `doc/architecture.md`.
//!
//! # Modules, from the network inwards
//!
//! | module | what lives there |
//! |---|---|
//! | [`relay`] | the only file that wires modules together: start order, stop order, reload |
//! | [`edge`] | the HTTP front end: a thread for each connection, strict framing, deadlines, the right to answer |
//! | [`http`] | what a provider's request comes to; the tiny_http pool and the link to it |
//! | [`request`] | a request as it is looked into: forms, JSON, XML, headers, and selectors. Pure |
//! | [`verify`] | whether a callback is a provider's own. Pure |
//! | [`answer`] | how an outcome is answered, by the route's `ok` and `fail` |
//! | [`delivery`] | which requests wait for which notification until when, and which events are settled |
//! | [`outbox`] | what was answered ok and not acknowledged, on disk; its writer and its redelivery |
//! | [`dispatcher`] | the way to a backend, wherever it is |
//! | [`bus`] | how envelopes, receipts and events reach other nodes |
//! | [`session`] | a thread for each backend connection, its mailbox, the registry |
//! | [`admin`] | health, metrics, status |
//! | [`metrics`] | what is counted |
//! | [`config`] | relay.toml, checked |
//! | [`logging`] | where log lines go: a bounded queue and a thread that writes |
//! | [`log_once`] | repeated log lines: one now and then, with a count |
//! | [`listener`] | the accept loop of every listener |
//! | [`lock`] | the locks that every notification takes |
//! | [`fds`] | who may open how many descriptors |
//! | [`wire`] | the codec: lines of text and raw bytes, for backends and for the bus |
//! | [`systemd`] | sockets from the service manager, and what it is told |
//! | [`escape`] | bytes as hex, and as `%XX` |
//! | [`backoff`] | waits before trying again, which double |
//! | [`thread`] | named threads, joined |
//! | [`heartbeat`] | whether the threads that serve everybody turn; starts again those that panic |
//! | [`trace`] | what became of the latest notifications |
//! | [`timeline`] | what happened to one notification, step by step |
//! | [`tls`] | certificates, and the records of a connection |
//! | [`peers`] | networks, and how often each peer has failed |
//! | [`envelope`] | a notification on its way, and the reply owed for it |
//! | [`notification`] | the nouns |
//!
//! # Invariants
//!
//! - Ok is never a lie: only [`notification::Outcome::is_ok`] decides, and only a backend's ACK or the sync of the outbox
//!   makes it true.
//! - No byte from the network reaches tiny_http that the edge has not read whole, bounded and re-written.
//! - A thread blocks on one thing, and reads for no other. No thread that judges a request waits for a backend, and no sender waits
//!   for a session: a full queue is an answer.
//! - A wait stands before its envelope is sent; the thread that takes the wait out of the table answers. An envelope that is
//!   dropped says so. So every provider is answered exactly once.
//! - Imports point down the table, never up.
//! - Locks are leaves: no lock is held over a blocking call, a log line or another lock. Exceptions, for writes that cannot block:
//!   a connection's pending answer over the write of the answer, a session's link over the write of a MSG.

// The library does not panic on what others cause, and says nothing but in the log.
#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::print_stderr,
        clippy::print_stdout,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

pub mod admin;
pub mod answer;
pub mod backoff;
pub mod bus;
pub mod config;
pub mod delivery;
pub mod dispatcher;
pub mod edge;
pub mod envelope;
pub mod escape;
pub mod fds;
pub mod heartbeat;
pub mod http;
pub mod listener;
pub mod lock;
pub mod log_once;
pub mod logging;
pub mod metrics;
pub mod notification;
pub mod outbox;
pub mod peers;
pub mod relay;
pub mod request;
pub mod session;
pub mod systemd;
pub mod thread;
pub mod timeline;
pub mod tls;
pub mod trace;
pub mod verify;
pub mod wire;
