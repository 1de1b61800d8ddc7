//! The sections of relay.toml but its routes: every key with its default and its limits, and what each promises.
//!
//! A wrong value is noted and its default taken, so that the reading goes on and finds what else is wrong. Every default
//! listens on loopback and so breaks no promise. The limits are repeated for people in relay.toml.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use log::LevelFilter;

use super::address::{is_loopback, listen};
use super::problem::{Open, Problem};
use super::reader::{Field, Section};
use super::secret;
use super::units::{DAY, GIB, HOUR, MIB, MINUTE, SECOND};
use super::values::{count, duration, file_name, networks, size};
use super::{Admin, Delivery, Http, Log, Outbox, ReadToken, Tcp, TcpTls, TlsFiles, Undelivered};
use crate::notification::BackendId;
use crate::peers::Networks;

/// The most ids in `tcp.backends`.
const BACKENDS_MAX: usize = 100_000;

/// The most entries in `admin.read_tokens`: one for each team that looks.
const READ_TOKENS_MAX: usize = 64;

/// The most entries in `admin.nodes`.
const NODES_MAX: usize = 64;

/// Above this, providers such as WeChat Pay (5 s) may have given up before the answer comes.
const ACK_DEADLINE_ADVISED: Duration = Duration::from_millis(4500);

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}

/// The fewest and most workers by default, when there are several nodes.
const WORKERS_DEFAULT: (usize, usize) = (2, 8);

/// `http.workers` when the file does not say: none on a single node, where the connections' own threads cost less; with Redis as many
/// as there are processors, 2 to 8, so that the pool publishes and a flood of costly signatures keeps to it.
fn workers_default(has_redis: bool) -> usize {
    if !has_redis {
        return 0;
    }
    let processors = std::thread::available_parallelism().map_or(1, usize::from);
    processors.clamp(WORKERS_DEFAULT.0, WORKERS_DEFAULT.1)
}

/// Reads `[http]`; `has_redis`: there is `[redis]`.
pub fn http(mut s: Section<'_>, has_redis: bool) -> Http {
    let mut http = Http {
        listen: s.read("listen", listen).unwrap_or(loopback(8080)),
        workers: s
            .read("workers", count(0..=64))
            .unwrap_or_else(|| workers_default(has_redis)),
        max_body: s.read("max_body", size(1..=64 * MIB)).unwrap_or(MIB) as usize,
        max_connections: s.read("max_connections", count(1..=65536)).unwrap_or(1024),
        max_in_flight: s.read("max_in_flight", count(1..=4096)).unwrap_or(256),
        request_deadline: s
            .read("request_deadline", duration(100..=5 * MINUTE))
            .unwrap_or(Duration::from_secs(10)),
        tls: s.read("tls", http_tls).flatten(),
        allow: s.read("allow", networks).unwrap_or_default(),
        trusted_proxies: Networks::default(),
        proxy_protocol: false,
        failures_per_minute: failures(&mut s),
    };
    let trusted = s.field("trusted_proxies");
    let awaited = s.field("proxy_protocol");
    http.trusted_proxies = read(&trusted, networks).unwrap_or_default();
    http.proxy_protocol = read(&awaited, |field| field.flag()).unwrap_or(false);
    s.close();
    let anybody = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    if let (true, Some(field)) = (
        anybody.iter().any(|ip| http.trusted_proxies.contains(*ip)),
        &trusted,
    ) {
        field.warn(Odd::TrustedStrangers);
    }
    if let (true, None, Some(field)) = (http.proxy_protocol, &trusted, &awaited) {
        field.refuse(Problem::NoProxies);
    }
    http
}

/// Reads how often one peer may fail within a minute.
fn failures(s: &mut Section<'_>) -> u32 {
    let most = s.read("failures_per_minute", count(1..=1_000_000));
    most.map_or(60, |most| most as u32)
}

