//! The bus over Redis: one channel for each backend, so that Redis's own table of subscriptions is the directory.
//!
//! | channel (`<prefix>:` …) | who subscribes | carries |
//! |---|---|---|
//! | `to:<backend id>` | the node that has the session | MSG, DATA |
//! | `node:<instance>` | that node | receipts, the canary, wake-ups, answers to WHO |
//! | `all` | every node | HERE: backends have come; WHO; ELSEWHERE |
//! | `event:<channel>` | nodes with a listener | EVENT |
//!
//! In a cluster each name has a hash tag, `<prefix>:{<tag>}:` …: names are divided into 256 buckets, and each lies in one slot.
//! Channels are sharded, so no message goes to more than one primary. A node has a `node:` channel in every bucket, and a
//! receipt goes through the bucket of its notification, so that both fail together. `all` has one bucket, so it has one order.
//!
//! One kind of key is stored: which events are under way and which are settled (`dedupe`). It expires by itself. The shared
//! outbox has keys of its own, on connections of its own (`store_link`).
//!
//! PUBLISH says how many nodes received the message: 0 means that the backend is connected to no node, known at once, if the
//! batch was guarded (`guard`) and other nodes have had time to subscribe. Nothing has to be cleaned up after a node that
//! died, and no node receives what is not for it.
//!
//! *Links.* For each primary in use there is a link: a queue, a publisher and a subscriber (`shard`). `router` knows which
//! bucket belongs to which link, `topology` finds the primaries, `health` knows what works.
//!
//! *Split.* Sentinels that do not hear each other may name different primaries, a name may lead two nodes to different servers,
//! and nodes on two primaries do not hear each other, though each hears itself. So a node that knows of another primary looks for nodes there, and tells them where it is
//! (`topology/others`); nodes on both sides are red until they are together again (`split`).
//!
//! *Takeover.* A node that has a new session announces it on `all` with its stamp, after its subscription is confirmed. Every
//! node receives every announcement in Redis's order. Of two sessions the one with the larger (stamp, instance) stays: both
//! nodes come to the same decision, whatever order they hear in. A node that hears of an older session announces its own
//! again, for the other may have heard nothing when it was announced first. So exactly one survives.

mod check;
mod connection;
mod dedupe;
mod guard;
mod handler;
mod health;
mod link;
mod names;
mod parts;
mod publisher;
mod queue;
mod replies;
mod requests;
mod resp;
mod router;
mod shard;
mod slots;
mod split;
mod store_link;
mod subscriber;
mod subscriptions;
mod topology;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;

pub use self::check::check;
use self::dedupe::RedisDedupe;
use self::health::Health;
use self::link::BadConfig;
pub use self::link::LinkError as StoreError;
use self::names::{ALL, KeyNames};
use self::parts::BusParts;
use self::queue::OnReply;
pub use self::resp::command as store_command;
use self::router::Router;
use self::shard::ShardLinks;
pub use self::store_link::{StoreConnection, StoreLink};
use self::topology::{Following, Topology};
use super::channel::Channel;
use super::frames;
use super::hub::Hub;
use super::presence::{NodePresence, OnPresence, PresenceQueries};
use super::remote_pending::RemotePending;
use super::types::{Data, OnEmitted, Reach, Ready, Topic, Unreachable};
use super::verbs::{Arrivals, Bus, DedupeStore, Forward, Sessions};
use crate::backoff::Backoff;
use crate::config;
use crate::envelope::{Envelope, Reply};
use crate::metrics::{BusMetrics, BusReadings};
use crate::notification::{BackendId, Receipt};

/// A stack for the redis crate's parser and TLS.
const STACK_BYTES: usize = 256 * 1024;

/// The name of a thread of the link with this number: in a cluster there is one for each primary.
fn thread_name(name: &str, link: u64) -> String {
    match link {
        0 | 1 => name.to_owned(),
        link => format!("{name}-{link}"),
    }
}

/// Waits before connecting again. Within 1 s of Redis's return every backend can be reached again, the resubscription included.
const RECONNECT: Backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(500));

/// How long a receipt may be on its way.
const RECEIPT_GRACE: Duration = Duration::from_secs(5);

/// Why the answer to who is connected where is of this node alone.
const DOWN: &str = "the bus is down, so the other nodes could not be asked";

