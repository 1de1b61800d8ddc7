//! The shared outbox: what a node stores is in Redis too, so that it outlives the node, its disk, or Redis; not all three at once.

use std::fs;
use std::time::{Duration, Instant};

use crate::outbox::{config, messages, nothing_pending, stored};
use crate::support::{Redis, RedisCluster, Relay, SentinelGroup, TcpProxy, eventually, run};

/// A Redis that keeps what it has when it is killed.
pub fn lasting_redis() -> Redis {
    Redis::with(&["--appendonly", "yes", "--repl-diskless-sync-delay", "0"])
}

/// relay.toml of a node that shares its outbox through the Redis that `redis` names.
pub fn sharing(name: &str, redis: &str, mode: &str) -> String {
    let outbox = format!("shared = \"{mode}\"\ninherit_after = \"2s\"\nretry_max = \"1s\"");
    let toml = config("ack_deadline = \"300ms\"", &outbox);
    format!("node = \"{name}\"\n{redis}settle_time = \"0s\"\nresponse_timeout = \"500ms\"\n{toml}")
}

fn url(url: &str) -> String {
    format!("[redis]\nurl = \"{url}\"\n")
}

fn node(name: &str, redis: &Redis, mode: &str) -> Relay {
    let relay = Relay::with(&sharing(name, &url(&redis.url()), mode));
    in_redis_as_on_disk(&relay);
    relay
}

/// Everything that a node has is in Redis too.
pub fn in_redis_as_on_disk(relay: &Relay) {
    eventually("Redis has what the node has", || {
        relay.metric("payrelay_outbox_behind") == 0.0
            && relay.metric("payrelay_outbox_mirrored")
                == messages(relay, "pending") + messages(relay, "dead")
    });
}

/// How many records all nodes have in Redis.
fn records(redis: &Redis) -> u64 {
    let mut connection = redis.connection();
    let keys: Vec<String> = redis::cmd("KEYS")
        .arg("*:outbox:out:*")
        .query(&mut connection)
        .expect("a list");
    let count = |key: &String| -> u64 {
        let count = redis::cmd("HLEN").arg(key).query(&mut connection);
        count.expect("a number")
    };
    keys.iter().map(count).sum()
}

/// The folder of a node's outbox, kept elsewhere.
fn copy_of_disk(relay: &Relay, to: &str) {
    fs::create_dir_all(relay.path(to)).expect("a folder");
    for name in ["outbox.db", "outbox.db-wal"] {
        let from = relay.path("data").join(name);
        fs::copy(from, relay.path(to).join(name)).expect("copied");
    }
}

fn lose_disk(relay: &Relay) {
    fs::remove_dir_all(relay.path("data")).expect("the folder of the outbox");
}

#[test]
fn what_is_stored_is_in_redis_until_it_is_acknowledged_and_a_dead_letter_until_it_is_dropped() {
    let redis = lasting_redis();
    let relay = node("a", &redis, "prefer");
    for n in 0..20 {
        stored(&relay, "/notify/till-7", format!("body {n}").as_bytes());
    }
    let id = stored(&relay, "/notify/till-8", b"no");
    assert_eq!(records(&redis), 21);
    let mut till = relay.backend("till-8");
    till.expect("MSG id=* =*", b"no").nack("delay=-1");
    let mut till = relay.backend("till-7");
    for _ in 0..20 {
        till.message().ack();
    }
    nothing_pending(&relay);
    in_redis_as_on_disk(&relay);
    assert_eq!((records(&redis), messages(&relay, "dead")), (1, 1.0));
    let admin = relay.ready().admin.to_string();
    let (code, _, stderr) = run(&["outbox", "drop", &id, "--admin", &admin]);
    assert_eq!(code, Some(0), "{stderr}");
    in_redis_as_on_disk(&relay);
    assert_eq!(records(&redis), 0);
}

