//! What the shared outbox needs of the servers of Redis, and what becomes of it when they change: with sentinels, and in a cluster.

use std::fs;

use crate::outbox::{nothing_pending, stored};
use crate::outbox_shared::{
    in_redis_as_on_disk, lasting_redis, lose_disk, records, sharing, taken_over, url,
};
use crate::support::{Redis, RedisCluster, Relay, SentinelGroup, eventually, run};

/// The rights that doc/outbox.md adds to those of doc/cluster.md.
fn documented_rights() -> String {
    let doc = |name: &str| {
        let path = format!("{}/doc/{name}", env!("CARGO_MANIFEST_DIR"));
        fs::read_to_string(path).expect("a page")
    };
    let (cluster, outbox) = (doc("cluster.md"), doc("outbox.md"));
    let user = cluster.lines().find(|line| line.starts_with("ACL SETUSER"));
    let more = outbox.lines().find(|line| line.starts_with("+hset"));
    format!("{} {}", user.expect("a user"), more.expect("rights"))
}

#[test]
fn the_documented_rights_are_enough_and_check_says_what_speaks_against_the_server() {
    let redis = lasting_redis();
    redis.command(&documented_rights());
    let redis_toml = url(&redis.url_with("relay:PASSWORD@"));
    let mut a = Relay::with(&sharing("a", &redis_toml, "require"));
    in_redis_as_on_disk(&a);
    stored(&a, "/notify/till-7", b"x");
    let b = Relay::with(&sharing("b", &redis_toml, "require"));
    in_redis_as_on_disk(&b);
    let file = a.path("relay.toml").display().to_string();
    let check = || {
        let (code, stdout, stderr) = run(&["check", "-c", &file]);
        assert_eq!(code, Some(0), "{stderr}");
        stdout
    };
    assert!(!check().contains("redis: "), "{}", check());
    redis.command("CONFIG SET appendonly no");
    assert!(check().contains("set appendonly yes"), "{}", check());
    redis.command("ACL SETUSER relay -hset");
    assert!(
        check().contains("HSET, for the shared outbox"),
        "{}",
        check()
    );
    redis.command("ACL SETUSER relay +hset");
    a.kill();
    taken_over(&b, 1);
}

#[test]
fn a_failover_of_sentinels_keeps_the_mirror_whole_and_a_dead_node_is_inherited_from_after_it() {
    let mut group = SentinelGroup::start();
    let node = |name| Relay::with(&sharing(name, &group.toml(), "prefer"));
    let (mut a, b) = (node("a"), node("b"));
    for relay in [&a, &b] {
        in_redis_as_on_disk(relay);
    }
    for n in 0..20 {
        stored(&a, "/notify/till-7", format!("{n}").as_bytes());
    }
    group.servers[0].kill();
    // While there is no primary it is on the disk alone.
    stored(&a, "/notify/till-7", b"20");
    let primary = group.wait_for_another(0);
    in_redis_as_on_disk(&a);
    assert_eq!(records(&group.servers[primary]), 21);
    a.kill();
    lose_disk(&a);
    taken_over(&b, 21);
    let mut till = b.backend("till-7");
    for n in 0..=20 {
        till.expect("MSG id=* =*", format!("{n}").as_bytes()).ack();
    }
    nothing_pending(&b);
}

#[test]
fn in_a_cluster_a_dead_node_is_inherited_from() {
    let cluster = RedisCluster::start(3, false);
    let node = |name| Relay::with(&sharing(name, &cluster.toml(), "require"));
    let (mut a, b) = (node("a"), node("b"));
    for relay in [&a, &b] {
        in_redis_as_on_disk(relay);
    }
    for n in 0..20 {
        stored(&a, "/notify/till-7", format!("{n}").as_bytes());
    }
    a.kill();
    lose_disk(&a);
    taken_over(&b, 20);
    let mut till = b.backend("till-7");
    for n in 0..20 {
        till.expect("MSG id=* =*", format!("{n}").as_bytes()).ack();
    }
    nothing_pending(&b);
    in_redis_as_on_disk(&b);
}

