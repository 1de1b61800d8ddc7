//! What a backend may rely on while it is connected: HELLO, credit, heartbeat, ack_timeout, BYE, and every error by its code.

use crate::support::{Backend, Relay, eventually, pause, token};

const SECRETS: [&str; 2] = [
    "the-new-secret-0123456789-0123456789",
    "the-old-secret-0123456789-0123456789",
];

#[test]
fn ok_says_what_a_client_needs() {
    let relay = Relay::with("[tcp]\nheartbeat = \"7s\"\n[http]\nmax_body = \"64KiB\"");
    let mut sessions = Vec::new();
    for id in ["till-7", "A.b_c-9", &"x".repeat(64)] {
        let ok = Backend::raw(&relay).hello(id, "");
        assert_eq!(ok.field("node"), relay.ready().instance);
        assert_eq!(
            (ok.field("heartbeat"), ok.field("max_body")),
            ("7", "65536")
        );
        sessions.push(ok.field("session").to_owned());
    }
    sessions.sort();
    sessions.dedup();
    assert_eq!(sessions.len(), 3, "session numbers are never used twice");
}

#[test]
fn a_hello_that_is_none_is_bad_hello() {
    let relay = Relay::start();
    let long = format!("HELLO 1 id={}", "x".repeat(65));
    let bad = [
        "HELLO",
        "HELLO 1",
        "HELLO id=till-7",
        "HELLO 2 id=till-7",
        "HELLO 1 id=",
        "HELLO 1 id=till%207",
        "HELLO 1 id=till-7 max=1025",
        "HELLO 1 id=till-7 max=lots",
        "PING",
        "ACK id=1",
        "RDY max=1",
        "WHAT is=this",
        &long,
    ];
    for line in bad {
        let mut backend = Backend::raw(&relay);
        backend.send(line);
        backend.expect_fatal("bad-hello");
    }
    let mut backend = relay.backend("till-7");
    backend.send("HELLO 1 id=till-7");
    backend.expect_fatal("bad-hello");
}

#[test]
fn a_hello_that_does_not_come_whole_in_time_is_bad_hello() {
    let relay = Relay::with("[tcp]\nhello_deadline = \"500ms\"");
    let mut silent = Backend::raw(&relay);
    let mut half = Backend::raw(&relay);
    half.send_bytes(b"HELLO 1 id=till-7");
    silent.expect_fatal("bad-hello");
    half.expect_fatal("bad-hello");
}

#[test]
fn any_of_the_secrets_verifies_and_nothing_else_does() {
    let relay = Relay::with(&format!(
        "[tcp]\nsecrets = [\"{}\", \"{}\"]",
        SECRETS[0], SECRETS[1]
    ));
    for secret in SECRETS {
        relay.backend_with("till-7", &format!("token={}", token(secret, "till-7")));
    }
    let right = token(SECRETS[0], "till-7");
    let bad = [
        String::new(),
        "token=".to_owned(),
        "token=0".to_owned(),
        format!("token={}", token("another", "till-7")),
        format!("token={}", token(SECRETS[0], "till-8")),
        format!("token={}0", right),
        format!("token={}", &right[..63]),
        // Right up to the middle, and right from there on.
        format!("token={}{}", &right[..32], "0".repeat(32)),
        format!("token={}{}", "0".repeat(32), &right[32..]),
    ];
    for keys in bad {
        let mut backend = Backend::raw(&relay);
        backend.send(format!("HELLO 1 id=till-7 {keys}").trim_end());
        let error = backend.expect_fatal("bad-token");
        assert!(
            !error.line.contains(&right),
            "an error never shows the right token"
        );
    }
}

#[test]
fn without_secrets_a_token_is_ignored() {
    let relay = Relay::start();
    relay.backend_with("till-7", "token=whatever");
}

