//! Two nodes and what carries between them.

use std::sync::Arc;
use std::time::Instant;

use super::node::{CONNECT_TIMEOUT, Node, eventually};
use super::server::{ClusterSetup, SentinelSetup, Server};
use crate::bus::MemoryBus;
use crate::config::{self, Secret};

/// What carries between the nodes of a pair. Held for its end, and asked what it knows.
pub enum Carrier {
    Nothing,
    One(Server),
    Sentinel(SentinelSetup),
    Cluster(ClusterSetup),
}

/// Two ends of one bus: of several nodes, or of one node that is both.
pub struct Pair {
    a: Node,
    b: Option<Node>,
    pub carrier: Carrier,
}

impl Pair {
    pub fn alone() -> Self {
        let a = Node::new("a-1", |sessions, hub, arrivals| {
            Arc::new(MemoryBus::new("a-1".into(), sessions, hub, arrivals))
        });
        Self {
            a,
            b: None,
            carrier: Carrier::Nothing,
        }
    }

    pub fn over_redis() -> Self {
        let server = Server::start();
        let servers = config::RedisServers::One(Secret::new(&server.url()));
        Self::over(&servers, Carrier::One(server))
    }

    pub fn over_sentinel() -> Self {
        let setup = SentinelSetup::start();
        let servers = config::RedisServers::Sentinel {
            sentinels: setup.addresses(),
            master: "mymaster".into(),
            login: config::Login::default(),
            sentinel_login: config::Login::default(),
        };
        Self::over(&servers, Carrier::Sentinel(setup))
    }

    pub fn over_a_cluster() -> Self {
        let setup = ClusterSetup::start();
        let servers = config::RedisServers::Cluster {
            nodes: setup.addresses(),
            login: config::Login::default(),
        };
        Self::over(&servers, Carrier::Cluster(setup))
    }

    fn over(servers: &config::RedisServers, carrier: Carrier) -> Self {
        let began = Instant::now();
        let a = Node::over(servers.clone(), "a-1");
        let b = Node::over(servers.clone(), "b-2");
        for node in [&a, &b] {
            // After that long it goes on without Redis.
            if began.elapsed() < CONNECT_TIMEOUT {
                assert_eq!(node.bus.unwell(), None, "it waits for Redis at the start");
            }
            eventually("it has found Redis", || node.bus.unwell().is_none());
        }
        Self {
            a,
            b: Some(b),
            carrier,
        }
    }

    /// The one Redis of this pair.
    pub fn server(&mut self) -> &mut Server {
        match &mut self.carrier {
            Carrier::One(server) => server,
            _ => panic!("there is not one server"),
        }
    }

    /// How many channels each node has for itself.
    pub fn own_channels(&self) -> usize {
        match &self.carrier {
            Carrier::Nothing => 0,
            Carrier::One(_) | Carrier::Sentinel(_) => 2,
            Carrier::Cluster(_) => 257,
        }
    }

    /// Every channel that somebody is subscribed to.
    pub fn channels(&self) -> Vec<String> {
        match &self.carrier {
            Carrier::Nothing => Vec::new(),
            Carrier::One(server) => server.channels("CHANNELS"),
            Carrier::Sentinel(setup) => {
                let channels = setup.servers[0].channels("CHANNELS").into_iter();
                channels
                    .filter(|name| !name.starts_with("__sentinel__"))
                    .collect()
            }
            Carrier::Cluster(setup) => {
                let servers = setup.servers.iter();
                servers
                    .flat_map(|server| server.channels("SHARDCHANNELS"))
                    .collect()
            }
        }
    }

    pub fn a(&self) -> &Node {
        &self.a
    }

    pub fn b(&self) -> &Node {
        self.b.as_ref().unwrap_or(&self.a)
    }

    pub fn nodes(&self) -> Vec<&Node> {
        std::iter::once(&self.a).chain(&self.b).collect()
    }
}
