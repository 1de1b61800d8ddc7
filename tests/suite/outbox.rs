//! The outbox: what was not delivered is stored, answered ok, and delivered when its backend is there; and how an operator
//! sees it.

use std::fs;
use std::time::{Duration, Instant};

use crate::support::{Backend, Relay, eventually};
use rustix::process::Signal;

/// A relay that stores, with further lines of `[delivery]` and `[outbox]`.
pub fn storing(delivery: &str, outbox: &str) -> Relay {
    Relay::with(&config(delivery, outbox))
}

pub fn config(delivery: &str, outbox: &str) -> String {
    format!(
        "[delivery]\nundelivered = \"store\"\n{delivery}\n[outbox]\nretry_first = \"100ms\"\n{outbox}\n\
         [[route]]\npath = \"/notify/{{id}}\"\nverify = \"none\"\n\
         [[route]]\npath = \"/event/{{id}}\"\nverify = \"none\"\nevent = \"json:/n\"\n"
    )
}

pub fn messages(relay: &Relay, state: &str) -> f64 {
    relay.metric(&format!("payrelay_outbox_messages{{state=\"{state}\"}}"))
}

pub fn nothing_pending(relay: &Relay) {
    eventually("nothing is pending", || messages(relay, "pending") == 0.0);
}

/// Posts, expects `stored`, and gives the id.
pub fn stored(relay: &Relay, path: &str, body: &[u8]) -> String {
    let answer = relay.post(path, body).answer();
    assert_eq!(answer.told(), (200, "stored"));
    assert_eq!(answer.text(), "success");
    answer.id().to_owned()
}

#[test]
fn what_was_posted_to_nobody_comes_when_somebody_is_there() {
    let relay = storing("", "");
    let ids: Vec<String> = (0..20)
        .map(|n| stored(&relay, "/notify/till-7", format!("body\0{n}").as_bytes()))
        .collect();
    assert_eq!(messages(&relay, "pending"), 20.0);
    let mut till = relay.backend("till-7");
    for (n, id) in ids.iter().enumerate() {
        // In the order taken; it was never sent before, so this is the first try.
        let body = format!("body\0{n}");
        let got = till.expect("MSG id=* try=1 route=* at=* h=0 =*", body.as_bytes());
        assert_eq!(&got.ack(), id);
    }
    nothing_pending(&relay);
    till.settle();
    assert_eq!(relay.metric("payrelay_outbox_done"), 20.0);
}

#[test]
fn what_a_silent_backend_has_in_hand_is_stored_and_not_sent_twice() {
    let relay = storing("ack_deadline = \"200ms\"", "");
    let mut till = relay.backend("till-7");
    let slow = relay.post("/notify/till-7", b"slow");
    let id = till.expect("MSG id=* try=1 =*", b"slow").id();
    assert_eq!(slow.answer().told(), (200, "stored"));
    // Many times retry_first; another session of the same relay shows that the redelivery thread is at work meanwhile.
    stored(&relay, "/notify/till-8", b"other");
    relay.backend("till-8").message().ack();
    let until = Instant::now() + Duration::from_millis(700);
    till.expect_nothing_until(|| Instant::now() > until);
    till.send(&format!("ACK id={id}"));
    nothing_pending(&relay);
    till.settle();
    assert_eq!(
        relay.metric("payrelay_receipts_total{result=\"late\"}"),
        1.0
    );
}

#[test]
fn when_the_session_that_has_it_dies_it_is_sent_again_with_the_same_id_and_the_next_try() {
    let relay = storing("ack_deadline = \"200ms\"", "");
    let mut till = relay.backend("till-7");
    let slow = relay.post("/notify/till-7", b"slow");
    let id = till.expect("MSG id=* try=1 =*", b"slow").id();
    assert_eq!(slow.answer().told(), (200, "stored"));
    drop(till);
    let mut till = relay.backend("till-7");
    let again = till.expect("MSG id=* try=2 =*", b"slow");
    assert_eq!(again.ack(), id);
    nothing_pending(&relay);

    // And when it dies before the provider's patience is over.
    let quick = relay.post("/notify/till-7", b"quick");
    let id = till.expect("MSG id=* try=1 =*", b"quick").id();
    drop(till);
    assert_eq!(quick.answer().told(), (200, "stored"));
    let mut till = relay.backend("till-7");
    assert_eq!(till.expect("MSG id=* try=2 =*", b"quick").ack(), id);
    nothing_pending(&relay);
}

