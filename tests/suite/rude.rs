//! A rude backend hurts only itself: while it is at it, a healthy one beside it is served as ever. Behind TLS as well.

use std::time::{Duration, Instant};

use crate::support::{Backend, Random, Relay, Steady, Via, eventually, heavy, over_both};

over_both! {
    one_that_stops_reading_is_cut_and_only_its_own_notifications_fail;
    one_that_never_acknowledges_fills_its_own_queue_and_no_more;
    one_that_sends_garbage_is_told_and_closed;
    one_that_stops_in_the_middle_of_a_line_or_of_data_is_let_go_as_idle;
    one_that_sends_a_line_of_a_megabyte_is_told_too_long;
    one_that_talks_without_end_is_answered_and_does_not_crowd_out_others;
    one_that_resets_in_the_middle_leaves_nothing_behind;
    the_healthy_ones_latency_does_not_move_beyond_noise;
}

fn one_that_stops_reading_is_cut_and_only_its_own_notifications_fail(via: Via) {
    let relay = Relay::backends_via(via, "[tcp]\nwrite_deadline = \"8s\"");
    let steady = Steady::start(&relay);
    let mut rude = Backend::raw_with_small_window(&relay);
    rude.hello("rude", "max=64");
    // More than any socket buffer on the way holds.
    let began = Instant::now();
    let body = vec![b'x'; 1024 * 1024];
    let pending: Vec<_> = (0..12).map(|_| relay.post("/notify/rude", &body)).collect();
    eventually("the relay writes to it", || {
        relay.metric("payrelay_in_flight") >= 12.0
    });
    while pending.iter().all(|answer| !answer.answered_yet()) {
        steady.still_served();
    }
    assert!(began.elapsed() >= Duration::from_secs(8), "cut too early");
    for answer in pending {
        let answer = answer.answer();
        assert_eq!(answer.told(), (503, "offline"));
        assert!(
            answer.elapsed < Duration::from_secs(20),
            "{:?}",
            answer.elapsed
        );
    }
    steady.still_served();
    eventually("it is cut", || relay.metric("payrelay_sessions") == 1.0);
}

fn one_that_never_acknowledges_fills_its_own_queue_and_no_more(via: Via) {
    let relay = Relay::backends_via(via, "[delivery]\nack_deadline = \"8s\"\n[tcp]\nqueue = 8");
    let steady = Steady::start(&relay);
    let mut rude = relay.backend_with("rude", "max=4");
    let mut pending: Vec<_> = (0..4).map(|_| relay.post("/notify/rude", b"x")).collect();
    // The queue has room for eight, whatever of it could be sent at once.
    for _ in 0..4 {
        rude.message();
    }
    pending.extend((0..36).map(|_| relay.post("/notify/rude", b"x")));
    steady.still_served();
    let outcomes: Vec<String> = pending
        .into_iter()
        .map(|answer| answer.answer().outcome().to_owned())
        .collect();
    steady.still_served();
    let count = |word: &str| outcomes.iter().filter(|outcome| *outcome == word).count();
    assert_eq!(
        (count("timeout"), count("busy")),
        (12, 28),
        "4 in flight, 8 waiting, the rest refused"
    );
}

fn one_that_sends_garbage_is_told_and_closed(via: Via) {
    let relay = Relay::backends_via(via, "");
    let steady = Steady::start(&relay);
    let mut random = Random::new();
    for round in 0..40 {
        let mut rude = match round % 2 {
            0 => Backend::raw(&relay),
            _ => relay.backend("rude"),
        };
        let garbage = random.bytes(5000);
        // A relay that has seen enough may close before it has read everything.
        rude.try_send(&garbage);
        rude.half_close();
        // Capital letters alone are a verb that the relay does not know; that ends nothing.
        let said = loop {
            match rude.next() {
                Some(frame) if frame.get("code") == Some("unknown-verb") => {}
                other => break other,
            }
        };
        if let Some(frame) = said {
            assert_eq!(
                (frame.verb.as_str(), frame.get("fatal")),
                ("ERR", Some("1"))
            );
            rude.expect_closed();
        }
    }
    steady.still_served();
    eventually("none of them is left", || {
        relay.metric("payrelay_sessions") == 1.0
    });
}

