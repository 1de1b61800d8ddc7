//! What a running relay can take over from a changed file, and what it cannot.

use std::fmt;

use super::Config;
use super::address::is_loopback;

/// A running relay's configuration after a reload.
#[derive(Clone, Debug)]
pub struct Reloaded {
    /// The configuration in force from now on: what can change is the new file's, the rest as before.
    pub config: Config,
    /// What the new file changes and only a restart can take over, each as `needs a restart: http.listen`.
    pub needs_restart: Vec<String>,
}

/// Why nothing of a new file was taken over.
///
/// The new file keeps promise 7 (nobody in by default) for the listeners that it names. The sockets that are open now are
/// others, and for those it would be broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReloadRefused {
    /// The file has no `tcp.secrets`, and backends connect to an address that is not loopback.
    TcpWouldBeOpen,
    /// The file moves `http.listen` to loopback, where unverified routes need no leave; the open socket is not there.
    HttpWouldBeOpen,
    /// The file has no `admin.token`, and the admin address is not loopback.
    AdminWouldBeOpen,
}

impl fmt::Display for ReloadRefused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::TcpWouldBeOpen => {
                "the new file has no tcp.secrets, and the TCP listener that is open is not on loopback; \
                 nothing was changed, restart to move it"
            }
            Self::HttpWouldBeOpen => {
                "the new file moves http.listen to loopback, and its routes were only checked for there; \
                 nothing was changed, restart to move it"
            }
            Self::AdminWouldBeOpen => {
                "the new file has no admin.token, and the admin listener that is open is not on loopback; \
                 nothing was changed, restart to move it"
            }
        })
    }
}

impl std::error::Error for ReloadRefused {}

impl Config {
    /// What a relay that runs with `self` shall run with when its file has become `new`.
    ///
    /// Taken over while running: the routes, `tcp.secrets`, `tcp.backends`, the files of `http.tls` and
    /// `tcp.tls`, who may come and how often they may fail, `log`, `admin.token`, `admin.read_tokens` and `admin.nodes` (and the warnings). Everything else stays as it is and is listed.
    ///
    /// # Errors
    /// The new keys would let anybody in through a listener that is open now. Then nothing is taken over.
    pub fn reload(&self, new: &Config) -> Result<Reloaded, ReloadRefused> {
        let open = |listen| !is_loopback(listen);
        let sealed = self.tcp.tls.as_ref().map(|tls| tls.listen);
        if (open(self.tcp.listen) || sealed.is_some_and(open)) && new.tcp.secrets.is_empty() {
            return Err(ReloadRefused::TcpWouldBeOpen);
        }
        if open(self.http.listen) && !open(new.http.listen) {
            return Err(ReloadRefused::HttpWouldBeOpen);
        }
        if open(self.admin.listen) && new.admin.token.is_none() {
            return Err(ReloadRefused::AdminWouldBeOpen);
        }
        let mut config = self.clone();
        config.routes.clone_from(&new.routes);
        config.tcp.secrets.clone_from(&new.tcp.secrets);
        config.tcp.backends.clone_from(&new.tcp.backends);
        if config.http.tls.is_some() && new.http.tls.is_some() {
            config.http.tls.clone_from(&new.http.tls);
        }
        config.http.allow.clone_from(&new.http.allow);
        let proxies = &new.http.trusted_proxies;
        config.http.trusted_proxies.clone_from(proxies);
        config.http.proxy_protocol = new.http.proxy_protocol;
        config.http.failures_per_minute = new.http.failures_per_minute;
        config.tcp.failures_per_minute = new.tcp.failures_per_minute;
        if let (Some(mine), Some(new)) = (&mut config.tcp.tls, &new.tcp.tls) {
            mine.files.clone_from(&new.files);
        }
        config.log.clone_from(&new.log);
        config.admin.token.clone_from(&new.admin.token);
        config.admin.read_tokens.clone_from(&new.admin.read_tokens);
        config.admin.nodes.clone_from(&new.admin.nodes);
        config.warnings.clone_from(&new.warnings);
        let needs_restart = config
            .differences(new)
            .into_iter()
            .map(|key| format!("needs a restart: {key}"))
            .collect();
        Ok(Reloaded {
            config,
            needs_restart,
        })
    }