#[test]
fn what_a_session_forgets_is_sent_again() {
    let relay = Relay::with(&format!(
        "{}[tcp]\nack_timeout = \"3s\"\n",
        config("ack_deadline = \"100ms\"", "")
    ));
    let mut till = relay.backend("till-7");
    stored(&relay, "/notify/till-7", b"slow");
    let id = till.expect("MSG id=* try=1 =*", b"slow").id();
    assert_eq!(till.expect("MSG id=* try=2 =*", b"slow").ack(), id);
    nothing_pending(&relay);
}

/// The outbox counts whole milliseconds.
const SECOND: Duration = Duration::from_millis(998);

#[test]
fn a_refusal_is_stored_and_comes_back_when_the_backend_wants_it() {
    let relay = storing("", "");
    let mut till = relay.backend("till-7");
    let refused = relay.post("/notify/till-7", b"later");
    let began = Instant::now();
    till.expect("MSG id=* try=1 =*", b"later")
        .nack("delay=1 reason=not%20yet");
    assert_eq!(refused.answer().told(), (200, "stored"));
    let again = till.expect("MSG id=* try=2 =*", b"later");
    let waited = began.elapsed();
    assert!(waited >= SECOND, "{waited:?}");
    // What is redelivered may be refused as well.
    let began = Instant::now();
    again.nack("delay=1 reason=still%20not");
    let again = till.expect("MSG id=* try=3 =*", b"later");
    let waited = began.elapsed();
    assert!(waited >= SECOND, "{waited:?}");
    again.nack("reason=not%20even%20now");
    till.expect("MSG id=* try=4 =*", b"later").ack();
    nothing_pending(&relay);
}

#[test]
fn a_refusal_for_good_is_a_dead_letter_and_its_provider_is_told_ok() {
    let relay = storing("", "max_tries = 2");
    let mut till = relay.backend("till-7");
    let never = relay.post("/notify/till-7", b"never");
    till.expect("MSG id=* try=1 =*", b"never")
        .nack("delay=-1 reason=no%20such%20order");
    let answer = never.answer();
    assert_eq!(answer.told(), (200, "stored"));
    eventually("it is dead", || messages(&relay, "dead") == 1.0);
    relay.log_contains(&format!(
        "{} for till-7 by /notify/{{id}} is a dead letter: refused: no such order",
        answer.id()
    ));

    // So is what was sent max_tries times.
    let poison = relay.post("/notify/till-7", b"poison");
    till.expect("MSG id=* try=1 =*", b"poison").nack("");
    assert_eq!(poison.answer().told(), (200, "stored"));
    till.expect("MSG id=* try=2 =*", b"poison")
        .nack("reason=boom");
    eventually("it is dead", || messages(&relay, "dead") == 2.0);
    relay.log_contains("is a dead letter: sent 2 times in vain");
    till.settle();
    assert_eq!(relay.metric("payrelay_outbox_dead_letters_total"), 2.0);
}

#[test]
fn at_most_half_of_the_credit_is_used_for_what_was_stored() {
    let relay = storing("", "");
    for n in 0..50 {
        stored(&relay, "/notify/till-7", format!("{n}").as_bytes());
    }
    let mut till = relay.backend_with("till-7", "max=8");
    // One goes ahead; then the window opens.
    till.expect("MSG id=* =*", b"0").ack();
    let mut ids = Vec::new();
    for n in 1..=4 {
        ids.push(till.expect("MSG id=* =*", format!("{n}").as_bytes()).id());
    }
    let fresh = relay.post("/notify/till-7", b"fresh");
    till.expect("MSG id=* try=1 =*", b"fresh").ack();
    assert_eq!(fresh.answer().told(), (200, "delivered"));
    till.settle();
    for id in ids {
        till.send(&format!("ACK id={id}"));
    }
    for n in 5..50 {
        till.expect("MSG id=* =*", format!("{n}").as_bytes()).ack();
    }
    nothing_pending(&relay);
}