fn http_tls(field: &Field<'_>) -> Result<Option<TlsFiles>, Problem> {
    let mut s = field.section()?;
    let files = tls_files(&mut s);
    s.close();
    Ok(files)
}

/// Reads where a certificate and its key are; `None` if either is missing or wrong, which is noted.
fn tls_files(s: &mut Section<'_>) -> Option<TlsFiles> {
    let mut file = |key, what| {
        let field = s.field(key);
        if field.is_none() {
            s.refuse(key, Problem::Missing(what));
        }
        field.and_then(|field| field.read(file_name))
    };
    let cert = file(
        "cert",
        "the certificate's file, such as cert = \"fullchain.pem\"",
    );
    let key = file(
        "key",
        "the private key's file, such as key = \"privkey.pem\"",
    );
    Some(TlsFiles {
        cert: cert?,
        key: key?,
    })
}

/// Reads `[tcp]`.
pub fn tcp(mut s: Section<'_>) -> Tcp {
    let address = s.field("listen");
    let max_connections = s.read("max_connections", count(1..=100_000));
    let secrets = s.field("secrets").map(Field::hide);
    let ids = s.field("backends");
    let (secrets, any_secret) = secrets
        .map(|field| field.read(secret::list).unwrap_or((Vec::new(), true)))
        .unwrap_or_default();
    let mut tcp = Tcp {
        listen: read(&address, listen).unwrap_or(loopback(7000)),
        max_connections: max_connections.unwrap_or(10_000),
        secrets,
        backends: read(&ids, backends).unwrap_or_default(),
        hello_deadline: s
            .read("hello_deadline", duration(100..=MINUTE))
            .unwrap_or(Duration::from_secs(5)),
        heartbeat: s
            .read("heartbeat", duration(100..=10 * MINUTE))
            .unwrap_or(Duration::from_secs(20)),
        ack_timeout: s
            .read("ack_timeout", duration(100..=HOUR))
            .unwrap_or(Duration::from_secs(60)),
        write_deadline: s
            .read("write_deadline", duration(100..=5 * MINUTE))
            .unwrap_or(Duration::from_secs(10)),
        queue: s.read("queue", count(1..=1024)).unwrap_or(64),
        channels: s.read("channels", count(0..=1024)).unwrap_or(32),
        data_rate: s.read("data_rate", size(1024..=GIB)).unwrap_or(MIB) as usize,
        failures_per_minute: failures(&mut s),
        tls: None,
    };
    let tls = s.read("tls", |field| Ok(tcp_tls(field.section()?, any_secret)));
    tcp.tls = tls.flatten();
    s.close();
    if let (false, false, Some(address)) = (any_secret, is_loopback(tcp.listen), &address) {
        address.refuse(Problem::Open(Open::Tcp));
    }
    if let (false, false, Some(ids)) = (any_secret, tcp.backends.is_empty(), &ids) {
        ids.warn(Odd::IdsWithoutSecrets);
    }
    tcp
}

/// Reads `[tcp.tls]`; `None` if it is not complete, which is noted.
fn tcp_tls(mut s: Section<'_>, any_secret: bool) -> Option<TcpTls> {
    let address = s.field("listen");
    if address.is_none() {
        s.refuse(
            "listen",
            Problem::Missing("where to listen, such as listen = \"127.0.0.1:7443\""),
        );
    }
    let files = tls_files(&mut s);
    s.close();
    let listen = read(&address, listen)?;
    // Sealed is not known: a certificate says who the relay is, not who comes.
    if let (false, false, Some(address)) = (any_secret, is_loopback(listen), &address) {
        address.refuse(Problem::Open(Open::Tcp));
    }
    Some(TcpTls {
        listen,
        files: files?,
    })
}

