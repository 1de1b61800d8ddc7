//! Requests over real sockets, judged by the connections' threads or by the workers, and a link that breaks.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use parking_lot::{Mutex, RwLock};

use super::link::WorkerSocket;
use super::request::{NUMBER_HEADER, PendingRequests};
use super::*;
use crate::bus::MemoryBus;
use crate::config::Config;
use crate::delivery::{self, Delivery};
use crate::dispatcher::Dispatcher;
use crate::edge::ListenerLimits;
use crate::edge::tests::{Client, PATIENCE, Setup, limits, open_shared};
use crate::fds::FdBudget;
use crate::log_once::LogOncePer;
use crate::metrics::Metrics;
use crate::notification::IdMint;
use crate::peers::Failures;
use crate::session::Registry;
use crate::session::token::Access;

const CONFIG: &str = r#"
[tcp]
backends = ["till-7"]
[[route]]
path = "/notify/{id}"
[[route]]
path = "/form"
id = "form:id"
[[route]]
path = "/signed/{id}"
verify = "hmac"
secrets = ["a-test-secret-of-thirty-two-bytes"]
hmac = { header = "x-sign" }
"#;

/// A listener before a handler, and no backend anywhere.
struct RunningHttp {
    // Before the pool: its connections send to the workers.
    setup: Setup,
    pool: Option<Pool>,
    handler: Arc<RequestHandler>,
    fds: FdBudget,
}

impl RunningHttp {
    fn open(workers: usize) -> Self {
        let handler = handler();
        let fds = FdBudget::with(1000);
        let pool = (workers > 0).then(|| Pool::start(workers, &handler, &fds).expect("workers"));
        let hand_over = match &pool {
            None => HandOver::Inline(Arc::clone(&handler)),
            Some(pool) => HandOver::ToWorkers(Arc::clone(pool.link()), Arc::clone(&handler)),
        };
        let limits = ListenerLimits {
            max_connections: 100,
            max_body: 4 << 20,
            ..limits()
        };
        Self {
            setup: open_shared(limits, 200, Arc::new(hand_over)),
            pool,
            handler,
            fds,
        }
    }

    fn client(&self) -> Client {
        self.setup.client()
    }
}

fn handler() -> Arc<RequestHandler> {
    let config = Config::parse(CONFIG, "relay.toml").expect("a configuration");
    let metrics = Arc::new(Metrics::new());
    let registry = Arc::new(Registry::default());
    let bus = MemoryBus::new(
        "alone".into(),
        Arc::clone(&registry) as _,
        Arc::default(),
        Arc::new(()),
    );
    let delivery = Delivery::start(delivery::DeliveryOptions {
        dispatcher: Dispatcher::new(registry, Arc::new(bus)),
        ack_deadline: PATIENCE,
        in_flight_max: 10,
        outbox: None,
        dedupe_window: PATIENCE,
        dedupe_store: None,
        trace: Arc::default(),
        metrics: Arc::clone(&metrics),
    });
    Arc::new(RequestHandler {
        failures: Failures::new(2),
        suspect: Mutex::default(),
        refused: LogOncePer::default(),
        routes: RwLock::new(Arc::new(Routes::new(&config.routes, &metrics))),
        access: RwLock::new(Arc::new(Access::new(&config.tcp))),
        delivery: Arc::new(delivery.expect("a timer")),
        mint: IdMint::new(0),
        metrics,
    })
}

fn request(start: &str, body: &[u8]) -> Vec<u8> {
    let length = body.len();
    let head = format!("{start} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n");
    [head.as_bytes(), body].concat()
}

#[test]
fn every_refusal_has_its_status_and_word_with_and_without_workers() {
    for workers in [0, 2] {
        let front = RunningHttp::open(workers);
        let mut client = front.client();
        for (start, body, status, word) in [
            ("POST /nowhere", "", 404, "no-route"),
            ("GET /notify/till-7", "", 405, "method"),
            ("post /notify/till-7", "", 405, "method"),
            ("POST /notify/till-8", "", 404, "not-allowed"),
            ("POST /notify/", "", 400, "no-id"),
            ("POST /notify/a%20b", "", 400, "no-id"),
            ("POST /form", "x=y", 400, "no-id"),
            ("POST /form", "id=till-7&id=till-8", 400, "no-id"),
            ("POST /form?id=till-7", "id=till-7", 503, "offline"),
            ("POST /notify/till%2D7?x", "", 503, "offline"),
        ] {
            client.send(request(start, body.as_bytes()));
            let answer = client.answer();
            assert_eq!(
                (answer.status, answer.outcome()),
                (status, word),
                "{start} {body}, {workers} workers"
            );
            let has = |name: &str| answer.header(name).is_some();
            assert_eq!(has("X-Payrelay-Id"), status == 503, "{start}");
            assert_eq!(has("Retry-After"), status == 503);
            assert_eq!(has("Allow"), status == 405);
        }
    }
}

