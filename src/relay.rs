//! The only place that wires modules together: start order, stop order, reload.
//!
//! It starts from the inside out, so that nobody is let in before there is somebody to take care of them: bus, backends'
//! listener, HTTP workers and their link, then the providers. It stops the other way round. The fields of [`Relay`] stand in the
//! order in which they are dropped.

mod certificates;
mod core;
mod error;
mod ports;
mod vitals;

use std::fmt;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

pub use self::certificates::Certificates;
use self::core::Core;
pub use self::error::StartError;
use self::ports::Ports;
pub use self::vitals::{Condition, Vitals};
use crate::admin::Admin;
use crate::config::Config;
use crate::edge::{self, HttpListener, IDLE_MAX, ListenerLimits, Peers};
use crate::fds::{FdBudget, raise_limit};
use crate::heartbeat::Heartbeat;
use crate::http::{LINK_FDS, Pool, RequestHandler, Routes};
use crate::outbox::{Outbox, OutboxThreads};
use crate::session::token::Access;
use crate::session::{BackendListener, SessionContext};
use crate::systemd::Sockets;
use crate::tls::BadIdentity;

/// Descriptors kept for what takes no permit: the log and the configuration when they are opened again, figures read from
/// procfs, connections about to be refused.
const FDS_RESERVED: usize = 16;

/// Connections to the admin port: a scraper or two, a balancer's probes, a person.
const ADMIN_CONNECTIONS_MAX: usize = 16;

/// The admin port's own descriptors: whoever wants to know why nobody gets in must get in.
const ADMIN_FDS: usize = ADMIN_CONNECTIONS_MAX + 2;

/// What is open whatever is connected, but for the listener's and the link's.
const OWN_FDS: usize = FDS_RESERVED + ADMIN_FDS + OUTBOX_FDS;

/// The admin port takes no bodies to speak of.
const ADMIN_BODY_BYTES_MAX: usize = 512 * 1024;

/// The outbox's: three connections with two files each, what they share, the lock, and what SQLite opens for a moment.
const OUTBOX_FDS: usize = 12;

/// How much longer a connection waits for an answer than the delivery for an ACK, so that the delivery concludes first.
const ANSWER_GRACE: Duration = Duration::from_secs(5);

/// What is left of the drain's time to write the last answers.
const ANSWERS_NEED: Duration = Duration::from_secs(1);

/// How long backends that do not close by themselves keep the stopped relay, once nothing waits for them.
const GOOD_BYES_NEED: Duration = Duration::from_secs(1);

/// The relay, running. Dropping it stops it at once; [`Relay::drain`] stops it politely.
pub struct Relay {
    providers: Arc<HttpListener>,
    backends: BackendListener,
    admin: HttpListener,
    admin_handler: Arc<Admin>,
    // `None`: http.workers = 0.
    pool: Option<Pool>,
    handler: Arc<RequestHandler>,
    sessions: Arc<SessionContext>,
    certificates: Certificates,
    draining: Arc<AtomicBool>,
    vitals: Arc<Vitals>,
    outbox: Option<Arc<Outbox>>,
    // Until all of the above are closed somebody may tell what came of a notification.
    _outbox_threads: Option<OutboxThreads>,
    // Last: a thread that hangs is in the log at the stop, too.
    _heartbeat: Heartbeat,
}

impl Relay {
    /// Starts everything that `config` asks for. When it returns, every port is open and answers. A listener whose address is
    /// that of one of `sockets` takes that instead of opening its own.
    ///
    /// # Errors
    /// A port that is not to be had, one of `sockets` that no listener takes, or a system that is full.
    pub fn start(config: Config, sockets: Sockets) -> Result<Self, StartError> {
        let certificates = Certificates::load(&config).map_err(StartError::Tls)?;
        // All ports first: a relay that cannot open one of them should touch nothing else.
        let ports = Ports::open(&config, sockets)?;
        let fds = share_out_descriptors(&config);
        let heartbeat = Heartbeat::start().map_err(system("the heartbeat"))?;
        let (outbox_threads, core) = Core::start(&config, fds)?;

        let access = Arc::new(Access::new(&config.tcp));
        let handler = core.request_handler(&config, &access);
        let pool = core.start_workers(&config, &handler)?;
        let sessions = core.session_context(&config, access);
        let backends = core.start_backends(ports.tcp, ports.tcp_tls, &certificates, &sessions)?;
        let providers =
            core.start_providers(&config, ports.http, &certificates, &handler, &pool)?;

        let draining = Arc::new(AtomicBool::new(false));
        let vitals = core.vitals(&draining);
        let admin_handler = core.admin_handler(&config, &vitals, &certificates, &providers);
        let admin = start_admin(&config, ports.admin, &admin_handler)?;
        Ok(Self {
            providers,
            backends,
            admin,
            admin_handler,
            pool,
            handler,
            sessions,
            certificates,
            draining,
            vitals,
            outbox: core.outbox,
            _outbox_threads: outbox_threads,
            _heartbeat: heartbeat,
        })
    }