#[test]
fn a_crash_keeps_what_was_answered_ok() {
    let mut relay = storing("ack_deadline = \"200ms\"", "");
    let mut till = relay.backend("till-8");
    let in_hand = relay.post("/notify/till-8", b"in hand");
    till.message();
    let held = in_hand.answer();
    assert_eq!(held.told(), (200, "stored"));
    let ids: Vec<String> = (0..5)
        .map(|n| stored(&relay, "/notify/till-7", format!("{n}").as_bytes()))
        .collect();
    relay.restart_with(&config("", ""));
    assert_eq!(messages(&relay, "pending"), 6.0);
    let mut till = relay.backend("till-7");
    for (n, id) in ids.iter().enumerate() {
        let got = till.expect("MSG id=* =*", format!("{n}").as_bytes());
        assert_eq!(&got.ack(), id);
    }
    // After a crash nothing is in anybody's hands.
    let mut till = relay.backend("till-8");
    assert_eq!(
        till.expect("MSG id=* try=2 =*", b"in hand").ack(),
        held.id()
    );
    nothing_pending(&relay);
}

#[test]
fn a_stop_stores_what_is_undelivered_and_the_next_start_delivers_it() {
    let mut relay = storing("ack_deadline = \"60s\"", "");
    let mut till = relay.backend_with("till-7", "max=1");
    let in_hand = relay.post("/notify/till-7", b"in hand");
    let id = till.expect("MSG id=* =*", b"in hand").id();
    let queued = relay.post("/notify/till-7", b"queued");
    eventually("one waits", || relay.metric("payrelay_queue_depth") == 1.0);
    relay.signal(Signal::TERM);
    assert_eq!(queued.answer().told(), (200, "stored"));
    // The drain's ten seconds pass without an ACK.
    let answer = in_hand.answer();
    assert_eq!((answer.told(), answer.id()), ((200, "stored"), id.as_str()));
    assert_eq!(relay.wait_exit(Duration::from_secs(20)), Some(0));
    relay.restart_with(&config("", ""));
    let mut till = relay.backend("till-7");
    let mut bodies = vec![
        till.message().frame.body().to_vec(),
        till.message().frame.body().to_vec(),
    ];
    bodies.sort();
    assert_eq!(bodies, [b"in hand".to_vec(), b"queued".to_vec()]);
}

#[test]
fn when_it_is_full_new_ones_are_refused_and_counted() {
    let relay = storing("", "max_messages = 3\nkeep = \"1h\"");
    for n in 0..3 {
        stored(&relay, "/notify/till-7", format!("{n}").as_bytes());
    }
    let answer = relay.post("/notify/till-7", b"too many").answer();
    assert_eq!(answer.told(), (503, "offline"));
    assert_eq!(
        relay.metric("payrelay_outbox_refusals_total{reason=\"full\"}"),
        1.0
    );
    relay.log_contains("the outbox is full");
    let mut till = relay.backend("till-7");
    for _ in 0..3 {
        till.message().ack();
    }
    nothing_pending(&relay);
    drop(till);
    // Acknowledged ones make room before their time.
    eventually("the session is gone", || {
        relay.metric("payrelay_sessions") == 0.0
    });
    stored(&relay, "/notify/till-7", b"there is room");
}

#[test]
fn bytes_have_a_bound_too() {
    let relay = storing("", "max_bytes = \"1MiB\"");
    let body = vec![b'x'; 100_000];
    let mut told = Vec::new();
    for _ in 0..12 {
        told.push(relay.post("/notify/till-7", &body).answer().status);
    }
    let taken = told.iter().filter(|status| **status == 200).count();
    assert!((8..=10).contains(&taken), "{told:?}");
    assert!(
        told[taken..].iter().all(|status| *status == 503),
        "{told:?}"
    );
    let size = fs::metadata(relay.path("data/outbox.db")).map_or(0, |file| file.len());
    assert!(size <= 1 << 20, "{size}");
}

