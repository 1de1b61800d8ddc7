//! One connection to Redis, with a limit on every wait; and commands as bytes.
//!
//! The redis crate makes the connection (TCP, TLS, unix socket) and reads replies. Commands are written here, those of the
//! hot path straight into the batch that goes out.

use std::fmt;
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use redis::{
    Client, Connection, ErrorKind, IntoConnectionInfo as _, RedisConnectionInfo, RedisError,
    TlsCertificates, Value,
};

use crate::config;

/// Why a URL cannot be used.
#[derive(Debug)]
pub enum LinkError {
    /// `redis.ca` cannot be read.
    Ca(std::path::PathBuf, std::io::Error),
    /// The redis crate cannot use it; its words name no password.
    Url(String),
}

impl fmt::Display for LinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ca(path, error) => {
                write!(f, "redis.ca = {path:?} cannot be read: {error}")
            }
            Self::Url(words) => write!(f, "redis.url cannot be used: {words}"),
        }
    }
}

impl std::error::Error for LinkError {}

/// Why a connection cannot be used, in words for the operator, without the password.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trouble(pub String);

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Trouble {}

impl From<RedisError> for Trouble {
    fn from(error: RedisError) -> Self {
        Self(words(&error))
    }
}

/// Where Redis is, and how long to wait for it.
pub struct Place {
    client: Client,
    /// AUTH and SELECT, as far as they are needed, and how many replies they have. Not the crate's: each reply that does
    /// not come would be waited for anew, and with four commands a Redis that stands still costs four timeouts.
    login: (Vec<u8>, usize),
    connect_timeout: Duration,
    response_timeout: Duration,
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Place(…)") // the URL may carry a password
    }
}

impl Place {
    /// What `[redis]` says. Opens nothing.
    ///
    /// # Errors
    /// The URL, or the certificate beside it, cannot be used.
    pub fn new(config: &config::Redis) -> Result<Self, LinkError> {
        let words = |error: RedisError| LinkError::Url(words(&error));
        let info = config.url.expose().into_connection_info().map_err(words)?;
        let settings = info.redis_settings().clone();
        let info = info.set_redis_settings(RedisConnectionInfo::default().set_skip_set_lib_name());
        let client = match &config.ca {
            None => Client::open(info).map_err(words)?,
            Some(path) => Client::build_with_tls(
                info,
                TlsCertificates {
                    client_tls: None,
                    root_cert: Some(read(path)?),
                },
            )
            .map_err(words)?,
        };
        Ok(Self {
            client,
            login: login(&settings),
            connect_timeout: config.connect_timeout,
            response_timeout: config.response_timeout,
        })
    }

    /// Connects, logs in and selects the database. `silence` is how long a read may take from then on; `None`:
    /// `redis.response_timeout`.
    ///
    /// # Errors
    /// Redis is not there, or lets nobody in.
    pub fn connect(&self, silence: Option<Duration>) -> Result<Connection, Trouble> {
        let mut connection = self
            .client
            .get_connection_with_timeout(self.connect_timeout)?;
        // Only now: connecting leaves the connection without any.
        connection.set_read_timeout(Some(self.response_timeout))?;
        connection.set_write_timeout(Some(self.response_timeout))?;
        let (commands, replies) = &self.login;
        if *replies > 0 {
            connection.send_packed_command(commands)?;
        }
        for _ in 0..*replies {
            receive(&mut connection)?;
        }
        if silence.is_some() {
            connection.set_read_timeout(silence)?;
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

fn read(path: &Path) -> Result<Vec<u8>, LinkError> {
    std::fs::read(path).map_err(|error| LinkError::Ca(path.to_owned(), error))
}

/// What went wrong, for a person. A timeout is `WouldBlock` to the system, which says nothing to a person.
fn words(error: &RedisError) -> String {
    if error.is_timeout() {
        return "no answer in time".into();
    }
    match error.code() {
        Some("WRONGPASS") => "Redis refuses the user or the password".into(),
        Some("NOAUTH") => "Redis wants a password, and redis.url has none".into(),
        Some("NOPERM") => format!(
            "the user of redis.url lacks a right (it needs PUBLISH, SUBSCRIBE and all channels below redis.prefix): {error}"
        ),
        _ => error.to_string(),
    }
}

/// Reads one reply or message.
///
/// # Errors
/// The connection is broken, or Redis refuses: the crate gives that as a value.
pub fn receive(connection: &mut Connection) -> Result<Value, RedisError> {
    match connection.recv_response()? {
        Value::ServerError(error) => Err(error.into()),
        value => Ok(value),
    }
}

/// Whether the connection cannot be used any more: the error is not an answer of Redis's.
pub fn is_broken(error: &RedisError) -> bool {
    error.is_io_error() || error.is_unrecoverable_error() || error.kind() == ErrorKind::Parse
}

/// Appends a command in RESP: an array of byte strings.
pub fn command(out: &mut Vec<u8>, parts: &[&[u8]]) {
    // A Vec takes everything.
    let _ = write!(out, "*{}\r\n", parts.len());
    for part in parts {
        let _ = write!(out, "${}\r\n", part.len());
        out.extend_from_slice(part);
        out.extend_from_slice(b"\r\n");
    }
}

/// Begins `PUBLISH channel …`: the payload is what `write` appends.
pub fn publish(channel: &[&str], write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
    let mut payload = Vec::new();
    write(&mut payload);
    let mut out = Vec::with_capacity(payload.len() + 128);
    let name_bytes: usize = channel.iter().map(|part| part.len()).sum();
    let _ = write!(out, "*3\r\n$7\r\nPUBLISH\r\n${name_bytes}\r\n");
    for part in channel {
        out.extend_from_slice(part.as_bytes());
    }
    let _ = write!(out, "\r\n${}\r\n", payload.len());
    out.extend_from_slice(&payload);
    out.extend_from_slice(b"\r\n");
    out
}

/// How many heard a PUBLISH.
pub fn count(value: &Value) -> u64 {
    match value {
        Value::Int(count) => u64::try_from(*count).unwrap_or(0),
        _ => 0,
    }
}

/// The names in a list of channels, without what they all begin with.
pub fn names(value: &Value, prefix: &str) -> Vec<String> {
    let Value::Array(channels) = value else {
        return Vec::new();
    };
    let name = |channel: &Value| match channel {
        Value::BulkString(bytes) => {
            let name = std::str::from_utf8(bytes).ok()?;
            Some(name.strip_prefix(prefix)?.to_owned())
        }
        _ => None,
    };
    channels.iter().filter_map(name).collect()
}
