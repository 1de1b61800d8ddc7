//! The pool behind lanes of the test's own: what a worker makes of requests, and of lanes that break.

use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use tempfile::TempDir;

use super::*;
use crate::bus::MemoryBus;
use crate::claims::Reply;
use crate::config::Config;
use crate::delivery;
use crate::dispatcher::Dispatcher;
use crate::session::Registry;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

const CONFIG: &str = r#"
[tcp]
backends = ["till-7"]
[[route]]
path = "/notify/{id}"
[[route]]
path = "/form"
id = "form:id"
"#;

/// Workers on a tiny_http, and no backend anywhere.
struct House {
    pool: Option<Pool>,
    desk: Arc<Desk>,
    claims: Arc<Claims>,
    directory: TempDir,
}

impl House {
    fn open(workers: usize) -> Self {
        let config = Config::parse(CONFIG, "relay.toml").expect("a configuration");
        let directory = tempfile::tempdir().expect("a directory");
        let listener = UnixListener::bind(directory.path().join("lanes")).expect("a socket");
        let server = Server::from_listener(listener, None).expect("a server");
        let metrics = Arc::new(Metrics::new());
        let registry = Arc::new(Registry::default());
        let bus = MemoryBus::new(
            "alone".into(),
            Arc::clone(&registry) as _,
            Arc::default(),
            Arc::new(()),
        );
        let delivery = Delivery::start(delivery::Setting {
            dispatcher: Dispatcher::new(registry, Arc::new(bus)),
            ack_deadline: PATIENCE,
            in_flight_max: 10,
            outbox: None,
            dedupe_window: PATIENCE,
            dedupe_store: None,
            trace: Arc::default(),
            metrics: Arc::clone(&metrics),
        });
        let claims = Arc::new(Claims::default());
        let desk = Arc::new(Desk {
            failures: Failures::new(60),
            routes: RwLock::new(Arc::new(Routes::new(&config.routes, &metrics))),
            access: RwLock::new(Arc::new(Access::new(&config.tcp))),
            claims: Arc::clone(&claims),
            delivery: Arc::new(delivery.expect("a timer")),
            places: Places::new(1),
            mint: IdMint::new(0),
            metrics,
        });
        let pool = Pool::start(Arc::new(server), workers, &desk).expect("workers");
        Self {
            pool: Some(pool),
            desk,
            claims,
            directory,
        }
    }

    fn lane(&self) -> UnixStream {
        UnixStream::connect(self.directory.path().join("lanes")).expect("a lane")
    }

    /// Leaves a body, and a claim that passes its reply on.
    fn claim(&self, body: &[u8]) -> (u64, Receiver<Reply>) {
        let (pay, paid) = bounded(1);
        let claim = move |reply| {
            let _ = pay.send(reply);
        };
        let kept = Kept {
            body: body.to_vec(),
            claim: Box::new(claim),
        };
        (self.claims.leave(kept), paid)
    }

    /// Sends a request down `lane`, and waits for its answer.
    fn answer(&self, lane: &mut UnixStream, start: &str, body: &[u8]) -> Reply {
        let (number, paid) = self.claim(body);
        send(lane, start, number);
        paid.recv_timeout(PATIENCE).expect("an answer")
    }

    fn leave(&self, claim: impl FnOnce(Reply) + Send + 'static) -> u64 {
        self.claims.leave(Kept {
            body: Vec::new(),
            claim: Box::new(claim),
        })
    }
}

impl Drop for House {
    fn drop(&mut self) {
        drop(self.pool.take()); // before the socket through which tiny_http says good-bye
    }
}

fn send(lane: &mut UnixStream, start: &str, claim: u64) {
    let head = format!("{start} HTTP/1.1\r\nHost: h\r\n{CLAIM_HEADER}: {claim}\r\n\r\n");
    lane.write_all(head.as_bytes()).expect("sent");
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).expect("text")
}

#[test]
fn every_refusal_has_its_status_and_word() {
    let house = House::open(1);
    let mut lane = house.lane();
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
        let reply = house.answer(&mut lane, start, body.as_bytes());
        let head = text(&reply.head);
        assert_eq!(reply.status, status, "{start} {body}");
        assert!(
            head.contains(&format!("X-Payrelay-Outcome: {word}\r\n")),
            "{start} {body}: {head}"
        );
        assert_eq!(head.contains("X-Payrelay-Id: "), status == 503, "{start}");
        assert_eq!(head.contains("Retry-After: 1\r\n"), status == 503);
        assert_eq!(head.contains("Allow: POST\r\n"), status == 405);
    }
}

#[test]
fn no_worker_waits_for_the_request_before_it_in_its_lane() {
    let house = House::open(2);
    let mut lane = house.lane();
    let (go_on, held) = bounded::<()>(0);
    let (started, has_started) = bounded(1);
    let slow = house.leave(move |_| {
        let _ = started.send(());
        let _ = held.recv_timeout(PATIENCE);
    });
    send(&mut lane, "POST /", slow);
    has_started.recv_timeout(PATIENCE).expect("a worker at it");
    for _ in 0..4 {
        let (number, paid) = house.claim(b"x");
        send(&mut lane, "POST /", number);
        let reply = paid.recv_timeout(Duration::from_secs(5));
        assert_eq!(reply.expect("the other worker is free").status, 404);
    }
    drop(go_on);
}

#[test]
fn a_panic_costs_one_request_and_no_worker() {
    let house = House::open(1);
    let mut lane = house.lane();
    for _ in 0..3 {
        let clumsy = house.leave(|_| panic!("the test's own"));
        send(&mut lane, "POST /", clumsy);
        assert_eq!(house.answer(&mut lane, "POST /", b"").status, 404);
    }
}

#[test]
fn a_request_whose_claim_is_gone_is_passed_over() {
    let house = House::open(1);
    let mut lane = house.lane();
    send(&mut lane, "POST /notify/till-7", 1 << 40);
    assert_eq!(house.answer(&mut lane, "POST /", b"").status, 404);
}

#[test]
fn a_request_is_served_where_it_is_while_a_place_is_free_and_comes_back_otherwise() {
    let house = House::open(1);
    let asked = Asked {
        method: "POST",
        target: "/nowhere",
        headers: &[],
        peer: None,
    };
    let kept = |pay: Sender<u16>| Kept {
        body: Vec::new(),
        claim: Box::new(move |reply: Reply| {
            let _ = pay.send(reply.status);
        }),
    };
    let (pay, paid) = bounded(1);
    let clumsy = Kept {
        body: Vec::new(),
        claim: Box::new(|_| panic!("the test's own")),
    };
    assert!(
        house.desk.serve(&asked, clumsy).is_ok(),
        "and frees its place"
    );
    assert!(house.desk.serve(&asked, kept(pay.clone())).is_ok());
    assert_eq!(paid.try_recv(), Ok(404));
    let place = house.desk.places.take();
    let back = house.desk.serve(&asked, kept(pay.clone())).err();
    assert!(back.is_some() && paid.is_empty());
    drop(place);
    assert!(house.desk.serve(&asked, kept(pay)).is_ok());
    assert_eq!(paid.try_recv(), Ok(404));
}
