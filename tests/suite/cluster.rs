//! Several nodes on a real Redis: any backend is reached through any node, and a node that dies leaves nothing behind.

use std::collections::{HashMap, HashSet};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, getrlimit};

use crate::support::{
    Backend, Backends, Cluster, DEADLINE, Lua, Notification, Providers, REFUSE, Random, Redis,
    Relay, adler32, assert_ok_means_acked, eventually, heavy, node_toml, shares,
};

/// Of how many notifications one is refused by its backend.
const REFUSED_ONE_IN: usize = 20;

/// Connections of providers to each node.
const PROVIDERS: usize = 8;

#[test]
fn three_nodes_three_hundred_backends_twenty_thousand_notifications() {
    let _alone = heavy();
    let mut random = Random::new();
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, "[redis]\nresponse_timeout = \"3s\"");
    let names: Vec<String> = (0..300).map(|n| format!("game-{n}")).collect();
    let addresses = names.iter().enumerate();
    let addresses = addresses.map(|(n, name)| (name.clone(), cluster.nodes[n % 3].ready().tcp));
    let backends = Backends::start(addresses.collect(), 3);
    backends.wait_serving(DEADLINE);
    // And one on each Lua, spread over the nodes.
    let luas = Lua::ALL.iter().zip(cluster.nodes.iter().cycle());
    let mut luas: Vec<_> = luas
        .map(|(lua, node)| node.lua_backend(*lua, lua.program(), "ack"))
        .collect();

    // Each as often to Lua as to another, in an order that nobody chose, and every body another's.
    let mut notifications = Vec::new();
    for n in 0..20_000 {
        let at = random.below(names.len() + luas.len());
        let to = names.get(at).cloned();
        let is_lua = to.is_none();
        let to = to.unwrap_or_else(|| Lua::ALL[at - names.len()].program().to_owned());
        let refuse = !is_lua && random.below(REFUSED_ONE_IN) == 0;
        let mut body = format!("{n} {} ", if refuse { REFUSE } else { "" }).into_bytes();
        let filler = random.below(300);
        body.extend(random.bytes(filler));
        let http = cluster.nodes[n % 3].ready().http;
        notifications.push(Notification { http, to, body });
    }
    let to_lua: Vec<Notification> = notifications
        .iter()
        .filter(|s| s.to.starts_with("lua"))
        .cloned()
        .collect();
    let sources = shares(notifications, 3 * PROVIDERS).into_iter();
    let sources = sources.map(|share| {
        let mut share = share.into_iter();
        move || share.next()
    });
    let told = Providers::start(sources.collect()).finish();
    assert_eq!(told.len(), 20_000);
    assert_eq!(backends.ended(), 0, "nobody was cut off");
    let heard = backends.stop();

    // The Luas' own records: bodies, and ids that their providers were told.
    let mut lua_ids = HashSet::new();
    for (lua, backend) in Lua::ALL.iter().zip(&mut luas) {
        let mut bodies: HashMap<String, usize> = HashMap::new();
        for notification in to_lua
            .iter()
            .filter(|notification| notification.to == lua.program())
        {
            *bodies.entry(adler32(&notification.body)).or_default() += 1;
        }
        for _ in 0..bodies.values().sum() {
            let got = backend.got();
            assert!(lua_ids.insert(got.id), "twice to {lua:?}");
            let count = bodies.get_mut(&got.adler32).expect("a body posted to it");
            *count = count.checked_sub(1).expect("as often as posted");
        }
    }
    let (to_lua, told): (Vec<_>, Vec<_>) = told
        .into_iter()
        .partition(|told| told.to.starts_with("lua"));
    for told in &to_lua {
        assert_eq!((told.status, told.outcome.as_str()), (200, "delivered"));
        assert!(lua_ids.contains(&told.id), "{} was not delivered", told.id);
    }

    // Each delivered once, answered ok exactly if it was acknowledged.
    let acked = assert_ok_means_acked(&told, &heard);
    assert_eq!(acked, heard.iter().filter(|heard| heard.acked).count());
    let ids: HashSet<_> = heard.iter().map(|heard| &heard.id).collect();
    assert_eq!(ids.len(), heard.len(), "duplicates in calm weather");
    assert_eq!(heard.len(), told.len(), "not each was delivered once");
    for told in &told {
        let refuse = String::from_utf8_lossy(&told.body).contains(REFUSE);
        let expected = if refuse {
            (503, "refused")
        } else {
            (200, "delivered")
        };
        assert_eq!(
            (told.status, told.outcome.as_str()),
            expected,
            "to {}",
            told.to
        );
    }
    let forwarded: f64 = cluster
        .nodes
        .iter()
        .map(|node| node.metric("payrelay_bus_forwarded_total"))
        .sum();
    assert!(
        forwarded > 10_000.0,
        "two of three go to another node: {forwarded}"
    );
    for node in &cluster.nodes {
        assert_eq!(node.metric("payrelay_bus_refused_total"), 0.0);
        assert_eq!(node.metric("payrelay_in_flight"), 0.0);
    }
}