/// Several nodes, over Redis.
pub struct RedisBus {
    _following: Following,
    kind: &'static str,
    parts: Arc<BusParts>,
    ack_timeout: Duration,
    store_link: Arc<StoreLink>,
}

impl fmt::Debug for RedisBus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RedisBus({}, {:?})",
            self.parts.router.names.instance, self.parts.health
        )
    }
}

/// Why the bus does not start. A Redis that is away is no reason: the node serves its own backends meanwhile.
#[derive(Debug)]
pub enum BusStartError {
    /// `[redis]` cannot be used.
    Config(String),
    /// The system has no room for a thread.
    Thread(io::Error),
}

impl fmt::Display for BusStartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Config(words) => f.write_str(words),
            Self::Thread(error) => write!(f, "cannot start the bus: {error}"),
        }
    }
}

impl std::error::Error for BusStartError {}

impl From<BadConfig> for BusStartError {
    fn from(error: BadConfig) -> Self {
        Self::Config(error.to_string())
    }
}

/// How long other nodes' sessions may take to acknowledge: all nodes of a cluster should have the same times.
#[derive(Clone, Copy, Debug)]
pub struct AckTimes {
    /// `tcp.ack_timeout`: a session forgets a notification after that.
    pub timeout: Duration,
    /// `delivery.ack_deadline`: a session that is taken over ends after that.
    pub deadline: Duration,
}

impl RedisBus {
    /// Starts the links, and gives Redis until `redis.connect_timeout` to be there.
    ///
    /// # Errors
    /// The configuration cannot be used, or there is no room for the threads. A Redis that is away is none.
    pub fn start(
        config: &config::RedisConfig,
        instance: &str,
        acks: AckTimes,
        sessions: Arc<dyn Sessions>,
        hub: Arc<Hub>,
        arrivals: Arc<dyn Arrivals>,
        metrics: BusMetrics,
    ) -> Result<Self, BusStartError> {
        let topology = Topology::new(config)?;
        let names = KeyNames::of(config, instance);
        let health = Health::new(
            names.buckets(),
            config.settle_time,
            Arc::clone(&hub),
            metrics.clone(),
        );
        let health = Arc::new(health);
        let (look, looks) = bounded(1);
        let router = Arc::new(Router::new(names, look, Arc::clone(&health)));
        let store_link = Arc::new(StoreLink::new(config, Arc::clone(&router))?);
        let parts = Arc::new(BusParts {
            router: Arc::clone(&router),
            health: Arc::clone(&health),
            pending: RemotePending::new(acks.deadline),
            queries: PresenceQueries::default(),
            sessions,
            arrivals,
            hub,
            metrics,
        });
        let kind = topology.kind();
        let links = ShardLinks::new(Arc::clone(&parts));
        let following = Following::start(topology, links, router, Arc::clone(&health), looks)
            .map_err(BusStartError::Thread)?;
        if !health.wait_up(Instant::now() + config.connect_timeout) {
            let why = health.unwell().unwrap_or_default();
            log::warn!(
                "{why}; starting without: backends on this node are served, those on others are not reached"
            );
        }
        Ok(Self {
            _following: following,
            kind,
            parts,
            ack_timeout: acks.timeout,
            store_link,
        })
    }

    /// The way to the shared outbox.
    pub fn store_link(&self) -> Arc<StoreLink> {
        Arc::clone(&self.store_link)
    }

    /// Publishes what `write` appends to the channel of `to`, and keeps `reply` until its receipt comes. A node that has
    /// received it says within `patience` what became of it, or that node is dead.
    fn send(
        &self,
        to: &BackendId,
        reply: Reply,
        tries: Option<u32>,
        patience: Duration,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let id = reply.id();
        let names = &self.parts.router.names;
        let bucket = names.bucket_of_backend(to);
        if !self.parts.health.is_up(bucket) {
            return reply.settle(Receipt::Unreachable);
        }
        let until = Instant::now() + patience + RECEIPT_GRACE;
        if let Err(reply) = self.parts.pending.register(to, reply, tries, until) {
            return reply.settle(Receipt::Busy);
        }
        self.parts.metrics.forwarded();
        let bytes = names.publish_to(bucket, to, write);
        let then = OnReply::Envelope(to.clone(), id);
        if self.parts.router.send(bucket, bytes, then).is_err() {
            self.parts.pending.fail(to, id, Receipt::Busy);
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
        let tries = Some(notification.tries);
        let instance = &self.parts.router.names.instance;
        self.send(
            &notification.backend,
            reply,
            tries,
            self.ack_timeout,
            |out| {
                frames::msg(out, &notification, instance, ttl);
            },
        );
    }
}

impl Bus for RedisBus {
    fn carry(&self, data: Data, reply: Reply) {
        let id = reply.id();
        let instance = &self.parts.router.names.instance;
        // Answered when it is written, which waits for nothing.
        self.send(&data.to, reply, None, Duration::ZERO, |out| {
            frames::data(out, id, &data, instance);
        });
    }

