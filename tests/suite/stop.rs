//! Stopping, reloading and crashing: SIGTERM drains, SIGHUP changes what can change, SIGUSR1 reopens the log, and kill -9
//! leaves no lie behind.

use std::fs;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Backend, Relay, Steady, eventually, token};

/// The drain has ten seconds; the rest is for a busy machine.
const DRAINED: Duration = Duration::from_secs(15);

#[test]
fn sigterm_drains_what_is_under_way_and_exits_0() {
    let mut relay = Relay::start();
    let mut till = relay.backend_with("till-7", "max=1");
    let mut idle = relay.backend("till-8");
    let mut kept = relay.http();
    let absent = kept.post("/notify/nobody", b"x");
    assert_eq!(absent.told(), (503, "offline"));
    let in_flight = relay.post("/notify/till-7", b"in flight");
    let id = till.expect("MSG id=* =*", b"in flight").id();
    let queued = relay.post("/notify/till-7", b"queued");
    eventually("one waits", || relay.metric("payrelay_queue_depth") == 1.0);

    relay.signal(Signal::TERM);
    for session in [&mut till, &mut idle] {
        assert_eq!(session.expect_bye("drain").field("retry"), "1");
    }
    let ready = relay.readyz();
    assert_eq!(ready.status, 503);
    assert!(ready.text().contains("drain"), "{}", ready.text());
    // What waits is given back at once; what is with the backend may still be acknowledged.
    assert_eq!(queued.answer().told(), (503, "draining"));
    assert!(!in_flight.answered_yet());
    // Nobody new comes in, by a new connection or an old one.
    let late =
        kept.exchange(b"POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: 1\r\n\r\nx");
    if let Ok(late) = late {
        assert_eq!(late.told(), (503, "draining"));
        assert_eq!(late.header("connection"), Some("close"));
    }
    eventually("the HTTP listener is closed", || {
        TcpStream::connect(relay.ready().http).is_err()
    });
    idle.expect_closed();
    till.send(&format!("ACK id={id}"));
    assert_eq!(in_flight.answer().told(), (200, "delivered"));
    till.expect_closed();
    assert_eq!(relay.wait_exit(DRAINED), Some(0));
}

#[test]
fn a_relay_with_nothing_under_way_stops_at_once_on_sigint_too() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut relay = Relay::start();
        let _idle = relay.http();
        let mut till = relay.backend("till-7");
        relay.signal(signal);
        till.expect_bye("drain");
        assert_eq!(relay.wait_exit(DRAINED), Some(0));
    }
}

#[test]
fn a_backend_that_says_nothing_does_not_hold_the_drain_up() {
    let mut relay = Relay::with("[delivery]\nack_deadline = \"60s\"");
    let mut till = relay.backend("till-7");
    let lost = relay.post("/notify/till-7", b"lost");
    till.expect("MSG id=* =*", b"lost");
    let began = Instant::now();
    relay.signal(Signal::TERM);
    let answer = lost.answer();
    assert_eq!(answer.status, 503);
    assert_eq!(relay.wait_exit(DRAINED), Some(0));
    assert!(began.elapsed() < DRAINED, "{:?}", began.elapsed());
}

#[test]
fn a_second_signal_ends_it_at_once_with_1() {
    let mut relay = Relay::with("[delivery]\nack_deadline = \"60s\"");
    let mut till = relay.backend("till-7");
    let lost = relay.post("/notify/till-7", b"lost");
    till.expect("MSG id=* =*", b"lost");
    relay.signal(Signal::TERM);
    till.expect_bye("drain");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit(Duration::from_secs(5)), Some(1));
    drop(lost);
}

