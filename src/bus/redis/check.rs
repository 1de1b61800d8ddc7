//! What `payrelay check` can see of a Redis setup that would not work, or not well: it connects, and tries every command that the
//! relay uses, on names that nobody subscribes to.

use redis::Value;

use super::BusStartError;
use super::connection::RedisConnection;
use super::guard::Guard;
use super::link::{self, BadConfig, Connector, LinkError, Server};
use super::names::KeyNames;
use super::resp;
use super::slots;
use super::topology::{Topology, map};
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
    let mut found = Vec::new();
    if let Err(error) = look(config, shared, &mut found) {
        found.push(error.to_string());
    }
    Ok(found)
}

fn look(config: &RedisConfig, shared: bool, found: &mut Vec<String>) -> Result<(), BadConfig> {
    let plain = KeyNames::plain(&config.prefix, NOBODY);
    match &config.servers {
        RedisServers::One(url) => {
            let server = Server::at_url(config, url.expose())?;
            let Some(mut connection) = connect(&server, "redis.url", found) else {
                return Ok(());
            };
            if link::ask(&mut connection, &[b"CLUSTER", b"INFO"]).is_ok() {
                found.push(
                    "redis.url is a node of a cluster: write cluster = [\"host:port\", …] instead"
                        .into(),
                );
            }
            if shared {
                try_store(&mut connection, "redis.url", &plain, 0, found);
            }
            try_commands(&mut connection, "redis.url", &plain, 0, found);
        }
        RedisServers::Sentinel {
            sentinels,
            master,
            login,
            sentinel_login,
        } => {
            let asking = Connector::new(config, sentinel_login)?;
            let primaries = primaries_by_sentinels(&asking, sentinels, master, found)?;
            let connector = Connector::new(config, login)?;
            for primary in primaries {
                let server = connector.server(&primary)?;
                if let Some(mut connection) = connect(&server, &primary, found) {
                    advise_replicas(&mut connection, &primary, found);
                    if shared {
                        try_store(&mut connection, &primary, &plain, 0, found);
                    }
                    try_commands(&mut connection, &primary, &plain, 0, found);
                }
            }
        }
        RedisServers::Cluster { nodes, login } => {
            let connector = Connector::new(config, login)?;
            let names = KeyNames::sharded(&config.prefix, NOBODY);
            look_at_cluster(nodes, &connector, &names, shared, found)?;
        }
    }
    Ok(())
}

/// The primaries that the sentinels name: one, if all is well.
fn primaries_by_sentinels(
    asking: &Connector,
    sentinels: &[String],
    master: &str,
    found: &mut Vec<String>,
) -> Result<Vec<String>, BadConfig> {
    let mut primaries = Vec::new();
    for sentinel in sentinels {
        let name = format!("sentinel {sentinel}");
        let Some(mut connection) = connect(&asking.server(sentinel)?, &name, found) else {
            continue;
        };
        match super::topology::named_primary(&mut connection, master) {
            Ok(primary) => primaries.push(primary),
            Err(why) => found.push(format!("{name}: {why}")),
        }
    }
    primaries.sort();
    primaries.dedup();
    if primaries.len() > 1 {
        let names = primaries.join(", ");
        found.push(format!("the sentinels name different primaries: {names}"));
    }
    if sentinels.len() < 3 {
        let few = "fewer than three sentinels: when one is away, no failover can be trusted";
        found.push(few.into());
    }
    Ok(primaries)
}

