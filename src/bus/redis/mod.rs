//! The bus over Redis: one channel for each backend, so that Redis's own table of subscriptions is the directory.
//!
//! | channel (`<prefix>:` …) | who subscribes | carries |
//! |---|---|---|
//! | `to:<backend id>` | the node that holds the session | MSG, DATA |
//! | `node:<instance>` | that node | receipts, the canary, wake-ups, answers to WHO |
//! | `all` | every node | HERE: backends have come; WHO |
//! | `event:<channel>` | nodes with a listener | EVENT |
//!
//! One kind of key is stored: which events are under way and which are settled (`ledger`). It runs out by itself.
//!
//! PUBLISH says how many heard: 0 means that the backend is connected nowhere, known at once. Nothing has to be cleaned up
//! after a node that died, and no node hears of what is not for it.
//!
//! *Takeover.* A node that has a new session announces it on `all` with its stamp, after its subscription stands. Every
//! node hears every announcement in Redis's order. Of two sessions the one with the larger (stamp, instance) stays: both
//! nodes come to the same verdict, whatever order they hear in. A node that hears of an older session announces its own
//! again, for the other may have been deaf when it was announced first. So exactly one survives.

mod backoff;
mod health;
mod hearing;
mod ledger;
mod link;
mod names;
mod post;
mod publisher;
mod subscriber;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use self::health::Health;
use self::hearing::Hearing;
use self::ledger::RedisLedger;
use self::link::{LinkError, Place};
use self::names::Names;
use self::post::{Post, Then};
use self::publisher::Publisher;
use self::subscriber::{Asks, Subscriber};
use super::abroad::Abroad;
use super::events::{Channel, Hub};
use super::frames;
use super::roll::{NodeRoll, Roll, RollCalls};
use super::{
    Arrivals, Bus, Data, Forward, Ledger, Reach, Ready, Sessions, Told, Topic, Unreachable,
};
use crate::config;
use crate::envelope::{Envelope, Reply};
use crate::metrics::{BusMetrics, BusReadings};
use crate::notification::{BackendId, Receipt};

/// A stack for the redis crate's parser and TLS.
const STACK_BYTES: usize = 256 * 1024;

/// How long a receipt may be on its way.
const RECEIPT_GRACE: Duration = Duration::from_secs(5);

/// The number of the question who is there that a node asks by itself, when it may have missed arrivals.
const UNASKED: u64 = 0;

/// Why a roll is of this node alone.
const DOWN: &str = "the bus is down, so the other nodes could not be asked";

/// Several nodes, over one Redis.
pub struct RedisBus {
    // In this order: the subscriber is woken through the publisher to stop.
    _subscriber: Subscriber,
    _publisher: Publisher,
    names: Names,
    post: Arc<Post>,
    asks: Arc<Asks>,
    abroad: Arc<Abroad>,
    ack_timeout: Duration,
    calls: Arc<RollCalls>,
    health: Arc<Health>,
    sessions: Arc<dyn Sessions>,
    arrivals: Arc<dyn Arrivals>,
    metrics: BusMetrics,
}

impl Drop for RedisBus {
    fn drop(&mut self) {
        // The subscriber may take the 3 s of its silence to end; the publisher shall not begin then to wait for Redis.
        self.post.connect_no_more();
    }
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisBus({}, {:?})", self.names.instance, self.health)
    }
}

/// Why the bus does not start. A Redis that is away is no reason: the node serves its own backends meanwhile.
#[derive(Debug)]
pub enum StartError {
    /// `[redis]` cannot be used.
    Config(String),
    /// The system has no room for a thread.
    Thread(io::Error),
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(words) => f.write_str(words),
            Self::Thread(error) => write!(f, "cannot start the bus: {error}"),
        }
    }
}

impl std::error::Error for StartError {}

impl From<LinkError> for StartError {
    fn from(error: LinkError) -> Self {
        Self::Config(error.to_string())
    }
}

impl RedisBus {
    /// Starts the two threads, and gives Redis until `redis.connect_timeout` to be there. `ack_timeout` is how long a
    /// session may keep a notification.
    ///
    /// # Errors
    /// The configuration cannot be used, or there is no room for the threads. A Redis that is away is none.
    pub fn start(
        config: &config::Redis,
        instance: String,
        ack_timeout: Duration,
        sessions: Arc<dyn Sessions>,
        hub: Arc<Hub>,
        arrivals: Arc<dyn Arrivals>,
        metrics: BusMetrics,
    ) -> Result<Self, StartError> {
        let place = Arc::new(Place::new(config)?);
        let names = Names {
            prefix: config.prefix.clone(),
            instance,
        };
        let abroad = Arc::new(Abroad::default());
        let calls = Arc::new(RollCalls::default());
        let health = Arc::new(Health::new(Arc::clone(&hub), metrics.clone()));
        let asks = Arc::new(Asks::default());
        let (publisher, post) = Publisher::start(publisher::Tools {
            place: Arc::clone(&place),
            prefix: names.prefix.clone(),
            instance: names.instance.clone(),
            sessions: Arc::clone(&sessions),
            abroad: Arc::clone(&abroad),
            calls: Arc::clone(&calls),
            health: Arc::clone(&health),
            metrics: metrics.clone(),
        })
        .map_err(StartError::Thread)?;
        let naming = names.clone();
        let subscriber = Subscriber::start(subscriber::Tools {
            place,
            own: [
                names.to("node:", &names.instance).concat(),
                format!("{}:all", names.prefix),
            ],
            name: Box::new(move |topic| naming.of(topic)),
            ear: Hearing {
                names: names.clone(),
                post: Arc::clone(&post),
                asks: Arc::clone(&asks),
                abroad: Arc::clone(&abroad),
                calls: Arc::clone(&calls),
                sessions: Arc::clone(&sessions),
                arrivals: Arc::clone(&arrivals),
                hub: Arc::clone(&hub),
                metrics: metrics.clone(),
            },
            asks: Arc::clone(&asks),
            health: Arc::clone(&health),
            post: Arc::clone(&post),
        })
        .map_err(StartError::Thread)?;
        if !health.wait_up(Instant::now() + config.connect_timeout) {
            let why = health.unwell().unwrap_or_default();
            log::warn!(
                "{why}; starting without: backends on this node are served, those on others are not reached"
            );
        }
        Ok(Self {
            _subscriber: subscriber,
            _publisher: publisher,
            names,
            post,
            asks,
            abroad,
            ack_timeout,
            calls,
            health,
            sessions,
            arrivals,
            metrics,
        })
    }

