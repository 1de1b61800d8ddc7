//! The HTTP front end: reads every byte from the network before any handler sees it.
//!
//! An [`HttpListener`] owns a port and a thread for each of its connections. It lets a request in only when it is whole, bounded and
//! such that no two parsers would read it differently; everything else it refuses itself. What is answered is the [`Handler`]'s:
//! the one of module `http` for providers, the admin port's own. Nothing here knows a route, a pool or a backend.
//!
//! | file | what lives there |
//! |---|---|
//! | `http_listener` | accept, the connection limit, closing |
//! | `serve` | the thread of one connection |
//! | `closing` | why a connection ends, and how |
//! | `table` | which connections there are |
//! | `admission` | who is let in, and which connection is evicted for it |
//! | `state` | whether a connection is busy, or since when it waits |
//! | `responder` | the right to answer one request |
//! | `pending` | where the answer to a connection's current request stands |
//! | `context` | what the connections of a listener share |
//! | `channel` | what is received and sent, plain or encrypted |
//! | `peer` | who sends a connection's requests, and whether that one may |
//! | `proxy` | which client a proxy connects for. Pure |
//! | `framing` | bytes → head or refusal; chunked bodies. Pure |
//! | `refusal` | every way to refuse a request |
//! | `reply` | replies as bytes |
//! | `socket` | sending and receiving under a total deadline; `listen` |
//!
//! Invariants: nothing from the network is handed on before it is whole; the bound of every buffer is a constant or a
//! [`Limits`]; a thread waits for a peer only under a deadline.

mod admission;
mod channel;
mod closing;
mod context;
pub mod framing;
mod http_listener;
mod limits;
mod peer;
mod pending;
mod proxy;
mod refusal;
mod reply;
mod responder;
mod serve;
mod socket;
mod state;
mod table;
#[cfg(test)]
pub(crate) mod tests;

use std::net::SocketAddr;
use std::time::Duration;

use crate::peers::Networks;

pub use http_listener::{BoundListener, HttpListener, OWN_FDS};
pub use refusal::{Malformed, Refusal, RefusedRequest};
pub use reply::Response;
pub use responder::Responder;
pub use socket::{adopt, listen};

/// How long a kept connection may be idle between two requests, where nothing else is said.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long a peer may take to let a whole reply into its socket.
pub const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// What a listener takes.
#[derive(Clone, Debug)]
pub struct ListenerLimits {
    /// The most connections at once; at the limit, the one that has waited longest without a whole request is closed.
    pub max_connections: usize,
    /// The largest body, in bytes, decoded.
    pub max_body: usize,
    /// From a request's first byte (a connection's first request: from accept) to its last.
    pub request_deadline: Duration,
    /// How long a handler may take to answer; after that the peer is answered 503.
    pub answer_deadline: Duration,
    /// How long a kept connection may be idle between two requests.
    pub idle_max: Duration,
}

/// Which peers may connect, and which are proxies that are believed about their clients.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// Where requests may come from; empty: from anywhere.
    pub allow: Networks,
    /// Proxies that are believed about whom they connect for.
    pub trusted_proxies: Networks,
    /// They name the client by a PROXY header before each connection; otherwise by `X-Forwarded-For` in each request.
    pub proxy_protocol: bool,
}

/// A whole request, as a handler sees it.
#[derive(Clone, Copy, Debug)]
pub struct HttpRequest<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The target in origin form: `/path?query`.
    pub target: &'a str,
    /// Every header in the order sent, hop-by-hop ones too; values trimmed, ASCII.
    pub headers: &'a [httparse::Header<'a>],
    /// The body, decoded.
    pub body: &'a [u8],
    /// Who sent it, as far as that is known: port 0 if a proxy said the address alone.
    pub peer: SocketAddr,
}

/// Answers whole requests, at once or later.
pub trait Handler: Send + Sync + 'static {
    /// Answers `request` by [`Responder::answer`], in this call or from another thread afterwards. Runs on the connection's own
    /// thread; must not wait for the answer, or the next request is read late.
    fn handle(&self, request: &HttpRequest<'_>, responder: Responder);

    /// Is told of a request that the edge itself has refused, for the log.
    fn refused(&self, _request: &RefusedRequest<'_>) {}
}

/// Is told which peers are refused, for the metrics.
pub trait Watcher: Send + Sync + 'static {
    /// A peer was refused: a word of [`Refusal::word`], or `evicted`; or its TLS was, `tls`.
    fn refused(&self, reason: &'static str);
}

/// Watches nothing.
impl Watcher for () {
    fn refused(&self, _reason: &'static str) {}
}
