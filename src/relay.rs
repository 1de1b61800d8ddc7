//! The only file that wires rooms together: start order, stop order, reload.
//!
//! It starts from the inside out, so that nobody is let in before there is somebody to take care of them: bus, backends'
//! listener, HTTP workers and their link, then the providers. It stops the other way round. The fields of [`Relay`] stand in the
//! order in which they are dropped.

mod certificates;
mod error;
mod vitals;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use parking_lot::{Mutex, RwLock};

pub use self::certificates::Certificates;
pub use self::error::StartError;
pub use self::vitals::{Condition, Vitals};
use crate::admin::{Admin, Sources};
use crate::bus::Hub;
use crate::bus::{AckTimes, Arrivals, Bus, Events, MemoryBus, RedisBus, Sessions};
use crate::config::{Config, UndeliveredPolicy};
use crate::delivery::{self, Delivery, EVENTS_MAX};
use crate::dispatcher::Dispatcher;
use crate::edge::{
    self, BoundListener, HttpListener, IDLE_MAX, ListenerLimits, Peers, Watcher, adopt, listen,
};
use crate::fds::{FdBudget, raise_limit};
use crate::heartbeat::{self, Heartbeat};
use crate::http::{HandOver, LINK_FDS, Pool, RequestHandler, Routes};
use crate::log_once::LogOncePer;
use crate::logging::lost_lines;
use crate::metrics::{Metrics, Readings};
use crate::notification::IdMint;
use crate::outbox::{self, Inbox, Outbox, OutboxThreads, SharedLink};
use crate::peers::Failures;
use crate::session::token::Access;
use crate::session::{BackendListener, NewSessions, Registry, SessionContext};
use crate::systemd::Sockets;
use crate::tls::BadIdentity;
use crate::trace::Trace;

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

