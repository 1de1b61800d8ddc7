//! How to connect to a Redis server and log in; and one command, and its reply.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redis::{ConnectionAddr, IntoConnectionInfo as _, RedisConnectionInfo, RedisError, Value};
use rustls::ClientConfig;

use super::connection::{self, RedisConnection};
use super::resp::command;
use crate::config::{Login, RedisConfig};

/// Why `[redis]` cannot be used.
#[derive(Debug)]
pub enum BadConfig {
    /// `redis.ca` cannot be read.
    Ca(PathBuf, std::io::Error),
    /// No certificate can be trusted: in `redis.ca`, or on this system.
    Trust(Option<PathBuf>, String),
    /// The redis crate cannot use the address; its words name no password.
    Address(String),
}

impl fmt::Display for BadConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca(path, error) => write!(f, "redis.ca = {path:?} cannot be read: {error}"),
            Self::Trust(Some(path), words) => write!(f, "redis.ca = {path:?}: {words}"),
            Self::Trust(None, words) => write!(f, "TLS to Redis: {words}"),
            Self::Address(words) => write!(f, "the address in [redis] cannot be used: {words}"),
        }
    }
}

impl std::error::Error for BadConfig {}

/// Why a connection cannot be used, in words for the operator, without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LinkError(pub String);

impl LinkError {
    /// What an error reply says, for a person.
    pub fn from_reply(error: &RedisError) -> Self {
        Self(words(error))
    }
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for LinkError {}

impl From<BadConfig> for LinkError {
    fn from(error: BadConfig) -> Self {
        Self(error.to_string())
    }
}

impl From<RedisError> for LinkError {
    fn from(error: RedisError) -> Self {
        Self(words(&error))
    }
}

/// How to connect to any server of one kind: its login, its TLS, and how long to wait.
#[derive(Clone)]
pub struct Connector {
    /// AUTH and SELECT, as far as they are needed, and how many replies they have. Not the crate's: each reply that does
    /// not come would be waited for anew, and with four commands a Redis that stands still costs four timeouts.
    login: (Vec<u8>, usize),
    /// Whom to trust, if TLS is spoken.
    tls: Option<Arc<ClientConfig>>,
    connect_timeout: Duration,
    response_timeout: Duration,
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connector(…)") // it has a password
    }
}

/// One server, and how to connect to it.
#[derive(Clone)]
pub struct Server {
    address: ConnectionAddr,
    connector: Connector,
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Server(…)") // its URL may have a password
    }
}

impl Connector {
    /// For servers that are named by host and port. Opens nothing.
    ///
    /// # Errors
    /// `redis.ca` cannot be read.
    pub fn new(config: &RedisConfig, login: &Login) -> Result<Self, BadConfig> {
        let mut settings = RedisConnectionInfo::default().set_db(login.database);
        if let Some(user) = &login.user {
            settings = settings.set_username(user);
        }
        if let Some(password) = &login.password {
            settings = settings.set_password(password.expose());
        }
        Self::with(config, &settings, login.tls)
    }

    fn with(
        config: &RedisConfig,
        settings: &RedisConnectionInfo,
        tls: bool,
    ) -> Result<Self, BadConfig> {
        Ok(Self {
            login: self::login(settings),
            tls: tls.then(|| trust(config.ca.as_deref())).transpose()?,
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
        })
    }

    /// The same with shorter waits.
    pub fn hasty(mut self, wait: Duration) -> Self {
        self.connect_timeout = self.connect_timeout.min(wait);
        self.response_timeout = self.response_timeout.min(wait);
        self
    }

    /// The server at `address`, such as `host:6379` or `[::1]:6379`.
    ///
    /// # Errors
    /// It is no address.
    pub fn server(&self, address: &str) -> Result<Server, BadConfig> {
        let scheme = if self.tls.is_some() {
            "rediss"
        } else {
            "redis"
        };
        let words = |error: RedisError| BadConfig::Address(words(&error));
        let info = format!("{scheme}://{address}")
            .into_connection_info()
            .map_err(words)?;
        Ok(self.at(info.addr()))
    }

    fn at(&self, address: &ConnectionAddr) -> Server {
        Server {
            address: address.clone(),
            connector: self.clone(),
        }
    }
}

