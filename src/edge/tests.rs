//! The gatehouse from outside: real sockets, a handler of the test's own.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::fds::FdBudget;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Answers with what it was asked.
struct Echo;

impl Handler for Echo {
    fn handle(&self, request: &Request<'_>) -> Reply {
        let mut body = format!("{} {} ", request.method, request.target).into_bytes();
        body.extend_from_slice(request.body);
        Reply {
            status: 200,
            head: b"Content-Type: text/plain\r\n".to_vec(),
            body,
        }
    }
}

/// Says when it is asked, and answers when it is told to.
struct Gate {
    asked: Sender<()>,
    told: Receiver<()>,
}

impl Handler for Gate {
    fn handle(&self, request: &Request<'_>) -> Reply {
        let _ = self.asked.send(());
        let _ = self.told.recv_timeout(PATIENCE);
        Echo.handle(request)
    }
}

fn gate() -> (Gate, Receiver<()>, Sender<()>) {
    let (asked, was_asked) = unbounded();
    let (tell, told) = unbounded();
    (Gate { asked, told }, was_asked, tell)
}

struct Words(Sender<&'static str>);

impl Watcher for Words {
    fn refused(&self, reason: &'static str) {
        let _ = self.0.send(reason);
    }
}

fn limits() -> Limits {
    Limits {
        max_connections: 10,
        max_body: 100_000,
        request_deadline: PATIENCE,
    }
}

struct House {
    front: Front,
    fds: FdBudget,
    words: Receiver<&'static str>,
}

fn open(limits: Limits, fds: usize, handler: impl Handler) -> House {
    let (say, words) = unbounded();
    let fds = FdBudget::with(fds);
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let front = Front::start(
        "http",
        listener,
        limits,
        fds.clone(),
        Arc::new(handler),
        Arc::new(Words(say)),
    )
    .expect("a front");
    House { front, fds, words }
}

impl House {
    fn client(&self) -> Client {
        self.client_of(TcpStream::connect(self.front.addr()).expect("a connection"))
    }

    fn client_of(&self, stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Client {
            stream,
            unread: Vec::new(),
        }
    }

    fn word(&self) -> &'static str {
        self.words.recv_timeout(PATIENCE).expect("a refusal")
    }

    /// Waits until so many are connected.
    fn wait_connections(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.front.connections() != count {
            assert!(Instant::now() < deadline, "still {:?}", self.front);
            std::thread::yield_now();
        }
    }
}

struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
struct Answer {
    status: u16,
    head: String,
    body: String,
}

impl Answer {
    fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    fn outcome(&self) -> &str {
        self.header("X-Payrelay-Outcome").unwrap_or("none")
    }

    fn says_close(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

impl Client {
    fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).expect("sent");
        self
    }