#[test]
fn a_node_and_its_disk_are_lost_and_another_delivers_what_it_had_in_order() {
    let redis = lasting_redis();
    let mut a = node("a", &redis, "prefer");
    let b = node("b", &redis, "prefer");
    let ids: Vec<String> = (0..300)
        .map(|n| stored(&a, "/notify/till-7", format!("body\0{n}").as_bytes()))
        .collect();
    let dead = stored(&a, "/notify/till-8", b"dead");
    let mut till = a.backend("till-8");
    till.expect("MSG id=* =*", b"dead").nack("delay=-1");
    eventually("it is dead", || messages(&a, "dead") == 1.0);
    in_redis_as_on_disk(&a);
    a.kill();
    lose_disk(&a);
    eventually("the other node has them", || {
        messages(&b, "pending") == 300.0
    });
    b.log_contains("took over 301 notifications of the node a");
    assert_eq!(b.metric("payrelay_outbox_inherited"), 301.0);
    assert_eq!(messages(&b, "dead"), 1.0);
    let shown = b.admin(&format!("/outbox/{dead}")).text();
    assert!(shown.contains("\"state\":\"dead\""), "{shown}");
    in_redis_as_on_disk(&b);
    let mut till = b.backend("till-7");
    for (n, id) in ids.iter().enumerate() {
        let got = till.expect("MSG id=* =*", format!("body\0{n}").as_bytes());
        assert_eq!(&got.ack(), id);
    }
    nothing_pending(&b);
    till.settle();
}

#[test]
fn a_node_that_comes_back_late_with_its_file_drops_what_was_taken_over() {
    let redis = lasting_redis();
    let mut a = node("a", &redis, "prefer");
    let b = node("b", &redis, "prefer");
    for n in 0..50 {
        stored(&a, "/notify/till-7", format!("{n}").as_bytes());
    }
    in_redis_as_on_disk(&a);
    a.kill();
    eventually("the other node has them", || {
        messages(&b, "pending") == 50.0
    });
    let mut till = b.backend("till-7");
    for n in 0..50 {
        till.expect("MSG id=* =*", format!("{n}").as_bytes()).ack();
    }
    nothing_pending(&b);
    drop(till);
    a.restart_with(&sharing("a", &url(&redis.url()), "prefer"));
    a.log_contains("50 were taken over by other nodes");
    nothing_pending(&a);
    in_redis_as_on_disk(&a);
    let mut till = a.backend("till-7");
    // Nothing old is delivered: the next it gets is what is posted now.
    let answer = a.post("/notify/till-7", b"fresh");
    till.expect("MSG id=* =*", b"fresh").ack();
    assert_eq!(answer.answer().status, 200);
    assert_eq!(records(&redis), 0);
}

#[test]
fn an_old_file_is_made_whole_from_redis_and_what_is_done_stays_done() {
    let redis = lasting_redis();
    let mut a = node("a", &redis, "prefer");
    stored(&a, "/notify/till-8", b"old");
    copy_of_disk(&a, "old");
    let mut till = a.backend("till-8");
    till.expect("MSG id=* =*", b"old").ack();
    for n in 0..30 {
        stored(&a, "/notify/till-7", format!("{n}").as_bytes());
    }
    nothing_but(&a, 30.0);
    in_redis_as_on_disk(&a);
    a.kill();
    lose_disk(&a);
    fs::rename(a.path("old"), a.path("data")).expect("the old file is put back");
    a.restart_with(&sharing("a", &url(&redis.url()), "prefer"));
    a.log_contains("30 were in Redis and not in the file");
    // What the old file has as pending is delivered again: nothing says that it was acknowledged.
    nothing_but(&a, 31.0);
    in_redis_as_on_disk(&a);
    let mut till = a.backend("till-7");
    for _ in 0..30 {
        till.message().ack();
    }
    a.backend("till-8").expect("MSG id=* =*", b"old").ack();
    nothing_pending(&a);
}

fn nothing_but(relay: &Relay, pending: f64) {
    eventually("so many are pending", || {
        messages(relay, "pending") == pending
    });
}

