//! A primary that sentinels name: everything that happens to it, to its replicas and to the sentinels, while payments flow.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::{Random, Redis, SentinelGroup, Traffic, eventually, failovers, pause};

/// How long the sentinels of these tests need to agree that a primary is down: 1 s, and to elect one of them.
const DOWN_AFTER: Duration = Duration::from_secs(3);

#[test]
fn every_failover_is_followed_and_nothing_is_lost() {
    let _turn = failovers();
    let mut random = Random::new();
    let mut group = SentinelGroup::start();
    let mut traffic = Traffic::begin(&group.toml(), 3, 30, &mut random);
    traffic.follow(&group);
    let downs = traffic.downs();

    // What nodes need not notice: replicas and sentinels that come and go.
    let primary = group.primary().expect("a primary");
    let replica = (primary + 1) % 3;
    let began = Instant::now();
    group.servers[replica].kill();
    group.sentinels[0].kill();
    eventually("a sentinel is missing", || answering(&traffic) == 2.0);
    traffic.flow();
    group.servers[replica].restart();
    group.sentinels[0].restart();
    group.wait_whole();
    eventually("all answer", || answering(&traffic) == 3.0);
    traffic.unnoticed("kill -9 of a replica and a sentinel, and back", began);
    let began = Instant::now();
    group.servers[replica].pause();
    group.sentinels[1].pause();
    eventually("a sentinel is missing", || answering(&traffic) == 2.0);
    traffic.flow();
    group.servers[replica].resume();
    group.sentinels[1].resume();
    group.wait_whole();
    eventually("all answer", || answering(&traffic) == 3.0);
    traffic.unnoticed("SIGSTOP of a replica and a sentinel, and back", began);
    // Without any sentinel the primary is as good as before.
    let began = Instant::now();
    group.sentinels.iter().for_each(Redis::pause);
    eventually("no sentinel answers", || answering(&traffic) == 0.0);
    traffic.flow();
    group.sentinels.iter().for_each(Redis::resume);
    eventually("all answer", || answering(&traffic) == 3.0);
    traffic.unnoticed("SIGSTOP of all sentinels, and back", began);
    assert_eq!(traffic.downs(), downs, "no node was ever red");
    group.wait_whole();

    // A failover that an operator asks for.
    let before = group.primary().expect("a primary");
    let (began, after) = group.fail_over(before);
    traffic.healed("SENTINEL FAILOVER", began, began.elapsed());
    only_on(&group, after);
    group.wait_whole();

    // The primary dies.
    let before = group.primary().expect("a primary");
    let began = Instant::now();
    group.servers[before].kill();
    group.wait_for_another(before);
    traffic.healed_from_outage("kill -9", began, began.elapsed());
    group.servers[before].restart();
    group.wait_whole();

    // It stands still, and wakes up as a primary that is none.
    let before = group.primary().expect("a primary");
    let began = Instant::now();
    group.servers[before].pause();
    let after = group.wait_for_another(before);
    traffic.healed_from_outage("SIGSTOP", began, began.elapsed());
    let downs = traffic.downs();
    let began = Instant::now();
    group.servers[before].resume();
    group.wait_whole();
    traffic.unnoticed("the stopped primary wakes up", began);
    assert_eq!(
        traffic.downs(),
        downs,
        "the old primary woke up, and nobody went there"
    );
    only_on(&group, after);

    // It stands still for a moment only, and stays the primary.
    let before = group.primary().expect("a primary");
    let began = Instant::now();
    group.servers[before].pause();
    crate::support::let_pass(DOWN_AFTER / 6);
    group.servers[before].resume();
    traffic.healed("SIGSTOP for a sixth of down-after", began, began.elapsed());
    assert_eq!(group.primary(), Some(before));
    traffic.balance();
}

#[test]
fn a_primary_that_lives_is_left_when_most_sentinels_name_another() {
    let _turn = failovers();
    let mut random = Random::new();
    let group = SentinelGroup::start();
    let mut traffic = Traffic::begin(&group.toml(), 2, 20, &mut random);
    let old = group.primary().expect("a primary");
    let new = (old + 1) % 3;
    group.servers[new].command("REPLICAOF NO ONE");
    let downs = traffic.downs();
    // One sentinel that says something else is not believed.
    name_another(&group, 0, new);
    let log = traffic.cluster.nodes[0].log_contains("name different primaries");
    assert!(
        log.contains(&group.servers[new].addr().to_string()),
        "{log}"
    );
    traffic.flow();
    assert_eq!(traffic.downs(), downs, "no node has left");
    // Nor when it is the only one that answers.
    group.sentinels[1].pause();
    group.sentinels[2].pause();
    eventually("one sentinel answers", || answering(&traffic) == 1.0);
    traffic.flow();
    assert_eq!(traffic.downs(), downs, "no node has left");
    group.sentinels[1].resume();
    group.sentinels[2].resume();
    eventually("all answer", || answering(&traffic) == 3.0);
    // Two are.
    let began = Instant::now();
    name_another(&group, 1, new);
    let named = began.elapsed();
    for node in &traffic.cluster.nodes {
        let words = format!("{} as the primary, no longer", group.servers[new].addr());
        node.log_contains(&words);
    }
    traffic.healed("sentinels name another, the old one lives", began, named);
    only_on(&group, new);
    traffic.balance();
}