/// How much longer than `delivery.ack_deadline` an event is one node's before another may have it: to store what was not
/// acknowledged, and for the word of it to reach Redis.
const CLAIM_GRACE: Duration = Duration::from_secs(5);

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
    // Until all rooms above are closed somebody may tell what came of a notification.
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
    pub fn start(config: Config, mut sockets: Sockets) -> Result<Self, StartError> {
        let system = |what| move |error| StartError::System(what, error);
        let certificates = Certificates::load(&config).map_err(StartError::Tls)?;
        // All ports first: a relay that cannot open one of them should touch nothing else.
        let mut open = |key, addr| open(key, addr, &mut sockets);
        let tcp = open("tcp.listen", config.tcp.listen)?;
        let sealed = config.tcp.tls.as_ref();
        let sealed = sealed
            .map(|tls| open("tcp.tls.listen", tls.listen))
            .transpose()?;
        let http = open("http.listen", config.http.listen)?;
        let admin = open("admin.listen", config.admin.listen)?;
        if let Some(addr) = sockets.left().next() {
            return Err(StartError::NoListener(addr));
        }
        let fds = share_out_descriptors(&config);

        let heartbeat = Heartbeat::start().map_err(system("the heartbeat"))?;
        let random = random().map_err(system("the random generator"))?;
        let instance = format!("{}-{:06x}", config.node, random >> 40);
        let metrics = Arc::new(Metrics::new());
        let registry = Arc::new(Registry::default());
        let hub = Arc::new(Hub::default());
        let inbox = Arc::new(Inbox::default());
        let arrivals = Arc::clone(&inbox) as Arc<dyn Arrivals>;
        let (bus, store_link) = start_bus(&config, &instance, &registry, &hub, arrivals, &metrics)?;
        let dispatcher = Dispatcher::new(Arc::clone(&registry), Arc::clone(&bus) as _);
        let events = Events::new(hub, Arc::clone(&bus), config.http.max_body);
        let access = Arc::new(Access::new(&config.tcp));
        let draining = Arc::new(AtomicBool::new(false));

        let opened = open_outbox(&config, inbox, &dispatcher, &metrics, store_link)?;
        let (outbox, works) = match opened {
            Some((outbox, works)) => (Some(outbox), Some(works)),
            None => (None, None),
        };
        let trace = Arc::new(Trace::new(config.admin.keep_bodies));
        let stores = config.delivery.undelivered == UndeliveredPolicy::Store;
        let delivery = Delivery::start(delivery::DeliveryOptions {
            dispatcher,
            ack_deadline: config.delivery.ack_deadline,
            in_flight_max: config.http.max_in_flight,
            outbox: outbox.clone().filter(|_| stores),
            dedupe_window: config.delivery.dedupe_window,
            dedupe_store: bus.dedupe_store(config.delivery.ack_deadline + CLAIM_GRACE),
            trace: Arc::clone(&trace),
            metrics: Arc::clone(&metrics),
        });
        let delivery = Arc::new(delivery.map_err(system("the deadline timer"))?);
        if let Some(outbox) = &outbox {
            let window = config.delivery.dedupe_window;
            let known = outbox.keys(window, EVENTS_MAX, |key, name, age| {
                delivery.remember(key, name, age)
            });
            if let Err(error) = known {
                log::error!("{error}; retries of what is in it will be delivered again");
            }
        }

        let handler = Arc::new(RequestHandler {
            routes: RwLock::new(Arc::new(Routes::new(&config.routes, &metrics))),
            access: RwLock::new(Arc::clone(&access)),
            failures: Failures::new(config.http.failures_per_minute),
            suspect: Mutex::default(),
            refused: LogOncePer::default(),
            delivery: Arc::clone(&delivery),
            mint: IdMint::new(random),
            metrics: Arc::clone(&metrics),
        });
        let pool = match config.http.workers {
            0 => None,
            count => Some(Pool::start(count, &handler, &fds).map_err(StartError::Pool)?),
        };
        let hand_over = Arc::new(match &pool {
            None => HandOver::Inline(Arc::clone(&handler)),
            Some(pool) => HandOver::ToWorkers(Arc::clone(pool.link()), Arc::clone(&handler)),
        });
        let refusals: Arc<dyn Watcher> = Arc::new(Refusals(Arc::clone(&metrics)));

        let sessions = Arc::new(SessionContext {
            registry: Arc::clone(&registry),
            newcomers: NewSessions::default(),
            bus: Arc::clone(&bus),
            events,
            mint: IdMint::new(random.rotate_left(32)),
            access: RwLock::new(access),
            tcp: config.tcp.clone(),
            ack_deadline: config.delivery.ack_deadline,
            failures: Failures::new(config.tcp.failures_per_minute),
            max_body: config.http.max_body,
            instance: instance.clone(),
            metrics: Arc::clone(&metrics),
        });
        let sealed = sealed.zip(certificates.tcp());
        let backends = BackendListener::open(tcp, sealed, Arc::clone(&sessions), fds.clone())
            .map_err(system("the listener for backends"))?;

        let providers = HttpListener::start(
            "http",
            BoundListener {
                listener: http,
                tls: certificates.http(),
                peers: peers(&config),
            },
            ListenerLimits {
                max_connections: config.http.max_connections,
                max_body: config.http.max_body,
                request_deadline: config.http.request_deadline,
                answer_deadline: config.delivery.ack_deadline + ANSWER_GRACE,
                idle_max: config.http.idle,
            },
            fds.clone(),
            hand_over,
            refusals,
        )
        .map(Arc::new)
        .map_err(system("the providers' listener"))?;

        let connections = Arc::downgrade(&providers); // the admin port must not keep the listener open
        let (waiting, budget) = (Arc::clone(&delivery), fds.clone());
        let vitals = Vitals::new(
            Arc::clone(&draining),
            Arc::clone(&bus),
            outbox.clone(),
            Arc::clone(&registry),
        );
        let vitals = Arc::new(vitals);
        let (asking, counting) = (Arc::clone(&vitals), outbox.clone());
        let (asked_too, shown) = (Arc::clone(&vitals), certificates.clone());
        let sources = Sources {
            outbox: outbox.clone(),
            trace,
            registry: Arc::clone(&registry),
            delivery: Arc::clone(&delivery),
        };
        let hearing = Arc::clone(&bus);
        let admin_handler = Arc::new(Admin::new(
            instance,
            &config,
            metrics,
            Box::new(move || asking.not_ready()),
            Box::new(move || Readings {
                queue_depth: registry.waiting(),
                http_connections: connections
                    .upgrade()
                    .map_or(0, |listener| listener.connections()),
                http_in_flight: waiting.in_flight(),
                fd_budget_free: budget.free(),
                fd_budget: budget.total(),
                log_lines_lost: lost_lines(),
                threads: heartbeat::threads(),
                ready: asked_too.not_ready().is_empty(),
                certificates: shown.not_after(),
                outbox: counting.as_ref().map(|outbox| outbox.readings()),
                bus: hearing.readings(),
            }),
            bus,
            sources,
        ));
        let admin = HttpListener::start(
            "admin",
            admin,
            ListenerLimits {
                max_connections: ADMIN_CONNECTIONS_MAX,
                // An import carries bodies in base 64.
                max_body: ADMIN_BODY_BYTES_MAX + 2 * config.http.max_body,
                request_deadline: config.http.request_deadline,
                answer_deadline: config.delivery.ack_deadline + ANSWER_GRACE,
                idle_max: IDLE_MAX,
            },
            FdBudget::with(ADMIN_FDS),
            Arc::clone(&admin_handler) as _,
            Arc::new(()),
        )
        .map_err(system("the admin listener"))?;

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
            outbox,
            _outbox_threads: works,
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

/// The bus that the configuration asks for. It hears before anybody is let in.
fn start_bus(
    config: &Config,
    instance: &str,
    registry: &Arc<Registry>,
    hub: &Arc<Hub>,
    arrivals: Arc<dyn Arrivals>,
    metrics: &Metrics,
) -> Result<(Arc<dyn Bus>, Option<SharedLink>), StartError> {
    let sessions = Arc::clone(registry) as Arc<dyn Sessions>;
    let hub = Arc::clone(hub);
    let Some(redis) = &config.redis else {
        metrics.bus().up(true);
        let bus = MemoryBus::new(instance.to_owned(), sessions, hub, arrivals);
        return Ok((Arc::new(bus), None));
    };
    let bus = RedisBus::start(
        redis,
        instance,
        AckTimes {
            timeout: config.tcp.ack_timeout,
            deadline: config.delivery.ack_deadline,
        },
        sessions,
        hub,
        arrivals,
        metrics.bus(),
    );
    let bus = bus.map_err(StartError::Bus)?;
    let shared = SharedLink {
        link: bus.store_link(),
        node: config.node.clone(),
    };
    Ok((Arc::new(bus), Some(shared)))
}

fn peers(config: &Config) -> Peers {
    Peers {
        allow: config.http.allow.clone(),
        trusted_proxies: config.http.trusted_proxies.clone(),
        proxy_protocol: config.http.proxy_protocol,
    }
}

fn open(
    key: &'static str,
    addr: SocketAddr,
    sockets: &mut Sockets,
) -> Result<TcpListener, StartError> {
    let listener = match sockets.take(addr) {
        Some(listener) => adopt(listener),
        None => listen(addr),
    };
    listener.map_err(|error| StartError::Listen(key, addr, error))
}

/// The outbox, if undelivered notifications go there, or if some that went there once are waiting still.
fn open_outbox(
    config: &Config,
    inbox: Arc<Inbox>,
    dispatcher: &Dispatcher,
    metrics: &Arc<Metrics>,
    shared: Option<SharedLink>,
) -> Result<Option<(Arc<Outbox>, OutboxThreads)>, StartError> {
    match config.delivery.undelivered {
        UndeliveredPolicy::Store => {}
        // They were answered ok, so they are delivered, whatever becomes of new ones.
        UndeliveredPolicy::Refuse if Outbox::is_at(&config.outbox.path) => {}
        UndeliveredPolicy::Refuse => return Ok(None),
    }
    let options = outbox::OutboxOptions {
        config: config.outbox.clone(),
        patience: config.tcp.ack_timeout,
        queue: config.http.max_in_flight,
        inbox,
        dispatcher: dispatcher.clone(),
        metrics: Arc::clone(metrics),
        shared,
    };
    Outbox::open(options).map(Some).map_err(StartError::Outbox)
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

fn random() -> io::Result<u64> {
    let mut bytes = [0; 8];
    SystemRandom::new()
        .fill(&mut bytes)
        .map_err(|_| io::Error::other("the system gives no random bytes"))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Counts what the HTTP front end refuses.
struct Refusals(Arc<Metrics>);

impl Watcher for Refusals {
    fn refused(&self, reason: &'static str) {
        self.0.http_refused(reason);
    }
}
