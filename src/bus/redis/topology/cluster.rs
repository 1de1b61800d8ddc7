//! The shards of a cluster: asks its nodes for the owners of all slots.

use std::time::{Duration, Instant};

use redis::RedisError;

use super::map::{self, SlotMap};
use super::{ANSWER_WITHIN, Primaries};
use crate::bus::redis::connection::RedisConnection;
use crate::bus::redis::link::{self, BadConfig, Connector, LinkError};
use crate::bus::redis::resp;
use crate::bus::redis::slots;

/// Nodes that are asked in one look. The first of them that is in order decides; the next look begins with another.
const ASKED_MAX: usize = 3;

/// How long a node is left out that did not answer.
const LEFT_OUT: Duration = Duration::from_secs(2);

/// A cluster.
pub struct Cluster {
    /// Those of the configuration, which are always asked if no other answers.
    seeds: Vec<String>,
    /// Every node that is known, the one to be asked next first.
    nodes: Vec<Node>,
    map: SlotMap,
    /// The slot of each bucket's tag.
    slot_of: Vec<usize>,
    asking: Connector,
    /// How to connect to a primary.
    pub connector: Connector,
}

struct Node {
    name: String,
    connection: Option<RedisConnection>,
    /// It is not asked before.
    not_before: Option<Instant>,
}

impl Node {
    fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            connection: None,
            not_before: None,
        }
    }
}

impl Cluster {
    /// The cluster of which `nodes` are a part. Opens nothing.
    ///
    /// # Errors
    /// An address is none.
    pub fn new(nodes: &[String], connector: Connector) -> Result<Self, BadConfig> {
        for node in nodes {
            connector.server(node)?;
        }
        Ok(Self {
            seeds: nodes.to_vec(),
            nodes: nodes.iter().map(|name| Node::new(name)).collect(),
            map: SlotMap::default(),
            slot_of: slots::tags().iter().map(|tag| slots::slot(tag)).collect(),
            asking: connector.clone().hasty(ANSWER_WITHIN),
            connector,
        })
    }

    /// Asks nodes until one tells that the cluster is in order, a few at most.
    pub fn look(&mut self, now: Instant) -> Primaries {
        let mut trouble = None;
        let mut asked = 0;
        for n in 0..self.nodes.len() {
            if asked == ASKED_MAX {
                break;
            }
            if self.nodes[n].not_before.is_some_and(|then| now < then) {
                continue;
            }
            asked += 1;
            match self.ask(n) {
                Ok((reply, true)) => {
                    self.learn(reply);
                    self.nodes.rotate_left(1);
                    trouble = None;
                    break;
                }
                // A node that is cut off still knows the owners as they were.
                Ok((reply, false)) => {
                    trouble = Some(LinkError(
                        "the cluster is down: not every slot has a primary".into(),
                    ));
                    self.map.learn(reply);
                }
                Err(why) => {
                    let node = &mut self.nodes[n];
                    node.connection = None;
                    node.not_before = Some(now + LEFT_OUT);
                    trouble = Some(LinkError(format!("{}: {why}", node.name)));
                }
            }
        }
        if asked == 0 {
            // All are left out for a while: better to ask one too early.
            self.nodes
                .iter_mut()
                .for_each(|node| node.not_before = None);
        }
        let primaries = self.map.primaries(&self.slot_of);
        match trouble {
            Some(why) if primaries.iter().any(Option::is_none) => Err(why),
            Some(_) | None => Ok(primaries),
        }
    }

    /// What node `n` says, and whether it finds the cluster in order.
    fn ask(&mut self, n: usize) -> Result<(map::NodesReply, bool), LinkError> {
        let node = &mut self.nodes[n];
        let connection = match &mut node.connection {
            Some(connection) => connection,
            none => none.insert(self.asking.server(&node.name)?.connect(None)?),
        };
        told_by(&node.name, connection).map_err(words)
    }

    /// Takes over what a node in order says, its nodes too.
    fn learn(&mut self, reply: map::NodesReply) {
        let names: Vec<String> = reply.nodes.iter().chain(&self.seeds).cloned().collect();
        self.nodes.retain(|node| names.contains(&node.name));
        for name in &names {
            if self.nodes.iter().all(|node| node.name != *name) {
                self.nodes.push(Node::new(name));
            }
        }
        self.map.learn(reply);
    }
}

/// What the node called `name` says at the other end of `connection`, and whether it finds the cluster in order.
///
/// # Errors
/// The connection is broken, or the node refuses.
pub fn told_by(
    name: &str,
    connection: &mut RedisConnection,
) -> Result<(map::NodesReply, bool), RedisError> {
    let info = link::ask(connection, &[b"CLUSTER", b"INFO"])?;
    let nodes = link::ask(connection, &[b"CLUSTER", b"NODES"])?;
    let host = name.rsplit_once(':').map_or("", |(host, _)| host);
    let reply = map::read(resp::text(&nodes).unwrap_or_default(), host);
    let in_order = resp::text(&info).is_some_and(|info| info.contains("cluster_state:ok"));
    Ok((reply, in_order))
}

fn words(error: RedisError) -> LinkError {
    match error.code() {
        Some("NOPERM") => LinkError(format!(
            "the user in [redis] needs +cluster|info and +cluster|nodes: {error}"
        )),
        Some("ERR") if error.to_string().contains("cluster support disabled") => LinkError(
            "it is no node of a cluster: use url or sentinels in [redis], not cluster".into(),
        ),
        _ => LinkError::from(error),
    }
}
