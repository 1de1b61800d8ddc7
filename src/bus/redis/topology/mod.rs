//! Who is the primary of each bucket: a fixed server, the one that sentinels name, or the shards of a cluster.
//!
//! The last two are asked by a thread of their own, again and again, and at once when a server has said that it is not the
//! primary, or says nothing. No other thread waits for it.

mod cluster;
pub mod map;
mod others;
mod sentinel;
mod vote;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, select};

use super::health::Health;
use super::link::{BadConfig, Connector, LinkError, Server};
use super::router::Router;
use super::shard::ShardLinks;
use crate::config::{Redis, RedisServers};
use crate::heartbeat::{self, Pulse, Role};
use crate::thread::JoinOnDrop;

use self::cluster::Cluster;
use self::sentinel::Sentinels;
pub use self::sentinel::named_primary;

/// How often the topology is asked for when nothing is wrong.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// How often while something is not reached: a server may have taken over in the meantime.
const LOOK_EVERY_WHEN_DOWN: Duration = Duration::from_millis(100);

/// How often it is asked for at most.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How long one server may take to say what it knows.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// What finds the primaries.
pub enum Topology {
    /// One server, which is always the same.
    One(Server),
    /// A primary that sentinels name.
    Sentinel(Sentinels),
    /// A cluster.
    Cluster(Cluster),
}

impl Topology {
    /// What `config` says. Opens nothing.
    ///
    /// # Errors
    /// A URL, an address or a certificate cannot be used.
    pub fn new(config: &Redis) -> Result<Self, BadConfig> {
        Ok(match &config.servers {
            RedisServers::One(url) => Self::One(Server::at_url(config, url.expose())?),
            RedisServers::Sentinel {
                sentinels,
                master,
                login,
                sentinel_login,
            } => Self::Sentinel(Sentinels::new(
                sentinels,
                master,
                &Connector::new(config, sentinel_login)?.hasty(ANSWER_WITHIN),
                Connector::new(config, login)?,
            )?),
            RedisServers::Cluster { nodes, login } => {
                let connector = Connector::new(config, login)?;
                Self::Cluster(Cluster::new(nodes, connector)?)
            }
        })
    }

    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::One(_) => "redis",
            Self::Sentinel(_) => "redis-sentinel",
            Self::Cluster(_) => "redis-cluster",
        }
    }

    /// Whether names are spread over several primaries.
    pub fn is_sharded(&self) -> bool {
        matches!(self, Self::Cluster(_))
    }
}

/// Keeps the links as the topology is: a thread does, unless the topology never changes. Dropping it ends the links.
pub struct Following {
    _stop: Option<Sender<()>>, // dropped first: it ends the thread
    _thread: Option<JoinOnDrop>,
    _fixed: Option<ShardLinks>,
}

impl Following {
    /// Begins. `look` makes the thread look at once.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(
        topology: Topology,
        mut links: ShardLinks,
        router: Arc<Router>,
        health: Arc<Health>,
        look: Receiver<()>,
    ) -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        // It is idle by its marks all the time: how long it waits for servers that are away is not known here.
        let role = Role::vital("bus-topology", "a failover of Redis is not followed");
        let work: Box<dyn FnMut(&Pulse) + Send> = match topology {
            Topology::One(server) => {
                links.apply(&[Some(ONE.into())], |_| Ok(server.clone()))?;
                return Ok(Self {
                    _stop: None,
                    _thread: None,
                    _fixed: Some(links),
                });
            }
            Topology::Sentinel(mut sentinels) => Box::new(move |_| {
                let connector = sentinels.connector();
                let find = |_| sentinels.look(&health, &router.names);
                run(&look, &stopped, &mut links, &health, &connector, find);
            }),
            Topology::Cluster(mut cluster) => Box::new(move |_| {
                let connector = cluster.connector();
                let find = |now| cluster.look(now);
                run(&look, &stopped, &mut links, &health, &connector, find);
            }),
        };
        Ok(Self {
            _stop: Some(stop),
            _thread: Some(heartbeat::supervise(role, super::STACK_BYTES, work)?),
            _fixed: None,
        })
    }
}

/// The name of the one server, whose URL may have a password.
pub const ONE: &str = "redis.url";

/// The primary of each bucket, or why it is not known.
type Found = Result<Vec<Option<String>>, LinkError>;

/// The thread's loop.
fn run(
    look: &Receiver<()>,
    stopped: &Receiver<()>,
    links: &mut ShardLinks,
    health: &Health,
    connector: &Connector,
    mut find: impl FnMut(Instant) -> Found,
) {
    let mut wait = Duration::ZERO;
    loop {
        select! {
            recv(stopped) -> _ => return,
            recv(look) -> _ => {}
            default(wait) => {}
        }
        let began = Instant::now();
        match find(began) {
            Ok(primaries) => {
                let server = |name: &str| connector.server(name).map_err(io::Error::other);
                let applied = links.apply(&primaries, server);
                health.topology(applied.err().map(|error| LinkError(error.to_string())));
            }
            Err(why) => health.topology(Some(why)),
        }
        wait = match (links.wake_unsettled(), health.is_all_up()) {
            (true, _) => LOOK_AGAIN_AFTER,
            (false, false) => LOOK_EVERY_WHEN_DOWN,
            (false, true) => LOOK_EVERY,
        };
        // Not more often, however often something asks for it.
        if stopped
            .recv_timeout(LOOK_AGAIN_AFTER)
            .is_err_and(|error| error.is_disconnected())
        {
            return;
        }
    }
}
