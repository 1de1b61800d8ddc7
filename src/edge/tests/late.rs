//! Answers that come later, from another thread: here, the test's own.

use super::*;

/// More than the sockets of one connection hold.
const LARGE_BYTES: usize = 24 * 1024 * 1024;

/// Hands every responder to the test.
struct Hand(Sender<(String, Responder)>);

impl Handler for Hand {
    fn handle(&self, request: &HttpRequest<'_>, responder: Responder) {
        let body = String::from_utf8_lossy(request.body).into_owned();
        let _ = self.0.send((body, responder));
    }
}

fn open_hand(limits: ListenerLimits) -> (Setup, Receiver<(String, Responder)>) {
    let (hand, responders) = unbounded();
    (open(limits, 20, Hand(hand)), responders)
}

fn next(responders: &Receiver<(String, Responder)>) -> (String, Responder) {
    responders.recv_timeout(PATIENCE).expect("a request")
}

fn reply(body: impl Into<Vec<u8>>) -> Response {
    Response {
        status: 200,
        head: Vec::new(),
        body: body.into(),
    }
}

fn large() -> Vec<u8> {
    let alphabet: Vec<u8> = (b'a'..=b'z').flat_map(|letter| [letter; 1000]).collect();
    let mut large = alphabet.repeat(LARGE_BYTES.div_ceil(alphabet.len()));
    large.truncate(LARGE_BYTES);
    large
}

impl Client {
    fn end_sending(&self) {
        let half = self.stream.shutdown(Shutdown::Write);
        half.expect("half a close");
    }