#[test]
fn an_id_outside_the_list_is_not_allowed_and_what_is_checked_first_is_told_first() {
    let relay = Relay::with(&format!(
        "[tcp]\nsecrets = [\"{}\"]\nbackends = [\"till-7\", \"till-8\"]",
        SECRETS[0]
    ));
    let good = token(SECRETS[0], "till-9");
    let cases = [
        (format!("HELLO 1 id=till-9 token={good}"), "not-allowed"),
        ("HELLO 1 id=till-9 token=00".to_owned(), "bad-token"),
        (
            format!("HELLO 1 id=till-9 token={good} max=5000"),
            "bad-hello",
        ),
        (format!("HELLO 3 id=till-9 token={good}"), "bad-hello"),
    ];
    for (line, code) in cases {
        let mut backend = Backend::raw(&relay);
        backend.send(&line);
        backend.expect_fatal(code);
    }
    relay.backend_with("till-8", &format!("token={}", token(SECRETS[0], "till-8")));
}

#[test]
fn no_more_than_the_credit_is_out_at_once() {
    let relay = Relay::start();
    let mut till = relay.backend_with("till-7", "max=2");
    let pending: Vec<_> = (0..5).map(|_| relay.post("/notify/till-7", b"x")).collect();
    let mut out: Vec<_> = (0..2).map(|_| till.message().id()).collect();
    eventually("the others wait", || {
        relay.metric("payrelay_queue_depth") == 3.0
    });
    till.settle(); // nothing but PONG: the third MSG stays back
    for _ in 0..3 {
        till.send(&format!("ACK id={}", out.remove(0)));
        out.push(till.message().id());
        till.settle();
    }
    for id in out {
        till.send(&format!("ACK id={id}"));
    }
    for answer in pending {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
}

#[test]
fn the_credit_is_sixteen_unless_hello_says_otherwise() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let pending: Vec<_> = (0..17)
        .map(|_| relay.post("/notify/till-7", b"x"))
        .collect();
    let out: Vec<_> = (0..16).map(|_| till.message().id()).collect();
    eventually("the seventeenth waits", || {
        relay.metric("payrelay_queue_depth") == 1.0
    });
    till.settle();
    for id in out {
        till.send(&format!("ACK id={id}"));
    }
    till.message().ack();
    for answer in pending {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
}

#[test]
fn rdy_pauses_and_resumes_and_what_waited_comes_in_the_order_taken() {
    let relay = Relay::start();
    let mut till = relay.backend_with("till-7", "max=0");
    let mut pending = Vec::new();
    for n in 0..20 {
        pending.push(relay.post("/notify/till-7", format!("number {n}").as_bytes()));
        eventually("it waits", || {
            relay.metric("payrelay_queue_depth") == f64::from(n + 1)
        });
    }
    till.settle();
    till.send("RDY max=1");
    till.expect("MSG id=* =*", b"number 0").ack();
    till.expect("MSG id=* =*", b"number 1").ack();
    let third = till.expect("MSG id=* =*", b"number 2").id();
    till.send("RDY max=0");
    till.settle();
    till.send(&format!("ACK id={third}"));
    till.settle(); // acknowledged, and yet nothing more while the credit is 0
    till.send("RDY max=1024");
    for n in 3..20 {
        till.expect("MSG id=* =*", format!("number {n}").as_bytes())
            .ack();
    }
    for answer in pending {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
}

#[test]
fn a_credit_out_of_range_is_refused_and_the_old_one_stays() {
    let relay = Relay::start();
    let mut till = relay.backend_with("till-7", "max=1");
    for max in ["1025", "99999999999999999999"] {
        till.send(&format!("RDY max={max}"));
        till.expect_error("limit");
    }
    let _first = relay.post("/notify/till-7", b"x");
    let id = till.message().id();
    let second = relay.post("/notify/till-7", b"x");
    eventually("the second waits", || {
        relay.metric("payrelay_queue_depth") == 1.0
    });
    till.settle();
    till.send(&format!("ACK id={id}"));
    till.message().ack();
    assert_eq!(second.answer().told(), (200, "delivered"));
}

#[test]
fn a_silent_session_is_pinged_and_then_told_idle() {
    let relay = Relay::with("[tcp]\nheartbeat = \"2s\"");
    let mut silent = relay.backend("silent");
    let mut polite = relay.backend("polite");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            silent.expect_line("PING");
            let bye = loop {
                if let Some(bye) = silent.expect_line_or_ping("BYE reason=idle retry=*") {
                    break bye;
                }
            };
            assert_eq!(bye.field("retry"), "1");
            silent.expect_closed();
        });
        // Who answers PING stays, for longer than it takes to lose the silent one.
        for _ in 0..5 {
            polite.expect_line("PING");
            polite.send("PONG");
        }
    });
    polite.settle();
}

