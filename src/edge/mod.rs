//! The gatehouse: what stands between the network and every HTTP handler of the house.
//!
//! A [`Front`] owns a listener and a thread per connection. It lets a request in only when it is whole, bounded and such
//! that no two parsers would read it differently; everything else it refuses itself. [`Lanes`] is the handler that carries
//! requests on to the tiny_http pool; the admin port has its own. Nothing here knows a route or a backend.
//!
//! | part | what lives there |
//! |---|---|
//! | `front` | accept, the cap, closing |
//! | `guests` | who is connected and who has waited longest |
//! | `conn` | one connection's life |
//! | `episode` | what is logged once while it lasts |
//! | `framing` | bytes → head or refusal; chunked bodies. Pure |
//! | `refusal` | every way to say no |
//! | `reply` | replies as bytes |
//! | `socket` | sending and receiving under a total deadline; `listen` |
//! | `lanes` | kept connections to tiny_http |
//!
//! Invariants: nothing from the network is handed on before it is whole; the bound of every buffer is a constant or a
//! [`Limits`]; a thread waits on a peer only under a deadline.

mod conn;
mod episode;
pub mod framing;
mod front;
mod guests;
mod lanes;
mod refusal;
mod reply;
mod socket;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::time::Duration;

pub use front::Front;
pub use lanes::{LaneBed, Lanes, LanesError, PROBE_HEADER};
pub use refusal::{Malformed, Refusal};
pub use socket::listen;

/// How long a kept connection may be idle between two requests. DESIGN §5.
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
    /// Who sent it.
    pub peer: SocketAddr,
}

/// What a handler answers. The front adds Date, Content-Length and Connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, 200 to 599.
    pub status: u16,
    /// Header lines, CRLF after each; none of Content-Length, Connection, Date.
    pub head: Vec<u8>,
    /// The body; to a HEAD too, where the front leaves it out.
    pub body: Vec<u8>,
}

/// Answers whole requests, on the connection's own thread; it may block, under a deadline of its own.
pub trait Handler: Send + Sync + 'static {
    /// The answer to `request`.
    fn handle(&self, request: &Request<'_>) -> Reply;
}

/// Is told what the gatehouse does to peers, for the metrics.
pub trait Watcher: Send + Sync + 'static {
    /// A peer was refused: a word of [`Refusal::word`], or `evicted`.
    fn refused(&self, reason: &'static str);
}

/// Watches nothing.
impl Watcher for () {
    fn refused(&self, _reason: &'static str) {}
}