#[test]
fn order_is_kept_from_one_node_to_a_backend_on_another() {
    let redis = Redis::start();
    let cluster = Cluster::start(
        &redis,
        2,
        "[http]\nmax_in_flight = 4096\n[tcp]\nqueue = 1024",
    );
    let mut till = cluster.nodes[1].backend_with("till-7", "max=2");
    let mut pending = Vec::new();
    for n in 0..50 {
        pending.push(cluster.nodes[0].post("/notify/till-7", format!("{n}").as_bytes()));
        // Taken in this order: the next is posted when this one is with the other node.
        eventually("it has come to the other node", || {
            cluster.nodes[1].metric("payrelay_bus_received_total") == f64::from(n + 1)
        });
    }
    for n in 0..50 {
        till.expect("MSG id=* =*", format!("{n}").as_bytes()).ack();
    }
    for pending in pending {
        assert_eq!(pending.answer().told(), (200, "delivered"));
    }
}

/// Redis is asked about an event; what has none is not held up by that, unless it would overtake.
#[test]
fn order_is_kept_while_redis_is_asked_about_an_event() {
    let redis = Redis::start();
    let node = redis.node(
        "a",
        "[[route]]\npath = \"/notify/{id}\"\n[[route]]\npath = \"/event/{id}\"\nevent = \"header:X-Event\"\n",
    );
    let (mut till, mut other) = (node.backend("till-7"), node.backend("till-8"));
    redis.pause();
    let mut answers = vec![node.post_with("/event/till-7", &[("X-Event", "E1")], b"first")];
    eventually("the first is taken", || {
        node.metric("payrelay_in_flight") == 1.0
    });
    answers.push(node.post("/notify/till-7", b"second"));
    eventually("the second is taken", || {
        node.metric("payrelay_in_flight") == 2.0
    });
    // Another backend's is not behind them.
    let unhindered = node.post("/notify/till-8", b"other");
    other.message().ack();
    assert_eq!(unhindered.answer().told(), (200, "delivered"));
    redis.resume();
    for body in [&b"first"[..], b"second"] {
        till.expect("MSG id=* =*", body).ack();
    }
    for answer in answers {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
}

#[test]
fn what_becomes_of_it_on_another_node_is_told_as_if_it_were_here() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, "[tcp]\nqueue = 1");
    let (near, far) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut till = far.backend_with("till-7", "max=1");
    let answer = near.post("/notify/till-7", b"a\0b\r\n");
    till.expect(
        "MSG id=* try=1 route=/notify/%7Bid%7D verified=none at=* h=0 =5",
        b"a\0b\r\n",
    )
    .nack("delay=5 reason=not%20now");
    assert_eq!(answer.answer().told(), (503, "refused"));
    near.log_contains(
        "for till-7 by /notify/{id}: refused (not now); its provider is told to send again",
    );

    // One is in flight, one waits, and there is no room for a third.
    let first = near.post("/notify/till-7", b"first");
    let id = till.expect("MSG id=* =*", b"first").id();
    let second = near.post("/notify/till-7", b"second");
    eventually("it waits there", || {
        far.metric("payrelay_queue_depth") == 1.0
    });
    assert_eq!(
        near.post("/notify/till-7", b"third").answer().told(),
        (503, "busy")
    );
    till.send(&format!("ACK id={id}"));
    assert_eq!(first.answer().told(), (200, "delivered"));
    // It goes without an answer.
    till.expect("MSG id=* =*", b"second");
    drop(till);
    let second = second.answer();
    assert_eq!(second.told(), (503, "offline"));
    assert!(
        second.elapsed < Duration::from_secs(15),
        "{:?}",
        second.elapsed
    );
    eventually("its subscription is gone", || {
        redis.nodes_with("till-7") == 0
    });
    assert_eq!(
        near.post("/notify/till-7", b"x").answer().told(),
        (503, "offline")
    );
}

