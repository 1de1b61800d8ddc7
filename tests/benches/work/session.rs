//! A notification's way through the registry to a backend's socket, and its ACK's way back, over loopback.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use payrelay::bus::Hub;
use payrelay::bus::{Bus, Events, MemoryBus};
use payrelay::config::Config;
use payrelay::envelope::{Envelope, Receipts};
use payrelay::fds::FdBudget;
use payrelay::metrics::Metrics;
use payrelay::notification::{BackendId, IdMint, Notification, NotificationId, Receipt};
use payrelay::peers::Failures;
use payrelay::session::token::Access;
use payrelay::session::{BackendListener, NewSessions, Registry, SessionContext};

use super::{Count, Work};

pub const WORK: [Work; 3] = [
    Work {
        name: "session: 1 KiB there and its ACK back",
        prepare: || round_trip(1 << 10),
        count: Count::Near,
    },
    Work {
        name: "session: 64 KiB there and its ACK back",
        prepare: || round_trip(64 << 10),
        count: Count::Near,
    },
    Work {
        name: "registry: an envelope for nobody",
        prepare: for_nobody,
        count: Count::Same,
    },
];

/// Far beyond what anything here takes.
const PATIENCE: Duration = Duration::from_secs(3600);

/// Tells a receipt through a socket: waiting on one takes the same instructions each time, as channels that spin do not.
struct ReceiptSocket(UnixStream);

impl Receipts for ReceiptSocket {
    fn receipt(&self, _id: NotificationId, receipt: Receipt) {
        let byte = u8::from(receipt == Receipt::Ack);
        (&self.0).write_all(&[byte]).expect("somebody waits");
    }
}

fn round_trip(body_bytes: usize) -> Box<dyn FnMut()> {
    let registry = Arc::new(Registry::default());
    let listener = listener(&registry);
    let mut backend = TcpStream::connect(listener.addr()).expect("a listener");
    backend.set_nodelay(true).expect("an option");
    backend
        .write_all(b"HELLO 1 id=game-01 max=16\n")
        .expect("open");
    let mut ok = [0; 256];
    let read = backend.read(&mut ok).expect("an answer");
    assert!(ok[..read].starts_with(b"OK "));

    let (told, mut receipt) = UnixStream::pair().expect("sockets");
    let receipts: Arc<dyn Receipts> = Arc::new(ReceiptSocket(told));
    let notification = notification("game-01", body_bytes);
    let ack = format!("ACK id={}\n", notification.id);
    // The line, its data, and the LF behind them.
    let line = format!(
        "MSG id={} try=1 route=/notify/%7Bid%7D verified=none event={} at={} h=0 ={body_bytes}\n",
        notification.id,
        notification.event.as_deref().unwrap_or_default(),
        notification.at_unix_ms
    );
    let mut frame = vec![0; line.len() + body_bytes + 1];
    Box::new(move || {
        let _open = &listener;
        let deadline = Instant::now() + PATIENCE;
        let envelope = Envelope::new(Arc::clone(&notification), deadline, Arc::clone(&receipts));
        registry.send(Box::new(envelope)).expect("it is here");
        backend.read_exact(&mut frame).expect("a frame");
        assert!(frame.starts_with(line.as_bytes()));
        backend.write_all(ack.as_bytes()).expect("open");
        let mut byte = [0];
        receipt.read_exact(&mut byte).expect("a receipt");
        assert_eq!(byte, [1], "an ACK");
    })
}

fn for_nobody() -> Box<dyn FnMut()> {
    struct Nobody;
    impl Receipts for Nobody {
        fn receipt(&self, _id: NotificationId, _receipt: Receipt) {}
    }
    let registry = Registry::default();
    let receipts: Arc<dyn Receipts> = Arc::new(Nobody);
    let notification = notification("game-01", 1024);
    Box::new(move || {
        let deadline = Instant::now() + PATIENCE;
        let envelope = Envelope::new(Arc::clone(&notification), deadline, Arc::clone(&receipts));
        registry
            .send(Box::new(envelope))
            .expect_err("nobody is here");
    })
}

fn listener(registry: &Arc<Registry>) -> BackendListener {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("relay.toml");
    let config = Config::load(&file).expect("the configuration as it is shipped");
    let instance = "bench-0a1b2c".to_owned();
    let hub = Arc::new(Hub::default());
    let sessions = Arc::clone(registry) as Arc<_>;
    let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new(
        instance.clone(),
        sessions,
        Arc::clone(&hub),
        Arc::new(()),
    ));
    let context = SessionContext {
        registry: Arc::clone(registry),
        newcomers: NewSessions::default(),
        bus: Arc::clone(&bus),
        events: Events::new(hub, bus, config.http.max_body),
        mint: IdMint::new(8),
        access: RwLock::new(Arc::new(Access::new(&config.tcp))),
        failures: Failures::new(config.tcp.failures_per_minute),
        tcp: config.tcp,
        ack_deadline: config.delivery.ack_deadline,
        max_body: config.http.max_body,
        instance,
        metrics: Arc::new(Metrics::new()),
    };
    let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
    let listener = TcpListener::bind(loopback).expect("a port");
    BackendListener::open(listener, None, Arc::new(context), FdBudget::with(100))
        .expect("a listener")
}

fn notification(to: &str, body_bytes: usize) -> Arc<Notification> {
    Arc::new(Notification {
        id: IdMint::new(7).mint(1_764_000_000_000),
        backend: BackendId::parse(to).expect("an id"),
        route: "/notify/{id}".into(),
        verified: "none".into(),
        event: Some("2026112400000000000000000001".into()),
        event_proven: false,
        at_unix_ms: 1_764_000_000_000,
        tries: 1,
        head: Vec::new(),
        body: vec![b'x'; body_bytes],
    })
}
