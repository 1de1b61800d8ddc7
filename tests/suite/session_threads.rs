//! Each backend connection has a thread of its own, which reads what its backend says and writes what waits for it.

use crate::support::{Backend, Relay, Via, eventually, over_both};

over_both! {
    every_session_reads_its_own_acks_on_its_own_thread;
}

/// How often the thread called `name` has gone to sleep; `None`: there is no such thread.
fn sleeps(relay: &Relay, name: &str) -> Option<u64> {
    relay.process().sleeps(name)
}

/// Connects the backend `id`; also the name of its session's thread.
fn connect(relay: &Relay, id: &str, keys: &str) -> (Backend, String) {
    let mut backend = Backend::raw(relay);
    let ok = backend.hello(id, keys);
    let thread = format!("session-{}", ok.field("session"));
    (backend, thread)
}

fn acks_read(relay: &Relay) -> f64 {
    relay.metric("payrelay_ack_seconds_count")
}

fn every_session_reads_its_own_acks_on_its_own_thread(via: Via) {
    const EACH: u64 = 100;
    let relay = Relay::backends_via(via, "");
    let (mut backends, threads): (Vec<_>, Vec<_>) = (1..=3)
        .map(|n| connect(&relay, &format!("till-{n}"), ""))
        .unzip();
    let before: Vec<u64> = threads
        .iter()
        .map(|thread| sleeps(&relay, thread).expect("a thread for each connection"))
        .collect();
    let mut provider = relay.http();
    for _ in 0..EACH {
        for (n, backend) in backends.iter_mut().enumerate() {
            provider.send(
                format!(
                    "POST /notify/till-{} HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\nx",
                    n + 1
                )
                .as_bytes(),
            );
            backend.expect("MSG id=* =*", b"x").ack();
            assert_eq!(provider.must_answer().told(), (200, "delivered"));
        }
    }
    assert_eq!(acks_read(&relay), (3 * EACH) as f64);
    // One ACK at a time: each thread slept before nearly each of its own, if no busy machine kept it from it.
    for (thread, before) in threads.iter().zip(before) {
        let slept = sleeps(&relay, thread).expect("it lives") - before;
        assert!(slept >= EACH / 2, "{thread} slept {slept} times");
    }
    drop(backends);
    eventually("the threads have ended", || {
        threads
            .iter()
            .all(|thread| sleeps(&relay, thread).is_none())
    });
}

#[test]
fn a_session_without_credit_sleeps_while_more_and_more_waits_for_it() {
    const MANY: u64 = 50;
    let relay = Relay::with(&format!(
        "[delivery]\nack_deadline = \"60s\"\n[tcp]\nqueue = {MANY}"
    ));
    let (mut backend, thread) = connect(&relay, "till-7", "max=1");
    let mut pending = vec![relay.post("/notify/till-7", b"x")];
    let first = backend.message().id();
    let before = sleeps(&relay, &thread).expect("its thread");
    for n in 1..MANY {
        pending.push(relay.post("/notify/till-7", b"x"));
        eventually("it waits", || {
            relay.metric("payrelay_queue_depth") == n as f64
        });
    }
    let slept = sleeps(&relay, &thread).expect("its thread") - before;
    assert!(slept < MANY / 10, "woken {slept} times, for nothing");
    backend.send(&format!("ACK id={first}"));
    for _ in 1..MANY {
        backend.message().ack();
    }
    for answer in pending {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
}

/// Nine thousand idle sessions cost next to nothing only if each does nothing between two heartbeats.
#[test]
fn an_idle_session_wakes_twice_a_heartbeat() {
    const HEARTBEATS: u64 = 5;
    let relay = Relay::with("[tcp]\nheartbeat = \"1s\"");
    let (mut backend, thread) = connect(&relay, "till-7", "");
    let mut answer_ping = || {
        backend.expect_line("PING");
        backend.send("PONG");
    };
    answer_ping();
    let before = sleeps(&relay, &thread).expect("its thread");
    for _ in 0..HEARTBEATS {
        answer_ping();
    }
    let slept = sleeps(&relay, &thread).expect("its thread") - before;
    // The PING that is due, and the PONG. The last PONG may be read by now, or not.
    assert!(slept <= 2 * HEARTBEATS + 1, "slept {slept} times");
}