    fn post(&mut self, body: &str) -> &mut Self {
        self.send(format!(
            "POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        ))
    }

    fn more(&mut self) -> usize {
        let mut buffer = [0; 4096];
        let read = self.stream.read(&mut buffer).expect("an answer in time");
        self.unread.extend_from_slice(&buffer[..read]);
        read
    }

    /// Reads up to and with the next empty line.
    fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.unread.drain(..at + 4).collect();
                return String::from_utf8(head).expect("text");
            }
            assert_ne!(self.more(), 0, "closed before an answer");
        }
    }

    fn answer_to(&mut self, is_head: bool) -> Answer {
        let head = self.head();
        let status = head[9..12].parse().expect("a status");
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        if !is_head && let Some(length) = answer.header("Content-Length") {
            let length: usize = length.parse().expect("a length");
            while self.unread.len() < length {
                assert_ne!(self.more(), 0, "closed within an answer");
            }
            let body = self.unread.drain(..length).collect();
            answer.body = String::from_utf8(body).expect("text");
        }
        answer
    }

    fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    /// Waits for the end, whether by FIN or by RST; nothing more may come.
    fn expect_end(&mut self) {
        assert!(self.unread.is_empty(), "{:?}", self.unread);
        let mut buffer = [0; 16];
        match self.stream.read(&mut buffer) {
            Ok(read) => assert_eq!(read, 0, "{:?}", &buffer[..read]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

#[test]
fn requests_on_a_kept_connection_are_answered_in_turn() {
    let house = open(limits(), 10, Echo);
    let mut client = house.client();
    for body in ["", "a", "hello"] {
        let answer = client.post(body).answer();
        assert_eq!(
            (answer.status, answer.body.as_str()),
            (200, format!("POST /x {body}").as_str())
        );
        assert!(answer.header("Date").is_some() && answer.header("Connection").is_none());
    }
    assert_eq!(house.front.connections(), 1);
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let house = open(limits(), 10, Echo);
    let mut client = house.client();
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
    let house = open(limits(), 10, Echo);
    let mut client = house.client();
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
    let house = open(limits(), 10, Echo);
    let mut client = house.client();
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
    let house = open(limits(), 10, Echo);
    let mut client = house.client();
    let answer = client
        .send("HEAD /a HTTP/1.1\r\nHost: h\r\n\r\n")
        .answer_to(true);
    assert_eq!(answer.header("Content-Length"), Some("8"));
    assert_eq!(client.post("x").answer().body, "POST /x x");
}

#[test]
fn a_client_that_has_ended_its_sending_still_gets_its_answer() {
    let house = open(limits(), 10, Echo);
    let mut client = house.client();
    client.post("x");
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("half a close");
    assert_eq!(client.answer().body, "POST /x x");
    client.expect_end();

    let mut client = house.client();
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
    let house = open(limits(), 10, Echo);
    let mut client = house.client();
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
    // Unwelcome: the answer comes instead of the permission.
    client.send(head(100_001));
    assert_eq!(client.answer().status, 413);
    client.expect_end();
}

#[test]
fn a_refusal_names_the_limit_and_arrives_although_its_body_was_not_read() {
    let house = open(limits(), 10, Echo);
    let mut client = house.client();
    let answer = client.post(&"x".repeat(200_000)).answer();
    assert_eq!((answer.status, answer.outcome()), (413, "too-big"));
    assert_eq!(
        answer.body,
        "body of 200000 bytes is over http.max_body = 100000\n"
    );
    assert!(answer.says_close());
    assert_eq!(house.word(), "too-big");
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("half a close");
    client.expect_end();
    house.wait_connections(0);
}

#[test]
fn every_kind_of_refusal_has_its_status_and_word() {
    let house = open(limits(), 10, Echo);
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
        let mut client = house.client();
        let answer = client.send(input).answer();
        assert_eq!(
            (answer.status, answer.outcome()),
            (status, word),
            "{input:?}"
        );
        assert!(answer.says_close(), "{input:?}");
        assert_eq!(house.word(), word);
    }
    assert_eq!(house.client().post("x").answer().status, 200);
}

/// Sends `start`, then one byte after another until an answer comes.
fn drip(house: &House, start: &str) -> Answer {
    let mut client = house.client();
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
    let request_deadline = Duration::from_millis(200);
    let house = open(
        Limits {
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
        let answer = drip(&house, start);
        assert!(began.elapsed() >= request_deadline);
        assert_eq!(
            (answer.status, answer.outcome()),
            (408, "timeout"),
            "{start:?}"
        );
        assert!(
            answer.body.contains("http.request_deadline = 200ms"),
            "{answer:?}"
        );
        assert_eq!(house.word(), "timeout");
    }
    // Who has said nothing hears nothing.
    house.client().expect_end();
    assert!(house.words.is_empty());
}

#[test]
fn at_the_cap_the_longest_waiting_makes_room() {
    let house = open(
        Limits {
            max_connections: 2,
            ..limits()
        },
        10,
        Echo,
    );
    let (mut oldest, mut newer) = (house.client(), house.client());
    newer.post("a").answer();
    oldest.post("b").answer();
    newer.post("c").answer(); // now it is `oldest` who has waited longest
    let mut newest = house.client();
    assert_eq!(newest.post("d").answer().status, 200);
    oldest.expect_end();
    assert_eq!(house.word(), "evicted");
    assert_eq!(newer.post("e").answer().status, 200);
    assert_eq!(house.front.connections(), 2);
}

#[test]
fn a_request_that_is_not_whole_does_not_protect_its_connection() {
    let house = open(
        Limits {
            max_connections: 1,
            ..limits()
        },
        10,
        Echo,
    );
    let mut slow = house.client();
    slow.send("POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n");
    slow.head(); // its head was read, then
    slow.send("ab");
    assert_eq!(house.client().post("x").answer().status, 200);
    slow.expect_end();
}

#[test]
fn at_the_cap_with_everybody_at_work_newcomers_are_told_to_come_again() {
    let (gate, asked, tell) = gate();
    let house = open(
        Limits {
            max_connections: 2,
            ..limits()
        },
        10,
        gate,
    );
    let (mut one, mut two) = (house.client(), house.client());
    one.post("1");
    two.post("2");
    for _ in 0..2 {
        asked.recv_timeout(PATIENCE).expect("a request");
    }
    let mut third = house.client();
    let answer = third.answer();
    assert_eq!((answer.status, answer.outcome()), (503, "limit"));
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert!(answer.says_close());
    third.expect_end();
    assert_eq!(house.word(), "limit");
    for _ in 0..2 {
        tell.send(()).expect("a gate");
    }
    assert_eq!(one.answer().body, "POST /x 1");
    assert_eq!(two.answer().body, "POST /x 2");
}

#[test]
fn without_a_descriptor_somebody_makes_room_too() {
    let house = open(limits(), 3, Echo); // two for the front itself
    let mut first = house.client();
    first.post("a").answer();
    let mut second = house.client();
    assert_eq!(second.post("b").answer().status, 200);
    first.expect_end();
    let House { front, fds, .. } = house;
    drop((front, second));
    assert_eq!(fds.free(), 3);
}

#[test]
fn a_flood_of_idle_connections_locks_nobody_out() {
    let house = open(
        Limits {
            max_connections: 8,
            ..limits()
        },
        100,
        Echo,
    );
    let mut idle = Vec::new();
    for round in 0..100 {
        idle.push(house.client());
        if round % 10 == 0 {
            assert_eq!(house.client().post("x").answer().status, 200);
        }
    }
    assert!(house.front.connections() <= 8);
}

#[test]
fn a_handler_that_panics_costs_its_own_connection_only() {
    struct Clumsy;
    impl Handler for Clumsy {
        fn handle(&self, request: &Request<'_>) -> Reply {
            assert_ne!(request.target, "/fall");
            Echo.handle(request)
        }
    }
    let house = open(limits(), 10, Clumsy);
    let mut unlucky = house.client();
    unlucky
        .send("GET /fall HTTP/1.1\r\nHost: h\r\n\r\n")
        .expect_end();
    assert_eq!(house.client().post("x").answer().status, 200);
    house.wait_connections(0);
    assert_eq!(house.fds.free(), 8);
}

#[test]
fn closing_ends_the_idle_refuses_the_begun_and_lets_the_busy_finish() {
    let (gate, asked, tell) = gate();
    let house = open(limits(), 20, gate);
    let (mut idle, mut begun, mut busy, fresh) = (
        house.client(),
        house.client(),
        house.client(),
        house.client(),
    );
    let mut fresh = fresh;
    tell.send(()).expect("a gate");
    idle.post("a").answer();
    asked.recv_timeout(PATIENCE).expect("a request");
    begun.send("POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    begun.head(); // its head was read, then
    busy.post("b");
    asked.recv_timeout(PATIENCE).expect("a request");
    house.wait_connections(4);

    house.front.close();
    idle.expect_end();
    fresh.expect_end();
    assert!(
        TcpStream::connect(house.front.addr()).is_err(),
        "still listening"
    );
    assert!(
        !house.front.wait_empty(Instant::now()),
        "two are still there"
    );
    let refused = begun.send("xy").answer();
    assert_eq!((refused.status, refused.outcome()), (503, "draining"));
    assert_eq!(refused.header("Retry-After"), Some("1"));
    assert!(refused.says_close());
    tell.send(()).expect("a gate");
    let finished = busy.answer();
    assert_eq!(finished.body, "POST /x b");
    assert!(finished.says_close());
    drop((begun, busy));
    assert!(house.front.wait_empty(Instant::now() + PATIENCE));
    assert_eq!(house.front.connections(), 0);
    assert_eq!(house.fds.free(), 18);
    house.front.close(); // twice is no harm
}

#[test]
fn a_request_sent_while_closing_is_told_so() {
    let (gate, asked, tell) = gate();
    let house = open(limits(), 20, gate);
    let mut client = house.client();
    client.post("a").post("b"); // the second waits behind the first
    asked.recv_timeout(PATIENCE).expect("a request");
    house.front.close();
    tell.send(()).expect("a gate");
    let first = client.answer();
    assert!(first.says_close(), "nothing is promised that is not kept");
    client
        .stream
        .shutdown(Shutdown::Write)
        .expect("half a close");
    client.expect_end();
}

#[test]
fn dropping_the_front_cuts_whoever_is_left() {
    let house = open(limits(), 20, Echo);
    let mut begun = house.client();
    begun.send("POST /x HTTP/1.1\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n");
    begun.head();
    drop(house.front);
    begun.expect_end();
    assert_eq!(house.fds.free(), 20);
}

/// Runs `work` in a process of its own, for it counts or limits what the whole process has.
fn alone(test: &str, work: impl FnOnce()) {
    const MARK: &str = "PAYRELAY_TEST_ALONE";
    if std::env::var_os(MARK).is_some() {
        return work();
    }
    let this = std::env::current_exe().expect("this test's path");
    let output = Command::new(this)
        .args(["--exact", "--nocapture", test])
        .env(MARK, "1")
        .output()
        .expect("a process");
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).expect("procfs").count()
}

#[test]
fn no_descriptor_and_no_thread_stays_behind() {
    alone(
        "edge::tests::no_descriptor_and_no_thread_stays_behind",
        || {
            let count = || (entries("/proc/self/fd"), entries("/proc/self/task"));
            let before = count();
            let house = open(
                Limits {
                    max_connections: 20,
                    ..limits()
                },
                100,
                Echo,
            );
            let mut clients: Vec<_> = (0..60).map(|_| house.client()).collect();
            for client in clients.iter_mut().rev().take(10) {
                assert_eq!(client.post("x").answer().status, 200);
            }
            house.client().send("GET / HTTP/2.0\r\n\r\n").answer();
            drop(clients);
            drop(house);
            assert_eq!(count(), before);
        },
    );
}

#[test]
fn accept_outlives_a_lack_of_descriptors() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    use socket2::{Domain, Socket, Type};
    alone("edge::tests::accept_outlives_a_lack_of_descriptors", || {
        // The budget believes in far more than the system gives.
        let house = open(limits(), 1000, Echo);
        let mut kept = house.client();
        assert_eq!(kept.post("a").answer().status, 200);
        let newcomer = || Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let newcomers = [newcomer(), newcomer()];
        let before = getrlimit(Resource::Nofile);
        let limit = |current| {
            let maximum = before.maximum;
            setrlimit(Resource::Nofile, Rlimit { current, maximum }).expect("a limit");
        };
        limit(Some(3));
        let [mut first, mut second] = newcomers.map(|socket| {
            socket
                .connect(&house.front.addr().into())
                .expect("a connection");
            house.client_of(socket.into())
        });
        // Linux takes the descriptor before it waits: one accept had it already.
        assert_eq!(first.post("first").answer().status, 200);
        second.post("second");
        assert_eq!(
            kept.post("b").answer().status,
            200,
            "those inside are served"
        );
        assert_eq!(house.front.connections(), 2);
        limit(before.current);
        assert_eq!(second.answer().body, "POST /x second");
    });
}
