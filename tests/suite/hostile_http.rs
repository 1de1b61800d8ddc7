//! Hostile HTTP, byte by byte: each request gets its status or a close within the deadline, nothing of it reaches a
//! backend, nothing stays behind, and a good request in parallel is answered all the while.

pub mod requests;

use std::time::{Duration, Instant};

use self::requests::{POST, SMUGGLED, refused, served};
use crate::support::{Answer, DEADLINE, Random, Relay, Steady, Via, eventually, heavy, over_both};

over_both! {
    what_could_be_read_in_two_ways_is_refused_and_the_connection_closed;
    what_is_merely_odd_is_served_unchanged;
    a_go_ahead_is_given_to_who_waits_for_it_and_only_if_the_body_is_wanted;
    pipelined_requests_are_answered_each_and_in_order;
    a_drip_is_cut_at_the_request_deadline_wherever_it_drips;
    two_thousand_idle_connections_do_not_keep_a_provider_out;
    a_reset_before_the_answer_harms_nobody;
    random_damage_is_answered_or_closed_and_never_wedges;
    #[ignore = "soak: 30,000 damaged requests, for tests/run --soak"]
    soak_random_damage;
    after_all_of_it_no_thread_descriptor_or_megabyte_stays_behind;
}

/// Sends a request that must be refused, a smuggled one behind it, and waits for the answer and the close.
fn refuse(relay: &Relay, name: &str, request: &[u8]) -> Answer {
    let mut connection = relay.http();
    connection.send(&[request, SMUGGLED.as_bytes()].concat());
    let answer = match connection.answer() {
        Ok(Some(answer)) => answer,
        Ok(None) => panic!("{name}: closed without an answer"),
        Err(problem) => panic!("{name}: {problem}"),
    };
    let more = connection
        .answer()
        .unwrap_or_else(|problem| panic!("{name}: {problem}"));
    assert!(more.is_none(), "{name}: a second answer, {more:?}");
    answer
}

fn what_could_be_read_in_two_ways_is_refused_and_the_connection_closed(via: Via) {
    let relay = Relay::via(via, "");
    let steady = Steady::start(&relay);
    let mut till = relay.backend("till-7");
    for (name, request, status) in refused() {
        let answer = refuse(&relay, name, &request);
        assert_eq!(answer.status, status, "{name}: {}", answer.text());
        assert_eq!(answer.header("connection"), Some("close"), "{name}");
        assert!(!answer.outcome().is_empty(), "{name}: {answer:?}");
        assert!(
            answer.text().trim().len() > 5,
            "{name}: the body says what is wrong"
        );
        steady.still_served();
        till.settle(); // and nothing of it came here
    }
}

fn what_is_merely_odd_is_served_unchanged(via: Via) {
    let relay = Relay::via(via, "");
    let mut till = relay.backend("till-7");
    for (name, request) in served() {
        let mut connection = relay.http();
        connection.send(&request);
        till.expect("MSG id=* h=0 =5", b"hello").ack();
        let answer = connection
            .answer()
            .unwrap_or_else(|problem| panic!("{name}: {problem}"));
        let answer = answer.unwrap_or_else(|| panic!("{name}: closed without an answer"));
        assert_eq!(answer.told(), (200, "delivered"), "{name}");
        if name == "HTTP/1.0" {
            connection.expect_closed();
        }
    }
}

fn a_go_ahead_is_given_to_who_waits_for_it_and_only_if_the_body_is_wanted(via: Via) {
    let relay = Relay::via(via, "");
    let mut till = relay.backend("till-7");
    let mut polite = relay.http();
    polite.send(format!("{POST}Expect: 100-continue\r\nContent-Length: 5\r\n\r\n").as_bytes());
    polite.expect_bytes(b"HTTP/1.1 100 Continue\r\n\r\n");
    polite.send(b"hello");
    till.expect("MSG id=* =5", b"hello").ack();
    assert_eq!(polite.must_answer().told(), (200, "delivered"));

    let mut unwanted = relay.http();
    unwanted
        .send(format!("{POST}Expect: 100-continue\r\nContent-Length: 99999999\r\n\r\n").as_bytes());
    assert_eq!(unwanted.must_answer().told(), (413, "too-big"));
    unwanted.expect_closed();
}

fn pipelined_requests_are_answered_each_and_in_order(via: Via) {
    let relay = Relay::via(via, "");
    let mut till = relay.backend("till-7");
    let mut connection = relay.http();
    let mut requests = Vec::new();
    for n in 0..30 {
        requests.extend(format!("{POST}Content-Length: 2\r\n\r\n{n:02}").bytes());
    }
    connection.send(&requests);
    let mut ids = Vec::new();
    for n in 0..30 {
        ids.push(
            till.expect("MSG id=* =2", format!("{n:02}").as_bytes())
                .ack(),
        );
    }
    for id in ids {
        assert_eq!(connection.must_answer().id(), id);
    }
}