/// Reads `[delivery]`.
pub fn delivery(mut s: Section<'_>) -> Delivery {
    let deadline = s.field("ack_deadline");
    let delivery = Delivery {
        ack_deadline: read(&deadline, duration(50..=MINUTE)).unwrap_or(Duration::from_secs(4)),
        undelivered: s
            .read("undelivered", undelivered)
            .unwrap_or(Undelivered::Store),
        dedupe_window: s
            .read("dedupe_window", duration(MINUTE..=30 * DAY))
            .unwrap_or(Duration::from_millis(DAY)),
    };
    s.close();
    if let (true, Some(deadline)) = (delivery.ack_deadline > ACK_DEADLINE_ADVISED, &deadline) {
        deadline.warn(Odd::LateAnswer);
    }
    delivery
}

/// Reads `[outbox]`.
pub fn outbox(mut s: Section<'_>) -> Outbox {
    let path = s.read("path", file_name);
    let first = s.field("retry_first");
    let max = s.field("retry_max");
    let outbox = Outbox {
        path: path.unwrap_or_else(|| "data/outbox.db".into()),
        retry_first: read(&first, duration(100..=HOUR)).unwrap_or(Duration::from_secs(1)),
        retry_max: read(&max, duration(SECOND..=DAY)).unwrap_or(Duration::from_secs(300)),
        max_tries: s.read("max_tries", count(1..=1_000_000)).unwrap_or(100) as u32,
        redelivery_rate: s
            .read("redelivery_rate", count(1..=1_000_000))
            .unwrap_or(6_000) as u32,
        expire: s
            .read("expire", duration(MINUTE..=365 * DAY))
            .unwrap_or(Duration::from_millis(7 * DAY)),
        keep: s
            .read("keep", duration(0..=30 * DAY))
            .unwrap_or(Duration::from_millis(HOUR)),
        max_messages: s
            .read("max_messages", count(1..=100_000_000))
            .unwrap_or(1_000_000) as u64,
        max_bytes: s
            .read("max_bytes", size(MIB..=1024 * GIB))
            .unwrap_or(4 * GIB),
        max_log_bytes: s
            .read("max_log_bytes", size(32 * MIB..=64 * GIB))
            .unwrap_or(256 * MIB),
    };
    if let (true, Some(field)) = (outbox.retry_first > outbox.retry_max, max.or(first)) {
        field.refuse(Problem::RetryOrder);
    }
    s.close();
    outbox
}

/// Reads `[admin]`.
pub fn admin(mut s: Section<'_>) -> Admin {
    let address = s.field("listen");
    let token = s.field("token").map(Field::hide);
    let readers = s.field("read_tokens").map(Field::hide);
    let admin = Admin {
        listen: read(&address, listen).unwrap_or(loopback(9100)),
        token: read(&token, secret::token),
        read_tokens: read(&readers, read_tokens).unwrap_or_default(),
        nodes: s.read("nodes", nodes).unwrap_or_default(),
        keep_bodies: s.read("keep_bodies", size(0..=GIB)).unwrap_or(8 * MIB) as usize,
    };
    s.close();
    if let (None, false, Some(readers)) = (&token, admin.read_tokens.is_empty(), &readers) {
        readers.refuse(Problem::ReadersWithoutToken);
    }
    for reader in &admin.read_tokens {
        if let (Some(token), Some(field)) = (&admin.token, &readers)
            && *token == reader.token
        {
            field.refuse(Problem::SameToken);
        }
    }
    if let (None, false, Some(address)) = (&token, is_loopback(admin.listen), &address) {
        address.refuse(Problem::Open(Open::Admin));
    }
    admin
}

