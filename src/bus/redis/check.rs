//! What `payrelay check` can see of a Redis setup that would not work, or not well: it connects, and tries every command that the
//! relay uses, on names that nobody subscribes to.

use std::fmt;

use redis::Value;

use super::BusStartError;
use super::connection::RedisConnection;
use super::guard::Guard;
use super::link::{self, BadConfig, Connector, LinkError, Server};
use super::names::KeyNames;
use super::resp;
use super::slots;
use super::topology::{self, Topology, map};
use crate::config::{RedisConfig, RedisServers};

/// The name of a node that does not exist.
const NOBODY: &str = "payrelay-check";

/// A script like those that keep the events.
const SCRIPT: &[u8] = b"return redis.call('GET', KEYS[1])";

/// Looks at the servers of `config`; gives a sentence for each thing that is wrong, with what to do. `shared`: the outbox is shared
/// through them. Waits for a few seconds at most for each server.
///
/// # Errors
/// A relay would not start with it, whatever the servers do.
pub fn check(config: &RedisConfig, shared: bool) -> Result<Vec<String>, BusStartError> {
    Topology::new(config)?;
    let mut check = RedisCheck {
        names: KeyNames::of(config, NOBODY),
        shared,
        found: Vec::new(),
    };
    if let Err(error) = check.look(config) {
        check.found.push(error.to_string());
    }
    Ok(check.found)
}

struct RedisCheck {
    names: KeyNames,
    /// The outbox is shared.
    shared: bool,
    /// What is wrong.
    found: Vec<String>,
}

impl RedisCheck {
    fn look(&mut self, config: &RedisConfig) -> Result<(), BadConfig> {
        match &config.servers {
            RedisServers::One(url) => {
                let server = Server::at_url(config, url.expose())?;
                let Some(mut connection) = self.connect(&server, "redis.url") else {
                    return Ok(());
                };
                if link::ask(&mut connection, &[b"CLUSTER", b"INFO"]).is_ok() {
                    self.found.push(
                        "redis.url is a node of a cluster: write cluster = [\"host:port\", …] instead"
                            .into(),
                    );
                }
                self.try_commands(&mut connection, "redis.url", 0);
            }
            RedisServers::Sentinel {
                sentinels,
                master,
                login,
                sentinel_login,
            } => {
                let asking = Connector::new(config, sentinel_login)?;
                let primaries = self.primaries_by_sentinels(&asking, sentinels, master)?;
                let connector = Connector::new(config, login)?;
                for primary in primaries {
                    let server = connector.server(&primary)?;
                    if let Some(mut connection) = self.connect(&server, &primary) {
                        self.advise_replicas(&mut connection, &primary);
                        self.try_commands(&mut connection, &primary, 0);
                    }
                }
            }
            RedisServers::Cluster { nodes, login } => {
                self.look_at_cluster(nodes, &Connector::new(config, login)?)?;
            }
        }
        Ok(())
    }

    /// `what` is wrong with the server called `name`.
    fn say(&mut self, name: &str, what: impl fmt::Display) {
        self.found.push(format!("{name}: {what}"));
    }

    fn connect(&mut self, server: &Server, name: &str) -> Option<RedisConnection> {
        let connection = server.connect(None);
        connection.map_err(|why| self.say(name, why)).ok()
    }

    /// The primaries that the sentinels name: one, if all is well.
    fn primaries_by_sentinels(
        &mut self,
        asking: &Connector,
        sentinels: &[String],
        master: &str,
    ) -> Result<Vec<String>, BadConfig> {
        let mut primaries = Vec::new();
        for sentinel in sentinels {
            let name = format!("sentinel {sentinel}");
            let Some(mut connection) = self.connect(&asking.server(sentinel)?, &name) else {
                continue;
            };
            match topology::named_primary(&mut connection, master) {
                Ok(primary) => primaries.push(primary),
                Err(why) => self.say(&name, why),
            }
        }
        primaries.sort();
        primaries.dedup();
        if primaries.len() > 1 {
            let names = primaries.join(", ");
            self.found
                .push(format!("the sentinels name different primaries: {names}"));
        }
        if sentinels.len() < 3 {
            let few = "fewer than three sentinels: when one is away, no failover can be trusted";
            self.found.push(few.into());
        }
        Ok(primaries)
    }

    fn look_at_cluster(
        &mut self,
        nodes: &[String],
        connector: &Connector,
    ) -> Result<(), BadConfig> {
        let mut slots_map = map::SlotMap::default();
        for node in nodes {
            let Some(mut connection) = self.connect(&connector.server(node)?, node) else {
                continue;
            };
            match topology::told_by(node, &mut connection) {
                Ok((reply, in_order)) => {
                    if !in_order {
                        let down = "the cluster is down: not every slot has a primary";
                        self.say(node, down);
                    }
                    slots_map.learn(reply);
                }
                Err(error) => self.say(node, LinkError::from(error)),
            }
        }
        let slot_of: Vec<usize> = slots::tags().iter().map(|tag| slots::slot(tag)).collect();
        let primaries = slots_map.primaries(&slot_of);
        let mut seen = Vec::new();
        for (bucket, primary) in primaries.iter().enumerate() {
            let Some(primary) = primary else { continue };
            if seen.contains(&primary) {
                continue;
            }
            seen.push(primary);
            if let Some(mut connection) = self.connect(&connector.server(primary)?, primary) {
                self.try_commands(&mut connection, primary, bucket);
            }
        }
        Ok(())
    }

