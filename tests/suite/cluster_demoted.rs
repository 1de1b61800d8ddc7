//! One Redis whose primary is replaced without cutting a connection: its address moves, and the old server works on, as a
//! replica or as a primary. PUBLISH succeeds there, and counts the wrong subscribers.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::outbox::{config, nothing_pending};
use crate::support::{
    Backend, Cluster, Random, Redis, Relay, Setup, TcpProxy, Traffic, eventually, node_toml,
};

const BODY: &[u8] = b"{\"n\": \"42\"}";

/// From when on the nodes are given a second to reach each other: within 3 s they have left a server that has been replaced.
const LEFT_WITHIN: Duration = Duration::from_secs(2);

#[test]
fn an_address_that_moves_is_followed_although_the_old_server_cuts_nothing() {
    let mut random = Random::new();
    let (old, new) = (Redis::start(), Redis::start());
    new.replicate(&old);
    let address = TcpProxy::before(old.addr());
    let redis = format!("[redis]\nurl = \"redis://{}\"\n", address.addr());
    let mut traffic = Traffic::begin(&redis, 2, 20, &mut random);

    let began = Instant::now();
    new.command("REPLICAOF NO ONE");
    address.move_to(new.addr());
    // Without waiting until it has everything, which takes some servers seconds.
    let addr = new.addr();
    old.command(&format!("REPLICAOF {} {}", addr.ip(), addr.port()));
    eventually("both nodes have noticed", || {
        traffic.downs().iter().all(|downs| *downs >= 1.0)
    });
    traffic.healed(
        "the address moves, and the old server cuts nothing",
        began,
        LEFT_WITHIN,
    );
    let subscribers = |server: &Redis| server.nodes_with("game-0");
    assert_eq!((subscribers(&old), subscribers(&new)), (0, 1));
    traffic.balance();
}

#[test]
fn an_address_that_moves_is_followed_although_the_old_server_stays_a_primary() {
    let mut random = Random::new();
    let servers = [Redis::start(), Redis::start()];
    let address = TcpProxy::before(servers[0].addr());
    let redis = format!("[redis]\nurl = \"redis://{}\"\n", address.addr());
    let mut traffic = Traffic::begin(&redis, 2, 20, &mut random);
    // And back again.
    for to in [1, 0, 1] {
        let began = Instant::now();
        address.move_to(servers[to].addr());
        eventually("the nodes are there", || {
            servers[to].nodes_with("game-0") == 1 && servers[1 - to].nodes_with("game-0") == 0
        });
        traffic.healed(
            "the address moves, and the old server stays a primary",
            began,
            LEFT_WITHIN,
        );
    }
    traffic.balance();
}

/// Runs the relay with a file of its own instead of /etc/hosts.
fn with_hosts(setup: Setup, hosts: &Path) -> Setup {
    let hosts = hosts.display();
    setup.under(&format!(
        "unshare --mount sh -c 'mount --bind {hosts} /etc/hosts && exec \"$0\" \"$@\"'"
    ))
}

/// Whether a process may have mounts of its own; if not, says so loudly.
fn may_mount() -> bool {
    let mut unshare = Command::new("unshare");
    unshare.args(["--mount", "mount", "--bind", "/etc/hosts", "/etc/hosts"]);
    let may = unshare.status().is_ok_and(|status| status.success());
    if !may {
        eprintln!("NOT TESTED: a process may not have mounts of its own here; run as root");
    }
    may
}

