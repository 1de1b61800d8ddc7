//! One server behind an address, and whether the address still leads to it.
//!
//! A name can be given to another server, a floating address can move, and a proxy can put another server behind itself. The
//! connections that stand do not notice: the old server may work on, and even remain a primary. So the address is connected
//! to anew every second, and the server found there is asked whether it has this node's subscriptions.

use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::Value;

use super::ANSWER_WITHIN;
use super::ONE;
use super::others::Others;
use crate::bus::frames;
use crate::bus::redis::guard::Guard;
use crate::bus::redis::health::Health;
use crate::bus::redis::link::{self, LinkError, Server};
use crate::bus::redis::names::{ALL, KeyNames};
use crate::bus::redis::queue::{OnReply, PublishQueue};
use crate::bus::redis::router::Router;

/// How long each step of a look may take. The end of the relay waits for it.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// The address.
pub struct Address {
    /// How to connect.
    pub server: Server,
    /// The same with shorter waits.
    looking: Server,
    /// How often it was found to lead to another server.
    moves: u32,
    others: Others,
}

/// What a new connection has found.
struct Seen {
    /// The server's address, such as `10.0.0.7:6379`; a unix socket has none.
    at: Option<String>,
    /// It has this node's subscriptions.
    is_subscribed: bool,
}

impl Address {
    /// Opens nothing.
    pub fn new(server: Server) -> Self {
        Self {
            others: Others::new(server.connector().hasty(ANSWER_WITHIN)),
            looking: server.hasty(LOOK_WITHIN),
            server,
            moves: 0,
        }
    }

    /// Looks where the address leads. The name of the primary changes when that is another server.
    pub fn look(&mut self, health: &Health, router: &Router) -> Vec<Option<String>> {
        if let Some((link, seen)) = self.see(health, router) {
            let at = seen.at.unwrap_or_else(|| ONE.to_owned());
            let moves = !seen.is_subscribed;
            if moves {
                self.leave(&link, &at, health, router);
            }
            let found = self.others.look(&at, &router.names, Instant::now());
            // That there are none is true once the new link stands.
            if found.is_some() || !moves {
                health.found_elsewhere(found);
            }
        }
        vec![Some(match self.moves {
            0 => ONE.to_owned(),
            moves => format!("{ONE}#{moves}"),
        })]
    }

    /// What a new connection finds, and the link that stands; `None`: nothing follows from it.
    fn see(&self, health: &Health, router: &Router) -> Option<(Arc<PublishQueue>, Seen)> {
        let link = router.owner(ALL)?;
        // A link that does not stand connects anew by itself.
        let stands = || health.subscriber_stands(link.number);
        if !stands() {
            return None;
        }
        // A server that is away, or may not write, is no reason to leave one that works.
        let seen = self.ask(&router.names).ok()?;
        stands().then_some((link, seen))
    }

    fn ask(&self, names: &KeyNames) -> Result<Seen, LinkError> {
        let mut connection = self.looking.connect(None)?;
        let reply = link::ask(&mut connection, &[b"DEL", names.guard(ALL).as_bytes()]);
        if let Guard::Wait(why) | Guard::Leave(why) = Guard::of(&reply) {
            return Err(why);
        }
        let own = names.node(ALL, &names.instance);
        let counts = link::ask(&mut connection, &[b"PUBSUB", b"NUMSUB", own.as_bytes()])?;
        Ok(Seen {
            at: connection.peer(),
            is_subscribed: !matches!(&counts, Value::Array(of) if of.get(1) == Some(&Value::Int(0))),
        })
    }

    /// Tells the nodes that are still on the server of `link` that this one goes to another, `at`; a link to that will follow.
    fn leave(&mut self, link: &PublishQueue, at: &str, health: &Health, router: &Router) {
        self.moves += 1;
        log::warn!(
            "redis: the address in redis.url leads to another server now, {at}: leaving the last one"
        );
        let names = &router.names;
        let told = names.publish(&names.all(), |out| {
            frames::elsewhere(out, &names.instance, at);
        });
        // If the queue is full, they find out by themselves.
        let _ = router.send(ALL, told, OnReply::Nothing);
        if let Some(before) = link.peer.lock().as_deref().filter(|before| *before != at) {
            self.others.add(before, Instant::now());
        }
        health.about_to_use(at);
    }
}
