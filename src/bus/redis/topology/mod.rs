//! Who is the primary of each bucket: the server that an address leads to, the one that sentinels name, or the shards of a
//! cluster.
//!
//! A thread asks again and again, and at once when a server has said that it is not the primary, or says nothing. No other
//! thread waits for it.

mod address;
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
use crate::config::{RedisConfig, RedisServers};
use crate::heartbeat::{self, Pulse, Role};
use crate::thread::JoinOnDrop;

use self::address::Address;
use self::cluster::Cluster;
pub use self::cluster::told_by;
use self::sentinel::Sentinels;
pub use self::sentinel::named_primary;

/// How often the topology is asked for.
struct LookIntervals {
    /// When nothing is wrong.
    usual: Duration,
    /// While something is not reached: a server may have taken over in the meantime.
    when_down: Duration,
    /// While a subscription is not confirmed: its slot may have moved.
    when_unsettled: Duration,
}

/// For servers that others name.
const NAMED: LookIntervals = LookIntervals {
    usual: Duration::from_millis(500),
    when_down: Duration::from_millis(100),
    when_unsettled: LOOK_AGAIN_AFTER,
};

/// For one address. Each look is a connection, and a link that is down connects anew by itself.
const ADDRESS: LookIntervals = LookIntervals {
    usual: Duration::from_secs(1),
    when_down: Duration::from_millis(500),
    when_unsettled: Duration::from_secs(1),
};

/// How often it is asked for at most.
const LOOK_AGAIN_AFTER: Duration = Duration::from_millis(50);

/// How long one server may take to say what it knows.
const ANSWER_WITHIN: Duration = Duration::from_millis(300);

/// What finds the primaries.
pub enum Topology {
    /// The server that an address leads to.
    One(Box<Address>),
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
    pub fn new(config: &RedisConfig) -> Result<Self, BadConfig> {
        Ok(match &config.servers {
            RedisServers::One(url) => {
                let server = Server::at_url(config, url.expose())?;
                Self::One(Box::new(Address::new(server)))
            }
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
}

/// The thread that keeps the links as the topology is. Dropping it ends the links.
pub struct Following {
    _stop: Sender<()>, // dropped first: it ends the thread
    _thread: JoinOnDrop,
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
            Topology::One(mut address) => Box::new(move |_| {
                let server = address.server.clone();
                let server = |_: &str| Ok(server.clone());
                let find = |_| Ok(address.look(&health, &router));
                run(&look, &stopped, &mut links, &health, &ADDRESS, server, find);
            }),
            Topology::Sentinel(mut sentinels) => Box::new(move |_| {
                let server = by_name(sentinels.connector.clone());
                let find = |_| sentinels.look(&health, &router.names);
                run(&look, &stopped, &mut links, &health, &NAMED, server, find);
            }),
            Topology::Cluster(mut cluster) => Box::new(move |_| {
                let server = by_name(cluster.connector.clone());
                let find = |now| cluster.look(now);
                run(&look, &stopped, &mut links, &health, &NAMED, server, find);
            }),
        };
        Ok(Self {
            _stop: stop,
            _thread: heartbeat::supervise(role, super::STACK_BYTES, work)?,
        })
    }
}

/// How to connect to the server of that name.
fn by_name(connector: Connector) -> impl Fn(&str) -> io::Result<Server> {
    move |name| connector.server(name).map_err(io::Error::other)
}

/// The name of the one server, whose URL may have a password.
const ONE: &str = "redis.url";

/// The primary of each bucket, or why it is not known.
type Primaries = Result<Vec<Option<String>>, LinkError>;

/// The thread's loop.
fn run(
    look: &Receiver<()>,
    stopped: &Receiver<()>,
    links: &mut ShardLinks,
    health: &Health,
    intervals: &LookIntervals,
    server: impl Fn(&str) -> io::Result<Server>,
    mut find: impl FnMut(Instant) -> Primaries,
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
                let applied = links.apply(&primaries, &server);
                health.topology(applied.err().map(|error| LinkError(error.to_string())));
            }
            Err(why) => health.topology(Some(why)),
        }
        wait = match (links.wake_unsettled(), health.is_all_up()) {
            // What is on its way to a link that is being left is not heard.
            _ if links.are_being_left() => LOOK_AGAIN_AFTER,
            (true, _) => intervals.when_unsettled,
            (false, false) => intervals.when_down,
            (false, true) => intervals.usual,
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