    /// The keys outside what a reload takes over in which `self` and `new` differ.
    fn differences(&self, new: &Config) -> Vec<&'static str> {
        // Taken apart without `..`: whoever adds a key must say here, or above, what a reload does with it.
        let Config {
            node,
            http,
            tcp,
            delivery,
            outbox,
            redis,
            admin,
            log: _,
            routes: _,
            warnings: _,
        } = self;
        let super::Http {
            listen: http_listen,
            workers,
            max_body,
            max_connections: http_connections,
            max_in_flight,
            request_deadline,
            tls: http_tls,
            allow: _,
            trusted_proxies: _,
            proxy_protocol: _,
            failures_per_minute: _,
        } = http;
        let super::Tcp {
            listen: tcp_listen,
            max_connections: tcp_connections,
            secrets: _,
            backends: _,
            hello_deadline,
            heartbeat,
            ack_timeout,
            write_deadline,
            queue,
            channels,
            data_rate,
            failures_per_minute: _,
            tls: tcp_tls,
        } = tcp;
        let listens = |tls: &Option<super::TcpTls>| tls.as_ref().map(|tls| tls.listen);
        let super::Delivery {
            ack_deadline,
            undelivered,
            dedupe_window,
        } = delivery;
        let super::Admin {
            listen: admin_listen,
            token: _,
            read_tokens: _,
            nodes: _,
            keep_bodies,
        } = admin;
        [
            ("node", *node != new.node),
            ("http.listen", *http_listen != new.http.listen),
            ("http.workers", *workers != new.http.workers),
            ("http.max_body", *max_body != new.http.max_body),
            (
                "http.max_connections",
                *http_connections != new.http.max_connections,
            ),
            (
                "http.max_in_flight",
                *max_in_flight != new.http.max_in_flight,
            ),
            (
                "http.request_deadline",
                *request_deadline != new.http.request_deadline,
            ),
            // Other files are taken over, but not whether there are any: that is the listener's.
            ("http.tls", http_tls.is_some() != new.http.tls.is_some()),
            ("tcp.listen", *tcp_listen != new.tcp.listen),
            (
                "tcp.max_connections",
                *tcp_connections != new.tcp.max_connections,
            ),
            (
                "tcp.hello_deadline",
                *hello_deadline != new.tcp.hello_deadline,
            ),
            ("tcp.heartbeat", *heartbeat != new.tcp.heartbeat),
            ("tcp.ack_timeout", *ack_timeout != new.tcp.ack_timeout),
            (
                "tcp.write_deadline",
                *write_deadline != new.tcp.write_deadline,
            ),
            ("tcp.queue", *queue != new.tcp.queue),
            ("tcp.channels", *channels != new.tcp.channels),
            ("tcp.data_rate", *data_rate != new.tcp.data_rate),
            ("tcp.tls.listen", listens(tcp_tls) != listens(&new.tcp.tls)),
            (
                "delivery.ack_deadline",
                *ack_deadline != new.delivery.ack_deadline,
            ),
            (
                "delivery.undelivered",
                *undelivered != new.delivery.undelivered,
            ),
            (
                "delivery.dedupe_window",
                *dedupe_window != new.delivery.dedupe_window,
            ),
            ("outbox", *outbox != new.outbox),
            ("redis", *redis != new.redis),
            ("admin.listen", *admin_listen != new.admin.listen),
            ("admin.keep_bodies", *keep_bodies != new.admin.keep_bodies),
        ]
        .into_iter()
        .filter_map(|(key, differs)| differs.then_some(key))
        .collect()
    }
}