#[test]
fn a_name_that_leads_to_another_server_is_followed_and_nodes_that_differ_know_that_they_are_split()
{
    if !may_mount() {
        return;
    }
    let servers = [Redis::start(), Redis::start()];
    let dir = TempDir::with_prefix("payrelay-hosts-").expect("a folder");
    // One port, two addresses.
    let proxies = TcpProxy::before_each(&servers.each_ref().map(Redis::addr));
    let port = proxies[0].addr().port();
    let name = |node: usize, to: usize| {
        let line = format!("{} redis.internal\n", proxies[to].addr().ip());
        // In place: what is mounted is the file, not its name.
        fs::write(dir.path().join(format!("hosts{node}")), line).expect("a hosts file");
    };
    let nodes = [0, 1].map(|n| {
        name(n, 0);
        let toml = node_toml(
            &format!("node{n}"),
            &format!("redis://redis.internal:{port}"),
            "[redis]\nsettle_time = \"5s\"",
        );
        with_hosts(Setup::with(&toml), &dir.path().join(format!("hosts{n}"))).start()
    });
    let cluster = Cluster {
        nodes: nodes.into(),
    };
    cluster.wait_green();
    let tills = [0, 1].map(|n| cluster.nodes[n].backend(&format!("till-{n}")));

    // Both are told the same, one of them later.
    name(0, 1);
    for node in &cluster.nodes {
        eventually("readyz names the node that is not heard", || {
            node.readyz().text().contains("split: node")
        });
    }
    eventually("the first has left", || {
        servers[0].nodes_with("till-0") == 0
    });
    let answer = cluster.nodes[1].post("/notify/till-0", b"x").answer();
    assert_eq!(answer.told(), (503, "unreachable"), "it is connected");
    name(1, 1);
    let began = Instant::now();
    cluster.wait_green();
    for (n, mut till) in [1, 0].into_iter().zip(tills) {
        let answer = cluster.nodes[n].post(&format!("/notify/till-{}", 1 - n), b"x");
        till.message().ack();
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    let healed = began.elapsed();
    assert!(healed < Duration::from_secs(10), "{healed:?}");
}

#[test]
fn a_server_that_is_a_replica_is_never_taken_for_the_primary() {
    let (primary, replica) = (Redis::start(), Redis::start());
    replica.replicate(&primary);
    let node = Relay::with(&node_toml("alone", &replica.url(), ""));
    let said = node.readyz();
    assert_eq!(said.status, 503);
    assert!(said.text().contains("is a replica"), "{}", said.text());
    let answer = node.post("/notify/nobody", b"x").answer();
    assert_eq!(
        answer.told(),
        (503, "unreachable"),
        "whether it is anywhere is not known"
    );
    replica.command("REPLICAOF NO ONE");
    node.wait_green();
}

#[test]
fn a_primary_that_has_lost_its_replicas_is_not_believed() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, "");
    redis.command("CONFIG SET min-replicas-to-write 1");
    for node in &cluster.nodes {
        let said = node.wait_red();
        assert!(said.contains("too few replicas"), "{said}");
    }
    let answer = cluster.nodes[0].post("/notify/nobody", b"x").answer();
    assert_eq!(answer.told(), (503, "unreachable"));
    redis.command("CONFIG SET min-replicas-to-write 0");
    cluster.wait_green();
}

#[test]
fn a_count_of_0_means_offline_only_when_other_nodes_have_had_time_to_subscribe() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 1, "[redis]\nsettle_time = \"8s\"");
    let began = Instant::now();
    let first = cluster.nodes[0].post("/notify/nobody", b"x").answer();
    assert_eq!(first.told(), (503, "unreachable"));
    eventually("it is believed", || {
        let answer = cluster.nodes[0].post("/notify/nobody", b"x").answer();
        answer.told() == (503, "offline")
    });
    // The wait began when the node became green, which was before the test's clock.
    assert!(
        began.elapsed() > Duration::from_secs(1),
        "{:?}",
        began.elapsed()
    );
}

/// What is published on a server that has become a replica is received by the nodes that are still subscribed there. It was
/// sent, so it counts as a try; and the receipt, which comes late, is believed.
fn after_a_try_over_a_demoted_server(then: impl Fn(&mut Backend, &str, &dyn Fn())) {
    let (redis, other) = (Redis::start(), Redis::start());
    let cluster = Cluster::start(&redis, 2, &config("", ""));
    let (near, far) = (&cluster.nodes[0], &cluster.nodes[1]);
    let mut till = far.backend("till-7");
    let heal = || {
        redis.command("REPLICAOF NO ONE");
        cluster.wait_green();
    };
    for _ in 0..20 {
        let addr = other.addr();
        redis.command(&format!("REPLICAOF {} {}", addr.ip(), addr.port()));
        // Before the next canary, as a rule: then it is this batch whose guard is refused.
        let answer = near.post("/notify/till-7", BODY).answer();
        // It is answered seconds after it was sent.
        let sent = till.comes(Duration::from_millis(500));
        assert_eq!(answer.told(), (200, "stored"));
        cluster.wait_red();
        if sent {
            then(&mut till, answer.id(), &heal);
            nothing_pending(near);
            return;
        }
        heal();
        // It may count as a try: the node had it on a connection that it then left.
        till.expect("MSG id=* try=* route=* =*", BODY).ack();
        nothing_pending(near);
    }
    panic!("a canary was always faster");
}

#[test]
fn what_was_sent_over_a_demoted_server_comes_again_as_the_second_try() {
    after_a_try_over_a_demoted_server(|till, id, heal| {
        // Its first try is not answered.
        heal();
        let again = till.expect("MSG id=* try=2 route=* =*", BODY);
        assert_eq!(again.ack(), id);
    });
}

#[test]
fn an_ack_that_comes_when_its_node_had_given_up_is_believed() {
    after_a_try_over_a_demoted_server(|till, id, heal| {
        till.send(&format!("ACK id={id}"));
        heal();
        // If its node was cut off from Redis at that very moment, the receipt is lost, and it comes once more.
        if till.comes(Duration::from_secs(3)) {
            till.send(&format!("ACK id={id}"));
        }
    });
}
