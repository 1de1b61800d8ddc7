//! `[tcp]` and `[tcp.tls]`: where backends connect, and who may.

use std::net::SocketAddr;
use std::time::Duration;

use super::address::{is_loopback, listen, loopback};
use super::declare::{live, restart, section};
use super::http::{TlsFiles, tls_files};
use super::reader::Section;
use super::secret::{self, Secret};
use super::units::{GIB, HOUR, MIB, MINUTE};
use super::values::{backend_id, count, distinct, duration, size, table};
use crate::notification::BackendId;

section! {
    /// `[tcp]`
    pub struct TcpConfig in "tcp" {
        /// Where to listen; port 0 lets the system choose.
        listen: SocketAddr = loopback(7000), listen, restart;
        /// The most sessions at once.
        max_connections: usize = 10_000, count(1..=100_000), restart;
        /// Keys of the backends' tokens; the first signs, any verifies. Empty: tokens are ignored (loopback only).
        secrets: Vec<Secret> = Vec::new(), secret::list, live;
        /// The ids that may connect; empty: any.
        backends: Vec<BackendId> = Vec::new(), distinct(BACKENDS_MAX, backend_id), live;
        /// From accept to a whole HELLO.
        hello_deadline: Duration = Duration::from_secs(5), duration(100..=MINUTE), restart;
        /// Silence after which the relay sends PING; 2.5 of them with nothing in flight end the session.
        heartbeat: Duration = Duration::from_secs(30), duration(100..=10 * MINUTE), restart;
        /// How long one MSG may stay unacknowledged before the session forgets it; TOUCH restarts it.
        ack_timeout: Duration = Duration::from_secs(60), duration(100..=HOUR), restart;
        /// How long a peer may accept no byte before it is cut.
        write_deadline: Duration = Duration::from_secs(10), duration(100..=5 * MINUTE), restart;
        /// Notifications that may wait for one session beyond its credit.
        queue: usize = 64, count(1..=1024), restart;
        /// Channels that one session may listen to.
        channels: usize = 32, count(0..=1024), restart;
        /// Bytes of SEND and PUB that one session may send in a second.
        data_rate: usize = MIB as usize, size(1024..=GIB), restart;
        /// Failed HELLOs that a peer may have within a minute before it is told `limit`.
        failures_per_minute: u32 = 60, count(1..=1_000_000), live;
        /// `[tcp.tls]`: the second listener, behind which everything is sealed.
        tls: Option<TcpTls> = None, table(tcp_tls), tls_files_only;
    }
}

/// `[tcp.tls]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TcpTls {
    /// Where to listen; port 0 lets the system choose.
    pub listen: SocketAddr,
    /// Certificate and key.
    pub files: TlsFiles,
}

/// The most ids in `tcp.backends`.
const BACKENDS_MAX: usize = 100_000;

/// Reads `[tcp]`.
pub fn tcp(mut s: Section<'_>) -> TcpConfig {
    let tcp = TcpConfig::read(&mut s);
    // Be they right or wrong: one error is enough.
    let any_secret = s
        .field("secrets")
        .is_some_and(|field| !field.is_empty_list());
    if !any_secret {
        // Encryption does not say who a backend is, so [tcp.tls] needs secrets as well.
        for field in [s.field("listen"), s.find("tls.listen")].iter().flatten() {
            if listen(field).is_ok_and(|address| !is_loopback(address)) {
                field.refuse(
                    "not a loopback address, and tcp.secrets is empty, so anybody could connect as any backend; \
                     add secrets = [\"…\"] to [tcp] (make one with: openssl rand -hex 32) or listen on 127.0.0.1",
                );
            }
        }
        if let (false, Some(ids)) = (tcp.backends.is_empty(), s.field("backends")) {
            ids.warn(
                "without tcp.secrets any program on this host can connect as any of these ids",
            );
        }
    }
    s.close();
    tcp
}

/// Reads `[tcp.tls]`; `None` if it is not complete, which is noted.
fn tcp_tls(s: &mut Section<'_>) -> Option<TcpTls> {
    let what = "where to listen, such as listen = \"127.0.0.1:7443\"";
    let listen = s.required("listen", what, listen);
    let files = tls_files(s);
    Some(TcpTls {
        listen: listen?,
        files: files?,
    })
}

/// Other files are taken over; where to listen, and whether to, is not.
fn tls_files_only(
    _: &'static str,
    mine: &mut Option<TcpTls>,
    new: &Option<TcpTls>,
    left: &mut Vec<&'static str>,
) {
    let listen = |tls: &Option<TcpTls>| tls.as_ref().map(|tls| tls.listen);
    if listen(mine) != listen(new) {
        left.push("tcp.tls.listen");
    }
    if let (Some(mine), Some(new)) = (mine, new) {
        mine.files.clone_from(&new.files);
    }
}
