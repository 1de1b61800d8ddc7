//! The shared outbox while Redis is away, or has lost what it had.

use crate::outbox::{messages, nothing_pending, stored};
use crate::outbox_shared::{
    in_redis_as_on_disk, lasting_redis, lose_disk, node, nothing_but, records, sharing, url,
};
use crate::support::{Relay, TcpProxy, eventually, run};
use std::time::{Duration, Instant};

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
fn what_is_stored_just_after_redis_lost_everything_is_inherited() {
    let redis = lasting_redis();
    let b = node("b", &redis, "prefer");
    for n in 1..4 {
        let mut a = node("a", &redis, "prefer");
        // Before the next beat of the lease.
        redis.command("FLUSHALL");
        stored(&a, "/notify/till-7", b"x");
        a.kill();
        lose_disk(&a);
        nothing_but(&b, f64::from(n));
    }
}

#[test]
fn what_is_dropped_while_redis_is_away_does_not_come_back() {
    let mut redis = lasting_redis();
    let a = node("a", &redis, "prefer");
    let id = stored(&a, "/notify/till-8", b"dropped");
    redis.kill();
    let admin = a.ready().admin.to_string();
    let drop = ["outbox", "drop", &id, "--yes", "--admin", &admin];
    let (code, _, stderr) = run(&drop);
    assert_eq!(code, Some(0), "{stderr}");
    // Redis has as many as the file, and not the same.
    let other = stored(&a, "/notify/till-7", b"other");
    redis.restart();
    a.wait_green();
    in_redis_as_on_disk(&a);
    assert_eq!((records(&redis), messages(&a, "pending")), (1, 1.0));
    let shown = a.admin(&format!("/outbox/{other}")).text();
    assert!(shown.contains("\"state\":\"pending\""), "{shown}");
}
