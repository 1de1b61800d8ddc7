//! Primaries other than the one in use: the last ones, and those that a sentinel names. A node that is still on one of them, or
//! already, hears nothing of what is published here; it is found, and told.

use std::time::{Duration, Instant};

use crate::bus::frames;
use crate::bus::redis::connection::RedisConnection;
use crate::bus::redis::guard::Guard;
use crate::bus::redis::link::{self, Connector, LinkError};
use crate::bus::redis::names::{ALL, KeyNames};
use crate::bus::redis::resp;
use crate::bus::redis::split::OtherPrimaries;

/// Servers that are looked at, at most.
const OTHERS_MAX: usize = 4;

/// How long a server is left out that did not answer: a machine that is gone costs a whole wait.
const LEFT_OUT: Duration = Duration::from_secs(2);

/// How long the nodes of a server that does not answer are taken to be there still: that it is busy is not that they have left.
const REMEMBERED_FOR: Duration = Duration::from_secs(5);

/// How long a server is looked at that no sentinel names any more.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// The servers.
pub struct Others {
    connector: Connector,
    servers: Vec<Other>,
}

struct Other {
    name: String,
    connection: Option<RedisConnection>,
    /// It is not asked before.
    not_before: Option<Instant>,
    until: Instant,
    /// The nodes that were there at its last answer, and when it was asked for that.
    last: Vec<String>,
    asked: Instant,
}

impl Others {
    /// None yet.
    pub fn new(connector: Connector) -> Self {
        Self {
            connector,
            servers: Vec::new(),
        }
    }

    /// `name` may have nodes that use it.
    pub fn add(&mut self, name: &str, now: Instant) {
        let until = now + KEPT_FOR;
        if let Some(other) = self.servers.iter_mut().find(|other| other.name == name) {
            other.until = until;
        } else if self.servers.len() < OTHERS_MAX {
            self.servers.push(Other {
                name: name.to_owned(),
                connection: None,
                not_before: None,
                until,
                last: Vec::new(),
                asked: now,
            });
        }
    }

    /// Looks at each but `present`, which this node uses; says where it has found nodes, and tells them.
    pub fn look(
        &mut self,
        present: &str,
        names: &KeyNames,
        now: Instant,
    ) -> Option<OtherPrimaries> {
        self.servers
            .retain(|other| other.name != present && now < other.until);
        let mut found = None;
        for other in &mut self.servers {
            if other.not_before.is_none_or(|then| now >= then) {
                other.look(names, &self.connector, present, now);
            }
            if !other.last.is_empty() {
                found = Some(OtherPrimaries {
                    at: other.name.clone(),
                    nodes: other.last.clone(),
                    asked: other.asked,
                });
            }
        }
        found
    }
}

impl Other {
    fn look(&mut self, names: &KeyNames, connector: &Connector, present: &str, now: Instant) {
        match self.nodes(names, connector, present) {
            Ok(nodes) => {
                (self.last, self.asked) = (nodes, now);
            }
            Err(_) => {
                self.connection = None;
                if now >= self.asked + REMEMBERED_FOR {
                    self.last.clear();
                }
                // One that had nodes is asked again at the next look.
                self.not_before = self.last.is_empty().then_some(now + LEFT_OUT);
            }
        }
    }

    /// The nodes that use it, if it is a primary. They are told that this node uses `present`.
    fn nodes(
        &mut self,
        names: &KeyNames,
        connector: &Connector,
        present: &str,
    ) -> Result<Vec<String>, LinkError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(connector.server(&self.name)?.connect(None)?),
        };
        // From a replica its nodes go by themselves. A node that died without a sign is known to its server for minutes; but a
        // primary that sentinels demote is made to cut its connections.
        let guard = link::ask(connection, &[b"DEL", names.guard(ALL).as_bytes()]);
        if let Err(error) = &guard
            && link::is_broken(error)
        {
            return Err(LinkError::from_reply(error));
        }
        if matches!(Guard::of(&guard), Guard::Wait(_) | Guard::Leave(_)) {
            return Ok(Vec::new());
        }
        let mut nodes = subscribed(connection, names)?;
        if !nodes.is_empty() {
            // A server that stood still gives its first answer before it learns which connections have ended meanwhile.
            nodes = subscribed(connection, names)?;
        }
        if !nodes.is_empty() {
            let command = names.publish(&names.all(), |out| {
                frames::elsewhere(out, &names.instance, present);
            });
            connection.send(&command)?;
            connection.receive()?;
        }
        Ok(nodes)
    }
}

/// The other nodes that are subscribed at the server at the other end of `connection`.
fn subscribed(
    connection: &mut RedisConnection,
    names: &KeyNames,
) -> Result<Vec<String>, LinkError> {
    let pattern = names.node(ALL, "*");
    let parts = [&b"PUBSUB"[..], names.verbs.channels, pattern.as_bytes()];
    let channels = link::ask(connection, &parts)?;
    let mut nodes = resp::names(&channels, &names.node(ALL, ""));
    nodes.retain(|node| *node != names.instance);
    nodes.sort();
    Ok(nodes)
}

#[cfg(test)]
mod tests {
    use rustix::process::Signal;

    use super::*;
    use crate::bus::tests::server::Server;
    use crate::config;

    #[test]
    fn the_nodes_of_a_server_that_does_not_answer_are_remembered_for_a_while() {
        let server = Server::on_a_port(&[]);
        let mut client = server.client();
        let mut node = client.as_pubsub();
        node.subscribe("p:node:b-1").expect("a subscription");
        let wait = Duration::from_secs(2);
        let config = config::RedisConfig {
            servers: config::RedisServers::One(config::Secret::new(&server.url())),
            prefix: "p".into(),
            connect_timeout: wait,
            response_timeout: wait,
            settle_time: Duration::ZERO,
            ca: None,
        };
        let connector = Connector::new(&config, &config::Login::default()).expect("a connector");
        let names = KeyNames::plain("p", "a-1");
        let mut others = Others::new(connector);
        let began = Instant::now();
        others.add(&server.address(), began);
        let mut look = |after: Duration| others.look("elsewhere", &names, began + after);
        let found = Some(OtherPrimaries {
            at: server.address(),
            nodes: vec!["b-1".into()],
            asked: began,
        });
        assert_eq!(look(Duration::ZERO), found);
        server.signal(Signal::STOP);
        let (soon, later) = (look(REMEMBERED_FOR / 2), look(REMEMBERED_FOR));
        server.signal(Signal::CONT);
        assert_eq!(soon, found, "it is busy");
        assert_eq!(later, None, "it has been gone for long");
    }
}