    /// Every command that the relay uses, and what else shows. The last one subscribes, so nothing else can be asked after it.
    fn try_commands(&mut self, connection: &mut RedisConnection, name: &str, bucket: usize) {
        if self.shared {
            self.try_store(connection, name, bucket);
        }
        let key = self.names.guard(bucket);
        match Guard::of(&link::ask(connection, &[b"DEL", key.as_bytes()])) {
            Guard::Proven => {}
            Guard::ProvenBut(why) | Guard::Wait(why) | Guard::Leave(why) => self.say(name, why),
        }
        let channel = self.names.node(bucket, NOBODY);
        let pattern = self.names.node(bucket, "*");
        let verbs = self.names.verbs;
        let commands: [Vec<&[u8]>; 5] = [
            vec![verbs.publish.as_bytes(), channel.as_bytes(), b""],
            vec![b"PUBSUB", verbs.channels, pattern.as_bytes()],
            vec![b"EVAL", SCRIPT, b"1", key.as_bytes()],
            vec![b"GET", key.as_bytes()],
            vec![verbs.subscribe, channel.as_bytes()],
        ];
        self.advise_eviction(connection, name);
        for command in commands {
            if let Err(error) = link::ask(connection, &command) {
                let verb = String::from_utf8_lossy(command[0]);
                self.say(name, format_args!("{verb}: {}", LinkError::from(error)));
            }
        }
    }

    /// What the shared outbox needs.
    fn try_store(&mut self, connection: &mut RedisConnection, name: &str, bucket: usize) {
        let key = format!("{}check", self.names.store_prefix(bucket));
        let key = key.as_bytes();
        let commands: [Vec<&[u8]>; 8] = [
            vec![b"HSET", key, b"id", b""],
            vec![b"WAIT", b"0", b"1"],
            vec![b"HMGET", key, b"id"],
            vec![b"HGETALL", key],
            vec![b"HLEN", key],
            vec![b"HDEL", key, b"id"],
            vec![b"EXISTS", key],
            vec![b"INFO"],
        ];
        for command in commands {
            let verb = String::from_utf8_lossy(command[0]);
            match link::ask(connection, &command) {
                Err(error) => {
                    let why = LinkError::from(error);
                    self.say(name, format_args!("{verb}, for the shared outbox: {why}"));
                }
                Ok(reply) if *verb == *"INFO" => {
                    for words in advice(&resp::info(&reply)) {
                        self.say(name, words);
                    }
                }
                Ok(_) => {}
            }
        }
    }

    /// Keys that are evicted cost duplicates. Seen only by a user who may ask.
    fn advise_eviction(&mut self, connection: &mut RedisConnection, name: &str) {
        let policy = setting(connection, b"maxmemory-policy");
        if let Some(policy) = policy.filter(|policy| policy.starts_with("allkeys-")) {
            self.say(name, format_args!(
                "maxmemory-policy is {policy}: an event that is evicted is delivered twice when its provider tries again; \
                 use noeviction or volatile-ttl"
            ));
        }
    }

    /// A primary that is cut off from its replicas shall refuse the guard. Seen only by a user who may ask.
    fn advise_replicas(&mut self, connection: &mut RedisConnection, name: &str) {
        if setting(connection, b"min-replicas-to-write").as_deref() == Some("0") {
            self.say(
                name,
                "min-replicas-to-write is 0: a primary that is cut off goes on as one; with two replicas set it to 1",
            );
        }
    }
}

/// What speaks against keeping records of money in a server that says `info` of itself.
pub fn advice(info: &str) -> Vec<&'static str> {
    let says = |line: &str| info.lines().any(|said| said.trim_end() == line);
    let mut advice = Vec::new();
    let has_policy = info.contains("maxmemory_policy:");
    if has_policy && !says("maxmemory_policy:noeviction") {
        advice.push(
            "maxmemory-policy is not noeviction, so records of the shared outbox may be evicted; set it",
        );
    }
    if says("aof_enabled:0") {
        advice.push(
            "there is no append-only file, so a restart of Redis loses all records of the shared outbox, and a node whose disk is \
             lost meanwhile loses what it had; set appendonly yes",
        );
    }
    advice
}

fn setting(connection: &mut RedisConnection, key: &[u8]) -> Option<String> {
    let Value::Array(parts) = link::ask(connection, &[b"CONFIG", b"GET", key]).ok()? else {
        return None;
    };
    Some(resp::text(parts.get(1)?)?.to_owned())
}