fn a_drip_is_cut_at_the_request_deadline_wherever_it_drips(via: Via) {
    let relay = Relay::via(via, "[http]\nrequest_deadline = \"2s\"");
    let steady = Steady::start(&relay);
    let head = format!("{POST}Content-Length: 100\r\n\r\n");
    // The rest goes into the extension: a size would soon be too big.
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n5;");
    let began = Instant::now();
    let mut drips: Vec<_> = ["", &POST[..20], POST, &head, &chunked]
        .iter()
        .map(|start| {
            let mut drip = relay.http();
            drip.send(start.as_bytes());
            drip
        })
        .collect();
    // One byte after the other: no single read waits long, and yet the whole is too slow.
    while !drips.is_empty() {
        drips.retain_mut(|drip| {
            if !drip.stirs(Duration::from_millis(100)) {
                drip.send(b"1");
                return true;
            }
            assert!(
                began.elapsed() >= Duration::from_secs(2),
                "cut too early: {:?}",
                began.elapsed()
            );
            match drip.answer() {
                Ok(Some(answer)) => assert_eq!(answer.told(), (408, "timeout")),
                Ok(None) => {} // closed without a word is fine, too
                Err(problem) => panic!("{problem}"),
            }
            false
        });
        assert!(
            began.elapsed() < DEADLINE,
            "{} drips are not cut",
            drips.len()
        );
    }
    steady.still_served();
}

fn two_thousand_idle_connections_do_not_keep_a_provider_out(via: Via) {
    let _alone = heavy();
    let relay = Relay::via(via, "[http]\nmax_connections = 500");
    let steady = Steady::start(&relay);
    let fds = relay.process().fds();
    let mut idle = Vec::new();
    for _ in 0..10 {
        idle.extend((0..200).map(|_| relay.http()));
        steady.still_served();
    }
    // Whoever has waited longest made room.
    let mut refused = 0;
    for connection in &mut idle[..1000] {
        let answer = connection.answer().expect("a close");
        // On a busy machine one that was told to leave may be late with it, and so a newcomer gets no place.
        let status = answer.map(|answer| answer.status);
        assert!(matches!(status, None | Some(503)), "{status:?}");
        refused += usize::from(status.is_some());
    }
    assert!(refused <= 10, "{refused} of a thousand were refused");
    assert!(
        relay.process().fds() <= fds + 520,
        "{} descriptors",
        relay.process().fds()
    );
    // A place that is taken can still be used.
    let last = idle.last_mut().expect("two thousand");
    assert_eq!(
        last.post("/notify/steady", b"hello").told(),
        (200, "delivered")
    );
    drop(idle);
    eventually("their descriptors and threads are gone", || {
        relay.process().fds() <= fds + 8
    });
    steady.still_served();
}

fn a_reset_before_the_answer_harms_nobody(via: Via) {
    let relay = Relay::via(via, "");
    let steady = Steady::start(&relay);
    let mut till = relay.backend("till-7");
    for _ in 0..50 {
        let mut connection = relay.http();
        connection.send(format!("{POST}Content-Length: 5\r\n\r\nhello").as_bytes());
        let message = till.expect("MSG id=* =5", b"hello");
        connection.reset();
        message.ack();
    }
    till.settle();
    steady.still_served();
    eventually("nobody waits", || {
        relay.metric("payrelay_http_connections") <= 1.0
    });
}

fn random_damage_is_answered_or_closed_and_never_wedges(via: Via) {
    damage(via, 300);
}

fn soak_random_damage(via: Via) {
    damage(via, 30_000);
}

/// Good requests with a few bytes changed, cut, doubled or cut short, each followed by the end of what the client sends.
fn damage(via: Via, rounds: usize) {
    let relay = Relay::via(via, "[http]\nrequest_deadline = \"5s\"");
    let steady = Steady::start(&relay);
    let mut random = Random::new();
    let seeds: Vec<Vec<u8>> = served().into_iter().map(|(_, request)| request).collect();
    for round in 0..rounds {
        let mut request = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(4) {
            let at = random.below(request.len());
            match random.below(5) {
                0 => request[at] = random.next() as u8,
                1 => request.insert(at, b"\r\n :;0"[random.below(6)]),
                2 if request.len() > 1 => drop(request.remove(at)),
                3 => request.truncate(at.max(1)),
                _ => request.extend_from_within(at..),
            }
        }
        let mut connection = relay.http();
        connection.send(&request);
        connection.half_close();
        // Any number of whole answers, then the end.
        loop {
            match connection.answer() {
                Ok(Some(answer)) => assert!((200..=599).contains(&answer.status), "round {round}"),
                Ok(None) => break,
                Err(problem) => panic!("round {round}: {problem}: {}", request.escape_ascii()),
            }
        }
    }
    steady.still_served();
}

fn after_all_of_it_no_thread_descriptor_or_megabyte_stays_behind(via: Via) {
    let _alone = heavy();
    let relay = Relay::via(via, "");
    let round = || {
        let steady = Steady::start(&relay);
        for (name, request, _) in refused() {
            refuse(&relay, name, &request);
        }
        for (_, request) in served() {
            let mut connection = relay.http();
            connection.send(&request);
            connection.must_answer();
            let mut reset = relay.http();
            reset.send(&request[..request.len() - 3]);
            reset.reset();
        }
        steady.still_served();
        drop((0..100).map(|_| relay.http()).collect::<Vec<_>>());
    };
    round();
    eventually("every connection of the first round is over", || {
        relay.metric("payrelay_http_connections") == 0.0
    });
    let process = relay.process();
    let (threads, fds) = (process.threads(), process.fds());
    // Caches and the allocator's arenas fill up at first. A leak never ends: some five rounds must leave no megabyte.
    let mut grown_kib = Vec::new();
    let settled = (0..4).any(|_| {
        let before = process.rss_kib();
        for _ in 0..5 {
            round();
        }
        grown_kib.push(process.rss_kib().saturating_sub(before));
        grown_kib.last() < Some(&1024)
    });
    assert!(settled, "in KiB, five rounds each: {grown_kib:?}");
    // The HTTP pool's own spare threads come and go by themselves.
    eventually("threads are as before", || process.threads() <= threads + 2);
    eventually("descriptors are as before", || process.fds() <= fds + 4);
}
