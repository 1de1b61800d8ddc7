//! A backend that was away comes back to a backlog: it gets all of it, in order, no faster than `outbox.redelivery_rate`, and a
//! second backend hardly notices.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use super::outbox::{nothing_pending, stored, storing};
use crate::support::{Backend, Relay, Steady, heavy};

const CONFIG: &str = "[delivery]\nundelivered = \"store\"\n[outbox]\nmax_messages = 2000000\n";

/// Stores `count` for till-7, from `providers` at once; each body says whose it is and the how manieth.
pub fn fill(relay: &Relay, count: usize, providers: usize) {
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
pub fn take_in_order(till: &mut Backend, count: usize, providers: usize) -> Duration {
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

pub fn p99(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() * 99 / 100]
}

#[test]
fn a_backlog_is_delivered_in_order_beside_fresh_notifications() {
    let relay = Relay::with(CONFIG);
    fill(&relay, 3000, 6);
    let steady = Steady::start(&relay);
    let mut till = relay.backend_with("till-7", "max=64");
    take_in_order(&mut till, 3000, 6);
    nothing_pending(&relay);
    till.settle();
    drop(steady);
}

/// When what was stored for `backend` was sent, by the relay's own account: in Unix milliseconds, in order.
fn sent(relay: &Relay, backend: &str) -> Vec<u64> {
    let listed = relay.admin(&format!("/outbox?backend={backend}&limit=1000"));
    let listed: Value = serde_json::from_str(&listed.text()).expect("JSON");
    let steps = |message: &Value| message["timeline"].as_array().cloned().unwrap_or_default();
    let all = listed["messages"].as_array().expect("messages");
    let sent = all.iter().flat_map(steps);
    let sent = sent.filter(|step| step["what"] == "sent");
    let mut times: Vec<u64> = sent.filter_map(|step| step["at"].as_u64()).collect();
    times.sort_unstable();
    times
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.expect("a clock").as_millis() as u64
}

#[test]
fn a_backlog_is_sent_no_faster_than_the_redelivery_rate_and_fresh_ones_do_not_wait_for_it() {
    let (count, rate) = (100, 50);
    let relay = storing("", &format!("redelivery_rate = {rate}"));
    for n in 0..count {
        stored(&relay, "/notify/till-7", format!("{n}").as_bytes());
    }
    let began = unix_ms();
    let mut till = relay.backend_with("till-7", "max=64");
    for n in 0..count / 4 {
        till.expect("MSG id=* =*", format!("{n}").as_bytes()).ack();
    }
    // To the same backend: it is not in the line.
    let fresh = relay.post("/notify/till-7", b"fresh");
    let mut got = Vec::new();
    while got.last().is_none_or(|body| body != b"fresh") {
        let message = till.message();
        got.push(message.frame.body().to_vec());
        message.ack();
    }
    assert_eq!(fresh.answer().told(), (200, "delivered"));
    assert!(got.len() <= count / 2, "{} went before it", got.len());
    for _ in count / 4 + got.len() - 1..count {
        till.message().ack();
    }
    nothing_pending(&relay);
    let times = sent(&relay, "till-7");
    assert_eq!(times.len(), count);
    // However busy the machine is: from its coming on, none was sent before its turn.
    for (n, at) in times.iter().enumerate() {
        let turn = (n * 1000 / rate) as u64;
        let passed = at.saturating_sub(began);
        assert!(passed + 5 >= turn, "number {n} was sent after {passed} ms");
    }
    till.settle();
}

#[test]
fn backends_with_a_backlog_take_turns_whoever_came_first() {
    let relay = storing("", "redelivery_rate = 100");
    for (backend, count) in [("till-7", 400), ("till-8", 30)] {
        for n in 0..count {
            stored(
                &relay,
                &format!("/notify/{backend}"),
                format!("{n}").as_bytes(),
            );
        }
    }
    // Half of that may be under way, so neither is held up by its own ACKs.
    let mut first = relay.backend_with("till-7", "max=256");
    first.message().ack();
    thread::scope(|scope| {
        scope.spawn(move || (1..400).for_each(|_| drop(first.message().ack())));
        let mut second = relay.backend_with("till-8", "max=128");
        (0..30).for_each(|_| drop(second.message().ack()));
    });
    nothing_pending(&relay);
    let (first, second) = (sent(&relay, "till-7"), sent(&relay, "till-8"));
    assert_eq!((first.len(), second.len()), (400, 30));
    // The first one goes ahead alone, to see whether the backend acknowledges.
    let meanwhile = second[1]..second[29];
    let meanwhile = first.iter().filter(|at| meanwhile.contains(at)).count();
    assert!(
        (10..90).contains(&meanwhile),
        "while 30 went to the second, {meanwhile} went to the first"
    );
}

#[test]
fn waiting_for_its_turn_costs_no_processor() {
    let relay = storing("", "redelivery_rate = 1");
    for n in 0..10 {
        stored(&relay, "/notify/till-7", format!("{n}").as_bytes());
    }
    let mut till = relay.backend_with("till-7", "max=64");
    till.message().ack();
    let cpu = || relay.metric("process_cpu_seconds_total");
    let before = cpu();
    assert!(before > 0.0, "the relay does not say what it has used");
    for _ in 0..3 {
        till.message().ack();
    }
    let used = cpu() - before;
    assert!(used < 0.2, "{used} s of the processor for three messages");
}

/// The figures are only worth something on a machine that does nothing else.
#[test]
#[ignore = "long, and needs a quiet machine: part of tests/run --soak"]
fn a_backlog_of_100_000_leaves_another_backends_p99_within_twice_of_calm() {
    let _alone = heavy();
    let count = 100_000;
    let relay = Relay::with(CONFIG);
    fill(&relay, count, 20);
    let steady = Steady::start_every(&relay, Duration::from_millis(1));
    let calm = p99(&steady.next_latencies(10_000));
    let mut till = relay.backend_with("till-7", "max=64");
    let redelivering = thread::scope(|scope| {
        let taking = scope.spawn(move || take_in_order(&mut till, count, 20));
        let mut latencies = Vec::new();
        while !taking.is_finished() {
            latencies.extend(steady.next_latencies(200));
        }
        let took = taking.join().expect("the backend failed");
        eprintln!("redelivered {:.0}/s", count as f64 / took.as_secs_f64());
        latencies.sort();
        p99(&latencies)
    });
    eprintln!("p99 calm {calm:?}, while it redelivers {redelivering:?}");
    assert!(
        redelivering <= calm * 2,
        "p99 {calm:?} calm, {redelivering:?} while it redelivers"
    );
}