#[test]
fn a_peer_that_has_failed_too_often_is_verified_one_request_at_a_time() {
    let front = RunningHttp::open(0);
    let mut client = front.client();
    let forged = request("POST /signed/till-7", b"x");
    for word in ["bad-signature", "bad-signature", "too-many", "too-many"] {
        assert_eq!(client.send(&forged).answer().outcome(), word);
    }
    // The signature of no other request of such a peer is computed meanwhile.
    let refused = || {
        let refusals = front.handler.metrics.text(&Default::default());
        let line = refusals
            .lines()
            .find_map(|line| line.strip_prefix("payrelay_signature_refusals_total{"));
        line.map(|line| line.to_owned())
    };
    let before = refused();
    let turn = front.handler.suspect.lock();
    let answer = client.send(&forged).answer();
    assert_eq!((answer.status, answer.outcome()), (429, "too-many"));
    assert!(answer.header("Retry-After").is_some());
    drop(turn);
    assert_eq!(refused(), before);
    // A route that verifies nothing is not concerned.
    client.send(request("POST /notify/till-7", b""));
    assert_eq!(client.answer().outcome(), "offline");
}

#[test]
fn a_request_goes_to_a_worker_in_canonical_form() {
    let text = "POST /notify/a?b=%20c HTTP/1.1\r\nHost: pay\r\nX-Sign: a: b,c\r\nConnection: keep-alive, X-Hop\r\n\
        x-hop: 1\r\nKeep-Alive: 1\r\nProxy-Anything: 1\r\nTE: trailers;q=NaN\r\nTrailer: x\r\nUpgrade: h2c\r\n\
        Expect: 100-continue\r\nX-Payrelay-Peer: 203.0.113.1:1\r\nx-PAYRELAY-proof: 1\r\n\
        x-payrelay-REQUEST: 0\r\nAccept: \r\n\r\n";
    let mut slots = [httparse::EMPTY_HEADER; crate::edge::framing::HEADERS_MAX];
    let head = crate::edge::framing::parse_head(text.as_bytes(), &mut slots, 0).expect("a head");
    let request = HttpRequest {
        method: head.method,
        target: &head.target,
        headers: head.headers,
        body: b"",
        peer: "203.0.113.7:1234".parse().expect("an address"),
    };
    let mut out = Vec::new();
    super::head::write(&mut out, &request, 17);
    assert_eq!(
        String::from_utf8_lossy(&out),
        format!(
            "POST /notify/a?b=%20c HTTP/1.1\r\nHost: pay\r\nX-Sign: a: b,c\r\nAccept: \r\n\
             x-payrelay-peer: 203.0.113.7:1234\r\n{NUMBER_HEADER}: 17\r\n\r\n"
        )
    );
}

#[test]
fn bodies_of_every_size_and_many_at_once_are_not_mixed_up() {
    let front = RunningHttp::open(2);
    std::thread::scope(|scope| {
        for number in 0..8 {
            let front = &front;
            scope.spawn(move || {
                let mut client = front.client();
                for round in 0..50 {
                    // The body says which status its answer has.
                    let known = (number + round) % 2 == 0;
                    let id = if known { "till-7" } else { "till-9" };
                    let filler = "x".repeat(100_000 * (round % 3));
                    client.send(request(
                        "POST /form",
                        format!("id={id}&f={filler}").as_bytes(),
                    ));
                    let status = if known { 503 } else { 404 };
                    assert_eq!(client.answer().status, status);
                }
            });
        }
    });
    let text = front.handler.metrics.text(&Default::default());
    assert!(
        text.contains("payrelay_http_worker_requests_total 400\n"),
        "{text}"
    );
}

#[test]
fn a_link_that_breaks_is_replaced_and_its_requests_are_answered() {
    let front = RunningHttp::open(1);
    let mut client = front.client();
    client.send(request("POST /nowhere", b""));
    assert_eq!(client.answer().status, 404);
    front.pool.as_ref().expect("a pool").link().cut();
    // What was written before the break was noticed is lost, and its provider told to try again.
    let deadline = Instant::now() + PATIENCE;
    loop {
        let mut client = front.client();
        client.send(request("POST /nowhere", b""));
        if client.answer().status == 404 {
            break;
        }
        assert!(Instant::now() < deadline, "never replaced");
    }
}

#[test]
fn without_workers_the_link_is_not_proven() {
    let (socket, server) = WorkerSocket::bind().expect("a socket");
    let (_proof, proven) = bounded(1);
    let fds = FdBudget::with(100);
    let pending = Arc::new(PendingRequests::default());
    let opened = WorkerLink::open_within(
        Duration::from_millis(50),
        socket.path(),
        pending,
        proven,
        &fds,
    );
    assert!(matches!(opened, Err(WorkerLinkError::Unproven)));
    drop(server);
}

#[test]
fn the_link_takes_its_descriptors_from_the_budget_and_gives_them_back() {
    let RunningHttp {
        setup, pool, fds, ..
    } = RunningHttp::open(1);
    assert_eq!(fds.free(), 1000 - LINK_FDS);
    drop((setup, pool));
    assert_eq!(fds.free(), 1000);
    let few = FdBudget::with(LINK_FDS - 1);
    let refused = Pool::start(1, &handler(), &few);
    assert!(
        matches!(refused, Err(PoolError::Link(WorkerLinkError::Descriptors { free })) if free == LINK_FDS - 1)
    );
}

#[test]
fn the_socket_is_private_and_is_removed() {
    let (socket, server) = WorkerSocket::bind().expect("a socket");
    let directory = socket.path().parent().expect("a directory").to_owned();
    let mode = std::fs::metadata(&directory).expect("a directory");
    assert_eq!(mode.permissions().mode() & 0o777, 0o700);
    drop(server);
    drop(socket);
    assert!(!directory.exists());
}
