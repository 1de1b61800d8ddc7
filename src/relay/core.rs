//! What stands behind the listeners: bus, outbox, delivery, and what they share; and what each listener is given of it.

use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use aws_lc_rs::rand::{SecureRandom, SystemRandom};
use parking_lot::{Mutex, RwLock};

use super::{ANSWER_GRACE, Certificates, StartError, Vitals, peers, system};
use crate::admin::{Admin, ReadNow, Sources};
use crate::bus::{AckTimes, Arrivals, Bus, Events, Hub, MemoryBus, RedisBus, Sessions};
use crate::config::{Config, UndeliveredPolicy};
use crate::delivery::{self, Delivery, EVENTS_MAX};
use crate::dispatcher::Dispatcher;
use crate::edge::{BoundListener, HttpListener, ListenerLimits, Watcher};
use crate::fds::FdBudget;
use crate::heartbeat;
use crate::http::{HandOver, Pool, RequestHandler, Routes};
use crate::log_once::LogOncePer;
use crate::logging::lost_lines;
use crate::metrics::{Metrics, Readings};
use crate::notification::IdMint;
use crate::outbox::{self, Inbox, Outbox, OutboxThreads, SharedLink};
use crate::peers::Failures;
use crate::session::token::Access;
use crate::session::{BackendListener, NewSessions, Registry, SessionContext};
use crate::trace::Trace;

/// How much longer than `delivery.ack_deadline` an event is one node's before another may have it: to store what was not
/// acknowledged, and for the word of it to reach Redis.
const CLAIM_GRACE: Duration = Duration::from_secs(5);

/// What all listeners share.
pub struct Core {
    /// The node's name, and what tells this start of it from others.
    instance: String,
    random: u64,
    metrics: Arc<Metrics>,
    registry: Arc<Registry>,
    hub: Arc<Hub>,
    bus: Arc<dyn Bus>,
    pub outbox: Option<Arc<Outbox>>,
    trace: Arc<Trace>,
    delivery: Arc<Delivery>,
    fds: FdBudget,
}