    /// Waits until the relay has taken what was sent so far from its socket.
    fn wait_taken(&self) {
        let port = |addr: std::io::Result<SocketAddr>| {
            format!(":{:04X}", addr.expect("an address").port())
        };
        let (ours, theirs) = (
            port(self.stream.local_addr()),
            port(self.stream.peer_addr()),
        );
        let is_taken = || {
            let table = std::fs::read_to_string("/proc/net/tcp").expect("procfs");
            let queue = |from: &str, to: &str| {
                let line = table.lines().find_map(|line| {
                    let words: Vec<_> = line.split_whitespace().collect();
                    (words.get(1)?.ends_with(from) && words.get(2)?.ends_with(to)).then_some(words)
                });
                line.expect("a connection")[4].to_owned()
            };
            queue(&ours, &theirs).starts_with("00000000:")
                && queue(&theirs, &ours).ends_with(":00000000")
        };
        let deadline = Instant::now() + PATIENCE;
        while !is_taken() {
            assert!(Instant::now() < deadline, "never taken");
            std::thread::yield_now();
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order_one_at_a_time() {
    let (setup, responders) = open_hand(limits());
    let mut client = setup.client();
    // Together: once one is taken and the last not yet answered, nothing more is read.
    client.post_all(&["1", "2", "3"]);
    for number in ["1", "2", "3"] {
        let (body, responder) = next(&responders);
        assert_eq!(body, number);
        client.wait_taken();
        assert!(responders.is_empty(), "the next before the answer");
        responder.answer(&reply(number));
        assert_eq!(client.answer().body, number);
    }
    assert_eq!(setup.listener.connections(), 1);
}

#[test]
fn a_client_that_has_ended_its_sending_gets_its_answer_late() {
    let (setup, responders) = open_hand(limits());
    let mut client = setup.client();
    client.post("x").end_sending();
    let (_, responder) = next(&responders);
    client.wait_taken();
    responder.answer(&reply("late"));
    assert_eq!(client.answer().body, "late");
    client.expect_end();
    setup.wait_descriptors(18);
}

#[test]
fn a_large_late_answer_reaches_a_slow_reader_whole() {
    let (setup, responders) = open_hand(limits());
    let large = large();
    let mut client = setup.client();
    client.post("x");
    next(&responders).1.answer(&reply(large.clone()));
    // What its sockets did not take is left to the connection's own thread, and nothing has been read yet.
    assert!(client.answer().body.as_bytes() == large, "not whole");
    client.expect_end();
    setup.wait_descriptors(18);
}

#[test]
fn a_large_late_answer_survives_what_is_sent_behind_its_request() {
    let (setup, responders) = open_hand(limits());
    let large = large();
    let mut client = setup.client();
    client.post("x");
    next(&responders).1.answer(&reply(large.clone()));
    // Too late to be answered on this connection, but no reason to reset it.
    client.post("y");
    assert!(client.answer().body.as_bytes() == large, "not whole");
    client.expect_end();
    assert!(responders.is_empty());
}

#[test]
fn a_request_begun_behind_a_large_late_answer_is_served() {
    alone(
        "edge::tests::late::a_request_begun_behind_a_large_late_answer_is_served",
        || {
            let (setup, responders) = open_hand(limits());
            let large = large();
            let mut client = setup.client();
            client.post("x");
            let (_, responder) = next(&responders);
            client.send("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab");
            client.wait_taken();
            wait_asleep("http-conn-0"); // so it waits for the answer now
            responder.answer(&reply(large.clone()));
            assert!(client.answer().body.as_bytes() == large, "not whole");
            client.send("cde");
            let (body, responder) = next(&responders);
            assert_eq!(body, "abcde");
            responder.answer(&reply("y"));
            assert_eq!(client.answer().body, "y");
        },
    );
}

#[test]
fn a_peer_that_resets_before_its_answer_leaves_nothing_behind() {
    let (setup, responders) = open_hand(limits());
    let mut client = setup.client();
    client.post("x");
    let (_, responder) = next(&responders);
    socket2::SockRef::from(&client.stream)
        .set_linger(Some(Duration::ZERO))
        .expect("a linger");
    drop(client);
    responder.answer(&reply("nobody reads this"));
    setup.wait_connections(0);
    setup.wait_descriptors(18);
    assert!(setup.words.is_empty());
}

#[test]
fn an_answer_that_never_comes_is_given_once_and_the_late_one_is_harmless() {
    let (setup, responders) = open_hand(ListenerLimits {
        answer_deadline: Duration::from_millis(100),
        ..limits()
    });
    for sends_more in [false, true] {
        let mut client = setup.client();
        client.post("x");
        let (_, responder) = next(&responders);
        if sends_more {
            client.post("y");
        }
        let answer = client.answer();
        assert_eq!((answer.status, answer.outcome()), (503, "timeout"));
        assert!(answer.says_close());
        assert_eq!(setup.word(), "timeout");
        responder.answer(&reply("late"));
        client.end_sending();
        client.expect_end();
        setup.wait_descriptors(18);
    }
    assert!(setup.words.is_empty() && responders.is_empty());
}

#[test]
fn closing_waits_for_an_owed_answer_which_says_so() {
    let (setup, responders) = open_hand(limits());
    let mut client = setup.client();
    client.post("x");
    let (_, responder) = next(&responders);
    setup.listener.close();
    assert!(!setup.listener.wait_empty(Instant::now()));
    responder.answer(&reply("late"));
    let answer = client.answer();
    assert_eq!(answer.body, "late");
    assert!(answer.says_close());
    client.expect_end();
    assert!(setup.listener.wait_empty(Instant::now() + PATIENCE));
}

#[test]
fn closing_while_the_rest_of_an_answer_is_on_its_way_ends_the_connection_after_it() {
    struct Large(Vec<u8>);
    impl Handler for Large {
        fn handle(&self, _: &HttpRequest<'_>, responder: Responder) {
            responder.answer(&reply(self.0.clone()));
        }
    }
    alone(
        "edge::tests::late::closing_while_the_rest_of_an_answer_is_on_its_way_ends_the_connection_after_it",
        || {
            let large = large();
            let setup = open(limits(), 20, Large(large.clone()));
            let mut client = setup.client();
            client.post("x").head();
            wait_asleep("http-conn-0"); // its socket is full
            setup.listener.close();
            while client.unread.len() < LARGE_BYTES {
                assert_ne!(client.more(), 0, "closed within the answer");
            }
            assert!(std::mem::take(&mut client.unread) == large, "not whole");
            client.expect_end();
            assert!(setup.listener.wait_empty(Instant::now() + PATIENCE));
        },
    );
}

#[test]
fn who_was_answered_late_may_be_idle_for_so_long_and_no_longer() {
    let (hand, responders) = unbounded();
    let limits = ListenerLimits {
        answer_deadline: 3 * PATIENCE,
        idle_max: Duration::from_millis(100),
        ..limits()
    };
    let setup = open(limits, 20, Hand(hand));
    let mut client = setup.client();
    client.post("x");
    let (_, responder) = next(&responders);
    client.wait_taken();
    responder.answer(&reply("late"));
    assert_eq!(client.answer().body, "late");
    client.expect_end();
}

#[test]
fn whoever_is_owed_an_answer_is_never_evicted() {
    let (setup, responders) = open_hand(ListenerLimits {
        max_connections: 2,
        ..limits()
    });
    let mut owed = setup.client();
    owed.post("owed");
    let (_, responder) = next(&responders);
    // Kept, so that each newcomer finds the setup full.
    let mut others = Vec::new();
    for round in 0..10 {
        let mut other = setup.client();
        other.post("other");
        next(&responders).1.answer(&reply("other"));
        assert_eq!(other.answer().body, "other", "round {round}");
        others.push(other);
    }
    let last = others.len() - 1;
    for other in &mut others[..last] {
        other.expect_end();
    }
    responder.answer(&reply("owed"));
    assert_eq!(owed.answer().body, "owed");
    // And now it is one of those who wait, for longer than anybody.
    let mut others = [setup.client(), setup.client()];
    for other in &mut others {
        other.post("other");
        next(&responders).1.answer(&reply("other"));
        assert_eq!(other.answer().body, "other");
    }
    owed.expect_end();
}

#[test]
fn a_responder_that_is_dropped_late_is_answered() {
    let (setup, responders) = open_hand(limits());
    let mut client = setup.client();
    client.post("x");
    drop(next(&responders));
    let answer = client.answer();
    assert_eq!((answer.status, answer.outcome()), (503, "timeout"));
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert_eq!(setup.word(), "timeout");
}

#[test]
fn a_late_answer_to_http_1_0_ends_the_connection() {
    let (setup, responders) = open_hand(limits());
    let mut client = setup.client();
    client.send("POST /x HTTP/1.0\r\nContent-Length: 1\r\n\r\nx");
    next(&responders).1.answer(&reply("late"));
    let answer = client.answer();
    assert_eq!(answer.body, "late");
    assert!(answer.says_close());
    client.expect_end();
    setup.wait_descriptors(18);
}
