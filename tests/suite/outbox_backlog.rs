//! A backend that was away comes back to a backlog: it gets all of it, in order, and a second backend hardly notices.

use std::thread;
use std::time::{Duration, Instant};

use crate::support::{Backend, Relay, Steady, eventually, heavy};

const CONFIG: &str = "[delivery]\nundelivered = \"store\"\n[outbox]\nmax_messages = 2000000\n";

/// Stores `count` for till-7, from `providers` at once; each body says whose it is and the how manieth.
fn fill(relay: &Relay, count: usize, providers: usize) {
    thread::scope(|scope| {
        for provider in 0..providers {
            let mut http = relay.http();
            scope.spawn(move || {
                for n in 0..count / providers {
                    let body = format!("{provider} {n}");
                    let answer = http.post("/notify/till-7", body.as_bytes());
                    assert_eq!(answer.told(), (200, "stored"));
                }
            });
        }
    });
}

/// Acknowledges `count` and says how long that took. Of each provider they must come in the order it posted them, each
/// once, and every try must be the first.
fn take_in_order(till: &mut Backend, count: usize, providers: usize) -> Duration {
    let began = Instant::now();
    let mut next = vec![0; providers];
    for _ in 0..count {
        let message = till.message();
        let body = String::from_utf8_lossy(message.frame.body()).into_owned();
        let (provider, n) = body.split_once(' ').expect("a body of ours");
        let provider: usize = provider.parse().expect("a number");
        assert_eq!(n.parse(), Ok(next[provider]), "provider {provider}");
        assert_eq!(message.frame.field("try"), "1");
        next[provider] += 1;
        message.ack();
    }
    began.elapsed()
}

fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

#[test]
fn a_backlog_is_delivered_in_order_beside_fresh_notifications() {
    let relay = Relay::with(CONFIG);
    fill(&relay, 3000, 6);
    let steady = Steady::start(&relay);
    let mut till = relay.backend_with("till-7", "max=64");
    take_in_order(&mut till, 3000, 6);
    eventually("nothing is pending", || {
        relay.metric("payrelay_outbox_messages{state=\"pending\"}") == 0.0
    });
    till.settle();
    drop(steady);
}

/// The figures are only worth something on a machine that does nothing else.
#[test]
#[ignore = "long, and needs a quiet machine: part of tests/run --soak"]
fn a_backlog_of_100_000_leaves_another_backends_p99_within_twice_of_calm() {
    let _alone = heavy();
    let count = 100_000;
    let relay = Relay::with(CONFIG);
    fill(&relay, count, 20);
    let steady = Steady::start(&relay);
    let calm = p99(&steady.next_latencies(2000));
    let mut till = relay.backend_with("till-7", "max=64");
    let draining = thread::scope(|scope| {
        let taking = scope.spawn(move || take_in_order(&mut till, count, 20));
        let mut latencies = Vec::new();
        while !taking.is_finished() {
            latencies.extend(steady.next_latencies(200));
        }
        let took = taking.join().expect("the backend failed");
        eprintln!("drained {:.0}/s", count as f64 / took.as_secs_f64());
        latencies.sort();
        p99(&latencies)
    });
    eprintln!("p99 calm {calm:?}, while it drains {draining:?}");
    assert!(
        draining <= calm * 2,
        "p99 {calm:?} calm, {draining:?} while it drains"
    );
}