impl Server {
    /// The server at `url`, whose login is in the URL. Opens nothing.
    ///
    /// # Errors
    /// The URL, or the certificate beside it, cannot be used.
    pub fn at_url(config: &RedisConfig, url: &str) -> Result<Self, BadConfig> {
        let words = |error: RedisError| BadConfig::Address(words(&error));
        let info = url.into_connection_info().map_err(words)?;
        let tls = matches!(info.addr(), ConnectionAddr::TcpTls { .. });
        let connector = Connector::with(config, info.redis_settings(), tls)?;
        Ok(connector.at(info.addr()))
    }

    /// How to connect to others of its kind.
    pub fn connector(&self) -> Connector {
        self.connector.clone()
    }

    /// The same with shorter waits.
    pub fn hasty(&self, wait: Duration) -> Self {
        self.connector().hasty(wait).at(&self.address)
    }

    /// Connects, logs in and selects the database. `silence` is how long a read may take from then on; `None`:
    /// `redis.response_timeout`.
    ///
    /// # Errors
    /// Redis is not there, or refuses the login.
    pub fn connect(&self, silence: Option<Duration>) -> Result<RedisConnection, LinkError> {
        let connector = &self.connector;
        let within = connector.connect_timeout;
        let mut connection = RedisConnection::open(&self.address, connector.tls.as_ref(), within)?;
        let timeout = connector.response_timeout;
        connection.set_timeouts(timeout, timeout)?;
        let (commands, replies) = &connector.login;
        if *replies > 0 {
            connection.send(commands)?;
        }
        for _ in 0..*replies {
            connection.receive()?;
        }
        if let Some(silence) = silence {
            connection.set_timeouts(silence, timeout)?;
        }
        Ok(connection)
    }
}

fn login(settings: &RedisConnectionInfo) -> (Vec<u8>, usize) {
    let (mut commands, mut replies) = (Vec::new(), 0);
    if let Some(password) = settings.password() {
        let user = settings.username().map(str::as_bytes);
        let parts: Vec<&[u8]> = [Some(&b"AUTH"[..]), user, Some(password.as_bytes())]
            .into_iter()
            .flatten()
            .collect();
        command(&mut commands, &parts);
        replies += 1;
    }
    if settings.db() != 0 {
        let db = settings.db().to_string();
        command(&mut commands, &[b"SELECT", db.as_bytes()]);
        replies += 1;
    }
    (commands, replies)
}

fn trust(ca: Option<&Path>) -> Result<Arc<ClientConfig>, BadConfig> {
    let read =
        |path: &Path| std::fs::read(path).map_err(|error| BadConfig::Ca(path.to_owned(), error));
    let pem = ca.map(read).transpose()?;
    connection::tls(pem.as_deref()).map_err(|words| BadConfig::Trust(ca.map(Path::to_owned), words))
}

/// What went wrong, for a person. A timeout is `WouldBlock` to the system, which says nothing to a person.
fn words(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    match error.code() {
        Some("WRONGPASS") => "Redis refuses the user or the password".into(),
        Some("NOAUTH") => "Redis wants a password, and [redis] has none".into(),
        Some("NOPERM") => format!(
            "the user in [redis] lacks a right (doc/cluster.md lists them; all channels and keys below redis.prefix are among \
             them): {error}"
        ),
        _ if is_too_old(error) => format!(
            "this server is too old for redis.cluster, which needs Redis 7 or later, or Valkey (sharded channels): {error}"
        ),
        _ => error.to_string(),
    }
}

/// Whether Redis does not know the commands of sharded channels.
fn is_too_old(error: &RedisError) -> bool {
    let text = error.to_string();
    text.contains("unknown command")
        && ["SPUBLISH", "SSUBSCRIBE"]
            .iter()
            .any(|verb| text.contains(verb))
}

/// Sends one command and reads its reply.
///
/// # Errors
/// The connection is broken, or Redis refuses.
pub fn ask(connection: &mut RedisConnection, parts: &[&[u8]]) -> Result<Value, RedisError> {
    let mut bytes = Vec::new();
    command(&mut bytes, parts);
    connection.send(&bytes)?;
    connection.receive()
}

/// Whether the connection cannot be used any more: the error is not an answer of Redis's.
pub fn is_broken(error: &RedisError) -> bool {
    error.code().is_none()
}