    /// Publishes what `write` appends to the channel of `to`, and keeps `reply` until something is heard of it. A node that
    /// has heard says within `patience` what became of it, or it is dead.
    fn send(
        &self,
        to: &BackendId,
        reply: Reply,
        patience: Duration,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let id = reply.id();
        if !self.health.is_up() {
            return reply.settle(Receipt::Unreachable);
        }
        if let Err(reply) = self
            .abroad
            .send(to, reply, Instant::now() + patience + RECEIPT_GRACE)
        {
            return reply.settle(Receipt::Busy);
        }
        self.metrics.forwarded();
        let bytes = link::publish(&self.names.to("to:", to.as_str()), write);
        if self
            .post
            .send(bytes, Then::Envelope(to.clone(), id))
            .is_err()
        {
            self.abroad.told(to, id, Receipt::Busy, None);
            self.abroad.heard_by(to, id, 1);
        }
    }
}

impl Forward for RedisBus {
    fn forward(&self, envelope: Box<Envelope>) {
        let Envelope {
            notification,
            deadline,
            reply,
        } = *envelope;
        let ttl = deadline.saturating_duration_since(Instant::now());
        self.send(&notification.backend, reply, self.ack_timeout, |out| {
            frames::msg(out, &notification, &self.names.instance, ttl);
        });
    }
}

impl Bus for RedisBus {
    fn carry(&self, data: Data, reply: Reply) {
        let id = reply.id();
        // Answered when it is written, which waits for nobody.
        self.send(&data.to, reply, Duration::ZERO, |out| {
            frames::data(out, id, &data, &self.names.instance);
        });
    }

    fn emit(&self, channel: &Channel, payload: &[u8], told: Told) {
        if !self.health.is_up() {
            return told(Err(Unreachable));
        }
        let bytes = link::publish(&self.names.to("event:", channel.as_str()), |out| {
            frames::event(out, payload);
        });
        let then = Then::Reply(Box::new(move |reply| {
            told(reply.map(|value| link::count(&value)));
        }));
        if let Err(Then::Reply(tell)) = self.post.send(bytes, then) {
            tell(Err(Unreachable));
        }
    }

    fn look_again(&self, topic: Topic, ready: Option<Ready>) -> Reach {
        let backend = match &topic {
            Topic::Backend(backend) => Some(backend.clone()),
            Topic::Event(_) => None,
        };
        // While the bus is down nobody waits for it. The topic is looked at all the same, once there is somebody to look.
        let up = self.health.is_up();
        let asked = self.asks.ask(topic, ready.filter(|_| up), &self.post);
        if let (true, Some(reach)) = (up, asked) {
            return reach;
        }
        if let Some(backend) = backend
            && self.sessions.stamp(&backend).is_some()
        {
            // Other nodes cannot be told, but what this node keeps for it need not wait.
            self.arrivals.here(&backend);
        }
        Reach::Down
    }

    fn kind(&self) -> &'static str {
        "redis"
    }

    fn unwell(&self) -> Option<String> {
        self.health.unwell()
    }

    fn readings(&self) -> BusReadings {
        self.health.readings()
    }

    fn ledger(&self, hold: Duration) -> Option<Arc<dyn Ledger>> {
        let ledger = RedisLedger::new(
            Arc::clone(&self.post),
            Arc::clone(&self.health),
            &self.names,
            hold,
        );
        Some(Arc::new(ledger))
    }

    fn call_the_roll(&self, then: Box<dyn FnOnce(Roll) + Send>) {
        let own = NodeRoll::here(self.names.instance.clone(), self.sessions.stamps());
        let Some(n) = self.calls.open(own, then, Instant::now()) else {
            return;
        };
        if let Some(trouble) = self.unwell() {
            // Said at once: the publisher may be waiting for a connection.
            return self.calls.fail(n, &trouble);
        }
        // Redis's own table says which nodes there are; each of them says who is there.
        let pattern = self.names.to("node:", "*").concat();
        let mut bytes = Vec::new();
        link::command(&mut bytes, &[b"PUBSUB", b"CHANNELS", pattern.as_bytes()]);
        let calls = Arc::clone(&self.calls);
        let cut = self.names.to("node:", "").concat();
        let listed = Then::Reply(Box::new(move |reply| match reply {
            Ok(value) => calls.awaits(n, link::names(&value, &cut)),
            Err(Unreachable) => calls.fail(n, DOWN),
        }));
        let who = link::publish(&[&self.names.prefix, ":all"], |out| {
            frames::who(out, n, &self.names.instance);
        });
        let sent = self.post.send(bytes, listed).is_ok();
        if !sent || self.post.send(who, Then::Nothing).is_err() {
            self.calls.fail(n, "the bus is busy");
        }
    }
}
