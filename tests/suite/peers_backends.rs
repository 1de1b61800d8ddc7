//! Who may say HELLO, and what a backend that may not learns.

use crate::peers::{LET_IN, from, status};
use crate::support::{Backend, Relay, Setup, eventually, token};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const SECRET: &str = "correct horse battery staple";

/// The line that answers a HELLO which may not enter.
fn refusal(relay: &Relay, hello: &str) -> (String, Duration) {
    let mut backend = Backend::raw(relay);
    let began = Instant::now();
    backend.send(hello);
    let frame = backend.next().expect("an ERR");
    let took = began.elapsed();
    backend.expect_closed();
    (frame.line, took)
}

#[test]
fn a_bad_token_is_told_the_same_whatever_is_wrong_with_it_and_whichever_ids_there_are() {
    let relay = Setup::with(&format!(
        "[tcp]\nsecrets = [\"{SECRET}\", \"another secret of long ago\"]\nbackends = [\"till-7\", \"till-8\"]\n\
         hello_deadline = \"5s\"\nfailures_per_minute = 100000"
    ))
    .start();
    let _till = relay.backend_with("till-7", &format!("token={}", token(SECRET, "till-7")));
    let (others, strange) = (token(SECRET, "till-8"), token(SECRET, "nobody"));
    let forged = token("some other secret entirely", "till-7");
    let mut kinds = Vec::new();
    // Connected, allowed, and unheard of.
    for id in ["till-7", "till-8", "nobody-9"] {
        for shown in ["", " token=", " token=xyz"] {
            kinds.push(format!("HELLO 1 id={id}{shown}"));
        }
        for shown in [&forged, &"0".repeat(64), &"A".repeat(900)] {
            kinds.push(format!("HELLO 1 id={id} token={shown}"));
        }
    }
    kinds.push(format!("HELLO 1 id=till-7 token={others}"));
    kinds.push(format!("HELLO 1 id=till-7 token={strange}"));
    kinds.push(format!("HELLO 1 id=nobody-9 token={strange}"));
    let mut lines = Vec::new();
    // In turns, and the least of each: what differs then is not the machine's mood.
    let mut times = vec![Duration::MAX; kinds.len()];
    for _ in 0..9 {
        for (hello, least) in kinds.iter().zip(&mut times) {
            let (line, took) = refusal(&relay, hello);
            lines.push(line);
            *least = took.min(*least);
        }
    }
    lines.dedup();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(
        lines[0].starts_with("ERR code=bad-token fatal=1 "),
        "{}",
        lines[0]
    );
    times.sort();
    let (least, most) = (times[0], times[times.len() - 1]);
    assert!(most < least * 20 + Duration::from_millis(20), "{times:?}");

    // Only who shows a good token learns that its id is not wanted.
    let (line, _) = refusal(&relay, &format!("HELLO 1 id=nobody token={strange}"));
    assert!(line.starts_with("ERR code=not-allowed fatal=1 "), "{line}");
}

#[test]
fn failed_hellos_beyond_the_limit_are_told_so_and_good_ones_are_let_in() {
    let relay = Relay::with(&format!(
        "[tcp]\nsecrets = [\"{SECRET}\"]\nfailures_per_minute = 5"
    ));
    for n in 0..5 {
        let (line, _) = refusal(&relay, "HELLO 1 id=till-7");
        assert!(
            line.starts_with("ERR code=bad-token fatal=1 "),
            "{n}: {line}"
        );
    }
    for hello in [
        "HELLO 1 id=till-7",
        "HELLO 1 id=till-7 token=xyz",
        "HELLO 9",
        "nonsense",
    ] {
        let (line, _) = refusal(&relay, hello);
        assert!(
            line.starts_with("ERR code=limit fatal=1 "),
            "{hello}: {line}"
        );
        assert!(line.contains("too%20many%20failed%20HELLOs"), "{line}");
    }
    let mut till = relay.backend_with("till-7", &format!("token={}", token(SECRET, "till-7")));
    till.settle();
    relay.log_contains("tcp.failures_per_minute = 5"); // written after the five
    let log = relay.log();
    assert_eq!(log.matches("refused, bad-token").count(), 5, "{log}");
    assert_eq!(
        log.matches("tcp.failures_per_minute = 5").count(),
        1,
        "{log}"
    );
    // More is allowed as soon as the file says so.
    relay.rewrite(&format!(
        "[tcp]\nsecrets = [\"{SECRET}\"]\nfailures_per_minute = 500"
    ));
    relay.signal(Signal::HUP);
    relay.log_contains("reloaded");
    let (line, _) = refusal(&relay, "HELLO 1 id=till-7");
    assert!(line.starts_with("ERR code=bad-token "), "{line}");
}

#[test]
fn a_flood_of_failed_hellos_leaves_no_thread_and_no_memory_behind() {
    let relay = Relay::with(&format!(
        "[tcp]\nsecrets = [\"{SECRET}\"]\nfailures_per_minute = 5\nbackends = []"
    ));
    let steady_token = format!("token={}", token(SECRET, "till-7"));
    let mut till = relay.backend_with("till-7", &steady_token);
    let (threads, fds) = (relay.process().threads(), relay.process().fds());
    for round in 0..300 {
        let mut rude = Backend::raw(&relay);
        rude.send("HELLO 1 id=till-7 token=00");
        if round % 2 == 0 {
            rude.next().expect("an ERR");
        }
        rude.half_close();
    }
    till.settle();
    eventually("threads and descriptors are as before", || {
        relay.process().threads() <= threads + 2 && relay.process().fds() <= fds + 4
    });
    let answer = relay.post("/notify/till-7", b"hello");
    till.expect("MSG id=* =5", b"hello").ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

#[test]
fn secrets_and_ids_are_changed_without_a_restart_and_who_is_connected_stays() {
    const OTHER: &str = "another horse, another staple";
    let tcp =
        |secret: &str, ids: &str| format!("[tcp]\nsecrets = [\"{secret}\"]\nbackends = [{ids}]");
    let relay = Relay::with(&tcp(SECRET, "\"till-7\", \"till-8\""));
    let hello = |secret: &str, id: &str| format!("HELLO 1 id={id} token={}", token(secret, id));
    let with =
        |secret: &str, id: &str| relay.backend_with(id, &format!("token={}", token(secret, id)));
    let mut till = with(SECRET, "till-7");
    let (line, _) = refusal(&relay, &hello(OTHER, "till-8"));
    assert!(line.starts_with("ERR code=bad-token "), "{line}");
    let notify = |id: &str| {
        status(
            &mut from("127.0.0.1", &relay),
            &format!("/notify/{id}"),
            &[],
        )
    };
    assert_eq!((notify("till-8"), notify("till-9")), (LET_IN, 404));

    relay.rewrite(&tcp(OTHER, "\"till-7\", \"till-9\""));
    relay.signal(Signal::HUP);
    relay.log_contains("reloaded");
    for (secret, id, code) in [
        (SECRET, "till-7", "bad-token"),
        (SECRET, "till-9", "bad-token"),
        (OTHER, "till-8", "not-allowed"),
    ] {
        let (line, _) = refusal(&relay, &hello(secret, id));
        assert!(
            line.starts_with(&format!("ERR code={code} ")),
            "{id}: {line}"
        );
    }
    assert_eq!((notify("till-8"), notify("till-9")), (404, LET_IN));
    till.settle();
    with(OTHER, "till-9").settle();
}
