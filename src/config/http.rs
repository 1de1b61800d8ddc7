//! `[http]`: where providers post, and who may.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::address::{listen, loopback};
use super::declare::{live, restart, section};
use super::reader::{Field, Section};
use super::units::{HOUR, MIB, MINUTE, SECOND};
use super::values::{count, duration, file_name, networks, size, table};
use crate::peers::Networks;

section! {
    /// `[http]`
    pub struct HttpConfig in "http" {
        /// Where to listen; port 0 lets the system choose.
        listen: SocketAddr = loopback(8080), listen, restart;
        /// Threads of the tiny_http pool, which judge requests; 0: the connections' own threads do.
        workers: usize = 0, count(0..=64), restart;
        /// The largest body taken, in bytes; larger is answered 413.
        max_body: usize = MIB as usize, size(1..=64 * MIB), restart;
        /// The most connections at once; at the cap the one that has waited longest for a whole request makes room.
        max_connections: usize = 1024, count(1..=65536), restart;
        /// The most notifications that wait for their ACK; beyond it they are undelivered: stored, or refused.
        max_in_flight: usize = 256, count(1..=4096), restart;
        /// From a request's first byte to its last.
        request_deadline: Duration = Duration::from_secs(10), duration(100..=5 * MINUTE), restart;
        /// How long a kept connection may be idle between two requests.
        idle: Duration = Duration::from_secs(60), duration(SECOND..=HOUR), restart;
        /// Certificate and key; `None`: providers come in the clear.
        tls: Option<TlsFiles> = None, table(tls_files), files;
        /// Where requests may come from; none: from anywhere.
        allow: Networks = Networks::default(), networks, live;
        /// Failed signatures that a peer may have within a minute before it is answered 429.
        failures_per_minute: u32 = 60, count(1..=1_000_000), live;
        /// The proxies that are believed when they say for whom they speak.
        trusted_proxies: Networks = Networks::default(), networks, live;
        /// Each connection of a trusted proxy begins with a PROXY header; otherwise it says `X-Forwarded-For`.
        proxy_protocol: bool = false, Field::flag, live;
    }
}

/// `tls = { cert = "…", key = "…" }`: where a listener's certificate and its key are, in PEM.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate and those that lead from it to an authority, in this order.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
}

/// Reads `[http]`; `has_redis`: there is `[redis]`.
pub fn http(mut s: Section<'_>, has_redis: bool) -> HttpConfig {
    let mut http = HttpConfig::read(&mut s);
    if s.field("workers").is_none() {
        http.workers = workers_default(has_redis);
    }
    let trusted = s.field("trusted_proxies");
    let everybody = [Ipv4Addr::UNSPECIFIED.into(), Ipv6Addr::UNSPECIFIED.into()];
    if let Some(field) = &trusted
        && everybody
            .iter()
            .any(|ip| http.trusted_proxies.contains(*ip))
    {
        field.warn(
            "every address is trusted to say for whom it speaks, so anybody can pretend to be anybody; list the proxies alone",
        );
    }
    if let (true, None, Some(field)) = (http.proxy_protocol, trusted, s.field("proxy_protocol")) {
        field.refuse(
            "without http.trusted_proxies nobody's PROXY header is believed; list the proxy's address there",
        );
    }
    s.close();
    http
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

/// Reads where a certificate and its key are; `None` if either is missing or wrong, which is noted.
pub fn tls_files(s: &mut Section<'_>) -> Option<TlsFiles> {
    let what = "the certificate's file, such as cert = \"fullchain.pem\"";
    let cert = s.required("cert", what, file_name);
    let what = "the private key's file, such as key = \"privkey.pem\"";
    let key = s.required("key", what, file_name);
    Some(TlsFiles {
        cert: cert?,
        key: key?,
    })
}

/// Other files are taken over, but not whether there are any: that is the listener's.
fn files(
    key: &'static str,
    mine: &mut Option<TlsFiles>,
    new: &Option<TlsFiles>,
    left: &mut Vec<&'static str>,
) {
    match mine.is_some() == new.is_some() {
        true => mine.clone_from(new),
        false => left.push(key),
    }
}
