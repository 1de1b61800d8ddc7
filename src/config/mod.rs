//! `relay.toml` as the rest of the house sees it: complete, checked, every unit resolved.
//!
//! The reading and judging is done by this room's parts; nobody outside sees TOML. A [`Config`] that exists is one the
//! relay can run with, as far as that can be known without opening a port.
//!
//! From file to [`Config`]: `load` opens it, `reader` walks the tree, `sections` and `route` know the keys, `problem` says
//! what is wrong. Nothing here opens a port, looks up a name or writes a log line.

mod address;
mod answer;
mod errors;
mod load;
mod node;
mod path;
mod place;
mod problem;
mod reader;
mod redis;
mod reload;
mod route;
mod secret;
mod sections;
mod selector;
mod spelling;
pub mod units;
mod values;
mod verify;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub use self::errors::{ConfigError, ConfigErrors};
pub use self::place::Place;
pub use self::problem::Problem;
pub use self::reload::{ReloadRefused, Reloaded};
use crate::notification::BackendId;
use crate::peers::Networks;
pub use crate::request::Selector;
use crate::verify::Verifier;

/// What a text of relay.toml begins with where a person has yet to put a value: such a file is refused.
pub const FILL_IN: &str = "FILL IN";

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name, for people; the host's name if the file says nothing.
    pub node: String,
    /// `[http]`: where providers post.
    pub http: Http,
    /// `[tcp]`: where backends connect.
    pub tcp: Tcp,
    /// `[delivery]`: how long, and what if not.
    pub delivery: Delivery,
    /// `[outbox]`: where `undelivered = "store"` keeps notifications.
    pub outbox: Outbox,
    /// `[redis]`: several nodes; `None`: this one is alone.
    pub redis: Option<Redis>,
    /// `[admin]`: health and metrics.
    pub admin: Admin,
    /// `[log]`: what is said, and where.
    pub log: Log,
    /// `[[route]]`, in the file's order.
    pub routes: Vec<Route>,
    /// What is allowed, and yet deserves a word at start.
    pub warnings: Vec<String>,
}

/// `[http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Threads of the tiny_http pool, which judge requests; 0: the connections' own threads do.
    pub workers: usize,
    /// The largest body taken, in bytes; larger is answered 413.
    pub max_body: usize,
    /// The most connections at once; at the cap the one that has waited longest for a whole request makes room.
    pub max_connections: usize,
    /// The most notifications that wait for their ACK; beyond it they are undelivered: stored, or refused.
    pub max_in_flight: usize,
    /// From a request's first byte to its last.
    pub request_deadline: Duration,
    /// Certificate and key; `None`: providers come in the clear.
    pub tls: Option<TlsFiles>,
    /// Where requests may come from; none: from anywhere.
    pub allow: Networks,
    /// Whose word for whom they speak is believed.
    pub trusted_proxies: Networks,
    /// Each connection of a trusted proxy begins with a PROXY header; otherwise it says `X-Forwarded-For`.
    pub proxy_protocol: bool,
    /// Failed signatures that a peer may have within a minute before it is answered 429.
    pub failures_per_minute: u32,
}

/// `tls = { cert = "…", key = "…" }`: where a listener's certificate and its key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead from it to an authority, in this order.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// `[tcp]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// The most sessions at once.
    pub max_connections: usize,
    /// Keys of the backends' tokens; the first signs, any verifies. Empty: tokens are ignored (loopback only).
    pub secrets: Vec<Secret>,
    /// The ids that may connect; empty: any.
    pub backends: Vec<BackendId>,
    /// From accept to a whole HELLO.
    pub hello_deadline: Duration,
    /// Silence after which the relay sends PING; 2.5 of them with nothing in flight end the session.
    pub heartbeat: Duration,
    /// How long one MSG may stay unacknowledged before the session forgets it; TOUCH restarts it.
    pub ack_timeout: Duration,
    /// How long a peer may accept no byte before it is cut.
    pub write_deadline: Duration,
    /// Notifications that may wait for one session beyond its credit.
    pub queue: usize,
    /// Channels that one session may listen to.
    pub channels: usize,
    /// Bytes of SEND and PUB that one session may send in a second.
    pub data_rate: usize,
    /// Failed HELLOs that a peer may have within a minute before it is told `limit`.
    pub failures_per_minute: u32,
    /// `[tcp.tls]`: the second listener, behind which everything is sealed.
    pub tls: Option<TcpTls>,
}

/// `[tcp.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpTls {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Certificate and key.
    pub files: TlsFiles,
}

/// `[delivery]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// How long the provider's answer may wait for the backend's ACK.
    pub ack_deadline: Duration,
    /// What to do with what was not acknowledged in time.
    pub undelivered: Undelivered,
    /// How long an event that was delivered or stored is known, so that a provider's retry is answered ok at once.
    pub dedupe_window: Duration,
}

/// What to do with what was not acknowledged in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Undelivered {
    /// Keep it on disk, answer ok, deliver it later.
    Store,
    /// Answer fail: the provider keeps it and tries again.
    Refuse,
}

/// `[outbox]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outbox {
    /// The database file; relative to the working directory.
    pub path: PathBuf,
    /// The wait before the first redelivery; it doubles with each further one.
    pub retry_first: Duration,
    /// The longest wait between two redeliveries.
    pub retry_max: Duration,
    /// What was sent to a backend this often and never acknowledged goes to the dead letters.
    pub max_tries: u32,
    /// The most redeliveries offered in a second, to all backends together.
    pub redelivery_rate: u32,
    /// What was stored this long ago and is not acknowledged goes to the dead letters.
    pub expire: Duration,
    /// How long an acknowledged notification stays to be looked at.
    pub keep: Duration,
    /// The most notifications kept.
    pub max_messages: u64,
    /// The most bytes the database may take.
    pub max_bytes: u64,
    /// The most bytes its write-ahead log may take while a reader keeps it from being moved into the database.
    pub max_log_bytes: u64,
}