#[test]
fn a_killed_node_leaves_nothing_behind_and_its_backends_are_reached_elsewhere_at_once() {
    let redis = Redis::start();
    let mut cluster = Cluster::start(&redis, 3, "[delivery]\nack_deadline = \"6s\"\n");
    let names: Vec<String> = (0..60).map(|n| format!("game-{n}")).collect();
    let channels: Vec<String> = names.iter().map(|n| format!("payrelay:to:{n}")).collect();
    let addresses = |node: &Relay| {
        names
            .iter()
            .map(|n| (n.clone(), node.ready().tcp))
            .collect()
    };
    let first = Backends::start(addresses(&cluster.nodes[0]), 2);
    first.wait_serving(DEADLINE);
    // One is in the hands of a backend there when the node dies.
    let mut holder = cluster.nodes[0].backend("holder");
    let lost = cluster.nodes[1].post("/notify/holder", b"x");
    holder.expect("MSG id=* =*", b"x");

    let dead = cluster.nodes.remove(0);
    dead.signal(rustix::process::Signal::KILL);
    eventually("the backends notice", || first.ended() == names.len());
    eventually("no subscription is left of it", || {
        redis.subscribers(&channels).iter().all(|count| *count == 0)
    });
    let offline = cluster.nodes[0].post("/notify/game-1", b"x").answer();
    assert_eq!(offline.told(), (503, "offline"));
    assert!(
        offline.elapsed < Duration::from_secs(10),
        "{:?}",
        offline.elapsed
    );

    let second = Backends::start(addresses(&cluster.nodes[0]), 2);
    second.wait_serving(DEADLINE);
    // At once: OK is said when it is so, and not a moment earlier. No second look.
    for name in &names {
        let answer = cluster.nodes[1]
            .post(&format!("/notify/{name}"), b"x")
            .answer();
        assert_eq!(answer.told(), (200, "delivered"), "{name}");
    }
    assert!(redis.subscribers(&channels).iter().all(|count| *count == 1));
    // What the dead node had is answered fail at the deadline: that its backend is elsewhere now does not say that the session
    // before is gone, and that one has as long for its ACK as everywhere.
    let mut holder = cluster.nodes[1].backend("holder");
    let lost = lost.answer();
    assert_eq!(lost.told(), (503, "timeout"));
    assert!(lost.elapsed < Duration::from_secs(20), "{:?}", lost.elapsed);
    holder.settle();
}

#[test]
fn backends_that_come_back_all_at_once_are_all_registered() {
    let _alone = heavy();
    registration_of(2000, 1);
}

/// At two descriptors for a session, a limit of 20,000 allows for 9,400 on one node; then two are restarted together.
#[test]
#[ignore = "soak: ten thousand backends, for tests/run --soak"]
fn soak_ten_thousand_backends_that_come_back_at_once() {
    let _alone = heavy();
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX);
    let restarted = if files < 2 * 10_000 + 1200 { 2 } else { 1 };
    eprintln!("this user may open {files} files, so {restarted} nodes are restarted");
    registration_of(10_000, restarted);
}