#[test]
fn a_crash_before_the_ack_leaves_the_provider_without_an_ok() {
    let mut relay = Relay::start();
    let mut till = relay.backend("till-7");
    let mut provider = relay.http();
    provider.send(b"POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: 1\r\n\r\nx");
    till.message();
    relay.signal(Signal::KILL);
    assert_eq!(
        provider
            .answer()
            .expect("a close")
            .map(|answer| answer.status),
        None
    );
    till.expect_closed();
    // Nothing is left that a new start would stumble on.
    relay.restart_with("");
    let mut till = relay.backend("till-7");
    let answer = relay.post("/notify/till-7", b"again");
    till.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

#[test]
fn sighup_takes_new_routes_secrets_ids_and_log_level_and_cuts_nobody() {
    let (old, new) = (
        "the-old-secret-0123456789-0123456789",
        "the-new-secret-0123456789-0123456789",
    );
    let relay = Relay::with(&format!(
        "[tcp]\nfailures_per_minute = 1000\nsecrets = [\"{old}\"]\nbackends = [\"steady\", \"till-7\"]"
    ));
    let mut till = relay.backend_with("till-7", &format!("token={}", token(old, "till-7")));
    assert_eq!(
        relay.post("/new/till-7", b"x").answer().told(),
        (404, "no-route")
    );
    assert_eq!(
        relay.post("/notify/till-8", b"x").answer().told(),
        (404, "not-allowed")
    );

    relay.rewrite(&format!(
        "[tcp]\nfailures_per_minute = 1000\nsecrets = [\"{new}\"]\nbackends = [\"till-7\", \"till-8\"]\n[log]\nlevel = \"info\"\n\
         [[route]]\npath = \"/new/{{id}}\"\nverify = \"none\"\nok = {{ body = \"thank you\" }}",
    ));
    relay.signal(Signal::HUP);
    eventually("the new secret verifies", || {
        let mut backend = Backend::raw(&relay);
        backend.try_send(format!("HELLO 1 id=till-8 token={}\n", token(new, "till-8")).as_bytes());
        backend.next().is_some_and(|frame| frame.verb == "OK")
    });
    let mut outdated = Backend::raw(&relay);
    outdated.send(&format!("HELLO 1 id=till-8 token={}", token(old, "till-8")));
    outdated.expect_fatal("bad-token");
    eventually("the new route is there", || {
        relay.post("/new/nobody", b"x").answer().outcome() == "not-allowed"
    });
    assert_eq!(
        relay.post("/notify/till-7", b"x").answer().told(),
        (404, "no-route")
    );
    let answer = relay.post("/new/till-7", b"x");
    till.expect("MSG id=* route=/new/%7Bid%7D =*", b"x").ack();
    assert_eq!(answer.answer().text(), "thank you");
    till.settle();
}

#[test]
fn sighup_with_a_bad_file_keeps_the_old_one_and_says_why() {
    let relay = Relay::start();
    let steady = Steady::start(&relay);
    relay.rewrite_raw("[http]\nwrokers = 4\n");
    relay.signal(Signal::HUP);
    relay.log_contains("wrokers");
    steady.still_served();
    assert_eq!(relay.readyz().status, 200);

    fs::remove_file(relay.path("relay.toml")).expect("relay.toml is removed");
    relay.signal(Signal::HUP);
    relay.log_contains("no such file");
    steady.still_served();

    // And the next good one is taken.
    relay.rewrite("[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n[[route]]\npath = \"/second/{id}\"\nverify = \"none\"");
    relay.signal(Signal::HUP);
    eventually("the second route is there", || {
        relay.post("/second/nobody", b"x").answer().outcome() == "offline"
    });
}

#[test]
fn what_only_a_restart_can_change_is_said_and_left_alone() {
    let relay = Relay::start();
    relay.rewrite("[tcp]\nqueue = 7\nlisten = \"127.0.0.1:1\"");
    relay.signal(Signal::HUP);
    relay.log_contains("tcp.listen");
    relay.backend("till-7").settle();
}

#[test]
fn sigusr1_reopens_the_log_file() {
    let relay = Relay::with("[log]\nlevel = \"debug\"\nfile = \"payrelay.log\"");
    let read = |name: &str| fs::read_to_string(relay.path(name)).unwrap_or_default();
    let _before = relay.backend("before-the-turn");
    eventually("the log speaks of it", || {
        read("payrelay.log").contains("before-the-turn")
    });
    fs::rename(relay.path("payrelay.log"), relay.path("payrelay.log.1")).expect("the log is moved");
    relay.signal(Signal::USR1);
    eventually("there is a new file", || {
        relay.path("payrelay.log").exists()
    });
    let _after = relay.backend("after-the-turn");
    eventually("the new file speaks of what is new", || {
        read("payrelay.log").contains("after-the-turn")
    });
    assert!(!read("payrelay.log").contains("before-the-turn"));
    assert!(!read("payrelay.log.1").contains("after-the-turn"));
}