/// `[redis]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Redis {
    /// Which servers, and how to find the primary.
    pub servers: RedisServers,
    /// What the names of all channels begin with; nodes with the same prefix are one relay.
    pub prefix: String,
    /// How long connecting may take.
    pub connect_timeout: Duration,
    /// How long Redis may take to answer.
    pub response_timeout: Duration,
    /// How long a primary must have been in use before its word that no node has a backend is believed.
    pub settle_time: Duration,
    /// A certificate (PEM) to trust instead of the system's, for TLS.
    pub ca: Option<PathBuf>,
}

/// The servers of `[redis]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RedisServers {
    /// One Redis, at a URL with user, password and database.
    One(Secret),
    /// A primary that sentinels name.
    Sentinel {
        /// Their addresses, as `host:port`.
        sentinels: Vec<String>,
        /// The name of the primary.
        master: String,
        /// For the servers.
        login: Login,
        /// For the sentinels.
        sentinel_login: Login,
    },
    /// A cluster.
    Cluster {
        /// The addresses of some of its nodes, as `host:port`.
        nodes: Vec<String>,
        /// For all nodes.
        login: Login,
    },
}

/// How to log in to a server that is named by host and port.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The user; `None`: the default user.
    pub user: Option<String>,
    /// The password, if one is needed.
    pub password: Option<Secret>,
    /// The number of the database.
    pub database: i64,
    /// Whether the server is spoken to over TLS.
    pub tls: bool,
}

/// `[admin]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// May see and do everything. Must be there when `listen` is not loopback.
    pub token: Option<Secret>,
    /// Tokens that may look and change nothing. Empty unless there is a `token`.
    pub read_tokens: Vec<ReadToken>,
    /// The admin ports of the other nodes; this node's own may be among them.
    pub nodes: Vec<SocketAddr>,
    /// How many bytes of the latest notifications are kept in memory to be looked at; 0: none.
    pub keep_bodies: usize,
}

/// `{ name = "support", token = "…", bodies = false }` in `admin.read_tokens`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadToken {
    /// What its holder is called in the log.
    pub name: String,
    /// The token.
    pub token: Secret,
    /// Whether its holder may see headers and bodies of notifications.
    pub bodies: bool,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The least severe level that is written.
    pub level: log::LevelFilter,
    /// The file to append to; `None`: standard error.
    pub file: Option<PathBuf>,
}

/// One `[[route]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// What it is called in MSG, metrics and logs; the path if the file gives no name.
    pub name: Arc<str>,
    /// The path, cut at its slashes.
    pub path: PathTemplate,
    /// Where requests for it may come from, of those that `[http]` lets in; none: from anywhere.
    pub allow: Networks,
    /// By what methods notifications come.
    pub methods: Methods,
    /// What a GET or HEAD is answered that is no notification: the provider's proof that the address is the merchant's.
    pub proof: Option<Proof>,
    /// What checks the provider's signature; `None`: nothing does.
    pub verifier: Option<Arc<Verifier>>,
    /// A bad signature is answered with `fail`, because this provider reads its body; otherwise with 401.
    pub forged_gets_fail: bool,
    /// Where the backend's id is.
    pub id: Selector,
    /// What ends the id in that value: `_` in `game-01_20261128`. What follows is no part of it.
    pub id_before: Option<String>,
    /// Where the event key is, if the route has one.
    pub event: Option<Selector>,
    /// Whether the signature covers it.
    pub event_proven: bool,
    /// The backend gets what the body holds sealed, opened, in the body's place.
    pub deliver_opened: bool,
    /// Headers that go to the backend with the body, in lower case. Empty: not even the request line does.
    pub forward_headers: Vec<String>,
    /// What the provider reads when the notification is safe.
    pub ok: Answer,
    /// What the provider reads when it is not.
    pub fail: Answer,
}

/// What a GET or HEAD is answered that is no notification.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The answer.
    pub answer: Answer,
    /// What checks who asks; `None`: anybody is answered.
    pub verifier: Option<Arc<Verifier>>,
}

/// By what methods a route's notifications come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Methods {
    /// By POST.
    pub post: bool,
    /// By GET, all of them in the query.
    pub get: bool,
}

impl Methods {
    /// Whether a notification may come by `method`.
    pub fn allow(self, method: &str) -> bool {
        match method {
            "POST" => self.post,
            "GET" => self.get,
            _ => false,
        }
    }
}

/// A route's path: literal segments, of which at most one is `{id}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PathTemplate {
    /// The path as the file has it.
    pub text: String,
    /// Its segments in order; `/notify/{id}` has two.
    pub segments: Vec<Segment>,
}

/// One segment of a route's path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Segment {
    /// Matches exactly these characters.
    Literal(String),
    /// Matches any one segment, and is the backend's id.
    Id,
}

/// What a provider is answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status, 200 to 599.
    pub status: u16,
    /// The `Content-Type`.
    pub content_type: String,
    /// The body, at most 16 KiB.
    pub body: Vec<u8>,
    /// Where in the body a value of the request stands in place of what is there: `{json:/id}`.
    pub values: Vec<(std::ops::Range<usize>, Selector)>,
}

/// A text that is never shown: not by `Debug`, not in a log, not in an error.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret(…)")
    }
}