#[test]
fn a_redis_that_has_lost_everything_gets_it_again() {
    let redis = lasting_redis();
    let a = node("a", &redis, "prefer");
    for n in 0..40 {
        stored(&a, "/notify/till-7", format!("{n}").as_bytes());
    }
    assert_eq!(records(&redis), 40);
    redis.command("FLUSHALL");
    eventually("Redis has them again", || records(&redis) == 40);
    in_redis_as_on_disk(&a);
    // Part of it, too.
    let key: Vec<String> = redis::cmd("KEYS")
        .arg("*:outbox:out:*")
        .query(&mut redis.connection())
        .expect("a list");
    let ids: Vec<String> = redis::cmd("HKEYS")
        .arg(&key[0])
        .query(&mut redis.connection())
        .expect("a list");
    redis.command(&format!("HDEL {} {} {}", key[0], ids[0], ids[7]));
    eventually("Redis has them again", || records(&redis) == 40);
    in_redis_as_on_disk(&a);
}

#[test]
fn prefer_stores_on_disk_while_redis_is_away_and_mirrors_it_within_seconds_of_its_return() {
    let mut redis = lasting_redis();
    let a = node("a", &redis, "prefer");
    stored(&a, "/notify/till-7", b"before");
    redis.kill();
    for n in 0..20 {
        stored(&a, "/notify/till-7", format!("{n}").as_bytes());
    }
    assert_eq!(a.metric("payrelay_outbox_behind"), 20.0);
    eventually("readyz warns", || {
        let words = "20 are on this node's disk alone, and not in Redis";
        a.readyz().text().contains(words)
    });
    // Delivered meanwhile: it does not come back.
    let mut till = a.backend("till-7");
    for _ in 0..21 {
        till.message().ack();
    }
    nothing_pending(&a);
    drop(till);
    stored(&a, "/notify/till-9", b"last");
    redis.restart();
    let back = Instant::now();
    eventually("Redis has it", || records(&redis) == 1);
    in_redis_as_on_disk(&a);
    let took = back.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    assert_eq!(messages(&a, "pending"), 1.0);
}

#[test]
fn require_refuses_while_redis_is_away_and_says_so() {
    let mut redis = lasting_redis();
    let a = node("a", &redis, "require");
    stored(&a, "/notify/till-7", b"before");
    redis.kill();
    let answer = a.post("/notify/till-7", b"meanwhile").answer();
    assert_eq!(answer.status, 503);
    eventually("readyz says so", || {
        a.readyz()
            .text()
            .contains("outbox stores nothing: Redis does not take it")
    });
    let refused = a.metric("payrelay_outbox_refusals_total{reason=\"shared\"}");
    assert!(refused >= 1.0, "{refused}");
    assert_eq!(messages(&a, "pending"), 1.0, "nothing was stored");
    // What is stored is delivered all the same.
    let mut till = a.backend("till-7");
    till.expect("MSG id=* =*", b"before").ack();
    nothing_pending(&a);
    drop(till);
    redis.restart();
    a.wait_green();
    in_redis_as_on_disk(&a);
    stored(&a, "/notify/till-7", b"after");
    assert_eq!(records(&redis), 1);
}

#[test]
fn require_refuses_while_redis_stands_still_and_what_it_got_by_then_is_withdrawn() {
    let redis = lasting_redis();
    let a = node("a", &redis, "require");
    redis.pause();
    let answer = a.post("/notify/till-7", b"meanwhile").answer();
    assert_eq!(answer.status, 503);
    redis.resume();
    a.wait_green();
    in_redis_as_on_disk(&a);
    assert_eq!((messages(&a, "pending"), records(&redis)), (0.0, 0));
}

