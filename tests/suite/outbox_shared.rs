//! The shared outbox: what a node stores is in Redis too, so that it outlives the node, its disk, or Redis; not all three at once.

use std::fs;

use crate::outbox::{config, messages, nothing_pending, stored};
use crate::support::{Redis, Relay, Setup, TcpProxy, eventually, run};

/// A Redis that keeps what it has when it is killed.
pub fn lasting_redis() -> Redis {
    Redis::with(&["--appendonly", "yes", "--repl-diskless-sync-delay", "0"])
}

/// relay.toml of a node that shares its outbox through the Redis that `redis` names.
pub fn sharing(name: &str, redis: &str, mode: &str) -> String {
    let outbox = format!("shared = \"{mode}\"\ninherit_after = \"6s\"\nretry_max = \"1s\"");
    let toml = config("ack_deadline = \"300ms\"", &outbox);
    format!("node = \"{name}\"\n{redis}settle_time = \"0s\"\nresponse_timeout = \"2s\"\n{toml}")
}

pub fn url(url: &str) -> String {
    format!("[redis]\nurl = \"{url}\"\n")
}

pub fn node(name: &str, redis: &Redis, mode: &str) -> Relay {
    let relay = Relay::with(&sharing(name, &url(&redis.url()), mode));
    in_redis_as_on_disk(&relay);
    relay
}

/// Everything that a node has is in Redis too.
pub fn in_redis_as_on_disk(relay: &Relay) {
    eventually("Redis has what the node has", || {
        // Before the first connection all numbers are 0.
        let said = relay.readyz().text();
        !said.contains("not in Redis")
            && !said.contains("Redis does not take it")
            && relay.metric("payrelay_outbox_behind") == 0.0
            && relay.metric("payrelay_outbox_mirrored")
                == messages(relay, "pending") + messages(relay, "dead")
    });
}

/// `relay` has taken over so many from a node that is gone. Until Redis knows it too, it may still give them back.
pub fn taken_over(relay: &Relay, count: usize) {
    eventually("so many are taken over", || {
        relay.metric("payrelay_outbox_inherited") == count as f64
    });
}

/// How many records all nodes have in Redis.
pub fn records(redis: &Redis) -> u64 {
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

pub fn lose_disk(relay: &Relay) {
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
    taken_over(&b, 301);
    b.log_contains("took over 301 notifications of the node a");
    assert_eq!(
        (messages(&b, "pending"), messages(&b, "dead")),
        (300.0, 1.0)
    );
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
    taken_over(&b, 50);
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
    nothing_pending(&a);
    in_redis_as_on_disk(&a);
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

pub fn nothing_but(relay: &Relay, pending: f64) {
    eventually("so many are pending", || {
        messages(relay, "pending") == pending
    });
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
    taken_over(&b, 10);
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
    let count = 1000;
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
fn of_two_relays_with_copies_of_one_file_one_takes_another_name_and_nothing_is_lost() {
    let redis = lasting_redis();
    let toml = |name| sharing(name, &url(&redis.url()), "prefer");
    let mut a = node("a", &redis, "prefer");
    for n in 0..10 {
        stored(&a, "/notify/till-7", format!("{n}").as_bytes());
    }
    a.kill();
    let mut b = Relay::with(&toml("b"));
    b.kill();
    lose_disk(&b);
    fs::create_dir(b.path("data")).expect("a folder");
    for name in ["outbox.db", "outbox.db-wal"] {
        let from = a.path("data").join(name);
        fs::copy(from, b.path("data").join(name)).expect("copied");
    }
    a.start_again(Setup::with(&toml("a")));
    b.start_again(Setup::with(&toml("b")));
    eventually("one of them says so", || {
        let words = "has a copy of this node's outbox file";
        a.log().contains(words) || b.log().contains(words)
    });
    // Each has its own from now on.
    stored(&a, "/notify/till-7", b"of a");
    stored(&b, "/notify/till-7", b"of b");
    eventually("both are mirrored apart", || {
        let each = [&a, &b].map(|relay| relay.metric("payrelay_outbox_mirrored"));
        let kept = [&a, &b].map(|relay| messages(relay, "pending"));
        each == kept && records(&redis) as f64 == each[0] + each[1]
    });
    for relay in [&a, &b] {
        in_redis_as_on_disk(relay);
        assert!(messages(relay, "pending") >= 11.0);
    }
    a.kill();
    lose_disk(&a);
    eventually("the other has what it had", || {
        let mut bodies: Vec<String> = pending_bodies(&b);
        bodies.sort_unstable();
        bodies.dedup();
        bodies.len() == 12
    });
}

/// The bodies that a node has to deliver.
fn pending_bodies(relay: &Relay) -> Vec<String> {
    let text = relay.admin("/outbox/export").text();
    let page: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let messages = page["messages"].as_array().expect("a list");
    let body = |message: &serde_json::Value| message["body"].as_str().map(str::to_owned);
    messages.iter().filter_map(body).collect()
}