/// Of the backends of `restarted` nodes of a cluster that has one more.
fn registration_of(backends: usize, restarted: usize) {
    let redis = Redis::start();
    // The deadline for HELLO is not what is measured here.
    let extra =
        "[tcp]\nmax_connections = 20000\nhello_deadline = \"30s\"\n[http]\nmax_connections = 64";
    let mut cluster = Cluster::start(&redis, 1 + restarted, extra);
    let names: Vec<String> = (0..backends).map(|n| format!("game-{n}")).collect();
    let addresses = |nodes: &[Relay]| {
        let addresses = names.iter().zip(nodes.iter().cycle());
        addresses
            .map(|(n, node)| (n.clone(), node.ready().tcp))
            .collect()
    };
    let before = Backends::start(addresses(&cluster.nodes[1..]), 8);
    before.wait_serving(2 * DEADLINE);
    for (n, node) in cluster.nodes.iter_mut().enumerate().skip(1) {
        node.restart_with(&node_toml(&format!("node{n}"), &redis.url(), extra));
        // What it says before it hears is not said of a subscription.
        node.wait_green();
    }
    eventually("all have noticed", || before.ended() == backends);
    drop(before);

    let began = Instant::now();
    let after = Backends::start(addresses(&cluster.nodes[1..]), 8);
    after.wait_serving(2 * DEADLINE);
    let took = began.elapsed();
    eprintln!("{backends} backends registered and subscribed in {took:?}");
    // Subscribed, each once, and not only told so.
    let channels: Vec<String> = names.iter().map(|n| format!("payrelay:to:{n}")).collect();
    let counts = redis.subscribers(&channels);
    let lost = counts.iter().filter(|count| **count != 1).count();
    assert_eq!(lost, 0, "of {backends} registrations are lost");
    let total = |series| {
        cluster.nodes[1..]
            .iter()
            .map(|node| node.metric(series))
            .sum::<f64>()
    };
    assert_eq!(total("payrelay_sessions"), backends as f64);
    let standing = total("payrelay_bus_subscriptions_standing");
    assert_eq!(standing, (backends + 2 * restarted) as f64); // and each node's own two
    // And every one is reached through the other node, at the first try.
    let http = cluster.nodes[0].ready().http;
    let notifications = names.iter().map(|name| Notification {
        http,
        to: name.clone(),
        body: name.clone().into_bytes(),
    });
    let sources = shares(notifications.collect(), 8).into_iter();
    let sources = sources.map(|share| {
        let mut share = share.into_iter();
        move || share.next()
    });
    let told = Providers::start(sources.collect()).finish();
    let heard = after.stop();
    assert_eq!(assert_ok_means_acked(&told, &heard), backends);
}

#[test]
fn backends_that_come_and_go_leave_no_subscription_behind() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, "");
    let mut random = Random::new();
    // Each comes and goes on its own, so that subscribing and unsubscribing overtake each other in every way.
    let threads: Vec<_> = (0..8)
        .map(|n| {
            let mut random = random.fork();
            let tcp = [cluster.nodes[0].ready().tcp, cluster.nodes[1].ready().tcp];
            thread::spawn(move || {
                for _ in 0..40 {
                    let mut backend = Backend::connect(tcp[random.below(2)]);
                    let hello = format!("HELLO 1 id=churn-{n}\n");
                    backend.try_send(hello.as_bytes());
                    match random.below(3) {
                        0 => {}
                        // OK; or BYE, if a HELLO sent before on another connection was read after this one.
                        1 => drop(backend.next()),
                        _ => drop(backend.try_send(b"BYE\n")),
                    }
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().expect("a backend failed");
    }
    let channels: Vec<String> = (0..8).map(|n| format!("payrelay:to:churn-{n}")).collect();
    eventually("no subscription is left", || {
        redis.subscribers(&channels).iter().all(|count| *count == 0)
    });
    for node in &cluster.nodes {
        eventually("the books are empty", || {
            node.metric("payrelay_bus_subscriptions_wanted") == 2.0
                && node.metric("payrelay_bus_subscriptions_standing") == 2.0
        });
    }
}