#[test]
fn a_retry_of_the_provider_is_recognised() {
    let mut relay = storing("", "");
    let body = b"{\"n\": \"42\"}";
    // Stored: the retry is answered at once and not stored again.
    let first = stored(&relay, "/event/till-7", body);
    let retry = relay.post("/event/till-7", body).answer();
    assert_eq!(
        (retry.told(), retry.text().as_str()),
        ((200, "duplicate"), "success")
    );
    assert_eq!(messages(&relay, "pending"), 1.0);
    // Another backend's event, another route's, and another number are other events.
    stored(&relay, "/event/till-8", body);
    stored(&relay, "/notify/till-7", body);
    stored(&relay, "/event/till-7", b"{\"n\": \"43\"}");
    // Nobody has checked who sent it: whoever guesses a number does not keep the payment out.
    stored(
        &relay,
        "/event/till-8",
        b"{\"n\": \"42\", \"forged\": true}",
    );
    // What is stored is known after a restart too.
    relay.restart_with(&config("", ""));
    assert_eq!(
        relay.post("/event/till-7", body).answer().told(),
        (200, "duplicate")
    );
    let mut till = relay.backend("till-7");
    assert_eq!(till.expect("MSG id=* event=42 =*", body).ack(), first);
    assert_eq!(till.message().frame.body(), body);
    till.message();
    // Delivered: the same.
    assert_eq!(
        relay.post("/event/till-7", body).answer().told(),
        (200, "duplicate")
    );
    till.settle();
}

#[test]
fn a_retry_while_the_first_is_under_way_waits_with_it() {
    let relay = storing("", "");
    let mut till = relay.backend("till-7");
    let body = b"{\"n\": \"42\"}";
    let first = relay.post("/event/till-7", body);
    let id = till.expect("MSG id=* event=42 =*", body).id();
    let retries: Vec<_> = (0..3).map(|_| relay.post("/event/till-7", body)).collect();
    eventually("all wait", || relay.metric("payrelay_in_flight") == 4.0);
    assert!(!first.answered_yet() && retries.iter().all(|retry| !retry.answered_yet()));
    till.send(&format!("ACK id={id}"));
    assert_eq!(first.answer().told(), (200, "delivered"));
    for retry in retries {
        assert_eq!(retry.answer().told(), (200, "duplicate"));
    }
    till.settle();
}

#[test]
fn an_event_that_failed_is_delivered_when_it_is_sent_again() {
    let relay = Relay::with(&config("", "").replace("\"store\"", "\"refuse\""));
    let body = b"{\"n\": \"42\"}";
    assert_eq!(
        relay.post("/event/till-7", body).answer().told(),
        (503, "offline")
    );
    let mut till = relay.backend("till-7");
    let first = relay.post("/event/till-7", body);
    let waiting = till.expect("MSG id=* event=42 =*", body).id();
    let second = relay.post("/event/till-7", body);
    eventually("both wait", || relay.metric("payrelay_in_flight") == 2.0);
    till.send(&format!("NACK id={waiting}"));
    // Whoever waited with it fails with it.
    assert_eq!(first.answer().told(), (503, "refused"));
    assert_eq!(second.answer().told(), (503, "refused"));
    let third = relay.post("/event/till-7", body);
    till.expect("MSG id=* event=42 =*", body).ack();
    assert_eq!(third.answer().told(), (200, "delivered"));
}

/// Delivered again and again by a handler that dies of it, it does not take the others with it.
#[test]
fn others_are_delivered_past_one_that_kills_its_backend() {
    let relay = storing("", "max_tries = 4");
    stored(&relay, "/notify/till-7", b"poison");
    for n in 0..10 {
        stored(&relay, "/notify/till-7", format!("{n}").as_bytes());
    }
    let mut got = Vec::new();
    while got.len() < 10 {
        let mut till = relay.backend_with("till-7", "max=1");
        loop {
            let message = till.message();
            if message.frame.body() == b"poison" {
                break; // and the connection is closed
            }
            got.push(message.frame.body().to_vec());
            message.ack();
            if got.len() == 10 {
                break;
            }
        }
    }
    let backends = || -> Backend { relay.backend_with("till-7", "max=1") };
    while messages(&relay, "dead") == 0.0 && messages(&relay, "pending") > 0.0 {
        let mut till = backends();
        eventually("the poison comes, or is dead", || {
            messages(&relay, "dead") > 0.0 || till.comes(Duration::from_millis(20))
        });
    }
    assert_eq!(messages(&relay, "dead"), 1.0);
}
