//! A Redis cluster of three primaries with a replica each: everything that happens to it, while payments flow.

use std::time::{Duration, Instant};

use crate::support::{Random, RedisCluster, Relay, Traffic, eventually, failovers, heavy};

#[test]
fn every_failover_and_every_moved_slot_is_followed_and_nothing_is_lost() {
    let _turn = failovers();
    let mut random = Random::new();
    let mut redis = RedisCluster::start(3, true);
    let mut traffic = Traffic::begin(&redis.toml(), 3, 30, &mut random);

    // A failover that an operator asks for.
    let began = redis.fail_over_to(3);
    traffic.healed("CLUSTER FAILOVER", began, began.elapsed());
    redis.wait_whole();

    // Slots are moved: those of `all` and of a node's channels, and others.
    let (from, to) = (1, 2);
    let slots = redis.slots(from);
    let began = Instant::now();
    for slot in slots[0].0..slots[0].0 + 200 {
        redis.move_slot(slot, from, to);
    }
    traffic.healed("200 slots moved", began, began.elapsed());
    // Bucket 0, which has `all`, is on the server that has slot 0.
    let owner = (0..6).find(|n| redis.slots(*n).iter().any(|(first, _)| *first == 0));
    let owner = owner.expect("an owner of slot 0");
    let began = Instant::now();
    for slot in 0..64 {
        redis.move_slot(slot, owner, 1);
    }
    traffic.healed("the slots of all moved", began, began.elapsed());

    // A primary dies, and comes back as a replica.
    let began = Instant::now();
    redis.servers[1].kill();
    redis.wait_healed();
    traffic.healed_from_outage("kill -9", began, began.elapsed());
    redis.servers[1].restart();
    redis.wait_whole();

    // One stands still, and wakes up as a primary that is none.
    let began = Instant::now();
    redis.servers[2].pause();
    redis.wait_healed();
    traffic.healed_from_outage("SIGSTOP", began, began.elapsed());
    let downs = traffic.downs();
    let began = Instant::now();
    redis.servers[2].resume();
    redis.wait_whole();
    traffic.unnoticed("the stopped primary wakes up", began);

    // Replicas come and go: nothing to notice.
    let began = Instant::now();
    redis.servers[2].kill();
    traffic.flow();
    redis.servers[2].restart();
    redis.wait_whole();
    traffic.unnoticed("kill -9 of a replica, and back", began);
    let began = Instant::now();
    redis.servers[2].pause();
    eventually("the others miss it", || {
        redis.servers[0].command("CLUSTER NODES").contains("fail")
    });
    traffic.flow();
    redis.servers[2].resume();
    redis.wait_whole();
    traffic.unnoticed("SIGSTOP of a replica, and back", began);
    assert_eq!(traffic.downs(), downs);

    // A primary without a replica dies: coverage is lost, and found again.
    let began = Instant::now();
    redis.servers[2].kill();
    redis.servers[5].kill();
    let said = traffic.cluster.nodes[0].wait_red();
    assert!(said.contains(" of 256 buckets, "), "{said}");
    traffic.flow();
    redis.servers[5].restart();
    redis.servers[2].restart();
    redis.wait_whole();
    traffic.healed_from_outage("coverage lost and found", began, began.elapsed());
    traffic.balance();
}

#[test]
fn random_events_for_a_while() {
    let _turn = failovers();
    random_events(Duration::from_secs(12));
}

#[test]
#[ignore = "soak: a minute of random events, for tests/run --soak"]
fn soak_a_minute_of_random_events() {
    let _turn = failovers();
    random_events(Duration::from_secs(60));
}

/// Backends of a large installation; at two descriptors for a session, three nodes hold them within a limit of 20,000.
const MANY: usize = 10_000;

#[test]
#[ignore = "soak: ten thousand backends on a cluster, for tests/run --soak"]
fn soak_ten_thousand_backends_on_a_cluster() {
    let _alone = heavy();
    let mut random = Random::new();
    let mut redis = RedisCluster::start(3, true);
    let began = Instant::now();
    let mut traffic = Traffic::begin(&redis.toml(), 3, MANY, &mut random);
    eprintln!("{MANY} backends are there after {:?}", began.elapsed());
    let standing = |node: &Relay| node.metric("payrelay_bus_subscriptions_standing");
    let standing: f64 = traffic.cluster.nodes.iter().map(standing).sum();
    // Of each node its own channel in every bucket, and that of all nodes.
    assert_eq!(standing, (MANY + 3 * 257) as f64);
    // Each of them gets payments; every thirtieth is asked for through each node after each event.
    traffic.names = traffic.names.iter().step_by(30).cloned().collect();

    let began = redis.fail_over_to(3);
    traffic.healed("CLUSTER FAILOVER", began, began.elapsed());
    redis.wait_whole();

    let slots = redis.slots(1);
    let began = Instant::now();
    for slot in slots[0].0..slots[0].0 + 24 {
        redis.move_slot(slot, 1, 2);
    }
    traffic.healed("24 slots moved", began, began.elapsed());

    let began = Instant::now();
    redis.servers[1].kill();
    redis.wait_healed();
    traffic.healed_from_outage("kill -9", began, began.elapsed());
    redis.servers[1].restart();
    redis.wait_whole();
    traffic.balance();
}

/// Events from a seed, one after another, and in the end the books balance.
fn random_events(length: Duration) {
    let mut random = Random::new();
    let mut redis = RedisCluster::start(3, true);
    let mut traffic = Traffic::begin(&redis.toml(), 3, 30, &mut random);
    let until = Instant::now() + length;
    let mut events = 0;
    while Instant::now() < until {
        events += 1;
        let primaries = redis.primaries();
        let victim = primaries[random.below(primaries.len())];
        let replica = (victim + 3) % 6;
        let event = random.below(6);
        let began = Instant::now();
        let what = match event {
            0 => {
                redis.servers[victim].kill();
                eventually("its replica has taken over", || {
                    redis.primaries().contains(&replica)
                });
                redis.servers[victim].restart();
                "kill -9 of a primary"
            }
            1 => {
                redis.servers[victim].pause();
                let others = |redis: &RedisCluster| redis.primaries_but(victim);
                eventually("its replica has taken over", || {
                    others(&redis).contains(&replica)
                });
                redis.servers[victim].resume();
                "SIGSTOP of a primary"
            }
            2 => {
                redis.servers[replica].kill();
                traffic.flow();
                redis.servers[replica].restart();
                "kill -9 of a replica"
            }
            3 => {
                redis.fail_over_to(replica);
                "CLUSTER FAILOVER"
            }
            4 => {
                let to = primaries[random.below(primaries.len())];
                let ranges = redis.slots(victim);
                let (first, last) = ranges[random.below(ranges.len())];
                if to != victim {
                    for slot in first..=last.min(first + 40) {
                        redis.move_slot(slot, victim, to);
                    }
                }
                "slots moved"
            }
            _ => {
                redis.servers[victim].pause();
                crate::support::let_pass(Duration::from_millis(500));
                redis.servers[victim].resume();
                "SIGSTOP for half a second"
            }
        };
        redis.wait_healed();
        traffic.healed(what, began, began.elapsed());
        redis.wait_whole();
    }
    eprintln!("{events} events");
    traffic.balance();
}
