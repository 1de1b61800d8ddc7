//! What is said on a connection: requests, answers, refusals.

use super::*;

#[test]
fn requests_on_a_kept_connection_are_answered_in_turn() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    for body in ["", "a", "hello"] {
        let answer = client.post(body).answer();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, format!("POST /x {body}").as_str())
        );
        assert!(answer.header("Date").is_some() && answer.header("Connection").is_none());
    }
    assert_eq!(setup.listener.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    let big = "y".repeat(20_000);
    client.send(format!(
        "POST /1 HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x\r\nbc\r\n0\r\n\r\n\
         GET /2 HTTP/1.1\r\nHost: h\r\n\r\n\
         POST /3 HTTP/1.1\r\nHost: h\r\nContent-Length: 20000\r\n\r\n{big}\r\n\
         GET /4 HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\nGET /5 HTTP/1.1\r\n"
    ));
    assert_eq!(client.answer().body, "POST /1 abc");
    assert_eq!(client.answer().body, "GET /2 ");
    assert_eq!(client.answer().body, format!("POST /3 {big}"));
    let last = client.answer();
    assert_eq!(last.body, "GET /4 ");
    assert!(last.says_close());
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("half a close");
    client.expect_end();
}

#[test]
fn a_request_may_come_in_any_pieces() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    let text = b"POST /x HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nA: b\r\n\r\n";
    for piece in [1, 2, 3, 5, 8] {
        for bytes in text.chunks(piece) {
            client.send(bytes);
        }
        assert_eq!(client.answer().body, "POST /x abc");
    }
}

#[test]
fn http_1_0_is_closed_unless_it_asks_otherwise() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    let kept = client
        .send("GET /a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        .answer();
    assert_eq!(kept.header("Connection"), Some("keep-alive"));
    let closed = client.send("GET /b HTTP/1.0\r\n\r\n").answer();
    assert!(closed.says_close());
    client.expect_end();
}

#[test]
fn head_is_answered_without_a_body() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    let answer = client
        .send("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
        .answer_to(true);
    assert_eq!(answer.header("Content-Length"), Some("8"));
    assert_eq!(client.post("x").answer().body, "POST /x x");
}

#[test]
fn a_client_that_has_ended_its_sending_still_gets_its_answer() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    client.post("x");
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("half a close");
    assert_eq!(client.answer().body, "POST /x x");
    client.expect_end();

    let mut client = setup.client();
    client.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab");
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("half a close");
    let answer = client.answer();
    assert_eq!((answer.status, answer.outcome()), (400, "bad-request"));
    client.expect_end();
}

#[test]
fn continue_is_said_when_the_body_is_still_to_come_and_welcome() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    let head = |length: usize| {
        format!(
            "POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: {length}\r\n\r\n"
        )
    };
    client.send(head(3));
    assert_eq!(client.head(), "HTTP/1.1 100 Continue\r\n\r\n");
    assert_eq!(client.send("abc").answer().body, "POST /x abc");
    // Already here: nothing to wait for.
    client.send(head(3) + "abc");
    assert_eq!(client.answer().status, 200);
    // A part is here: the client did not wait for us.
    client.send("GET /y HTTP/1.1\r\nHost: h\r\n\r\n".to_owned() + &head(3) + "a");
    assert_eq!(client.answer().body, "GET /y ");
    assert_eq!(client.send("bc").answer().body, "POST /x abc");
    // Unwelcome: the answer comes instead of the permission.
    client.send(head(100_001));
    assert_eq!(client.answer().status, 413);
    client.expect_end();
}

#[test]
fn a_refusal_names_the_limit_and_arrives_although_its_body_was_not_read() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    let answer = client.post(&"x".repeat(200_000)).answer();
    assert_eq!((answer.status, answer.outcome()), (413, "too-big"));
    assert_eq!(
        answer.body,
        "body of 200000 bytes is over http.max_body = 100000\n"
    );
    assert!(answer.says_close());
    assert_eq!(setup.word(), "too-big");
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("half a close");
    client.expect_end();
    setup.wait_connections(0);
}

#[test]
fn an_answer_survives_what_its_client_sends_beyond_it() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    let last = "GET /x HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n".to_owned();
    client.send(last + &"x".repeat(200_000));
    assert_eq!(client.answer().body, "GET /x ");
    let end = client.stream.read(&mut [0; 16]).expect("no reset");
    assert_eq!(end, 0);
}

