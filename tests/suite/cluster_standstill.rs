//! A node that is stopped for a moment, as by a debugger, a shell's job control or a virtual machine that is moved: it keeps its
//! connections to Redis, and what came meanwhile.

use rustix::process::Signal;

use crate::support::{Redis, RedisCluster, Relay, Setup, eventually};

#[test]
fn a_node_that_stands_still_for_a_moment_keeps_its_connections() {
    let redis = Redis::start();
    stands_still(&format!("[redis]\nurl = \"{}\"\n", redis.url()));
}

#[test]
fn a_node_that_stands_still_for_a_moment_keeps_its_connections_to_a_cluster() {
    let redis = RedisCluster::start(3, false);
    stands_still(&redis.toml());
}

fn stands_still(redis: &str) {
    let node = |name: &str| {
        Setup::with(&format!(
            "node = \"{name}\"\n{redis}response_timeout = \"3s\"\n"
        ))
        .start()
    };
    let (near, far) = (node("near"), node("far"));
    [&near, &far].into_iter().for_each(Relay::wait_green);
    let mut till = far.backend("till-7");
    for n in 1..=10 {
        far.signal(Signal::STOP);
        eventually("all its threads stand still", || {
            threads_of(&far).iter().all(|state| *state == 'T')
        });
        let answer = near.post("/notify/till-7", b"x");
        eventually("it is counted", || {
            near.metric("payrelay_bus_forwarded_total") >= f64::from(n)
        });
        far.signal(Signal::CONT);
        till.message().ack();
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    for node in [&near, &far] {
        assert_eq!(
            node.metric("payrelay_bus_downs_total"),
            0.0,
            "{}",
            node.log()
        );
    }
}

/// The states of all threads of a node.
fn threads_of(node: &Relay) -> Vec<char> {
    let tasks =
        std::fs::read_dir(format!("/proc/{}/task", node.process().pid())).expect("a process");
    let state = |task: std::io::Result<std::fs::DirEntry>| {
        let stat = std::fs::read_to_string(task.ok()?.path().join("stat")).ok()?;
        stat.rsplit_once(") ")?.1.chars().next()
    };
    tasks.filter_map(state).collect()
}
