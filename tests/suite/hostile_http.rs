//! Hostile HTTP, byte by byte: each request gets its status or a close within the deadline, nothing of it reaches a
//! backend, nothing stays behind, and a good request in parallel is answered all the while.

use std::time::{Duration, Instant};

use crate::support::{Answer, DEADLINE, Random, Relay, Steady, eventually, heavy};

/// A request line and Host; further header lines follow.
const POST: &str = "POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\n";

/// What a parser that disagrees with the relay about where the request ends would take for the next one.
const SMUGGLED: &str =
    "POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: 8\r\n\r\nsmuggled";

/// Requests that must be refused, with the status.
fn refused() -> Vec<(&'static str, Vec<u8>, u16)> {
    let with = |headers: &str| format!("{POST}{headers}\r\n").into_bytes();
    let chunked =
        |body: &str| format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
    let raw = |text: &str| text.as_bytes().to_vec();
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("X-{n}: {n}\r\n"))
            .collect::<String>()
    };
    vec![
        (
            "a length of 10^12",
            with("Content-Length: 1000000000000\r\n"),
            413,
        ),
        (
            "a length one over the limit",
            with("Content-Length: 1048577\r\n"),
            413,
        ),
        (
            "a length beyond 64 bits",
            with("Content-Length: 99999999999999999999999\r\n"),
            400,
        ),
        ("a negative length", with("Content-Length: -1\r\n"), 400),
        ("a length with a plus", with("Content-Length: +5\r\n"), 400),
        ("an empty length", with("Content-Length:\r\n"), 400),
        ("a length in hex", with("Content-Length: 0x5\r\n"), 400),
        (
            "two numbers in one length",
            with("Content-Length: 5 5\r\n"),
            400,
        ),
        (
            "lengths joined by a comma",
            with("Content-Length: 5, 5\r\n"),
            400,
        ),
        (
            "a length repeated alike",
            with("Content-Length: 5\r\nContent-Length: 5\r\n"),
            400,
        ),
        (
            "a length repeated unlike",
            with("Content-Length: 5\r\nContent-Length: 6\r\n"),
            400,
        ),
        (
            "a length and chunked",
            with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        (
            "chunked and a length",
            with("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            400,
        ),
        (
            "a space before the colon",
            with("Transfer-Encoding : chunked\r\n"),
            400,
        ),
        ("another coding", with("Transfer-Encoding: gzip\r\n"), 501),
        (
            "another coding before chunked",
            with("Transfer-Encoding: gzip, chunked\r\n"),
            501,
        ),
        (
            "chunked twice",
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            501,
        ),
        (
            "almost chunked",
            with("Transfer-Encoding: xchunked\r\n"),
            501,
        ),
        (
            "a chunk size that is none",
            chunked("zz\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a negative chunk size",
            chunked("-5\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk size with a prefix",
            chunked("0x5\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk size with a space before",
            chunked(" 5\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        ("no chunk size", chunked("\r\nhello\r\n0\r\n\r\n"), 400),
        (
            "a chunk size beyond 64 bits",
            chunked("fffffffffffffffff\r\nhello\r\n"),
            400,
        ),
        (
            "a chunk size over the limit",
            chunked("100001\r\nhello\r\n"),
            413,
        ),
        (
            "a chunk longer than its size",
            chunked("3\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk shorter than its size",
            chunked("7\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk size ended by LF alone",
            chunked("5\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk ended by LF alone",
            chunked("5\r\nhello\n0\r\n\r\n"),
            400,
        ),
        (
            "a trailer that is no header",
            chunked("5\r\nhello\r\n0\r\nno trailer\r\n\r\n"),
            400,
        ),
        (
            "a thousand trailers",
            chunked(&format!("5\r\nhello\r\n0\r\n{}\r\n", many(1000))),
            431,
        ),
        ("HTTP/0.9", raw("GET /notify/till-7\r\n"), 400),
        (
            "HTTP/2.0",
            raw("POST /notify/till-7 HTTP/2.0\r\nHost: relay\r\n\r\n"),
            505,
        ),
        (
            "the preface of HTTP/2",
            raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            505,
        ),
        (
            "HTTP/1.2",
            raw("POST /notify/till-7 HTTP/1.2\r\nHost: relay\r\n\r\n"),
            505,
        ),
        (
            "no HTTP at all",
            raw("POST /notify/till-7 HTTQ/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        ("TLS", raw("\x16\x03\x01\x02\0\x01\0\x01"), 400),
        (
            "chunked in HTTP/1.0",
            raw("POST /notify/till-7 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            400,
        ),
        ("a bare CR in a header", with("X-A: a\rX-B: b\r\n"), 400),
        ("a bare LF after a header", with("X-A: a\nX-B: b\r\n"), 400),
        ("a NUL in a header", with("X-A: a\0b\r\n"), 400),
        ("a DEL in a header", with("X-A: a\x7fb\r\n"), 400),
        (
            "a byte beyond ASCII in a header",
            with("X-A: \u{e9}\r\n"),
            400,
        ),
        (
            "a byte beyond ASCII in the target",
            raw("POST /notify/\u{e9} HTTP/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        ("a folded header", with("X-A: a\r\n b\r\n"), 400),
        (
            "a folded first header",
            raw("POST /notify/till-7 HTTP/1.1\r\n Host: relay\r\n\r\n"),
            400,
        ),
        ("a header without a colon", with("X-A\r\n"), 400),
        ("a header without a name", with(": a\r\n"), 400),
        ("a bad header name", with("X A: a\r\n"), 400),
        ("no Host", raw("POST /notify/till-7 HTTP/1.1\r\n\r\n"), 400),
        ("two Hosts", with("Host: other\r\n"), 400),
        (
            "a space in the target",
            raw("POST /notify/till-7 x HTTP/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        (
            "no target",
            raw("POST HTTP/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        (
            "CONNECT",
            raw("CONNECT relay:80 HTTP/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        (
            "another expectation",
            with("Expect: the-unexpected\r\nContent-Length: 1\r\n"),
            417,
        ),
        (
            "a header of 100 KB",
            with(&format!("X-A: {}\r\n", "a".repeat(100_000))),
            431,
        ),
        (
            "a target of 100 KB",
            raw(&format!(
                "POST /{} HTTP/1.1\r\nHost: relay\r\n\r\n",
                "a".repeat(100_000)
            )),
            431,
        ),
        ("65 headers", with(&many(64)), 431),
        ("10,000 headers", with(&many(10_000)), 431),
    ]
}

/// Requests that look odd and are fine; each carries five bytes, `hello`.
fn served() -> Vec<(&'static str, Vec<u8>)> {
    let with =
        |headers: &str| format!("{POST}{headers}Content-Length: 5\r\n\r\nhello").into_bytes();
    let chunked =
        |body: &str| format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
    vec![
        ("a TE that has made servers panic", with("TE: trailers;q=NaN\r\n")),
        ("HTTP/1.0", b"POST /notify/till-7 HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello".to_vec()),
        ("leading zeros in the length", format!("{POST}Content-Length: 0005\r\n\r\nhello").into_bytes()),
        ("the target in absolute form", b"POST http://relay/notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: 5\r\n\r\nhello".to_vec()),
        ("one empty line too many before it", [b"\r\n", &with("")[..]].concat()),
        ("64 headers", with(&(0..62).map(|n| format!("X-{n}: {n}\r\n")).collect::<String>())),
        ("chunks with extensions", chunked("2;a=1\r\nhe\r\n3;b\r\nllo\r\n0\r\n\r\n")),
        ("chunks with leading zeros", chunked("002\r\nhe\r\n0003\r\nllo\r\n000\r\n\r\n")),
        ("chunks with trailers", chunked("5\r\nhello\r\n0\r\nContent-Length: 99\r\nX-A: a\r\n\r\n")),
        ("chunked in capitals", format!("{POST}transfer-encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n").into_bytes()),
        ("a peer that it claims to be", with("X-Payrelay-Peer: 10.0.0.1:1\r\nX-Forwarded-For: 10.0.0.1\r\n")),
        ("Connection: anything", with("Connection: close, X-A, content-length\r\nX-A: a\r\n")),
    ]
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

#[test]
fn what_could_be_read_in_two_ways_is_refused_and_the_connection_closed() {
    let relay = Relay::start();
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

#[test]
fn what_is_merely_odd_is_served_unchanged() {
    let relay = Relay::start();
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

#[test]
fn a_go_ahead_is_given_to_who_waits_for_it_and_only_if_the_body_is_wanted() {
    let relay = Relay::start();
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

#[test]
fn pipelined_requests_are_answered_each_and_in_order() {
    let relay = Relay::start();
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

#[test]
fn a_drip_is_cut_at_the_request_deadline_wherever_it_drips() {
    let relay = Relay::with("[http]\nrequest_deadline = \"2s\"");
    let steady = Steady::start(&relay);
    let head = format!("{POST}Content-Length: 100\r\n\r\n");
    let chunked = format!("{POST}Transfer-Encoding: chunked\r\n\r\n");
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

#[test]
fn two_thousand_idle_connections_do_not_keep_a_provider_out() {
    let _alone = heavy();
    let relay = Relay::with("[http]\nmax_connections = 500");
    let steady = Steady::start(&relay);
    let fds = relay.process().fds();
    let mut idle: Vec<_> = (0..2000).map(|_| relay.http()).collect();
    steady.still_served();
    // Whoever has waited longest made room.
    for connection in &mut idle[..1000] {
        assert_eq!(
            connection
                .answer()
                .expect("a close")
                .map(|answer| answer.status),
            None
        );
    }
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

#[test]
fn a_reset_before_the_answer_harms_nobody() {
    let relay = Relay::with("[delivery]\nack_deadline = \"25s\"");
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

#[test]
fn random_damage_is_answered_or_closed_and_never_wedges() {
    damage(300);
}

#[test]
#[ignore = "soak: 30,000 damaged requests, for tests/run --soak"]
fn soak_random_damage() {
    damage(30_000);
}

/// Good requests with a few bytes changed, cut, doubled or cut short, each followed by the end of what the client sends.
fn damage(rounds: usize) {
    let relay =
        Relay::with("[http]\nrequest_deadline = \"5s\"\n[delivery]\nack_deadline = \"100ms\"");
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
                2 => drop(request.remove(at)),
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

#[test]
fn after_all_of_it_no_thread_descriptor_or_megabyte_stays_behind() {
    let _alone = heavy();
    let relay = Relay::with("[delivery]\nack_deadline = \"200ms\"");
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
    let connections = || relay.metric("payrelay_http_connections");
    round();
    eventually("every connection of the first round is over", || {
        connections() == 0.0
    });
    let process = relay.process();
    let (threads, fds, rss_kib) = (process.threads(), process.fds(), process.rss_kib());
    for _ in 0..5 {
        round();
    }
    // The HTTP pool's own spare threads come and go by themselves.
    eventually("threads are as before", || process.threads() <= threads + 2);
    eventually("descriptors are as before", || process.fds() <= fds + 4);
    let grown_kib = process.rss_kib().saturating_sub(rss_kib);
    assert!(grown_kib < 4096, "{grown_kib} KiB more than before");
}
