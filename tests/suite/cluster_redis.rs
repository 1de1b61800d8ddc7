//! What a node says and does about its Redis: one that is deaf, one that refuses, one that is away at the start or at the
//! end; TLS, logins and sockets.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Backend, Cluster, Redis, Relay, Setup, TcpProxy, eventually, node_toml};

/// A password that must never be seen again.
const PASSWORD: &str = "a-password-nobody-may-read";

/// The drain has ten seconds, and the bus ends within three more.
const STOPPED: Duration = Duration::from_secs(14);

/// A relay on `url`, which need not work.
pub fn node_on(url: &str, extra: &str) -> Relay {
    Setup::with(&node_toml("alone", url, extra)).start()
}

/// A backend on this node is served, whatever Redis does.
pub fn serves_its_own(node: &Relay) {
    let mut till = node.backend("till-own");
    let answer = node.post("/notify/till-own", b"x");
    till.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

/// A backend on `far` is reached through `near`.
pub fn reaches(near: &Relay, far: &Relay) {
    let mut till = far.backend("till-far");
    let answer = near.post("/notify/till-far", b"x");
    till.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

#[test]
fn a_connection_that_is_dead_without_a_sign_turns_readyz_red_within_4_s_and_heals_by_itself() {
    let redis = Redis::start();
    let proxy = TcpProxy::before(redis.addr());
    let through = format!("redis://{}", proxy.addr());
    let cluster = Cluster::on(&[through, redis.url()], "");
    let (node, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut till = node.backend("till-7");
    for (which, words) in [("SUBSCRIBE", "silent"), ("PUBLISH", "no answer in time")] {
        let downs = node.metric("payrelay_bus_downs_total");
        assert_eq!(proxy.deaden(which.as_bytes()), 1, "{which}");
        let began = Instant::now();
        let said = node.wait_red();
        assert!(
            began.elapsed() < Duration::from_secs(4),
            "{which}: {:?}",
            began.elapsed()
        );
        assert!(said.contains(words), "{which}: {said}");
        node.wait_green();
        assert_eq!(node.metric("payrelay_bus_downs_total"), downs + 1.0);
        assert!(node.metric("payrelay_bus_canary_age_seconds") < 3.0);
        for near in [node, other] {
            let answer = near.post("/notify/till-7", b"x");
            till.message().ack();
            assert_eq!(answer.answer().told(), (200, "delivered"), "after {which}");
        }
        reaches(node, other);
    }
    assert_eq!(other.metric("payrelay_bus_downs_total"), 0.0);
}

#[test]
fn connections_that_redis_cuts_come_back_at_once() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, "");
    let mut till = cluster.nodes[1].backend("till-7");
    for kind in ["pubsub", "normal"] {
        let downs = |node: &Relay| node.metric("payrelay_bus_downs_total");
        let before: Vec<f64> = cluster.nodes.iter().map(downs).collect();
        redis.command(&format!("CLIENT KILL TYPE {kind}"));
        for (node, before) in cluster.nodes.iter().zip(before) {
            eventually("it is noticed", || downs(node) == before + 1.0);
        }
        cluster.wait_green();
        let answer = cluster.nodes[0].post("/notify/till-7", b"x");
        till.message().ack();
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
}

#[test]
fn a_user_without_the_right_is_told_which_and_the_node_serves_its_own() {
    let redis = Redis::start();
    let url = redis.url_with(&format!("relay:{PASSWORD}@"));
    let all = format!("ACL SETUSER relay reset on >{PASSWORD} allchannels allkeys +@all");
    for (without, word) in [
        (format!("{all} -subscribe"), "'subscribe'"),
        (format!("{all} -publish"), "'publish'"),
        (format!("{all} resetchannels &other:*"), "channel"),
    ] {
        redis.command(&without);
        let node = node_on(&url, "");
        let ready = node.readyz();
        assert_eq!(ready.status, 503, "without {word}");
        for said in [ready.text(), node.log_contains("starting without")] {
            assert!(
                said.contains("lacks a right") && said.contains(word),
                "{said}"
            );
            assert!(said.contains("redis.prefix"), "{said}");
        }
        serves_its_own(&node);
        // Not "offline": whether anybody is there, this node cannot know.
        let elsewhere = node.post("/notify/elsewhere", b"x").answer();
        assert_eq!(elsewhere.told(), (503, "unreachable"), "without {word}");
        // It stays so: no flicker of green, and no flood of words.
        for _ in 0..20 {
            serves_its_own(&node);
            assert_eq!(node.readyz().status, 503, "without {word}");
        }
        let words = node.log().matches("lacks a right").count();
        assert!(words < 6, "{words} lines say it");
        assert!(!node.log().contains(PASSWORD));
        redis.command(&all);
        node.wait_green();
        reaches(&node, &node);
    }
}

#[test]
fn rights_that_are_taken_away_while_it_runs_turn_readyz_red_and_say_so() {
    let redis = Redis::start();
    let all = format!("ACL SETUSER relay reset on >{PASSWORD} allchannels allkeys +@all");
    redis.command(&all);
    let node = node_on(&redis.url_with(&format!("relay:{PASSWORD}@")), "");
    node.wait_green();
    redis.command("ACL SETUSER relay -publish");
    let said = node.wait_red();
    assert!(said.contains("lacks a right"), "{said}");
    node.log_contains("lacks a right");
    serves_its_own(&node);
    redis.command(&all);
    node.wait_green();
}

#[test]
fn a_wrong_password_is_said_without_being_shown_and_needs_no_restart_to_be_mended() {
    let redis = Redis::with(&["--requirepass", "the-right-one"]);
    for login in [
        format!(":{PASSWORD}@"),
        format!("nobody:{PASSWORD}@"),
        String::new(),
    ] {
        let node = node_on(&redis.url_with(&login), "");
        let said = node.readyz().text();
        let helps =
            said.contains("refuses the user or the password") || said.contains("wants a password");
        assert!(helps, "{said}");
        node.log_contains("starting without");
        serves_its_own(&node);
        for text in [said, node.log(), node.admin("/metrics").text()] {
            assert!(!text.contains(PASSWORD));
        }
        let debug = node.admin("/readyz").text();
        assert!(!debug.contains(PASSWORD));
    }
    let node = node_on(&redis.url_with(&format!(":{PASSWORD}@")), "");
    let mut admin = redis.connection_with(":the-right-one@");
    let mended = redis::cmd("CONFIG")
        .arg(&["SET", "requirepass", PASSWORD])
        .exec(&mut admin);
    mended.expect("the password is changed");
    node.wait_green();
    reaches(&node, &node);
}

#[test]
fn user_password_and_database_are_used() {
    let redis = Redis::start();
    redis.command(&format!(
        "ACL SETUSER relay on >{PASSWORD} resetchannels &shop:* +publish ~shop:* +subscribe +unsubscribe +select +pubsub +del"
    ));
    let url = redis.url_with(&format!("relay:{PASSWORD}@")) + "/3";
    let cluster = Cluster::on(&[url.clone(), url], "[redis]\nprefix = \"shop\"");
    reaches(&cluster.nodes[0], &cluster.nodes[1]);
    // Beside these two a node connects once a second, to look where the address leads.
    eventually("each node has its two connections in database 3", || {
        let clients = redis::cmd("CLIENT")
            .arg("LIST")
            .query::<String>(&mut redis.connection())
            .expect("a list");
        let its = clients.lines().filter(|line| line.contains("user=relay"));
        its.filter(|line| line.contains(" db=3 ")).count() == 4
    });
}

#[test]
fn a_unix_socket_is_a_way_to_redis() {
    let redis = Redis::on_a_unix_socket();
    let cluster = Cluster::start(&redis, 2, "");
    reaches(&cluster.nodes[0], &cluster.nodes[1]);
}

#[test]
fn ok_is_not_said_before_other_nodes_reach_the_backend() {
    let redis = Redis::start();
    let proxy = TcpProxy::before(redis.addr());
    let through = format!("redis://{}", proxy.addr());
    let cluster = Cluster::on(&[through, redis.url()], "");
    let (node, other) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut there = node.backend("there");
    proxy.freeze();
    let mut till = Backend::raw(node);
    till.send("HELLO 1 id=till-7");
    let mut exchanges = 0;
    till.expect_nothing_until(|| {
        // Whole exchanges on this node, which would leave time enough for an OK.
        let answer = node.post("/notify/there", b"x");
        there.message().ack();
        assert_eq!(answer.answer().told(), (200, "delivered"));
        exchanges += 1;
        exchanges > 1
    });
    proxy.forward();
    till.expect_line("OK id=till-7 node=* session=* heartbeat=* max_body=*");
    assert_eq!(redis.nodes_with("till-7"), 1);
    other.wait_green();
    let answer = other.post("/notify/till-7", b"x");
    till.message().ack();
    assert_eq!(answer.answer().status, 200);
}

#[test]
fn a_redis_that_stands_still_keeps_no_backend_waiting_for_its_ok() {
    let redis = Redis::start();
    let node = node_on(&redis.url(), "");
    node.wait_green();
    redis.pause();
    let began = Instant::now();
    serves_its_own(&node);
    assert!(
        began.elapsed() < Duration::from_secs(10),
        "{:?}",
        began.elapsed()
    );
    redis.resume();
    node.wait_green();
    eventually("nothing is left of it", || {
        redis.nodes_with("till-own") == 0
    });
}

#[test]
fn without_redis_a_node_starts_and_hears_once_it_is_there() {
    let mut redis = Redis::start();
    redis.kill();
    let began = Instant::now();
    let nodes = [node_on(&redis.url(), ""), node_on(&redis.url(), "")];
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    nodes[0].log_contains("starting without");
    for node in &nodes {
        assert_eq!(node.readyz().status, 503);
        serves_its_own(node);
    }
    let answer = nodes[0].post("/notify/till-9", b"x").answer();
    assert_eq!(answer.told(), (503, "unreachable"));
    // One that is there before Redis is reached as well as one that comes after.
    let mut early = nodes[1].backend("till-9");
    redis.restart();
    nodes.iter().for_each(Relay::wait_green);
    let answer = nodes[0].post("/notify/till-9", b"x");
    early.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    reaches(&nodes[0], &nodes[1]);
}

#[test]
fn a_node_whose_redis_is_gone_or_stands_still_stops_in_time() {
    for stands_still in [false, true] {
        for noticed in [false, true] {
            let mut redis = Redis::start();
            let mut node = node_on(&redis.url(), "");
            node.wait_green();
            let mut till = node.backend("till-7");
            match stands_still {
                true => redis.pause(),
                false => redis.kill(),
            }
            if noticed {
                node.wait_red();
            }
            let began = Instant::now();
            node.signal(Signal::TERM);
            till.expect_bye("drain");
            assert_eq!(node.wait_exit(STOPPED), Some(0));
            eprintln!(
                "stands still: {stands_still}, noticed: {noticed}: {:?}",
                began.elapsed()
            );
        }
    }
}

#[test]
fn a_node_that_hears_stops_at_once_and_leaves_no_subscription() {
    let redis = Redis::start();
    let mut node = node_on(&redis.url(), "");
    node.wait_green();
    let mut till = node.backend("till-7");
    assert_eq!(redis.nodes_with("till-7"), 1);
    let began = Instant::now();
    node.signal(Signal::TERM);
    till.expect_bye("drain");
    drop(till);
    assert_eq!(node.wait_exit(STOPPED), Some(0));
    assert!(
        began.elapsed() < Duration::from_secs(3),
        "{:?}",
        began.elapsed()
    );
    eventually("no subscription is left", || {
        redis.nodes_with("till-7") == 0
    });
}

#[test]
fn what_a_stopping_node_was_asked_for_by_others_is_answered() {
    let redis = Redis::start();
    let mut cluster = Cluster::start(&redis, 2, "");
    let mut till = cluster.nodes[1].backend_with("till-7", "max=1");
    let held = cluster.nodes[0].post("/notify/till-7", b"held");
    let id = till.expect("MSG id=* =*", b"held").id();
    let queued = cluster.nodes[0].post("/notify/till-7", b"queued");
    eventually("it waits there", || {
        cluster.nodes[1].metric("payrelay_queue_depth") == 1.0
    });
    let mut stopping = cluster.nodes.remove(1);
    stopping.signal(Signal::TERM);
    till.expect_bye("drain");
    let queued = queued.answer();
    assert_eq!(queued.told(), (503, "offline"));
    assert!(
        queued.elapsed < Duration::from_secs(10),
        "{:?}",
        queued.elapsed
    );
    assert!(!held.answered_yet());
    till.send(&format!("ACK id={id}"));
    assert_eq!(held.answer().told(), (200, "delivered"));
    assert_eq!(stopping.wait_exit(STOPPED), Some(0));
}

#[test]
fn a_change_of_redis_needs_a_restart_and_says_so() {
    let redis = Redis::start();
    let node = node_on(&redis.url(), "");
    node.wait_green();
    let changed = node_toml(
        "alone",
        &redis.url_with(&format!(":{PASSWORD}@")),
        "[redis]\nprefix = \"other\"",
    );
    node.rewrite(&changed);
    node.signal(Signal::HUP);
    let line = node.log_contains("restart");
    assert!(line.contains("redis"), "{line}");
    reaches(&node, &node);
    assert!(!node.log().contains(PASSWORD));
}
