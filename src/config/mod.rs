//! `relay.toml` as the rest of the relay sees it: complete, checked, every unit resolved.
//!
//! Nobody outside sees TOML. A [`Config`] that exists is one the relay can run with, as far as that can be known without opening a
//! port.
//!
//! From file to [`Config`]: `load` opens it and reads section by section; each section declares its keys in its own file, a line a
//! key (`declare` says how); `values` has the kinds of value, `reader` walks TOML's tree, and `diagnostics` collects what is wrong,
//! as sentences that stand beside the conditions. Nothing here opens a port, looks up a name or writes a log line.

mod address;
mod admin;
mod answer;
mod declare;
mod diagnostics;
mod error;
mod http;
mod load;
mod path;
mod places;
mod reader;
mod redis;
mod reload;
mod route;
mod secret;
mod sections;
mod selectors;
mod slip;
mod spelling;
mod tcp;
pub mod units;
mod values;
mod verify;

#[cfg(test)]
mod tests;

pub use self::admin::{AdminConfig, ReadToken};
pub use self::answer::{FixedAnswer, ProofConfig};
pub use self::error::{ConfigError, ConfigErrors, Position};
pub use self::http::{HttpConfig, TlsFiles};
pub use self::path::{PathTemplate, Segment};
pub use self::places::KeyPositions;
pub use self::reader::FILL_IN;
pub use self::redis::{Login, RedisConfig, RedisServers};
pub use self::reload::{ReloadRefused, Reloaded};
pub use self::route::{Methods, RouteConfig};
pub use self::secret::Secret;
pub use self::sections::{
    DeliveryConfig, LogConfig, LogFormat, OutboxConfig, SharedOutbox, UndeliveredPolicy,
};
pub use self::spelling::nearest;
pub use self::tcp::{TcpConfig, TcpTls};
pub use self::verify::meant_preset;
pub use crate::request::Selector;

/// The whole configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The node's name, for people; the host's name if the file says nothing.
    pub node: String,
    /// `[http]`: where providers post.
    pub http: HttpConfig,
    /// `[tcp]`: where backends connect.
    pub tcp: TcpConfig,
    /// `[delivery]`: how long, and what if not.
    pub delivery: DeliveryConfig,
    /// `[outbox]`: where `undelivered = "store"` keeps notifications.
    pub outbox: OutboxConfig,
    /// `[redis]`: several nodes; `None`: this one is alone.
    pub redis: Option<RedisConfig>,
    /// `[admin]`: health and metrics.
    pub admin: AdminConfig,
    /// `[log]`: what is said, and where.
    pub log: LogConfig,
    /// `[[route]]`, in the file's order.
    pub routes: Vec<RouteConfig>,
    /// What is allowed, and yet deserves a word at start.
    pub warnings: Vec<String>,
    /// Where the keys stand that the system has yet to judge.
    pub places: KeyPositions,
}
