//! What the provider is told, when, and why: ok is never a lie, and every failure has its own outcome.

use std::time::Duration;

use crate::support::{Relay, eventually};

#[test]
fn ok_does_not_leave_before_the_ack() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let mut other = relay.backend("till-8");
    let answer = relay.post("/notify/till-7", b"amount=88");
    let message = till.expect(
        "MSG id=* try=1 route=* verified=none at=* h=0 =9",
        b"amount=88",
    );
    for _ in 0..20 {
        // Whole exchanges later, an answer that did not wait would long be here.
        let quick = relay.post("/notify/till-8", b"quick");
        other.expect("MSG id=* try=1 =5", b"quick").ack();
        assert_eq!(quick.answer().told(), (200, "delivered"));
        assert!(!answer.answered_yet(), "answered before the ACK");
    }
    let id = message.ack();
    let answer = answer.answer();
    assert_eq!(answer.told(), (200, "delivered"));
    assert_eq!(answer.text(), "success");
    assert_eq!(answer.header("content-type"), Some("text/plain"));
    assert_eq!(answer.id(), id);
}

#[test]
fn a_nack_is_refused_at_once() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    for keys in [
        "",
        "delay=5",
        "delay=5 reason=full",
        "delay=-1 reason=closed%20for%20good",
    ] {
        let answer = relay.post("/notify/till-7", b"amount=88");
        let id = till.expect("MSG id=* =9", b"amount=88").nack(keys);
        let answer = answer.answer();
        assert_eq!(answer.told(), (503, "refused"), "NACK {keys}");
        assert_eq!(answer.text(), "fail");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.id(), id);
        assert!(
            answer.elapsed < Duration::from_secs(15),
            "{:?}",
            answer.elapsed
        );
    }
}

#[test]
fn absence_is_told_within_milliseconds() {
    let relay = Relay::start();
    let mut connection = relay.http();
    let mut quickest = Duration::MAX;
    for _ in 0..30 {
        let answer = connection.post("/notify/nobody", b"amount=88");
        assert_eq!(answer.told(), (503, "offline"));
        assert_eq!(answer.text(), "fail");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.id().len(), 26);
        assert!(
            answer.elapsed < Duration::from_secs(15),
            "it waited for the deadline"
        );
        quickest = quickest.min(answer.elapsed);
    }
    // The quickest of thirty: what the relay takes, whatever else this machine was doing.
    assert!(quickest < Duration::from_millis(50), "{quickest:?}");
}