#[test]
fn a_handler_that_is_busy_with_a_message_is_not_idle() {
    let relay = Relay::with("[tcp]\nheartbeat = \"1s\"");
    let mut busy = relay.backend("busy");
    let answer = relay.post("/notify/busy", b"a long story");
    let message = busy.expect("MSG id=* =*", b"a long story");
    for n in 0..2 {
        // Two others, one after the other, are silent and are let go: so much time passes.
        let mut silent = relay.backend(&format!("silent-{n}"));
        while silent
            .expect_line_or_ping("BYE reason=idle retry=*")
            .is_none()
        {}
    }
    message.ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    busy.settle();
}

#[test]
fn ack_timeout_takes_a_message_back_and_touch_holds_it() {
    let relay = Relay::with("[tcp]\nack_timeout = \"3s\"");
    let mut slow = relay.backend("slow");
    let held = relay.post("/notify/slow", b"held");
    let held_id = slow.expect("MSG id=* =4", b"held").id();

    // Two messages run out, one after the other, at a backend that says nothing...
    let mut silent = relay.backend_with("silent", "max=1");
    for _ in 0..2 {
        let lost = relay.post("/notify/silent", b"lost");
        let id = silent.expect("MSG id=* =4", b"lost").id();
        while !lost.answered_yet() {
            // ...while this one is touched all the time.
            slow.send(&format!("TOUCH id={held_id}"));
            slow.settle();
            pause();
        }
        assert_eq!(lost.answer().told(), (503, "timeout"));
        silent.send(&format!("ACK id={id}"));
        assert_eq!(silent.expect_error("unknown-id").field("id"), id);
        // With a credit of one, the next MSG shows that the credit has come back.
    }
    slow.send(&format!("ACK id={held_id}"));
    assert_eq!(held.answer().told(), (200, "delivered"));
}

#[test]
fn a_reply_to_what_is_not_in_flight_is_unknown_id_and_harms_nobody() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let mut other = relay.backend("till-8");
    let answer = relay.post("/notify/till-7", b"x");
    let id = till.message().id();
    for verb in ["ACK", "NACK", "TOUCH"] {
        other.send(&format!("{verb} id={id}"));
        assert_eq!(other.expect_error("unknown-id").field("id"), id);
    }
    other.settle();
    assert!(
        !answer.answered_yet(),
        "another backend's ACK counts for nothing"
    );
    till.send(&format!("ACK id={id}"));
    assert_eq!(answer.answer().told(), (200, "delivered"));
    till.send(&format!("ACK id={id}"));
    assert_eq!(till.expect_error("unknown-id").field("id"), id);
    till.settle();
}

#[test]
fn a_reply_without_a_proper_id_is_a_bad_frame() {
    let relay = Relay::start();
    for line in [
        "ACK",
        "ACK id=",
        "ACK id=1",
        "NACK reason=x",
        "TOUCH id=x",
        "ACK id=UUUUUUUUUUUUUUUUUUUUUUUUUU",
    ] {
        let mut till = relay.backend("till-7");
        till.send(line);
        till.expect_fatal("bad-frame");
    }
}

#[test]
fn bye_from_the_backend_lets_it_finish_what_it_has() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let in_flight = relay.post("/notify/till-7", b"in flight");
    let id = till.expect("MSG id=* =*", b"in flight").id();
    till.send("BYE");
    till.settle();
    let later = relay.post("/notify/till-7", b"later").answer();
    assert_eq!(
        later.told(),
        (503, "offline"),
        "who has said BYE gets no more"
    );
    till.send(&format!("ACK id={id}"));
    assert_eq!(in_flight.answer().told(), (200, "delivered"));
    till.expect_closed();
}

#[test]
fn bye_with_nothing_in_flight_closes_at_once() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    till.send("BYE");
    till.expect_closed();
    assert_eq!(
        relay.post("/notify/till-7", b"x").answer().told(),
        (503, "offline")
    );
}
