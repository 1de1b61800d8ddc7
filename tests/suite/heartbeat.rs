//! Every loop that all depend on shows that it turns: one that panics or hangs is named in `/readyz`, in the log and in the
//! metrics, and is started again where that can be.

use std::fs;
use std::time::Duration;

use rustix::process::Signal;

use crate::support::{Backend, DEADLINE, Redis, Relay, Setup, eventually, node_toml, strace};

/// With everything that has a loop.
pub const ALL: &str = "[delivery]\nack_deadline = \"5s\"\nundelivered = \"store\"\n[outbox]\nretry_first = \"100ms\"\n";

/// The loops whose end would be the end of the node's work.
const VITAL: [&str; 7] = [
    "tcp-accept",
    "bus-publisher",
    "bus-subscriber",
    "deadlines",
    "outbox-writer",
    "redelivery",
    "http-worker-0",
];

fn node(redis: &Redis) -> Relay {
    let relay = Setup::with(&node_toml("alone", &redis.url(), ALL))
        .faults()
        .start();
    relay.wait_green();
    relay
}

/// The next turn of the loop `name` is as `fault` says: `panic`, or `hang`.
pub fn set(relay: &Relay, name: &str, fault: &str) {
    fs::write(relay.path(&format!("faults/{name}.{fault}")), "").expect("a fault is set");
}

pub fn end_hang(relay: &Relay, name: &str) {
    fs::remove_file(relay.path(&format!("faults/{name}.hang"))).expect("the hang is over");
}

/// Gives every loop something to do.
fn stir(relay: &Relay) {
    let mut stranger = Backend::raw(relay);
    stranger.try_send(b"HELLO 1 id=stranger\n");
    // Not waited for: the worker that takes it may be the one that panics.
    let _ = relay.post("/notify/till-0", b"stirred");
}

/// What stands in `/readyz`, once that has `words`.
pub fn readyz_says(relay: &Relay, words: &str) -> String {
    let mut text = String::new();
    eventually(words, || {
        stir(relay);
        text = relay.readyz().text();
        text.contains(words)
    });
    text
}

/// Notifications are delivered, and those that were stored too.
fn works(relay: &Relay, round: usize) {
    let id = format!("till-{round}");
    let stored = format!("stored in round {round}");
    let path = format!("/notify/{id}");
    let answer = relay.post(&path, stored.as_bytes()).answer();
    assert_eq!(answer.told(), (200, "stored"), "round {round}");
    let mut till = relay.backend(&id);
    till.expect("MSG id=* =*", stored.as_bytes()).ack();
    let answer = relay.post(&path, b"fresh");
    till.expect("MSG id=* =*", b"fresh").ack();
    assert_eq!(answer.answer().told(), (200, "delivered"), "round {round}");
}

#[test]
fn a_panic_in_any_loop_shows_and_heals() {
    let redis = Redis::start();
    let relay = node(&redis);
    for (round, name) in (1..).zip(VITAL) {
        set(&relay, name, "panic");
        let text = readyz_says(&relay, &format!("thread {name} panicked"));
        assert!(text.contains("\"ready\":false"), "{text}");
        let restarts = format!("payrelay_thread_restarts_total{{thread=\"{name}\"}}");
        assert_eq!(relay.metric(&restarts), 1.0, "{name}");
        relay.log_contains(&format!("thread {name} has panicked; it is started again"));
        relay.log_contains(&format!("a test wants {name} to panic"));
        relay.wait_green();
        works(&relay, round);
    }
    // One that panics again and again stays red, and does not eat up the processor: a second lies between two panics.
    set(&relay, "deadlines", "panic");
    readyz_says(&relay, "thread deadlines panicked");
    set(&relay, "deadlines", "panic");
    relay.log_contains("thread deadlines has panicked again; it is started again in a second");
}

#[test]
fn a_panic_of_the_log_shows_as_a_warning_and_the_log_goes_on() {
    let relay = Setup::with("").faults().start();
    set(&relay, "log", "panic");
    let text = readyz_says(&relay, "thread log panicked");
    assert!(
        text.contains("\"ready\":true") && text.contains("\"warnings\":["),
        "{text}"
    );
    relay.log_contains("a test wants log to panic");
    let mut till = relay.backend("till-after");
    till.settle();
    relay.log_contains("till-after");
}

#[test]
fn a_loop_that_hangs_is_named_until_it_turns_again() {
    let redis = Redis::start();
    let relay = node(&redis);
    // This one first: it has nothing to do while nothing can be stored.
    set(&relay, "redelivery", "hang");
    readyz_says(&relay, "thread redelivery has hung for ");
    for name in VITAL {
        set(&relay, name, "hang");
    }
    for name in VITAL {
        let text = readyz_says(&relay, &format!("thread {name} has hung for "));
        assert!(text.contains("\"ready\":false"), "{text}");
        relay.log_contains(&format!("thread {name} has hung for "));
        assert_eq!(
            relay.metric(&format!("payrelay_thread_up{{thread=\"{name}\"}}")),
            0.0
        );
    }
    for name in VITAL {
        end_hang(&relay, name);
        relay.log_contains(&format!("thread {name} turns again after "));
    }
    relay.wait_green();
    works(&relay, 1);
}

#[test]
fn a_hanging_log_is_a_warning_and_no_reason_to_take_the_node_out() {
    let relay = Setup::with("[log]\nlevel = \"debug\"\nfile = \"pipe\"")
        .pipe("pipe")
        .start();
    // A pipe takes 64 KiB; each of these has a line of more than 60 bytes.
    let mut provider = relay.http();
    for _ in 0..2000 {
        provider.post("/notify/nobody", b"x");
    }
    let mut text = String::new();
    eventually("readyz warns of the log", || {
        text = relay.readyz().text();
        text.contains("thread log has hung for ")
    });
    assert!(
        text.contains("\"ready\":true") && text.contains("what reads the log"),
        "{text}"
    );
}

/// As a disk does that does not come back: the sync of the outbox does not return.
#[test]
fn a_disk_that_hangs_turns_readyz_red_with_the_name_of_the_writer() {
    // The provider still waits when the writer is named.
    let relay = Relay::with(&ALL.replace("ack_deadline = \"5s\"\n", ""));
    assert_eq!(
        relay.post("/notify/till-0", b"x").answer().told(),
        (200, "stored")
    );
    let hang = [
        "-e",
        "trace=fsync,fdatasync",
        "-e",
        "inject=fsync,fdatasync:delay_enter=120000000",
    ];
    let Some(disk) = strace(&relay, &hang) else {
        return;
    };
    let waits = relay.post("/notify/till-0", b"y");
    let mut text = String::new();
    eventually("readyz names the writer", || {
        text = relay.readyz().text();
        text.contains("thread outbox-writer has hung for ")
    });
    assert!(
        text.contains("\"ready\":false") && text.contains("look at the disk of outbox.path"),
        "{text}"
    );
    drop(disk);
    assert_eq!(waits.answer().told(), (200, "stored"));
    relay.wait_green();
}

#[test]
fn a_thread_that_hangs_cannot_hold_up_the_stop() {
    let mut relay = Setup::with(ALL).faults().start();
    set(&relay, "redelivery", "hang");
    readyz_says(&relay, "thread redelivery has hung");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit(DEADLINE + Duration::from_secs(10)), Some(1));
    relay.log_contains("not stopped within 20 s");
}