    fn emit(&self, channel: &Channel, payload: &[u8], on_emitted: OnEmitted) {
        let names = &self.parts.router.names;
        let topic = Topic::Event(channel.clone());
        let bucket = names.bucket(&topic);
        if !self.parts.health.is_up(bucket) {
            return on_emitted(Err(Unreachable));
        }
        let bytes = names.publish(&names.topic(&topic), |out| frames::event(out, payload));
        if let Err(OnReply::Count(tell)) =
            self.parts
                .router
                .send(bucket, bytes, OnReply::Count(on_emitted))
        {
            tell(Err(Unreachable));
        }
    }

    fn look_again(&self, topic: Topic, ready: Option<Ready>) -> Reach {
        let backend = match &topic {
            Topic::Backend(backend) => Some(backend.clone()),
            Topic::Event(_) => None,
        };
        // While the bus is down nobody waits for it. The topic is looked at all the same, once there is a connection.
        let up = self
            .parts
            .health
            .is_up(self.parts.router.names.bucket(&topic));
        let asked = self.parts.router.request(topic, ready.filter(|_| up));
        if let (true, Some(reach)) = (up, asked) {
            return reach;
        }
        if let Some(backend) = backend
            && self.parts.sessions.stamp(&backend).is_some()
        {
            // Other nodes cannot be on_emitted, but what this node keeps for it need not wait.
            self.parts.arrivals.here(&backend);
        }
        Reach::Down
    }

    fn kind(&self) -> &'static str {
        self.kind
    }

    fn unwell(&self) -> Option<String> {
        self.parts.health.unwell()
    }

    fn readings(&self) -> BusReadings {
        self.parts.health.readings()
    }

    fn dedupe_store(&self, hold: Duration) -> Option<Arc<dyn DedupeStore>> {
        let store = RedisDedupe::new(
            Arc::clone(&self.parts.router),
            Arc::clone(&self.parts.health),
            hold,
        );
        Some(Arc::new(store))
    }

    fn presence(&self, then: OnPresence) {
        let names = &self.parts.router.names;
        let own = NodePresence::here(names.instance.clone(), self.parts.sessions.stamps());
        let Some(n) = self.parts.queries.open(own, then, Instant::now()) else {
            return;
        };
        if !self.parts.health.is_up(ALL) {
            // Said at once: the publisher may be waiting for a connection.
            let trouble = self.unwell().unwrap_or_else(|| DOWN.into());
            return self.parts.queries.fail(n, &trouble);
        }
        // Redis's own table says which nodes there are; each of them says which backends it has.
        let pattern = names.node(ALL, "*");
        let mut bytes = Vec::new();
        let parts = [&b"PUBSUB"[..], names.verbs.channels, pattern.as_bytes()];
        resp::command(&mut bytes, &parts);
        let asking = Arc::clone(&self.parts);
        let cut = names.node(ALL, "");
        let listed = OnReply::Reply(Box::new(move |reply| match reply {
            Ok(value) => asking.queries.awaits(n, resp::names(&value, &cut)),
            Err(Unreachable) => asking.queries.fail(n, DOWN),
        }));
        let who = names.publish(&names.all(), |out| frames::who(out, n, &names.instance));
        let sent = self.parts.router.send(ALL, bytes, listed).is_ok();
        if !sent || self.parts.router.send(ALL, who, OnReply::Nothing).is_err() {
            self.parts.queries.fail(n, "the bus is busy");
        }
    }
}
