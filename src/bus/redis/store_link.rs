//! Connections of the outbox's own to the primary that holds the shared outbox. It knows where that primary is; what is asked
//! and stored there is the outbox's.
//!
//! All of the shared outbox lies in one bucket, so that a script may use several of its keys, and they move together.

use std::fmt;
use std::sync::Arc;

use redis::Value;

use super::check;
use super::connection::RedisConnection;
use super::link::{self, BadConfig, Connector, LinkError, Server};
use super::names::ALL;
use super::resp;
use super::router::Router;
use crate::config::{RedisConfig, RedisServers};

/// The bucket of the shared outbox.
const BUCKET: usize = ALL;

/// How to connect to the primary of the shared outbox.
pub struct StoreLink {
    router: Arc<Router>,
    to: To,
    response_ms: u64,
}

enum To {
    One(Box<Server>),
    Named(Connector),
}

impl fmt::Debug for StoreLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoreLink(…)") // it has a password
    }
}

impl StoreLink {
    pub(super) fn new(config: &RedisConfig, router: Arc<Router>) -> Result<Self, BadConfig> {
        let to = match &config.servers {
            RedisServers::One(url) => To::One(Box::new(Server::at_url(config, url.expose())?)),
            RedisServers::Sentinel { login, .. } | RedisServers::Cluster { login, .. } => {
                To::Named(Connector::new(config, login)?)
            }
        };
        Ok(Self {
            router,
            to,
            response_ms: u64::try_from(config.response_timeout.as_millis()).unwrap_or(1000),
        })
    }

    /// What the names of all keys begin with.
    pub fn prefix(&self) -> String {
        self.router.names.store_prefix(BUCKET)
    }

    /// The name of this node's run.
    pub fn instance(&self) -> &str {
        &self.router.names.instance
    }

    /// `redis.response_timeout` in milliseconds: no reply is waited for longer.
    pub fn response_ms(&self) -> u64 {
        self.response_ms
    }

    /// Connects to the primary. Waits for `redis.connect_timeout` at most.
    ///
    /// # Errors
    /// No primary is known, or it is not there.
    pub fn connect(&self) -> Result<StoreConnection, LinkError> {
        let primary = self
            .primary()
            .ok_or_else(|| LinkError("no primary is known".into()))?;
        let connection = match &self.to {
            To::One(server) => server.connect(None)?,
            To::Named(connector) => connector.server(&primary)?.connect(None)?,
        };
        Ok(StoreConnection {
            connection,
            primary,
        })
    }

    /// Whether `connection` is to the primary that is in use now.
    pub fn is_current(&self, connection: &StoreConnection) -> bool {
        self.primary()
            .is_none_or(|primary| primary == connection.primary)
    }

    fn primary(&self) -> Option<String> {
        Some(self.router.owner(BUCKET)?.name.clone())
    }
}

/// A connection to the primary. After an error it cannot be used any more.
pub struct StoreConnection {
    connection: RedisConnection,
    primary: String,
}

impl fmt::Debug for StoreConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoreConnection({})", self.primary)
    }
}

impl StoreConnection {
    /// Sends commands that [`super::store_command`] has made; a reply is owed for each.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, commands: &[u8]) -> Result<(), LinkError> {
        Ok(self.connection.send(commands)?)
    }

    /// Reads one reply. Waits for `redis.response_timeout` at most.
    ///
    /// # Errors
    /// There is none, or Redis refuses.
    pub fn receive(&mut self) -> Result<Value, LinkError> {
        Ok(self.connection.receive()?)
    }

    /// Learns how many replicas the server has, and what speaks against keeping records of money there.
    ///
    /// # Errors
    /// It does not say.
    pub fn server(&mut self) -> Result<(u64, Vec<&'static str>), LinkError> {
        let info = resp::info(&self.ask(&[b"INFO"])?);
        let replicas = info
            .lines()
            .find_map(|line| line.strip_prefix("connected_slaves:"))
            .and_then(|count| count.trim_end().parse().ok());
        Ok((replicas.unwrap_or(0), check::advice(&info)))
    }

    /// Sends one command and reads its reply.
    ///
    /// # Errors
    /// There is none, or Redis refuses.
    pub fn ask(&mut self, parts: &[&[u8]]) -> Result<Value, LinkError> {
        Ok(link::ask(&mut self.connection, parts)?)
    }
}
