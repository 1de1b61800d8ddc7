//! Lanes against a real tiny_http, with a worker of the test's own behind it.

use std::io::Write;
use std::net::SocketAddr;

use crossbeam_channel::{Receiver, Sender, unbounded};
use httparse::Header;

use super::lane::ANSWER_BYTES_MAX;
use super::*;
use crate::edge::tests::{alone, entries};
use crate::thread::{JoinOnDrop, SMALL_STACK_BYTES, spawn};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// What the worker saw of a request.
#[derive(Debug)]
struct Seen {
    method: String,
    url: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

struct Words(Sender<&'static str>);

impl Watcher for Words {
    fn refused(&self, reason: &'static str) {
        let _ = self.0.send(reason);
    }
}

/// One worker, and lanes to it. Requests to `/wait` are kept until the pool ends; those to `/raw` are answered with
/// their own body as it is; all others with 200 and `ok`.
struct Pool {
    lanes: Option<Lanes>,
    seen: Receiver<Seen>,
    words: Receiver<&'static str>,
    fds: FdBudget,
    server: Option<Arc<tiny_http::Server>>,
    worker: Option<JoinOnDrop>,
    bed: LaneBed,
}

const ANSWER: &[u8] =
    b"HTTP/1.1 200 OK\r\nServer: x\r\nX-Payrelay-Outcome: delivered\r\nContent-Length: 2\r\n\r\nok";

impl Pool {
    fn start(count: usize, answer_deadline: Duration) -> Self {
        let (bed, server) = LaneBed::bind().expect("a bed");
        let server = Arc::new(server);
        let (see, seen) = unbounded();
        let theirs = Arc::clone(&server);
        let worker =
            spawn("worker", SMALL_STACK_BYTES, move || work(&theirs, &see)).expect("a worker");
        let fds = FdBudget::with(1000);
        let (say, words) = unbounded();
        let lanes = bed
            .open(count, answer_deadline, &fds, Arc::new(Words(say)))
            .expect("lanes");
        Self {
            lanes: Some(lanes),
            seen,
            words,
            fds,
            server: Some(server),
            worker: Some(worker),
            bed,
        }
    }

    fn lanes(&self) -> &Lanes {
        self.lanes.as_ref().expect("lanes")
    }

    fn ask(&self, method: &str, target: &str, headers: &[(&str, &str)], body: &[u8]) -> Reply {
        let headers: Vec<_> = headers
            .iter()
            .map(|(name, value)| Header {
                name,
                value: value.as_bytes(),
            })
            .collect();
        self.lanes().handle(&Request {
            method,
            target,
            headers: &headers,
            body,
            peer: SocketAddr::from(([192, 0, 2, 7], 4711)),
        })
    }

    fn raw(&self, answer: &[u8]) -> Reply {
        self.ask("POST", "/raw", &[], answer)
    }

    fn seen(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a request")
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.lanes.take());
        if let Some(server) = self.server.take() {
            server.unblock();
        }
        drop(self.worker.take());
    }
}

fn work(server: &tiny_http::Server, see: &Sender<Seen>) {
    let mut kept = Vec::new();
    while let Ok(mut request) = server.recv() {
        let is_probe = request
            .headers()
            .iter()
            .any(|header| header.field.equiv(PROBE_HEADER));
        let mut body = Vec::new();
        let _ = request.as_reader().read_to_end(&mut body);
        let url = request.url().to_owned();
        let _ = see.send(Seen {
            method: request.method().to_string(),
            url: url.clone(),
            headers: request.headers().iter().map(ToString::to_string).collect(),
            body: body.clone(),
        });
        if url == "/wait" {
            kept.push(request);
            continue;
        }
        let mut writer = request.into_writer();
        let answer = match url.as_str() {
            _ if is_probe => b"HTTP/1.1 204 No Content\r\n\r\n",
            "/raw" => body.as_slice(),
            _ => ANSWER,
        };
        let _ = writer.write_all(answer).and_then(|()| writer.flush());
    }
}

fn outcome(reply: &Reply) -> (u16, String) {
    let head = String::from_utf8_lossy(&reply.head);
    let word = head
        .lines()
        .find_map(|line| line.strip_prefix("X-Payrelay-Outcome: "));
    (reply.status, word.unwrap_or("none").to_owned())
}

#[test]
fn every_lane_is_proven_and_the_request_arrives_canonical() {
    let pool = Pool::start(3, PATIENCE);
    for _ in 0..3 {
        assert!(
            pool.seen()
                .headers
                .contains(&format!("{PROBE_HEADER}: probe"))
        );
    }
    let body: Vec<u8> = (0..=255).collect();
    let reply = pool.ask(
        "POST",
        "/notify/a?b=%20c",
        &[
            ("Host", "pay"),
            ("X-Sign", "a: b,c"),
            ("Connection", "close, X-Hop"),
            ("x-hop", "1"),
            ("Keep-Alive", "1"),
            ("Proxy-Anything", "1"),
            ("TE", "trailers;q=NaN"),
            ("Trailer", "x"),
            ("Transfer-Encoding", "chunked"),
            ("Upgrade", "h2c"),
            ("Expect", "100-continue"),
            ("Content-Length", "7"),
            ("X-Payrelay-Peer", "203.0.113.1:1"),
            ("x-PAYRELAY-lane", "probe"),
            ("Accept", ""),
        ],
        &body,
    );
    assert_eq!(
        reply,
        Reply {
            status: 200,
            head: b"X-Payrelay-Outcome: delivered\r\n".to_vec(),
            body: b"ok".to_vec(),
        }
    );
    let seen = pool.seen();
    assert_eq!(
        (seen.method.as_str(), seen.url.as_str()),
        ("POST", "/notify/a?b=%20c")
    );
    assert_eq!(
        seen.headers,
        [
            "Host: pay",
            "X-Sign: a: b,c",
            "Accept: ",
            "x-payrelay-peer: 192.0.2.7:4711",
            "Content-Length: 256",
        ]
    );
    assert_eq!(seen.body, body);
    assert_eq!(pool.lanes().busy(), 0);
}

#[test]
fn a_lane_is_used_again_and_again_whatever_went_through_it() {
    let pool = Pool::start(1, PATIENCE);
    let large = vec![7; 3 * 1024 * 1024];
    for body in [b"".as_slice(), b"x", &large, &large[..2000], b"y"] {
        assert_eq!(pool.ask("POST", "/", &[], body).status, 200);
    }
    let probe = pool.seen();
    assert_eq!(probe.method, "GET");
    for length in [0, 1, large.len(), 2000, 1] {
        assert_eq!(pool.seen().body.len(), length);
    }
    assert!(pool.seen.is_empty(), "a lane was opened anew");
    assert!(pool.words.is_empty());
}

#[test]
fn when_every_lane_is_taken_the_next_is_told_to_come_again() {
    let pool = Pool::start(1, PATIENCE);
    let lane = pool.lanes().take().expect("the lane");
    assert_eq!(pool.lanes().busy(), 1);
    let began = Instant::now();
    let reply = pool.ask("POST", "/", &[], b"");
    assert!(began.elapsed() < PATIENCE / 2, "it waited");
    assert_eq!(outcome(&reply), (503, "busy".to_owned()));
    assert!(String::from_utf8_lossy(&reply.head).contains("Retry-After: 1\r\n"));
    assert_eq!(pool.words.try_recv(), Ok("busy"));
    pool.lanes().give_back(lane);
    assert_eq!(pool.ask("POST", "/", &[], b"").status, 200);
}

#[test]
fn a_worker_that_never_answers_costs_its_lane_which_is_replaced() {
    let deadline = Duration::from_millis(100);
    let pool = Pool::start(1, deadline);
    let began = Instant::now();
    let reply = pool.ask("POST", "/wait", &[], b"");
    assert!(began.elapsed() >= deadline);
    assert_eq!(outcome(&reply), (503, "timeout".to_owned()));
    assert_eq!(pool.words.try_recv(), Ok("timeout"));
    assert_eq!(
        format!("{:?}", pool.lanes()),
        "Lanes(1 free, 0 busy, 0 missing)"
    );
    assert_eq!(pool.ask("POST", "/", &[], b"").status, 200);
    let urls: Vec<_> = pool.seen.try_iter().map(|seen| seen.url).collect();
    assert_eq!(
        urls,
        ["/", "/wait", "/", "/"],
        "proof, request, proof, request"
    );
}

#[test]
fn what_is_no_proper_answer_is_not_passed_on() {
    let pool = Pool::start(1, PATIENCE);
    let over = format!("HTTP/1.1 200 OK\r\nContent-Length: {ANSWER_BYTES_MAX}\r\n\r\n");
    let endless = format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(ANSWER_BYTES_MAX));
    for answer in [
        b"HTTP/1.1 200 OK\r\n\r\n".as_slice(),
        b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nxy",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"hello world, this is no HTTP",
        over.as_bytes(),
        endless.as_bytes(),
    ] {
        assert_eq!(outcome(&pool.raw(answer)), (503, "timeout".to_owned()));
        assert_eq!(
            pool.ask("POST", "/", &[], b"").status,
            200,
            "its lane was replaced"
        );
    }
    let most = ANSWER_BYTES_MAX - "HTTP/1.1 200 OK\r\nContent-Length: 12345\r\n\r\n".len();
    let mut largest = format!("HTTP/1.1 200 OK\r\nContent-Length: {most}\r\n\r\n").into_bytes();
    largest.resize(ANSWER_BYTES_MAX, b'x');
    assert_eq!(pool.raw(&largest).body.len(), most);
}