/// For as long as two nodes are told different primaries.
const TOLD_DIFFERENTLY: Duration = Duration::from_secs(10);

/// Within this a node that does not hear another says so.
const DEAF: Duration = Duration::from_secs(4);

#[test]
fn nodes_that_are_told_different_primaries_know_that_they_are_split() {
    let _turn = failovers();
    let mut random = Random::new();
    // Two servers that know nothing of each other, and for each node a sentinel of its own.
    let servers = [Redis::start(), Redis::start()];
    let sentinels = [0, 0].map(|n: usize| Redis::sentinel(servers[n].addr()));
    let name = |sentinel: usize, server: usize| {
        name_as_primary(&sentinels[sentinel], servers[server].addr());
    };
    let redis = sentinels.iter().map(|sentinel| {
        let addr = sentinel.addr();
        format!("[redis]\nsentinels = [\"{addr}\"]\nmaster = \"mymaster\"\n")
    });
    let mut traffic = Traffic::begin_on(&redis.collect::<Vec<_>>(), 20, &mut random);

    let began = Instant::now();
    name(1, 1);
    // A sentinel writes its file before it says so, and a busy disk can hold it up for seconds.
    let told = Instant::now();
    let mut greens = 0;
    let mut red = [None; 2];
    while told.elapsed() < TOLD_DIFFERENTLY {
        for (node, red) in traffic.cluster.nodes.iter().zip(&mut red) {
            let asked = told.elapsed();
            let said = node.readyz();
            greens += usize::from(said.status == 200 && asked > DEAF);
            if said.status == 503 && said.text().contains("split: node") {
                red.get_or_insert(asked);
            }
        }
        pause();
    }
    eprintln!("told different primaries: red for the split after {red:?}");
    assert!(red.iter().all(Option::is_some), "{red:?}");
    assert_eq!(greens, 0, "a node was green that cannot hear the other");
    name(1, 0);
    let named = began.elapsed();
    traffic.healed("two nodes told different primaries for 10 s", began, named);

    // The other node may follow as well.
    let began = Instant::now();
    name(1, 1);
    let told = Instant::now();
    traffic.cluster.wait_red();
    let red = told.elapsed();
    assert!(red < DEAF, "red after {red:?}");
    for node in &traffic.cluster.nodes {
        node.log_contains("split: node");
    }
    name(0, 1);
    let named = began.elapsed();
    traffic.healed("one told another primary, then the other too", began, named);
    traffic.balance();
}

#[test]
fn nodes_start_without_sentinels_and_come_in_when_one_answers() {
    let group = SentinelGroup::start();
    group.sentinels.iter().for_each(Redis::pause);
    let node = crate::support::Setup::with(&format!("node = \"alone\"\n{}", group.toml())).start();
    let said = node.readyz();
    assert_eq!(said.status, 503);
    assert!(said.text().contains("sentinel"), "{}", said.text());
    group.sentinels[2].resume();
    node.wait_green();
    group.sentinels.iter().for_each(Redis::resume);
}

/// Lets sentinel `n` name server `new` as the primary.
fn name_another(group: &SentinelGroup, n: usize, new: usize) {
    name_as_primary(&group.sentinels[n], group.servers[new].addr());
}

fn name_as_primary(sentinel: &Redis, addr: SocketAddr) {
    sentinel.command("SENTINEL REMOVE mymaster");
    sentinel.command(&format!(
        "SENTINEL MONITOR mymaster {} {} 2",
        addr.ip(),
        addr.port()
    ));
}

/// How many sentinels answer, as the first node says.
fn answering(traffic: &Traffic) -> f64 {
    traffic.cluster.nodes[0].metric("payrelay_bus_sentinels_answering")
}

/// Every subscription for a backend is on `server` and on no other.
fn only_on(group: &SentinelGroup, server: usize) {
    eventually("all nodes are on one server", || {
        (0..3).all(|n| group.servers[n].nodes_with("game-0") == u64::from(n == server))
    });
}