    /// One line that says where everything listens; ports that the system chose are in it.
    pub fn ready_line(&self) -> String {
        let mut line = format!(
            "ready node={} http={} tcp={} admin={}",
            self.sessions.instance,
            self.providers.addr(),
            self.backends.addr(),
            self.admin.addr()
        );
        if let Some(sealed) = self.backends.tls_addr() {
            line.push_str(&format!(" tcp.tls={sealed}"));
        }
        line
    }

    /// What can be asked how the relay is, for as long as it runs.
    pub fn vitals(&self) -> Arc<Vitals> {
        Arc::clone(&self.vitals)
    }

    /// Takes over what can change while running: routes, secrets, allowed ids, the admin token, certificates.
    ///
    /// Sessions stay: a secret that is gone is asked for at the next HELLO. Requests under way keep the routes they came by.
    ///
    /// Gives back the certificates and keys that cannot be taken: those in use stay. Everything else is taken over all the same.
    pub fn reload(&self, config: &Config) -> Vec<BadIdentity> {
        let access = Arc::new(Access::new(&config.tcp));
        let routes = Arc::new(Routes::new(&config.routes, &self.handler.metrics));
        *self.sessions.access.write() = Arc::clone(&access);
        *self.handler.access.write() = access;
        *self.handler.routes.write() = routes;
        self.providers.set_peers(peers(config));
        let (http, tcp) = (&config.http, &config.tcp);
        self.handler.failures.set_most(http.failures_per_minute);
        self.sessions.failures.set_most(tcp.failures_per_minute);
        self.admin_handler.set(config);
        let reloaded = self.certificates.reload(config).into_iter();
        reloaded.filter_map(Result::err).collect()
    }

    /// Stops politely: `/readyz` turns red, no new requests, BYE to every backend, and what is in flight finishes; at
    /// `deadline` at the latest.
    pub fn drain(self, deadline: Instant) {
        self.draining.store(true, Ordering::Relaxed);
        let waiting = self.handler.delivery.in_flight();
        log::info!("draining: {waiting} notifications wait for their ACK");
        self.providers.close();
        if let Some(outbox) = &self.outbox {
            outbox.pause();
        }
        self.handler.delivery.begin_drain();
        self.backends.drain();
        let concluded = self.handler.delivery.wait_empty(deadline - ANSWERS_NEED);
        if !concluded {
            // A wait longer than the drain: better told something now than cut off without an answer.
            let given_up = self.handler.delivery.give_up();
            log::warn!(
                "the drain's time is up; {given_up} notifications are undelivered: stored, or answered fail"
            );
            // What is stored is answered after its sync.
            self.handler.delivery.wait_empty(deadline);
        }
        let answered = self.providers.wait_empty(deadline);
        // Nobody waits for a backend's ACK any more; it only gets the time to read BYE.
        let parted = self
            .backends
            .wait_empty(deadline.min(Instant::now() + GOOD_BYES_NEED));
        log::info!("drained");
        if !answered || !parted {
            log::info!("connections that were not closed by their peers are cut");
        }
    }
}

impl fmt::Debug for Relay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Relay({}, {:?})", self.ready_line(), self.pool)
    }
}

fn peers(config: &Config) -> Peers {
    Peers {
        allow: config.http.allow.clone(),
        trusted_proxies: config.http.trusted_proxies.clone(),
        proxy_protocol: config.http.proxy_protocol,
    }
}

/// Asks the system for as many descriptors as the configured maxima can use, and shares out what it gives.
fn share_out_descriptors(config: &Config) -> FdBudget {
    let wanted = config.http.max_connections
        + edge::OWN_FDS
        + LINK_FDS
        + 2 * config.tcp.max_connections
        + OWN_FDS
        + FDS_RESERVED;
    let granted = raise_limit(wanted as u64);
    if granted < wanted as u64 {
        log::warn!(
            "this process may open {granted} files, and the configured maxima need {wanted}: \
             connections beyond that are refused; raise LimitNOFILE (ulimit -n) or lower tcp.max_connections"
        );
    }
    FdBudget::for_process(OWN_FDS)
}

/// Opens the admin port.
fn start_admin(
    config: &Config,
    port: TcpListener,
    handler: &Arc<Admin>,
) -> Result<HttpListener, StartError> {
    let limits = ListenerLimits {
        max_connections: ADMIN_CONNECTIONS_MAX,
        // An import carries bodies in base 64.
        max_body: ADMIN_BODY_BYTES_MAX + 2 * config.http.max_body,
        request_deadline: config.http.request_deadline,
        answer_deadline: config.delivery.ack_deadline + ANSWER_GRACE,
        idle_max: IDLE_MAX,
    };
    let fds = FdBudget::with(ADMIN_FDS);
    let handler = Arc::clone(handler) as _;
    HttpListener::start("admin", port, limits, fds, handler, Arc::new(()))
        .map_err(system("the admin listener"))
}

/// The system has no room for `what`.
fn system(what: &'static str) -> impl FnOnce(io::Error) -> StartError {
    move |error| StartError::System(what, error)
}