#[test]
fn without_workers_no_lane_is_proven() {
    let (bed, server) = LaneBed::bind().expect("a bed");
    let fds = FdBudget::with(100);
    let lanes = bed.open(0, PATIENCE, &fds, Arc::new(())).expect("no lanes");
    let unproven = lanes.open_one(Duration::from_millis(50));
    assert!(matches!(unproven, Err(LanesError::Unproven)));
    drop(server);
}

#[test]
fn a_lane_that_cannot_be_replaced_is_tried_again_later() {
    let pool = Pool::start(1, Duration::from_millis(100));
    // Nobody can be reached there any more.
    let away = pool.bed.path.with_extension("away");
    std::fs::rename(&pool.bed.path, &away).expect("moved");
    assert_eq!(outcome(&pool.ask("POST", "/wait", &[], b"")).1, "timeout");
    assert_eq!(outcome(&pool.ask("POST", "/", &[], b"")).1, "busy");
    std::fs::rename(&away, &pool.bed.path).expect("moved back");
    let deadline = Instant::now() + PATIENCE;
    while pool.ask("POST", "/", &[], b"").status != 200 {
        assert!(Instant::now() < deadline, "never replaced");
        std::thread::yield_now();
    }
}

#[test]
fn lanes_take_their_descriptors_from_the_budget_and_give_them_back() {
    let mut pool = Pool::start(2, PATIENCE);
    assert_eq!(pool.fds.free(), 1000 - (2 * FDS_PER_LANE + FDS_SPARE));
    drop(pool.lanes.take());
    assert_eq!(pool.fds.free(), 1000);
    let few = FdBudget::with(10);
    let refused = pool.bed.open(100, PATIENCE, &few, Arc::new(()));
    let Err(LanesError::Descriptors {
        lanes: 100,
        free: 10,
        ..
    }) = refused
    else {
        panic!("{refused:?}");
    };
    assert_eq!(few.free(), 10);
}