/// Reads `admin.read_tokens`.
fn read_tokens(field: &Field<'_>) -> Result<Vec<ReadToken>, Problem> {
    let mut readers: Vec<ReadToken> = Vec::new();
    for field in field.list("a list of tables", READ_TOKENS_MAX)? {
        let field = field.hide();
        let Some(mut s) = field.read(Field::section) else {
            continue;
        };
        let name = s.field("name");
        let token = s.field("token").map(Field::hide);
        let bodies = s.read("bodies", |field| field.flag()).unwrap_or(false);
        for (key, field, what) in [
            ("name", &name, "who holds it, such as name = \"support\""),
            ("token", &token, "make one with: openssl rand -hex 32"),
        ] {
            if field.is_none() {
                s.refuse(key, Problem::Missing(what));
            }
        }
        s.close();
        let (name, token) = (read(&name, holder), read(&token, secret::token));
        if let (Some(name), Some(token)) = (name, token) {
            if readers
                .iter()
                .any(|one| one.name == name || one.token == token)
            {
                field.refuse(Problem::SameToken);
            }
            readers.push(ReadToken {
                name,
                token,
                bodies,
            });
        }
    }
    Ok(readers)
}

fn holder(field: &Field<'_>) -> Result<String, Problem> {
    let name = field.text("a string")?;
    match BackendId::parse(name) {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err(Problem::HolderName),
    }
}

/// Reads `admin.nodes`.
fn nodes(field: &Field<'_>) -> Result<Vec<SocketAddr>, Problem> {
    let fields = field.list("a list of strings", NODES_MAX)?;
    let nodes = fields.iter().filter_map(|field| field.read(listen));
    Ok(nodes.collect())
}

/// Reads `[log]`.
pub fn log(mut s: Section<'_>) -> Log {
    let log = Log {
        level: s.read("level", level).unwrap_or(LevelFilter::Info),
        file: s.read("file", file_name),
    };
    s.close();
    log
}

fn read<T>(
    field: &Option<Field<'_>>,
    read: impl Fn(&Field<'_>) -> Result<T, Problem>,
) -> Option<T> {
    field.as_ref().and_then(|field| field.read(read))
}

fn backends(field: &Field<'_>) -> Result<Vec<BackendId>, Problem> {
    let mut ids = Vec::new();
    let mut seen: HashMap<BackendId, usize> = HashMap::new();
    for field in field.list("a list of strings", BACKENDS_MAX)? {
        let one =
            |field: &Field<'_>| BackendId::parse(field.text("a string")?).map_err(Problem::Backend);
        let Some(id) = field.read(one) else { continue };
        match seen.get(&id) {
            Some(&at) => field.refuse(field.again(at)),
            None => {
                seen.insert(id.clone(), field.at());
                ids.push(id);
            }
        }
    }
    Ok(ids)
}

fn undelivered(field: &Field<'_>) -> Result<Undelivered, Problem> {
    match field.text("a string")? {
        "refuse" => Ok(Undelivered::Refuse),
        "store" => Ok(Undelivered::Store),
        _ => Err(Problem::NotOneOf(&["store", "refuse"])),
    }
}

fn level(field: &Field<'_>) -> Result<LevelFilter, Problem> {
    match field.text("a string")? {
        "off" => Ok(LevelFilter::Off),
        "error" => Ok(LevelFilter::Error),
        "warn" => Ok(LevelFilter::Warn),
        "info" => Ok(LevelFilter::Info),
        "debug" => Ok(LevelFilter::Debug),
        "trace" => Ok(LevelFilter::Trace),
        _ => Err(Problem::NotOneOf(&[
            "off", "error", "warn", "info", "debug", "trace",
        ])),
    }
}

/// What is allowed here, and yet deserves a word.
enum Odd {
    IdsWithoutSecrets,
    LateAnswer,
    TrustedStrangers,
}

impl fmt::Display for Odd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::IdsWithoutSecrets => {
                "without tcp.secrets any program on this host can connect as any of these ids"
            }
            Self::TrustedStrangers => {
                "every address is trusted to say for whom it speaks, so anybody can pretend to be anybody; list the proxies alone"
            }
            Self::LateAnswer => {
                "above 4.5s some providers (WeChat Pay: 5 s) give up before the answer comes and send again"
            }
        })
    }
}
