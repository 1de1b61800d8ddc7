//! Which threads a notification wakes.

use std::fs;
use std::path::PathBuf;

use crate::support::Relay;

/// How often the thread of the only session has gone to sleep.
fn sleeps_of_the_session(relay: &Relay) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", relay.process().pid())).expect("procfs");
    let named = |task: &PathBuf| {
        let name = fs::read_to_string(task.join("comm"));
        name.is_ok_and(|name| name == "session-1\n")
    };
    let task = tasks.map(|task| task.expect("a thread").path()).find(named);
    let status = fs::read_to_string(task.expect("its thread").join("status")).expect("procfs");
    let count = status.lines().find_map(|line| {
        let count = line.strip_prefix("voluntary_ctxt_switches:")?;
        count.trim().parse().ok()
    });
    count.expect("a count")
}

#[test]
fn an_ack_does_not_wake_the_thread_of_its_session() {
    const MANY: u64 = 200;
    let relay = Relay::start();
    let mut backend = relay.backend("till-7");
    let mut deliver = || {
        let pending = relay.post("/notify/till-7", b"x");
        backend.message().ack();
        assert_eq!(pending.answer().told(), (200, "delivered"));
    };
    deliver();
    let before = sleeps_of_the_session(&relay);
    for _ in 0..MANY {
        deliver();
    }
    let woken = sleeps_of_the_session(&relay) - before;
    assert!(woken < MANY / 10, "{woken} times for {MANY} ACKs");
}
