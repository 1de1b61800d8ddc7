//! payrelay takes payment callbacks over HTTP and hands them to Lua backends on plain TCP. It answers the provider only
//! as truthfully as it can prove.
//!
//! ```text
//!  provider ──HTTP──▶ edge ─(lane)─▶ http ─verify─▶ delivery ──▶ session::registry ──▶ session ══TCP══▶ Lua backend
//!             ▲                                       │  ▲                              │
//!             └───────────────── answer ──────────────┤  └────────── receipt ───────────┤
//!                                                     └──▶ outbox ──redelivery──────────┘
//! ```
//!
//! # The rooms, from the street inwards
//!
//! | room | what lives there |
//! |---|---|
//! | [`relay`] | the only file that wires rooms together: start order, stop order, reload |
//! | [`edge`] | the gatehouse: listener, strict framing, deadlines, lanes to tiny_http |
//! | [`http`] | the counter and the tiny_http pool: routes, selectors, answers |
//! | [`verify`] | whether a callback is a provider's own: one file per signature engine, pure |
//! | [`delivery`] | who waits for which notification until when, and which events are settled |
//! | [`outbox`] | what was answered ok and not acknowledged, on disk; its writer and its redelivery |
//! | [`dispatcher`] | the way to a backend, wherever it is |
//! | [`bus`] | how envelopes reach other nodes |
//! | [`session`] | accept, one thread per socket, the reading of ACKs for all, mailboxes, the registry |
//! | [`admin`] | health and metrics |
//! | [`metrics`] | what is counted |
//! | [`config`] | relay.toml, checked |
//! | [`logging`] | where log lines go: a bounded queue and a thread that writes |
//! | [`log_once`] | repeated log lines: one now and then, with a count |
//! | [`listener`] | the accept loop of every listener |
//! | [`claims`] | a request as the edge hands it over, and the means to answer it |
//! | [`fds`] | who may open how many descriptors |
//! | [`wire`] | the codec: lines of text and raw bytes, for backends and for the bus |
//! | [`systemd`] | sockets from the service manager, and what it is told |
//! | [`thread`] | named threads, joined |
//! | [`trace`] | what became of the latest notifications |
//! | [`timeline`] | what happened to one notification, step by step |
//! | [`tls`] | certificates, and the records of a connection |
//! | [`peers`] | networks, and who has failed how often |
//! | [`envelope`] | a notification on its way, and the reply owed for it |
//! | [`notification`] | the nouns |
//!
//! # Invariants
//!
//! - Ok is never a lie: only [`notification::Outcome::is_ok`] decides, and only a backend's ACK or the sync of the outbox
//!   makes it true.
//! - No byte from the network reaches tiny_http that the edge has not read whole, bounded and re-written.
//! - Nobody who judges a request waits for a backend, and no sender waits for a session: a full queue is an answer.
//! - A wait stands before its envelope is sent; whoever takes the wait out of the table answers. An envelope that is dropped
//!   says so. So every provider is answered exactly once.
//! - Imports point down the table, never up; a lock is never held across I/O, a send or a log line.

pub mod admin;
pub mod answer;
pub mod bus;
pub mod config;
pub mod delivery;
pub mod dispatcher;
pub mod edge;
pub mod envelope;
pub mod fds;
pub mod http;
pub mod listener;
pub mod log_once;
pub mod logging;
pub mod metrics;
pub mod notification;
pub mod outbox;
pub mod peers;
pub mod relay;
pub mod session;
pub mod systemd;
pub mod thread;
pub mod timeline;
pub mod tls;
pub mod trace;
pub mod verify;
pub mod wire;