#[test]
fn the_socket_is_private_and_goes_with_its_bed() {
    let (bed, server) = LaneBed::bind().expect("a bed");
    let directory = bed.path.parent().expect("a directory").to_owned();
    let mode = std::fs::metadata(&directory)
        .expect("a directory")
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o700);
    drop(server);
    drop(bed);
    assert!(!directory.exists());
}

#[test]
fn many_ask_at_once_and_none_is_crossed() {
    let pool = Pool::start(8, PATIENCE);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                for round in 0..50 {
                    let mine = format!("{number}-{round}");
                    let answer = format!(
                        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{mine}",
                        mine.len()
                    );
                    assert_eq!(pool.raw(answer.as_bytes()).body, mine.as_bytes());
                }
            });
        }
    });
    assert_eq!(
        format!("{:?}", pool.lanes()),
        "Lanes(8 free, 0 busy, 0 missing)"
    );
}

#[test]
fn no_descriptor_stays_behind() {
    alone("edge::lanes::tests::no_descriptor_stays_behind", || {
        let before = entries("/proc/self/fd");
        let pool = Pool::start(5, Duration::from_millis(100));
        assert_eq!(pool.ask("POST", "/wait", &[], b"").status, 503);
        assert_eq!(pool.ask("POST", "/", &[], &[0; 5000]).status, 200);
        drop(pool);
        // tiny_http's own threads let go when they see the other end closed.
        let deadline = Instant::now() + PATIENCE;
        while entries("/proc/self/fd") != before {
            assert!(Instant::now() < deadline, "{}", entries("/proc/self/fd"));
            std::thread::yield_now();
        }
    });
}
