//! `[redis]`: which servers there are, how to log in, and how long to wait.

use std::path::PathBuf;
use std::time::Duration;

use redis::IntoConnectionInfo;

use super::declare::{restart, section};
use super::reader::{Field, Problem, Section};
use super::secret::{self, Secret};
use super::units::MINUTE;
use super::values::{count, duration, file_name, is_of_name, some, text_of, text_within};

/// The longest prefix, in bytes: it stands in the name of every channel.
const PREFIX_BYTES_MAX: usize = 64;

/// The most sentinels or nodes of a cluster that are listed. Further nodes of a cluster are found by themselves.
const ADDRESSES_MAX: usize = 64;

/// The longest name of a primary, in bytes.
const MASTER_BYTES_MAX: usize = 128;

/// The keys of a login by host and port, which a URL has in itself.
const LOGIN_KEYS: [&str; 3] = ["user", "password", "tls"];

/// The keys that only sentinels have.
const SENTINEL_KEYS: [&str; 5] = [
    "master",
    "database",
    "sentinel_user",
    "sentinel_password",
    "sentinel_tls",
];

section! {
    /// `[redis]`
    pub struct RedisConfig in "redis" {
        /// What the names of all channels begin with; nodes with the same prefix are one relay.
        prefix: String = "payrelay".into(), prefix, restart;
        /// How long connecting may take.
        connect_timeout: Duration = Duration::from_secs(2), duration(50..=MINUTE), restart;
        /// How long Redis may take to answer.
        response_timeout: Duration = Duration::from_secs(1), duration(50..=MINUTE), restart;
        /// How long a primary must have been in use before its word that no node has a backend is believed.
        settle_time: Duration = Duration::from_secs(5), duration(0..=MINUTE), restart;
        /// A certificate (PEM) to trust instead of the system's, for TLS.
        ca: Option<PathBuf> = None, some(file_name), restart;
    }
    with {
        /// Which servers, and how to find the primary.
        servers: RedisServers,
    }
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

/// Reads `[redis]`; `None` if the file does not have it, or it names no servers, which is noted.
pub fn redis(root: &mut Section<'_>) -> Option<RedisConfig> {
    // Hidden: what stands where the section should might be a URL with a password.
    let mut s = root.field("redis")?.hide().read(Field::section)?;
    let servers = servers(&mut s);
    let is_cluster = matches!(servers, Some(RedisServers::Cluster { .. }));
    let has_servers = servers.is_some();
    let servers = servers.unwrap_or_else(|| RedisServers::One(Secret::new("")));
    let redis = RedisConfig::read(&mut s, servers);
    if let (true, Some(field)) = (
        is_cluster && redis.prefix.contains(['{', '}']),
        s.field("prefix"),
    ) {
        field.refuse(
            "in a cluster the prefix must not have { or }: the relay puts a hash tag of its own into each name",
        );
    }
    s.close();
    has_servers.then_some(redis)
}

/// Reads the one of the three kinds that the section has.
fn servers(s: &mut Section<'_>) -> Option<RedisServers> {
    let given = [s.field("url"), s.field("sentinels"), s.field("cluster")];
    match &given {
        [Some(url), None, None] => {
            let needs = "belongs into the URL when [redis] has url: redis://user:password@host:6379/0, rediss:// for TLS";
            refuse_all(s, &LOGIN_KEYS, needs);
            let needs = "needs sentinels = [\"host:26379\", …], not url";
            refuse_all(s, &SENTINEL_KEYS, needs);
            url.read(self::url).map(RedisServers::One)
        }
        [None, Some(field), None] => {
            let master = s.required("master", NO_MASTER, master);
            let database = s.read("database", count(0..=1_000_000)).unwrap_or(0);
            let login = login(s, LOGIN_KEYS, database);
            let keys = ["sentinel_user", "sentinel_password", "sentinel_tls"];
            let sentinel_login = self::login(s, keys, 0);
            Some(RedisServers::Sentinel {
                sentinels: field.read(addresses)?,
                master: master?,
                login,
                sentinel_login,
            })
        }
        [None, None, Some(field)] => {
            let needs = "a cluster has only database 0; remove this line";
            refuse_all(s, &["database"], needs);
            let needs = "needs sentinels = [\"host:26379\", …], not cluster";
            refuse_all(s, &SENTINEL_KEYS, needs);
            let login = login(s, LOGIN_KEYS, 0);
            let nodes = field.read(addresses)?;
            Some(RedisServers::Cluster { nodes, login })
        }
        _ => {
            match given.iter().flatten().next_back() {
                Some(field) => field.hide().refuse(NOT_ONE),
                None => s.refuse("url", NO_SERVERS),
            }
            // Whatever these say: one error is enough.
            for key in LOGIN_KEYS.iter().chain(&SENTINEL_KEYS) {
                s.field(key);
            }
            None
        }
    }
}

const NOT_ONE: &str = "[redis] needs exactly one of: url = \"redis://…\" (one Redis), sentinels = [\"host:26379\", …] (with master), \
    cluster = [\"host:6379\", …]";

const NO_SERVERS: &str = "is missing; [redis] needs to know where Redis is: url = \"redis://127.0.0.1:6379\", or sentinels = \
    [\"host:26379\", …] with master = \"mymaster\", or cluster = [\"host:6379\", …]; remove [redis] to run one node without it";

const NO_MASTER: &str =
    "sentinels need the name of the primary that they watch: master = \"mymaster\"";

/// These keys are of another kind of Redis.
fn refuse_all(s: &mut Section<'_>, keys: &[&'static str], needs: &'static str) {
    for key in keys {
        if let Some(field) = s.field(key) {
            field.hide().refuse(needs);
        }
    }
}

