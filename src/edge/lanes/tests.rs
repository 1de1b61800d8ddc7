//! Lanes against a real tiny_http, with a real front before them and a worker of the test's own behind.

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::*;
use crate::claims::Kept;
use crate::edge::tests::{Client, House, PATIENCE, limits, open_shared};
use crate::edge::{IDLE_MAX, Limits};
use crate::thread::{JoinOnDrop, SMALL_STACK_BYTES, spawn};

/// What the worker saw of a request.
#[derive(Debug)]
struct Seen {
    method: String,
    url: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

/// A front, lanes, and one worker, who keeps the claims of requests to `/wait` until the end, lets those of `/drop` fall, and
/// pays all others with their own body.
struct Pool {
    house: Option<House>,
    lanes: Option<Arc<Lanes>>,
    seen: Receiver<Seen>,
    fds: FdBudget,
    server: Arc<tiny_http::Server>,
    worker: Option<JoinOnDrop>,
    _bed: LaneBed,
}

impl Pool {
    fn start(count: usize, in_flight_max: usize, answer_deadline: Duration) -> Self {
        let (bed, server) = LaneBed::bind().expect("a bed");
        let server = Arc::new(server);
        let claims = Arc::new(Claims::default());
        let (see, seen) = unbounded();
        let (theirs, table) = (Arc::clone(&server), Arc::clone(&claims));
        let worker = spawn("worker", SMALL_STACK_BYTES, move || {
            work(&theirs, &table, &see);
        });
        let fds = FdBudget::with(1000);
        let lanes = bed
            .open(count, in_flight_max, claims, Arc::new(()), &fds)
            .map(Arc::new)
            .expect("lanes");
        for _ in 0..count {
            let probe: Seen = seen.recv_timeout(PATIENCE).expect("a proof");
            assert!(probe.headers.contains(&format!("{PROBE_HEADER}: probe")));
        }
        let limits = Limits {
            max_connections: 100,
            max_body: 4 * 1024 * 1024,
            answer_deadline,
            ..limits()
        };
        let house = open_shared(limits, 200, Arc::clone(&lanes) as _, IDLE_MAX);
        Self {
            house: Some(house),
            lanes: Some(lanes),
            seen,
            fds,
            server,
            worker: Some(worker.expect("a worker")),
            _bed: bed,
        }
    }

    fn house(&self) -> &House {
        self.house.as_ref().expect("a front")
    }

    fn lanes(&self) -> &Lanes {
        self.lanes.as_ref().expect("lanes")
    }

    fn client(&self) -> Client {
        self.house().client()
    }