fn one_that_stops_in_the_middle_of_a_line_or_of_data_is_let_go_as_idle(via: Via) {
    let relay = Relay::backends_via(via, "[tcp]\nheartbeat = \"1s\"");
    let steady = Steady::start(&relay);
    for half in [&b"ACK id=01234"[..], b"PONG =500\nhalf of it"] {
        let mut rude = relay.backend("rude");
        rude.send_bytes(half);
        while rude
            .expect_line_or_ping("BYE reason=idle retry=1")
            .is_none()
        {
            steady.still_served();
        }
        rude.expect_closed();
    }
}

fn one_that_sends_a_line_of_a_megabyte_is_told_too_long(via: Via) {
    let relay = Relay::backends_via(via, "");
    let steady = Steady::start(&relay);
    let mut growths = Vec::new();
    for _ in 0..5 {
        let before = relay.process().rss_kib();
        let mut rude = relay.backend("rude");
        rude.try_send(&vec![b'A'; 1024 * 1024]);
        rude.expect_fatal("too-long");
        growths.push(relay.process().rss_kib().saturating_sub(before));
    }
    // Others that come and go cost memory too, but not in every round.
    assert!(
        growths.iter().min() < Some(&1024),
        "the line is kept: {growths:?}"
    );
    steady.still_served();
}

fn one_that_talks_without_end_is_answered_and_does_not_crowd_out_others(via: Via) {
    let relay = Relay::backends_via(via, "");
    let steady = Steady::start(&relay);
    let mut rude = relay.backend("rude");
    for _ in 0..50 {
        let frames = b"WHATEVER x=1 =3\nabc\nPING\n".repeat(100);
        rude.send_bytes(&frames);
        for _ in 0..100 {
            rude.expect_error("unknown-verb");
            rude.expect_line("PONG");
        }
    }
    steady.still_served();
}

fn one_that_resets_in_the_middle_leaves_nothing_behind(via: Via) {
    let relay = Relay::backends_via(via, "");
    let steady = Steady::start(&relay);
    let (threads, fds) = (relay.process().threads(), relay.process().fds());
    for _ in 0..50 {
        let mut rude = relay.backend("rude");
        let answer = relay.post("/notify/rude", b"x");
        rude.message();
        rude.send_bytes(b"ACK id=0");
        rude.reset();
        assert_eq!(answer.answer().told(), (503, "offline"));
    }
    steady.still_served();
    eventually("threads and descriptors are as before", || {
        // The healthy pair beside it opens and closes a connection all the time.
        relay.process().threads() <= threads + 4 && relay.process().fds() <= fds + 6
    });
}

fn the_healthy_ones_latency_does_not_move_beyond_noise(via: Via) {
    let _alone = heavy();
    let relay = Relay::backends_via(
        via,
        "[delivery]\nack_deadline = \"60s\"\n[tcp]\nwrite_deadline = \"60s\"",
    );
    let steady = Steady::start(&relay);
    let alone = steady.next_latencies(100);

    let mut deaf = Backend::raw_with_small_window(&relay);
    deaf.hello("deaf", "max=64");
    let body = vec![b'x'; 1024 * 1024];
    let mut pending: Vec<_> = (0..12).map(|_| relay.post("/notify/deaf", &body)).collect();
    let mut silent = relay.backend("silent");
    pending.extend((0..30).map(|_| relay.post("/notify/silent", b"x")));
    silent.message();
    let mut half = relay.backend("half");
    half.send_bytes(b"ACK id=");
    eventually("all of it is under way", || {
        relay.metric("payrelay_in_flight") >= 42.0
    });
    let beside = steady.next_latencies(100);
    assert!(
        pending.iter().all(|answer| !answer.answered_yet()),
        "the rude ones were at it all the while"
    );
    drop((deaf, silent, half));

    // Floors, because milliseconds on a busy machine are noise; whoever waits for a rude one waits for seconds.
    for (name, at, floor) in [("p50", 50, 1000), ("p99", 98, 5000)] {
        let limit = (alone[at] * 5).max(Duration::from_millis(floor));
        assert!(
            beside[at] <= limit,
            "{name}: {:?} alone, {:?} beside the rude ones",
            alone[at],
            beside[at]
        );
    }
}