fn login(s: &mut Section<'_>, [user, password, tls]: [&'static str; 3], database: i64) -> Login {
    let secret = |field: &Field<'_>| Ok(Secret::new(&secret::secret_text(field)?));
    Login {
        user: s.read(user, text_of),
        password: s.read(password, secret),
        database,
        tls: s.read(tls, Field::flag).unwrap_or(false),
    }
}

fn addresses(field: &Field<'_>) -> Result<Vec<String>, Problem> {
    if field.is_empty_list() {
        return Err("at least one address is needed, such as [\"10.0.0.7:6379\"]".into());
    }
    let fields = field.list("a list of addresses", ADDRESSES_MAX)?;
    let one = |field: &Field<'_>| {
        let text = field.text("a string")?;
        // Somebody may have put a URL there, with the password in it.
        if text.contains('@') {
            field.hide();
        }
        match text {
        text if is_address(text) => Ok(text.to_owned()),
        _ => Err("not an address; write \"host:port\", such as \"10.0.0.7:6379\", \"redis-1.internal:6379\" or \"[::1]:6379\"".into()),
    }
    };
    Ok(fields.iter().filter_map(|field| field.read(one)).collect())
}

/// Whether `text` is a host or an IP address with a port: names are looked up at each connection.
fn is_address(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_port = port.parse().is_ok_and(|port: u16| port > 0) && !port.starts_with('+');
    let is_host = match host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'))
    {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.bytes().all(is_of_name),
    };
    is_port && is_host
}

fn master(field: &Field<'_>) -> Result<String, Problem> {
    const RULE: &str = "the name of the primary as the sentinels know it (sentinel monitor NAME …): 1 to 128 of A-Z a-z 0-9 . _ -";
    text_within(field, MASTER_BYTES_MAX, is_of_name, RULE)
}

fn url(field: &Field<'_>) -> Result<Secret, Problem> {
    let (text, is_here) = secret::text_and_place(field)?;
    let info = text.as_str().into_connection_info().map_err(|_| {
        "not a Redis URL; write redis://host:6379, redis://user:password@host:6379/0, \
         rediss://… for TLS or unix:///path/to/socket"
    })?;
    if is_here && info.redis_settings().password().is_some() {
        field.note_secret();
    }
    Ok(Secret::new(&text))
}

/// What a name in Redis may be made of, without the signs that a pattern gives a meaning to.
fn prefix(field: &Field<'_>) -> Result<String, Problem> {
    const RULE: &str = "a prefix is 1 to 64 of A-Z a-z 0-9 . _ - : / { }";
    let allowed = |b: u8| is_of_name(b) || b":/{}".contains(&b);
    text_within(field, PREFIX_BYTES_MAX, allowed, RULE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_hosts_with_ports() {
        for (text, wanted) in [
            ("127.0.0.1:6379", true),
            ("redis-1.internal:26379", true),
            ("[::1]:6379", true),
            ("redis", false),
            (":6379", false),
            ("host:", false),
            ("host:0", false),
            ("host:+80", false),
            ("host:65536", false),
            ("::1:6379", false),
            ("redis://host:6379", false),
            ("user:secret@host:6379", false),
        ] {
            assert_eq!(is_address(text), wanted, "{text}");
        }
    }
}
