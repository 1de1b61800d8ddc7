//! `[redis]`: which servers there are, how to log in, and how long to wait.

use std::time::Duration;

use redis::{ConnectionInfo, IntoConnectionInfo};

use super::problem::Problem;
use super::reader::{Field, Section};
use super::secret;
use super::units::MINUTE;
use super::values::{count, duration, file_name};
use super::{Login, Redis, RedisServers, Secret};

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

/// Reads `[redis]`; `None` if the file does not have it, or it names no servers, which is noted.
pub fn redis(root: &mut Section<'_>) -> Option<Redis> {
    // Hidden: what stands where the section should might be a URL with a password.
    let mut s = root.field("redis")?.hide().read(Field::section)?;
    let servers = servers(&mut s);
    let prefix_field = s.field("prefix");
    let prefix = prefix_field.as_ref().and_then(|field| field.read(prefix));
    if let (Some(field), Some(prefix), Some(RedisServers::Cluster { .. })) =
        (&prefix_field, &prefix, &servers)
        && prefix.contains(['{', '}'])
    {
        field.refuse(Problem::RedisPrefixBraces);
    }
    let redis = Redis {
        servers: servers
            .clone()
            .unwrap_or_else(|| RedisServers::One(Secret::new(""))),
        prefix: prefix.unwrap_or("payrelay".into()),
        connect_timeout: s
            .read("connect_timeout", duration(50..=MINUTE))
            .unwrap_or(Duration::from_secs(2)),
        response_timeout: s
            .read("response_timeout", duration(50..=MINUTE))
            .unwrap_or(Duration::from_secs(1)),
        settle_time: s
            .read("settle_time", duration(0..=MINUTE))
            .unwrap_or(Duration::from_secs(5)),
        ca: s.read("ca", file_name),
    };
    s.close();
    servers.map(|_| redis)
}

/// Reads the one of the three kinds that the section has.
fn servers(s: &mut Section<'_>) -> Option<RedisServers> {
    let url = s.field("url").map(Field::hide);
    let sentinels = s.field("sentinels");
    let cluster = s.field("cluster");
    match (url, sentinels, cluster) {
        (Some(url), None, None) => {
            let needs = "belongs into the URL when [redis] has url: redis://user:password@host:6379/0, rediss:// for TLS";
            refuse_all(s, &LOGIN_KEYS, needs);
            refuse_all(
                s,
                &SENTINEL_KEYS,
                "needs sentinels = [\"host:26379\", …], not url",
            );
            url.read(self::url).map(RedisServers::One)
        }
        (None, Some(field), None) => {
            let master = s.field("master");
            if master.is_none() {
                s.refuse("master", Problem::Missing(NO_MASTER));
            }
            let master = master.and_then(|field| field.read(self::master));
            let database = s.read("database", count(0..=1_000_000)).unwrap_or(0);
            let login = Login {
                database: i64::try_from(database).unwrap_or(0),
                ..login(s, LOGIN_KEYS)
            };
            let sentinel_login = login_of_sentinels(s);
            Some(RedisServers::Sentinel {
                sentinels: field.read(addresses)?,
                master: master?,
                login,
                sentinel_login,
            })
        }
        (None, None, Some(field)) => {
            refuse_all(
                s,
                &["database"],
                "a cluster has only database 0; remove this line",
            );
            refuse_all(
                s,
                &SENTINEL_KEYS,
                "needs sentinels = [\"host:26379\", …], not cluster",
            );
            let login = login(s, LOGIN_KEYS);
            Some(RedisServers::Cluster {
                nodes: field.read(addresses)?,
                login,
            })
        }
        (None, None, None) => {
            s.refuse("url", Problem::Missing(NO_SERVERS));
            take_all(s);
            None
        }
        (url, sentinels, cluster) => {
            let fields = [url, sentinels, cluster];
            if let Some(field) = fields.into_iter().flatten().next_back() {
                field.hide().refuse(Problem::RedisKinds);
            }
            take_all(s);
            None
        }
    }
}

const NO_SERVERS: &str = "[redis] needs to know where Redis is: url = \"redis://127.0.0.1:6379\", or sentinels = \
    [\"host:26379\", …] with master = \"mymaster\", or cluster = [\"host:6379\", …]; remove [redis] to run one node without it";

const NO_MASTER: &str =
    "sentinels need the name of the primary that they watch: master = \"mymaster\"";

/// These keys are of another kind of Redis.
fn refuse_all(s: &mut Section<'_>, keys: &[&'static str], needs: &'static str) {
    for key in keys {
        if let Some(field) = s.field(key) {
            field.hide().refuse(Problem::RedisKey(needs));
        }
    }
}

/// These keys are known, whatever they say: one error is enough.
fn take_all(s: &mut Section<'_>) {
    for key in LOGIN_KEYS.iter().chain(&SENTINEL_KEYS) {
        s.field(key);
    }
}

fn login(s: &mut Section<'_>, [user, password, tls]: [&'static str; 3]) -> Login {
    let hidden = s.field(password).map(Field::hide);
    Login {
        user: s.read(user, |field| Ok(field.text("a string")?.to_owned())),
        password: hidden.and_then(|field| {
            field.read(|field| secret::secret_text(field).map(|text| Secret::new(&text)))
        }),
        database: 0,
        tls: s.read(tls, Field::flag).unwrap_or(false),
    }
}

fn login_of_sentinels(s: &mut Section<'_>) -> Login {
    login(s, ["sentinel_user", "sentinel_password", "sentinel_tls"])
}

fn addresses(field: &Field<'_>) -> Result<Vec<String>, Problem> {
    let fields = field.list("a list of addresses", ADDRESSES_MAX)?;
    if fields.is_empty() {
        return Err(Problem::RedisNoAddresses);
    }
    let one = |field: &Field<'_>| {
        let text = field.text("a string")?;
        is_address(text)
            .then(|| text.to_owned())
            .ok_or(Problem::RedisAddress)
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
        None => {
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b".-_".contains(&b);
            !host.is_empty() && host.bytes().all(allowed)
        }
    };
    is_port && is_host
}

fn master(field: &Field<'_>) -> Result<String, Problem> {
    let text = field.text("a string")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let fits = (1..=MASTER_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
    fits.then(|| text.to_owned()).ok_or(Problem::RedisMaster)
}

fn info(url: &str) -> Option<ConnectionInfo> {
    url.into_connection_info().ok()
}

fn url(field: &Field<'_>) -> Result<Secret, Problem> {
    let (text, is_here) = secret::text_and_place(field)?;
    let info = info(&text).ok_or(Problem::RedisUrl)?;
    if is_here && info.redis_settings().password().is_some() {
        field.note_secret();
    }
    Ok(Secret::new(&text))
}

/// What a name in Redis may be made of, without the signs that a pattern gives a meaning to.
fn prefix(field: &Field<'_>) -> Result<String, Problem> {
    let text = field.text("a string")?;
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:/{}".contains(&b);
    let fits = (1..=PREFIX_BYTES_MAX).contains(&text.len()) && text.bytes().all(allowed);
    if !fits {
        return Err(Problem::RedisPrefix);
    }
    Ok(text.to_owned())
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
