//! Primaries other than the one in use: the last ones, and those that a sentinel names. A node that is still on one of them, or
//! already, hears nothing of what is published here; it is found, and told.

use std::time::{Duration, Instant};

use crate::bus::frames;
use crate::bus::redis::connection::Connection;
use crate::bus::redis::guard::Guard;
use crate::bus::redis::link::{self, Connector, LinkError};
use crate::bus::redis::names::{ALL, Names};
use crate::bus::redis::resp;

/// Servers that are looked at, at most.
const OTHERS_MAX: usize = 4;

/// How long a server is left out that did not answer: a machine that is gone costs a whole wait.
const LEFT_OUT: Duration = Duration::from_secs(2);

/// How long a server is looked at that no sentinel names any more.
const KEPT_FOR: Duration = Duration::from_secs(600);

/// Another primary, and the nodes there.
pub type Found = (String, Vec<String>);

/// The servers.
pub struct Others {
    connector: Connector,
    servers: Vec<Other>,
}

struct Other {
    name: String,
    connection: Option<Connection>,
    /// It is not asked before.
    not_before: Option<Instant>,
    until: Instant,
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
            });
        }
    }

    /// Looks at each but `present`, which this node uses; says where it has found nodes, and tells them.
    pub fn look(&mut self, present: &str, names: &Names, now: Instant) -> Option<Found> {
        self.servers
            .retain(|other| other.name != present && now < other.until);
        let mut found = None;
        for other in &mut self.servers {
            if other.not_before.is_some_and(|then| now < then) {
                continue;
            }
            match other.nodes(names, &self.connector, present) {
                Ok(nodes) if nodes.is_empty() => {}
                Ok(nodes) => found = Some((other.name.clone(), nodes)),
                Err(_) => {
                    other.connection = None;
                    other.not_before = Some(now + LEFT_OUT);
                }
            }
        }
        found
    }
}

impl Other {
    /// The nodes that use it, if it is a primary. They are told that this node uses `present`.
    fn nodes(
        &mut self,
        names: &Names,
        connector: &Connector,
        present: &str,
    ) -> Result<Vec<String>, LinkError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => {
                let server = connector.server(&self.name);
                let server = server.map_err(|error| LinkError(error.to_string()))?;
                none.insert(server.connect(None)?)
            }
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
fn subscribed(connection: &mut Connection, names: &Names) -> Result<Vec<String>, LinkError> {
    let pattern = names.node(ALL, "*");
    let parts = [&b"PUBSUB"[..], names.channels_verb(), pattern.as_bytes()];
    let channels = link::ask(connection, &parts)?;
    let mut nodes = resp::names(&channels, &names.node(ALL, ""));
    nodes.retain(|node| *node != names.instance);
    nodes.sort();
    Ok(nodes)
}
