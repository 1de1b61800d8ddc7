//! The gatehouse: what stands between the network and every HTTP handler of the house.
//!
//! A [`Front`] owns a listener, a few threads that each wait for many connections, and a thread more for each connection that
//! takes longer than a moment. It lets a request in only when it is whole, bounded and such that no two parsers would read it
//! differently; everything else it refuses itself. [`Lanes`] is the handler that carries requests on, to the counter or to the
//! tiny_http pool; the admin port has its own. Nothing here knows a route or a backend.
//!
//! | part | what lives there |
//! |---|---|
//! | `front` | accept, the cap, closing |
//! | `guests` | who is connected and who has waited longest |
//! | `poller` | one thread for many connections: those that wait, and requests that are small and whole |
//! | `alarms` | whom it looks at when, though nothing has come |
//! | `standing` | where a connection stands between two looks at it |
//! | `conn` | a connection on a thread of its own |
//! | `proxy` | for whom a proxy speaks. Pure |
//! | `channel` | what is received and sent, plain or sealed |
//! | `episode` | what is logged once while it lasts |
//! | `house` | what the connections of a front share |
//! | `exchange` | where a request and its answer stand |
//! | `ticket` | the right to answer |
//! | `framing` | bytes → head or refusal; chunked bodies. Pure |
//! | `refusal` | every way to say no |
//! | `reply` | replies as bytes |
//! | `socket` | sending and receiving under a total deadline; `listen` |
//! | `lanes` | the way to tiny_http |
//!
//! Invariants: nothing from the network is handed on before it is whole; the bound of every buffer is a constant or a
//! [`Limits`]; a thread waits on a peer only under a deadline.

mod alarms;
mod channel;
mod conn;
mod episode;
mod exchange;
pub mod framing;
mod front;
mod guests;
mod house;
mod lanes;
mod poller;
mod proxy;
mod refusal;
mod reply;
mod socket;
mod standing;
#[cfg(test)]
mod tests;
mod ticket;

use std::net::SocketAddr;
use std::time::Duration;

use crate::peers::Networks;

pub use crate::claims::Reply;

pub use front::{Entrance, Front, own_fds, pollers};
pub use lanes::{LaneBed, Lanes, LanesError, PROBE_HEADER, write_head};
pub use refusal::{Malformed, Refusal};
pub use socket::{adopt, listen};
pub use ticket::Ticket;

/// How long a kept connection may be idle between two requests.
pub const IDLE_MAX: Duration = Duration::from_secs(60);

/// How long a peer may take to let a whole reply into its socket.
pub const SEND_DEADLINE: Duration = Duration::from_secs(10);

/// What a front takes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The most connections at once; at the cap, the one that has waited longest without a whole request makes room.
    pub max_connections: usize,
    /// The largest body, in bytes, decoded.
    pub max_body: usize,
    /// From a request's first byte (a connection's first request: from accept) to its last.
    pub request_deadline: Duration,
    /// How long a handler may owe an answer; after it the front answers 503.
    pub answer_deadline: Duration,
}

/// Who may come in, and who is believed to speak for others.
#[derive(Clone, Debug, Default)]
pub struct Peers {
    /// Where requests may come from; none: from anywhere.
    pub allow: Networks,
    /// Whose word for whom they speak is believed.
    pub trusted_proxies: Networks,
    /// They say it by a PROXY header before each connection; otherwise by `X-Forwarded-For` in each request.
    pub proxy_protocol: bool,
}

/// A whole request, as a handler sees it.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
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
    /// Answers `request` by paying `ticket`, in this call or from another thread afterwards. It may wait, but not for the answer;
    /// unless it is quick.
    fn handle(&self, request: &Request<'_>, ticket: Ticket);

    /// Whether [`Handler::handle`] waits for nobody, and takes no more than a millisecond for a request of up to 64 KiB. Then it
    /// is called on a thread that serves other connections too, and keeps them waiting for as long; otherwise on the
    /// connection's own.
    fn is_quick(&self) -> bool {
        false
    }
}

/// Is told what the gatehouse does to peers, for the metrics.
pub trait Watcher: Send + Sync + 'static {
    /// A peer was refused: a word of [`Refusal::word`], or `evicted`; or its TLS was, `tls`.
    fn refused(&self, reason: &'static str);
}

/// Watches nothing.
impl Watcher for () {
    fn refused(&self, _reason: &'static str) {}
}