    fn seen(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("a request")
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        drop(self.house.take());
        drop(self.lanes.take());
        self.server.unblock();
        drop(self.worker.take());
    }
}

fn work(server: &tiny_http::Server, claims: &Claims, see: &Sender<Seen>) {
    let mut waiting = Vec::new();
    while let Ok(mut request) = server.recv() {
        let value = |name: &str| {
            let mut headers = request.headers().iter();
            let found = headers.find(|h| h.field.as_str().as_str() == name);
            found.map(|header| header.value.as_str().to_owned())
        };
        let is_probe = value(PROBE_HEADER).is_some();
        let number = value(CLAIM_HEADER).and_then(|number| number.parse().ok());
        let mut nothing = Vec::new();
        let _ = request.as_reader().read_to_end(&mut nothing);
        assert!(nothing.is_empty(), "a body in the lane");
        let kept = number.and_then(|number| claims.take(number));
        let Some(Kept { body, claim }) = kept else {
            continue;
        };
        let url = request.url().to_owned();
        let _ = see.send(Seen {
            method: request.method().to_string(),
            url: url.clone(),
            headers: request.headers().iter().map(ToString::to_string).collect(),
            body: body.clone(),
        });
        match url.as_str() {
            "/wait" => waiting.push(claim),
            "/drop" => drop(claim),
            _ => claim(Reply {
                status: if is_probe { 204 } else { 200 },
                head: Vec::new(),
                body,
            }),
        }
    }
}

fn post(target: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("POST {target} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn a_request_arrives_canonical() {
    let pool = Pool::start(3, 10, PATIENCE);
    let body: Vec<u8> = (b' '..=b'~').collect();
    let head = "POST /notify/a?b=%20c HTTP/1.1\r\nHost: pay\r\nX-Sign: a: b,c\r\nConnection: keep-alive, X-Hop\r\n\
        x-hop: 1\r\nKeep-Alive: 1\r\nProxy-Anything: 1\r\nTE: trailers;q=NaN\r\nTrailer: x\r\nUpgrade: h2c\r\n\
        Expect: 100-continue\r\nX-Payrelay-Peer: 203.0.113.1:1\r\nx-PAYRELAY-lane: probe\r\n\
        x-payrelay-CLAIM: 0\r\nAccept: \r\nContent-Length: 95\r\n\r\n";
    let mut client = pool.client();
    let peer = client.peer();
    client.send([head.as_bytes(), &body].concat());
    let answer = client.answer();
    assert_eq!((answer.status, answer.body.as_bytes()), (200, &body[..]));
    let mut seen = pool.seen();
    assert_eq!(
        (seen.method.as_str(), seen.url.as_str()),
        ("POST", "/notify/a?b=%20c")
    );
    let claim = seen.headers.remove(4);
    assert!(claim.starts_with("x-payrelay-claim: "), "{claim}");
    assert_eq!(
        seen.headers,
        [
            "Host: pay".to_owned(),
            "X-Sign: a: b,c".to_owned(),
            "Accept: ".to_owned(),
            format!("x-payrelay-peer: {peer}"),
        ]
    );
    assert_eq!(seen.body, body);
}

#[test]
fn a_lane_is_used_again_and_again_whatever_went_through_it() {
    let pool = Pool::start(1, 10, PATIENCE);
    let mut client = pool.client();
    let large = vec![b'7'; 3 * 1024 * 1024];
    for body in [b"".as_slice(), b"x", &large, &large[..2000], b"y"] {
        client.send(post("/", body));
        assert_eq!(client.answer().body.as_bytes(), body);
        assert_eq!(pool.seen().body, body);
    }
    assert!(pool.seen.is_empty(), "a lane was opened anew");
}

#[test]
fn requests_that_wait_hold_a_place_and_no_lane() {
    let pool = Pool::start(1, 3, PATIENCE);
    let mut waiting: Vec<_> = (0..2).map(|_| pool.client()).collect();
    for client in &mut waiting {
        client.send(post("/wait", b""));
        assert_eq!(pool.seen().url, "/wait");
    }
    assert_eq!(pool.lanes().in_flight(), 2);
    let mut third = pool.client();
    third.send(post("/", b"x"));
    assert_eq!(third.answer().status, 200, "the one lane is free");
    let mut last = pool.client();
    last.send(post("/wait", b""));
    assert_eq!(pool.seen().body, b"x");
    assert_eq!(pool.seen().url, "/wait");
    third.send(post("/", b"x"));
    let answer = third.answer();
    assert_eq!((answer.status, answer.outcome()), (503, "busy"));
    assert_eq!(answer.header("Retry-After"), Some("1"));
    assert_eq!(pool.house().word(), "busy");
}

#[test]
fn a_claim_that_is_dropped_or_never_paid_is_answered_all_the_same() {
    let pool = Pool::start(1, 10, Duration::from_millis(100));
    for target in ["/drop", "/wait"] {
        let mut client = pool.client();
        client.send(post(target, b""));
        let answer = client.answer();
        assert_eq!(
            (answer.status, answer.outcome()),
            (503, "timeout"),
            "{target}"
        );
        assert_eq!(pool.house().word(), "timeout");
    }
}

#[test]
fn a_lane_that_breaks_is_replaced_by_the_next_request() {
    let pool = Pool::start(1, 10, PATIENCE);
    if let Some(lane) = &*pool.lanes().lanes[0].lock() {
        lane.shutdown(Shutdown::Both).expect("a lane");
    }
    let mut client = pool.client();
    client.send(post("/", b"x"));
    assert_eq!(client.answer().status, 503);
    let mut client = pool.client();
    client.send(post("/", b"y"));
    assert_eq!(client.answer().body, "y");
    assert_eq!(
        (pool.seen().method.as_str(), pool.seen().url.as_str()),
        ("GET", "/")
    );
    assert_eq!(pool.lanes().in_flight(), 0);
}

#[test]
fn what_tiny_http_says_by_itself_fills_no_buffer() {
    // It answers what it cannot read with 400 and closes; here, nobody listens to that.
    // What is sent before it closes is lost with the lane, and answered at the deadline.
    let pool = Pool::start(1, 10, Duration::from_millis(100));
    assert!(pool.lanes().send(b"no HTTP\r\n\r\n"));
    let mut client = pool.client();
    let deadline = Instant::now() + PATIENCE;
    loop {
        client.send(post("/", b"x"));
        if client.answer().status == 200 {
            break;
        }
        assert!(Instant::now() < deadline, "never replaced");
        client = pool.client();
    }
}

#[test]
fn without_workers_no_lane_is_proven() {
    let (bed, server) = LaneBed::bind().expect("a bed");
    let fds = FdBudget::with(100);
    let claims = Arc::new(Claims::default());
    let lanes = bed
        .open(0, 1, Arc::clone(&claims), Arc::new(()), &fds)
        .expect("no lanes");
    let unproven = lanes.open_one(Duration::from_millis(50));
    assert!(matches!(unproven, Err(LanesError::Unproven)));
    assert_eq!(format!("{claims:?}"), "Claims(0 on their way)");
    drop(server);
}

#[test]
fn lanes_take_their_descriptors_from_the_budget_and_give_them_back() {
    let mut pool = Pool::start(2, 10, PATIENCE);
    assert_eq!(pool.fds.free(), 1000 - (2 * FDS_PER_LANE + FDS_SPARE));
    drop(pool.house.take());
    drop(pool.lanes.take());
    assert_eq!(pool.fds.free(), 1000);
    let few = FdBudget::with(10);
    let refused = pool._bed.open(100, 1, Arc::default(), Arc::new(()), &few);
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
    let pool = Pool::start(2, 10, PATIENCE);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let pool = &pool;
            scope.spawn(move || {
                let mut client = pool.client();
                for round in 0..50 {
                    let mine = format!("{number}-{round}").repeat(1 + 400 * (round % 2));
                    client.send(post("/", mine.as_bytes()));
                    assert_eq!(client.answer().body, mine);
                }
            });
        }
    });
    assert_eq!(
        format!("{:?}", pool.lanes()),
        "Lanes(2, 0 requests in flight)"
    );
}