/// Two nodes that share through `cluster`, the server that has what they share, and the slot of it.
fn two_nodes(cluster: &RedisCluster) -> (Relay, Relay, usize, u16) {
    let node = |name| Relay::with(&sharing(name, &cluster.toml(), "prefer"));
    let (a, b) = (node("a"), node("b"));
    for relay in [&a, &b] {
        in_redis_as_on_disk(relay);
    }
    let key_of = |server: &Redis| -> Option<String> {
        let keys = redis::cmd("KEYS")
            .arg("*:outbox:stores")
            .query::<Vec<String>>(&mut server.connection());
        keys.expect("a list").pop()
    };
    let primaries = cluster.primaries().into_iter();
    let mut found = primaries.filter_map(|n| Some((n, key_of(&cluster.servers[n])?)));
    let (server, key) = found.next().expect("the shared outbox is somewhere");
    let slot = redis::cmd("CLUSTER")
        .arg("KEYSLOT")
        .arg(key)
        .query(&mut cluster.servers[server].connection());
    (a, b, server, slot.expect("a slot"))
}

/// `a` and its disk are lost; `b` delivers the `count` bodies that it had.
fn lose_and_deliver(mut a: Relay, b: &Relay, count: usize) {
    a.kill();
    lose_disk(&a);
    taken_over(b, count);
    let mut till = b.backend("till-7");
    for n in 0..count {
        till.expect("MSG id=* =*", format!("{n}").as_bytes()).ack();
    }
    nothing_pending(b);
    in_redis_as_on_disk(b);
}

#[test]
fn a_failover_in_a_cluster_keeps_the_mirror_whole() {
    let mut cluster = RedisCluster::start(3, true);
    let (a, b, server, _) = two_nodes(&cluster);
    for n in 0..20 {
        stored(&a, "/notify/till-7", format!("{n}").as_bytes());
    }
    cluster.servers[server].kill();
    // While there is no primary it is on the disk alone.
    stored(&a, "/notify/till-7", b"20");
    eventually("its replica is the primary", || {
        cluster.primaries().contains(&(server + 3))
    });
    for relay in [&a, &b] {
        in_redis_as_on_disk(relay);
    }
    assert_eq!(records(&cluster.servers[server + 3]), 21);
    lose_and_deliver(a, &b, 21);
}

#[test]
fn a_slot_that_moves_takes_the_shared_outbox_along() {
    let cluster = RedisCluster::start(3, false);
    let (a, b, from, slot) = two_nodes(&cluster);
    for n in 0..20 {
        stored(&a, "/notify/till-7", format!("{n}").as_bytes());
    }
    let to = (from + 1) % 3;
    cluster.move_slot(slot, from, to);
    stored(&a, "/notify/till-7", b"20");
    for relay in [&a, &b] {
        in_redis_as_on_disk(relay);
    }
    assert_eq!(records(&cluster.servers[to]), 21);
    lose_and_deliver(a, &b, 21);
}

/// A number of Redis's INFO: what stands behind `name`.
fn info(redis: &Redis, section: &str, name: &str) -> u64 {
    let info = redis.command(&format!("INFO {section}"));
    let digits = info.split_once(name).map_or("0", |(_, rest)| rest);
    let digits = digits.split(|c: char| !c.is_ascii_digit()).next();
    digits.and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[test]
fn a_lease_is_held_anew_before_it_runs_out() {
    let redis = lasting_redis();
    // A lease of one second, which is how often a writer without work looks around.
    let toml = sharing("a", &url(&redis.url()), "prefer").replace("\"6s\"", "\"2s\"");
    let relay = Relay::with(&toml);
    in_redis_as_on_disk(&relay);
    let beats = || info(&redis, "commandstats", "cmdstat_set:calls=");
    let expired = || info(&redis, "stats", "expired_keys:");
    let (beats_before, expired_before) = (beats(), expired());
    eventually("it was held nine times more", || {
        beats() >= beats_before + 9
    });
    // A machine that stands still may cost one or two.
    let expired = expired() - expired_before;
    assert!(expired <= 2, "it ran out {expired} times");
}