fn look_at_cluster(
    nodes: &[String],
    connector: &Connector,
    names: &KeyNames,
    shared: bool,
    found: &mut Vec<String>,
) -> Result<(), BadConfig> {
    let mut slots_map = map::SlotMap::default();
    for node in nodes {
        let Some(mut connection) = connect(&connector.server(node)?, node, found) else {
            continue;
        };
        let asked =
            [&b"INFO"[..], b"NODES"].map(|word| link::ask(&mut connection, &[b"CLUSTER", word]));
        match asked {
            [Ok(info), Ok(nodes)] => {
                let info = resp::text(&info).unwrap_or_default();
                if !info.contains("cluster_state:ok") {
                    found.push(format!(
                        "{node}: the cluster is down: not every slot has a primary"
                    ));
                }
                let host = node.rsplit_once(':').map_or("", |(host, _)| host);
                slots_map.learn(map::read(resp::text(&nodes).unwrap_or_default(), host));
            }
            [Err(error), _] | [_, Err(error)] => {
                found.push(format!("{node}: {}", LinkError::from(error)));
            }
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
        if let Some(mut connection) = connect(&connector.server(primary)?, primary, found) {
            if shared {
                try_store(&mut connection, primary, names, bucket, found);
            }
            try_commands(&mut connection, primary, names, bucket, found);
        }
    }
    Ok(())
}

fn connect(server: &Server, name: &str, found: &mut Vec<String>) -> Option<RedisConnection> {
    let connection = server.connect(None);
    connection
        .map_err(|why| found.push(format!("{name}: {why}")))
        .ok()
}

/// Every command that the relay uses, and what else shows. The last one subscribes, so nothing else can be asked after it.
fn try_commands(
    connection: &mut RedisConnection,
    name: &str,
    names: &KeyNames,
    bucket: usize,
    found: &mut Vec<String>,
) {
    let key = names.guard(bucket);
    match Guard::of(&link::ask(connection, &[b"DEL", key.as_bytes()])) {
        Guard::Proven => {}
        Guard::ProvenBut(why) | Guard::Wait(why) | Guard::Leave(why) => {
            found.push(format!("{name}: {why}"));
        }
    }
    let channel = names.node(bucket, NOBODY);
    let pattern = names.node(bucket, "*");
    let publish: &[u8] = if names.is_sharded() {
        b"SPUBLISH"
    } else {
        b"PUBLISH"
    };
    let commands: [Vec<&[u8]>; 5] = [
        vec![publish, channel.as_bytes(), b""],
        vec![b"PUBSUB", names.channels_verb(), pattern.as_bytes()],
        vec![b"EVAL", SCRIPT, b"1", key.as_bytes()],
        vec![b"GET", key.as_bytes()],
        vec![names.subscribe_verb(), channel.as_bytes()],
    ];
    advise_eviction(connection, name, found);
    for command in commands {
        if let Err(error) = link::ask(connection, &command) {
            let verb = String::from_utf8_lossy(command[0]);
            found.push(format!("{name}: {verb}: {}", LinkError::from(error)));
        }
    }
}

/// What the shared outbox needs.
fn try_store(
    connection: &mut RedisConnection,
    name: &str,
    names: &KeyNames,
    bucket: usize,
    found: &mut Vec<String>,
) {
    let key = format!("{}check", names.store_prefix(bucket));
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
            Err(error) => found.push(format!(
                "{name}: {verb}, for the shared outbox: {}",
                LinkError::from(error)
            )),
            Ok(reply) if *verb == *"INFO" => {
                let advice = advice(&resp::info(&reply));
                found.extend(advice.iter().map(|words| format!("{name}: {words}")));
            }
            Ok(_) => {}
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

/// Keys that are evicted cost duplicates. Seen only by a user who may ask.
fn advise_eviction(connection: &mut RedisConnection, name: &str, found: &mut Vec<String>) {
    let Some(policy) = setting(connection, b"maxmemory-policy") else {
        return;
    };
    if policy.starts_with("allkeys-") {
        found.push(format!(
            "{name}: maxmemory-policy is {policy}: an event that is evicted is delivered twice when its provider tries again; \
             use noeviction or volatile-ttl"
        ));
    }
}

/// A primary that is cut off from its replicas shall refuse the guard. Seen only by a user who may ask.
fn advise_replicas(connection: &mut RedisConnection, name: &str, found: &mut Vec<String>) {
    if setting(connection, b"min-replicas-to-write").as_deref() == Some("0") {
        found.push(format!(
            "{name}: min-replicas-to-write is 0: a primary that is cut off goes on as one; with two replicas set it to 1"
        ));
    }
}

fn setting(connection: &mut RedisConnection, key: &[u8]) -> Option<String> {
    let Value::Array(parts) = link::ask(connection, &[b"CONFIG", b"GET", key]).ok()? else {
        return None;
    };
    Some(resp::text(parts.get(1)?)?.to_owned())
}