#[test]
fn nodes_whose_redis_was_away_for_long_do_not_inherit_from_each_other() {
    let redis = lasting_redis();
    let proxies: Vec<TcpProxy> = (0..2).map(|_| TcpProxy::before(redis.addr())).collect();
    let nodes: Vec<Relay> = proxies
        .iter()
        .enumerate()
        .map(|(n, proxy)| {
            let redis = url(&format!("redis://{}", proxy.addr()));
            let relay = Relay::with(&sharing(&format!("node{n}"), &redis, "prefer"));
            in_redis_as_on_disk(&relay);
            relay
        })
        .collect();
    for node in &nodes {
        stored(node, "/notify/till-7", b"x");
    }
    for proxy in &proxies {
        proxy.freeze();
    }
    // Longer than both leases.
    eventually("the leases run out", || {
        let leases: Vec<String> = redis::cmd("KEYS")
            .arg("*:outbox:lease:*")
            .query(&mut redis.connection())
            .expect("a list");
        leases.is_empty()
    });
    for proxy in &proxies {
        proxy.cut();
        proxy.forward();
    }
    for node in &nodes {
        node.wait_green();
        in_redis_as_on_disk(node);
        assert_eq!(node.metric("payrelay_outbox_inherited"), 0.0);
        assert_eq!(messages(node, "pending"), 1.0);
    }
}

#[test]
fn a_node_that_was_cut_off_and_inherited_from_drops_what_others_have() {
    let redis = lasting_redis();
    let proxy = TcpProxy::before(redis.addr());
    let cut_off = Relay::with(&sharing(
        "a",
        &url(&format!("redis://{}", proxy.addr())),
        "prefer",
    ));
    in_redis_as_on_disk(&cut_off);
    let b = node("b", &redis, "prefer");
    for n in 0..10 {
        stored(&cut_off, "/notify/till-7", format!("{n}").as_bytes());
    }
    proxy.freeze();
    eventually("the other has them", || messages(&b, "pending") == 10.0);
    // What it stores meanwhile is its own.
    stored(&cut_off, "/notify/till-8", b"own");
    proxy.cut();
    proxy.forward();
    nothing_but(&cut_off, 1.0);
    in_redis_as_on_disk(&cut_off);
    in_redis_as_on_disk(&b);
    assert_eq!(records(&redis), 11);
}

#[test]
fn a_record_takes_at_most_300_bytes_more_than_what_is_in_it() {
    let redis = Redis::start();
    let a = node("a", &redis, "prefer");
    let count = 3000;
    let used = || {
        let info = redis.command("INFO memory");
        let line = info.lines().find(|line| line.starts_with("used_memory:"));
        let value = line
            .and_then(|line| line.split(':').nth(1))
            .expect("a value");
        value.trim().parse::<u64>().expect("a number")
    };
    let before = used();
    let mut http = a.http();
    for n in 0..count {
        let body = vec![b'a' + (n % 26) as u8; 1000];
        assert_eq!(http.post("/notify/till-7", &body).told(), (200, "stored"));
    }
    let more = used() - before;
    let key: Vec<String> = redis::cmd("KEYS")
        .arg("*:outbox:out:*")
        .query(&mut redis.connection())
        .expect("a list");
    let values: Vec<Vec<u8>> = redis::cmd("HVALS")
        .arg(&key[0])
        .query(&mut redis.connection())
        .expect("a list");
    assert_eq!(values.len(), count);
    let inside: usize = values.iter().map(Vec::len).sum();
    let each = (more as f64 - inside as f64) / count as f64;
    eprintln!(
        "{} bytes a record, {each:.0} more in memory",
        inside / count
    );
    assert!(each <= 300.0, "{each:.0} bytes more for each");
}

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
    eventually("the other node has it", || messages(&b, "pending") == 1.0);
}

#[test]
fn a_setting_without_redis_is_refused_with_words() {
    let relay = Relay::start();
    relay.rewrite("[outbox]\nshared = \"prefer\"\n");
    let file = relay.path("relay.toml");
    let (code, _, stderr) = run(&["check", "-c", file.to_str().expect("UTF-8")]);
    assert_ne!(code, Some(0));
    assert!(stderr.contains("there is no [redis]"), "{stderr}");
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
    eventually("the other has them", || messages(&b, "pending") == 21.0);
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
    eventually("the other has them", || messages(&b, "pending") == 20.0);
    let mut till = b.backend("till-7");
    for n in 0..20 {
        till.expect("MSG id=* =*", format!("{n}").as_bytes()).ack();
    }
    nothing_pending(&b);
    in_redis_as_on_disk(&b);
}