impl Core {
    /// Starts the bus, the outbox and the deliveries. Until all else has ended, somebody may tell the outbox's threads what came of
    /// a notification.
    ///
    /// # Errors
    /// Redis or the outbox cannot be used, or the system is full.
    pub fn start(
        config: &Config,
        fds: FdBudget,
    ) -> Result<(Option<OutboxThreads>, Self), StartError> {
        let random = random().map_err(system("the random generator"))?;
        let instance = format!("{}-{:06x}", config.node, random >> 40);
        let metrics = Arc::new(Metrics::new());
        let registry = Arc::new(Registry::default());
        let hub = Arc::new(Hub::default());
        let inbox = Arc::new(Inbox::default());
        let arrivals = Arc::clone(&inbox) as Arc<dyn Arrivals>;
        let (bus, store_link) = start_bus(config, &instance, &registry, &hub, arrivals, &metrics)?;
        let dispatcher = Dispatcher::new(Arc::clone(&registry), Arc::clone(&bus) as _);
        let opened = open_outbox(config, inbox, &dispatcher, &metrics, store_link)?;
        let (outbox, outbox_threads) = opened.unzip();
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
            remember_stored(outbox, &delivery, config.delivery.dedupe_window);
        }
        let core = Self {
            instance,
            random,
            metrics,
            registry,
            hub,
            bus,
            outbox,
            trace,
            delivery,
            fds,
        };
        Ok((outbox_threads, core))
    }

    /// What judges the providers' requests.
    pub fn request_handler(&self, config: &Config, access: &Arc<Access>) -> Arc<RequestHandler> {
        Arc::new(RequestHandler {
            routes: RwLock::new(Arc::new(Routes::new(&config.routes, &self.metrics))),
            access: RwLock::new(Arc::clone(access)),
            failures: Failures::new(config.http.failures_per_minute),
            suspect: Mutex::default(),
            refused: LogOncePer::default(),
            delivery: Arc::clone(&self.delivery),
            mint: IdMint::new(self.random),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// The workers of `http.workers`, if there are any.
    ///
    /// # Errors
    /// The system is full, or has no room for their link.
    pub fn start_workers(
        &self,
        config: &Config,
        handler: &Arc<RequestHandler>,
    ) -> Result<Option<Pool>, StartError> {
        match config.http.workers {
            0 => Ok(None),
            count => Pool::start(count, handler, &self.fds)
                .map(Some)
                .map_err(StartError::Pool),
        }
    }

    /// What every session of a backend is given.
    pub fn session_context(&self, config: &Config, access: Arc<Access>) -> Arc<SessionContext> {
        let (hub, bus) = (Arc::clone(&self.hub), Arc::clone(&self.bus));
        Arc::new(SessionContext {
            registry: Arc::clone(&self.registry),
            newcomers: NewSessions::default(),
            bus: Arc::clone(&bus),
            events: Events::new(hub, bus, config.http.max_body),
            mint: IdMint::new(self.random.rotate_left(32)),
            access: RwLock::new(access),
            tcp: config.tcp.clone(),
            ack_deadline: config.delivery.ack_deadline,
            failures: Failures::new(config.tcp.failures_per_minute),
            max_body: config.http.max_body,
            instance: self.instance.clone(),
            metrics: Arc::clone(&self.metrics),
        })
    }

    /// Lets backends in.
    ///
    /// # Errors
    /// The system is full.
    pub fn start_backends(
        &self,
        port: TcpListener,
        tls_port: Option<TcpListener>,
        certificates: &Certificates,
        sessions: &Arc<SessionContext>,
    ) -> Result<BackendListener, StartError> {
        let tls = tls_port.zip(certificates.tcp());
        BackendListener::open(port, tls, Arc::clone(sessions), self.fds.clone())
            .map_err(system("the listener for backends"))
    }

    /// Lets providers in.
    ///
    /// # Errors
    /// The system is full.
    pub fn start_providers(
        &self,
        config: &Config,
        port: TcpListener,
        certificates: &Certificates,
        handler: &Arc<RequestHandler>,
        workers: &Option<Pool>,
    ) -> Result<Arc<HttpListener>, StartError> {
        let handler = Arc::clone(handler);
        let hand_over = match workers {
            None => HandOver::Inline(handler),
            Some(pool) => HandOver::ToWorkers(Arc::clone(pool.link()), handler),
        };
        let port = BoundListener {
            listener: port,
            tls: certificates.http(),
            peers: peers(config),
        };
        let limits = ListenerLimits {
            max_connections: config.http.max_connections,
            max_body: config.http.max_body,
            request_deadline: config.http.request_deadline,
            answer_deadline: config.delivery.ack_deadline + ANSWER_GRACE,
            idle_max: config.http.idle,
        };
        let refusals = Arc::new(Refusals(Arc::clone(&self.metrics)));
        let fds = self.fds.clone();
        HttpListener::start("http", port, limits, fds, Arc::new(hand_over), refusals)
            .map(Arc::new)
            .map_err(system("the providers' listener"))
    }

    /// What can be asked how the relay is.
    pub fn vitals(&self, draining: &Arc<AtomicBool>) -> Arc<Vitals> {
        Arc::new(Vitals::new(
            Arc::clone(draining),
            Arc::clone(&self.bus),
            self.outbox.clone(),
            Arc::clone(&self.registry),
        ))
    }

    /// What answers on the admin port.
    pub fn admin_handler(
        &self,
        config: &Config,
        vitals: &Arc<Vitals>,
        certificates: &Certificates,
        providers: &Arc<HttpListener>,
    ) -> Arc<Admin> {
        let asked = Arc::clone(vitals);
        let sources = Sources {
            outbox: self.outbox.clone(),
            trace: Arc::clone(&self.trace),
            registry: Arc::clone(&self.registry),
            delivery: Arc::clone(&self.delivery),
        };
        Arc::new(Admin::new(
            self.instance.clone(),
            config,
            Arc::clone(&self.metrics),
            Box::new(move || asked.not_ready()),
            self.readings(Arc::clone(vitals), certificates.clone(), providers),
            Arc::clone(&self.bus),
            sources,
        ))
    }

    /// Reads what the metrics show of the moment.
    fn readings(
        &self,
        vitals: Arc<Vitals>,
        certificates: Certificates,
        providers: &Arc<HttpListener>,
    ) -> ReadNow {
        let providers = Arc::downgrade(providers); // the admin port must not keep the listener open
        let (registry, delivery) = (Arc::clone(&self.registry), Arc::clone(&self.delivery));
        let (bus, outbox, fds) = (Arc::clone(&self.bus), self.outbox.clone(), self.fds.clone());
        Box::new(move || Readings {
            queue_depth: registry.waiting(),
            http_connections: providers
                .upgrade()
                .map_or(0, |listener| listener.connections()),
            http_in_flight: delivery.in_flight(),
            fd_budget_free: fds.free(),
            fd_budget: fds.total(),
            log_lines_lost: lost_lines(),
            threads: heartbeat::threads(),
            ready: vitals.not_ready().is_empty(),
            certificates: certificates.not_after(),
            outbox: outbox.as_ref().map(|outbox| outbox.readings()),
            bus: bus.readings(),
        })
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

/// Has the retries of what is stored known as such.
fn remember_stored(outbox: &Outbox, delivery: &Delivery, window: Duration) {
    let known = outbox.keys(window, EVENTS_MAX, |key, name, age| {
        delivery.remember(key, name, age)
    });
    if let Err(error) = known {
        log::error!("{error}; retries of what is in it will be delivered again");
    }
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