#[test]
fn a_stray_empty_line_is_no_request() {
    let setup = open(limits(), 10, Echo);
    let mut client = setup.client();
    assert_eq!(client.post("x").send("\r\n").answer().status, 200);
    assert_eq!(client.post("y").send("\r\n").answer().status, 200);
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("half a close");
    client.expect_end();
    setup.wait_connections(0);
    assert!(setup.words.is_empty());
}

#[test]
fn every_kind_of_refusal_has_its_status_and_word() {
    let setup = open(limits(), 10, Echo);
    let long = format!("GET / HTTP/1.1\r\nX: {}", "y".repeat(17_000));
    for (input, status, word) in [
        ("GET / HTTP/1.1\r\n\r\n", 400, "bad-request"),
        ("GET /\r\n", 400, "bad-request"),
        ("\u{16}\u{3}", 400, "bad-request"),
        ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version"),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip\r\n\r\n",
            501,
            "coding",
        ),
        (
            "GET / HTTP/1.1\r\nHost: h\r\nExpect: x\r\n\r\n",
            417,
            "expectation",
        ),
        (long.as_str(), 431, "head-too-big"),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1000000000000\r\n\r\n",
            413,
            "too-big",
        ),
        (
            "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nx",
            400,
            "bad-request",
        ),
    ] {
        let mut client = setup.client();
        let answer = client.send(input).answer();
        assert_eq!(
            (answer.status, answer.outcome()),
            (status, word),
            "{input:?}"
        );
        assert!(answer.says_close(), "{input:?}");
        assert_eq!(setup.word(), word);
    }
    assert_eq!(setup.client().post("x").answer().status, 200);
}

/// Sends `start`, then one byte after another until an answer comes.
fn drip(setup: &Setup, start: &str) -> Answer {
    let mut client = setup.client();
    let pace = Duration::from_millis(5);
    client.stream.set_read_timeout(Some(pace)).expect("a pace");
    client.send(start);
    let deadline = Instant::now() + PATIENCE;
    let mut buffer = [0; 4096];
    loop {
        assert!(Instant::now() < deadline, "dripped for ever");
        // It may be closed against us before we have read the answer.
        let _ = client.stream.write_all(b"x");
        if let Ok(read) = client.stream.read(&mut buffer)
            && read > 0
        {
            client.unread.extend_from_slice(&buffer[..read]);
            client
                .stream
                .set_read_timeout(Some(PATIENCE))
                .expect("patience");
            return client.answer();
        }
    }
}

#[test]
fn a_drip_is_ended_by_the_total_deadline() {
    let request_deadline = Duration::from_secs(2);
    let setup = open(
        ListenerLimits {
            request_deadline,
            ..limits()
        },
        10,
        Echo,
    );
    for start in [
        "GET / HTTP/1.1\r\nX: ",
        "POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 90000\r\n\r\n",
        "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nf000\r\n",
    ] {
        let began = Instant::now();
        let answer = drip(&setup, start);
        assert!(began.elapsed() >= request_deadline);
        assert_eq!(
            (answer.status, answer.outcome()),
            (408, "timeout"),
            "{start:?}"
        );
        assert!(
            answer.body.contains("http.request_deadline = 2s"),
            "{answer:?}"
        );
        assert_eq!(setup.word(), "timeout");
    }
    // Who has said nothing hears nothing.
    setup.client().expect_end();
    assert!(setup.words.is_empty());
}

#[test]
fn a_silent_connection_is_closed_in_time_and_one_that_stops_within_a_request_is_told() {
    let setup = open(
        ListenerLimits {
            request_deadline: Duration::from_secs(2),
            ..limits()
        },
        20,
        Echo,
    );
    let (mut silent, mut stuck, mut kept) = (setup.client(), setup.client(), setup.client());
    stuck.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 4\r\n\r\nab");
    assert_eq!(kept.post("a").answer().status, 200);
    kept.send("POST /x HTTP/1.1\r\nHo");
    for told in [&mut stuck, &mut kept] {
        let answer = told.answer();
        assert_eq!((answer.status, answer.outcome()), (408, "timeout"));
        told.expect_end();
        assert_eq!(setup.word(), "timeout");
    }
    silent.expect_end();
    assert!(setup.words.is_empty(), "it asked nothing");
}