#[test]
fn silence_is_told_at_the_deadline_and_not_before() {
    let relay = Relay::with("[delivery]\nack_deadline = \"3s\"");
    let mut till = relay.backend("till-7");
    let answer = relay.post("/notify/till-7", b"amount=88");
    let late = till.expect("MSG id=* =9", b"amount=88").id();
    let answer = answer.answer();
    assert_eq!(answer.told(), (503, "timeout"));
    assert_eq!(answer.text(), "fail");
    assert!(
        answer.elapsed >= Duration::from_secs(3),
        "{:?}",
        answer.elapsed
    );
    assert!(
        answer.elapsed < Duration::from_secs(13),
        "{:?}",
        answer.elapsed
    );

    // The late ACK is no error, and the session goes on.
    till.send(&format!("ACK id={late}"));
    till.settle();
    let answer = relay.post("/notify/till-7", b"next");
    till.expect("MSG id=* =4", b"next").ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

#[test]
fn a_full_queue_is_busy_and_what_waits_in_it_is_delivered() {
    let relay = Relay::with("[tcp]\nqueue = 2");
    let mut till = relay.backend_with("till-7", "max=1");
    let first = relay.post("/notify/till-7", b"first");
    let id = till.expect("MSG id=* =5", b"first").id();

    // The credit is used up: two of these wait, the others are refused while the deadline is far away.
    let mut waiting: Vec<_> = (0..6)
        .map(|_| relay.post("/notify/till-7", b"later"))
        .collect();
    let mut refused = Vec::new();
    eventually("all but two are answered", || {
        refused.extend(waiting.extract_if(.., |pending| pending.answered_yet()));
        waiting.len() <= 2
    });
    for pending in refused {
        let answer = pending.answer();
        assert_eq!(answer.told(), (503, "busy"));
        assert_eq!(answer.text(), "fail");
        assert!(
            answer.elapsed < Duration::from_secs(15),
            "{:?}",
            answer.elapsed
        );
    }
    assert_eq!(waiting.len(), 2, "a queue of 2 holds 2");
    till.send(&format!("ACK id={id}"));
    assert_eq!(first.answer().told(), (200, "delivered"));
    for _ in 0..2 {
        till.expect("MSG id=* =5", b"later").ack();
    }
    for pending in waiting {
        assert_eq!(pending.answer().told(), (200, "delivered"));
    }
}

#[test]
fn a_session_that_dies_before_its_ack_is_offline_at_once() {
    let relay = Relay::start();
    for dies in [Death::Close, Death::Reset] {
        let mut till = relay.backend_with("till-7", "max=1");
        let in_flight = relay.post("/notify/till-7", b"in flight");
        till.expect("MSG id=* =9", b"in flight");
        let queued = relay.post("/notify/till-7", b"queued");
        eventually("one waits", || relay.metric("payrelay_queue_depth") == 1.0);
        match dies {
            Death::Close => drop(till),
            Death::Reset => till.reset(),
        }
        for pending in [in_flight, queued] {
            let answer = pending.answer();
            assert_eq!(answer.told(), (503, "offline"));
            assert!(
                answer.elapsed < Duration::from_secs(15),
                "{:?}",
                answer.elapsed
            );
        }
    }
}

enum Death {
    Close,
    Reset,
}

#[test]
fn a_route_has_its_own_words_for_ok_and_fail() {
    let relay = Relay::with(
        "[[route]]\npath = \"/pay/{id}\"\nverify = \"none\"\n\
         ok = { status = 201, content_type = \"application/json\", body = '{\"code\":\"SUCCESS\"}' }\n\
         fail = { status = 500, content_type = \"text/xml\", body = \"<fail/>\" }",
    );
    let mut till = relay.backend("till-7");
    let answer = relay.post("/pay/till-7", b"x");
    till.message().ack();
    let answer = answer.answer();
    assert_eq!(answer.told(), (201, "delivered"));
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.text(), "{\"code\":\"SUCCESS\"}");

    let answer = relay.post("/pay/nobody", b"x").answer();
    assert_eq!(answer.told(), (500, "offline"));
    assert_eq!(answer.header("content-type"), Some("text/xml"));
    assert_eq!(answer.text(), "<fail/>");
}

#[test]
fn what_never_becomes_a_notification_is_told_why() {
    let relay = Relay::with(
        "[http]\nmax_body = \"1KiB\"\n[tcp]\nbackends = [\"till-7\"]\n\
         [[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n\
         [[route]]\npath = \"/form\"\nid = \"form:till\"\nverify = \"none\"",
    );
    let told = |path: &str, body: &[u8]| {
        let answer = relay.post(path, body).answer();
        assert_eq!(answer.header("content-type"), Some("text/plain"), "{path}");
        assert!(
            !answer.text().trim().is_empty(),
            "{path}: the body says what is wrong"
        );
        assert_eq!(answer.id(), "", "{path}: there is no notification");
        (answer.status, answer.outcome().to_owned())
    };
    let outcome = |status: u16, word: &str| (status, word.to_owned());
    assert_eq!(told("/nowhere", b"x"), outcome(404, "no-route"));
    assert_eq!(told("/notify/till-7/more", b"x"), outcome(404, "no-route"));
    assert_eq!(told("/notify/till-9", b"x"), outcome(404, "not-allowed"));
    assert_eq!(told("/form", b"other=1"), outcome(400, "no-id"));
    assert_eq!(told("/notify/no%20id", b"x"), outcome(400, "no-id"));
    assert_eq!(
        told("/notify/till-7", &[b'x'; 1025]),
        outcome(413, "too-big")
    );

    let mut connection = relay.http();
    let answer = connection
        .exchange(b"GET /notify/till-7 HTTP/1.1\r\nHost: relay\r\n\r\n")
        .expect("an answer");
    assert_eq!(answer.told(), (405, "method"));
    assert_eq!(answer.header("allow"), Some("POST"));
}

#[test]
fn every_notification_has_an_id_of_its_own() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let mut ids = Vec::new();
    for _ in 0..50 {
        let answer = relay.post("/notify/till-7", b"the same body every time");
        let id = till.message().ack();
        assert_eq!(answer.answer().id(), id);
        ids.push(id);
    }
    assert!(ids.is_sorted(), "ids sort by time");
    ids.dedup();
    assert_eq!(ids.len(), 50);
}
