//! The newest session of an id wins. The older one hears so, gets nothing more, and may still acknowledge what it has.

use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{Backend, Relay, eventually, token};

#[test]
fn the_older_session_is_told_and_receives_nothing_more() {
    let relay = Relay::start();
    let mut old = relay.backend("till-7");
    let mut new = relay.backend("till-7");
    assert_eq!(old.expect_bye("takeover").field("retry"), "5");
    for _ in 0..10 {
        let answer = relay.post("/notify/till-7", b"for the new one");
        new.expect("MSG id=* =*", b"for the new one").ack();
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    old.expect_closed();
    // The end of the old one takes nothing from the new one.
    let answer = relay.post("/notify/till-7", b"still");
    new.expect("MSG id=* =*", b"still").ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    eventually("one session is left", || {
        relay.metric("payrelay_sessions") == 1.0
    });
}

#[test]
fn what_the_older_session_does_not_acknowledge_is_undelivered_at_the_deadline() {
    let relay = Relay::with("[delivery]\nack_deadline = \"5s\"");
    let mut old = relay.backend("till-7");
    let lost = relay.post("/notify/till-7", b"lost");
    old.expect("MSG id=* =*", b"lost");
    let mut new = relay.backend("till-7");
    old.expect_bye("takeover");
    // The older one is still connected, and what comes now is the newer one's all the same.
    let answer = relay.post("/notify/till-7", b"for the new one");
    new.expect("MSG id=* =*", b"for the new one").ack();
    old.expect_nothing_until(|| answer.answered_yet());
    assert_eq!(answer.answer().told(), (200, "delivered"));
    assert_eq!(lost.answer().told(), (503, "timeout"));
    old.expect_closed(); // although it says nothing
    new.settle(); // and the newer one was not given it
}

#[test]
fn what_the_older_session_had_is_undelivered_at_once_when_its_connection_breaks() {
    let relay = Relay::start();
    let mut old = relay.backend("till-7");
    let lost = relay.post("/notify/till-7", b"lost");
    old.expect("MSG id=* =*", b"lost");
    let _new = relay.backend("till-7");
    old.expect_bye("takeover");
    drop(old);
    let lost = lost.answer();
    assert_eq!(lost.told(), (503, "offline"));
    assert!(lost.elapsed.as_secs() < 15, "{:?}", lost.elapsed);
}

/// As a handler takes it that is slower than a constant of two seconds.
#[test]
fn the_older_session_has_as_long_as_the_provider_waits() {
    let relay = Relay::start();
    let mut old = relay.backend("till-7");
    let answer = relay.post("/notify/till-7", b"slow");
    let id = old.expect("MSG id=* =*", b"slow").id();
    let mut new = relay.backend("till-7");
    old.expect_bye("takeover");
    let since = Instant::now();
    old.expect_nothing_until(|| since.elapsed() > Duration::from_secs(3));
    old.send(&format!("ACK id={id}"));
    assert_eq!(answer.answer().told(), (200, "delivered"));
    old.expect_closed();
    new.settle();
}

/// A node that was stopped finds several connections of one backend, of which only the last is alive.
#[test]
fn after_a_stop_of_the_node_the_last_connection_has_the_id() {
    let relay = Relay::start();
    for round in 0..20 {
        relay.process().signal(Signal::STOP);
        let mut earlier = Backend::raw(&relay);
        earlier.send("HELLO 1 id=till-7");
        let mut later = Backend::raw(&relay);
        later.send("HELLO 1 id=till-7");
        let earlier = match round % 2 {
            0 => Some(earlier),
            _ => None, // closed before its HELLO is read
        };
        relay.process().signal(Signal::CONT);
        later.expect_line("OK id=till-7 node=* session=* heartbeat=* max_body=*");
        let answer = relay.post("/notify/till-7", b"x");
        later.expect("MSG id=* =*", b"x").ack();
        assert_eq!(answer.answer().told(), (200, "delivered"));
        if let Some(mut earlier) = earlier {
            // It may have been told OK, if its HELLO was read first.
            let first = earlier.next().expect("OK or BYE");
            if first.verb == "OK" {
                earlier.expect_bye("takeover");
            } else {
                assert_eq!((&*first.verb, first.field("reason")), ("BYE", "takeover"));
            }
            earlier.expect_closed();
        }
        eventually("the earlier one is gone", || {
            relay.metric("payrelay_sessions") == 1.0
        });
        later.settle();
    }
}

#[test]
fn the_older_session_may_still_acknowledge_what_it_has() {
    let relay = Relay::start();
    let mut old = relay.backend("till-7");
    let answer = relay.post("/notify/till-7", b"in flight");
    let id = old.expect("MSG id=* =*", b"in flight").id();
    let mut new = relay.backend("till-7");
    old.expect_bye("takeover");
    old.send(&format!("ACK id={id}"));
    let answer = answer.answer();
    assert_eq!(answer.told(), (200, "delivered"));
    assert_eq!(answer.id(), id);
    old.expect_closed();
    new.settle();
}

#[test]
fn what_waited_for_the_older_session_goes_to_the_newer_in_order() {
    let relay = Relay::start();
    let mut old = relay.backend_with("till-7", "max=0");
    let mut pending = Vec::new();
    for n in 0..5 {
        pending.push(relay.post("/notify/till-7", format!("number {n}").as_bytes()));
        eventually("it waits", || {
            relay.metric("payrelay_queue_depth") == f64::from(n + 1)
        });
    }
    let mut new = relay.backend("till-7");
    // What comes only now is newer than what waited, and stays behind it.
    pending.push(relay.post("/notify/till-7", b"number 5"));
    old.expect_bye("takeover");
    old.expect_closed();
    for n in 0..6 {
        new.expect("MSG id=* try=1 =*", format!("number {n}").as_bytes())
            .ack();
    }
    for answer in pending {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
}

#[test]
fn who_cannot_prove_the_id_does_not_disturb_its_session() {
    let secret = "a-secret-of-some-length-0123456789-0123";
    let relay = Relay::with(&format!("[tcp]\nsecrets = [\"{secret}\"]"));
    let mut till = relay.backend_with("till-7", &format!("token={}", token(secret, "till-7")));
    let mut thief = Backend::raw(&relay);
    thief.send(&format!(
        "HELLO 1 id=till-7 token={}",
        token("a guess", "till-7")
    ));
    thief.expect_fatal("bad-token");
    till.settle();
    let answer = relay.post("/notify/till-7", b"x");
    till.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

#[test]
fn after_a_storm_of_takeovers_the_last_one_is_served_and_nothing_is_left() {
    let relay = Relay::start();
    let mut sessions: Vec<_> = (0..100).map(|_| relay.backend("till-7")).collect();
    let mut last = sessions.pop().expect("a hundred");
    let answer = relay.post("/notify/till-7", b"x");
    last.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    for mut old in sessions {
        old.expect_bye("takeover");
        old.expect_closed();
    }
    eventually("one session is left", || {
        relay.metric("payrelay_sessions") == 1.0
    });
}
