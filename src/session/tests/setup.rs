//! A listener for backends on a port of its own, a sender of envelopes, and clients that keep to no rules.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::RwLock;
use socket2::{Domain, Socket, Type};

use crate::bus::Hub;
use crate::bus::{Bus, Events, MemoryBus};
use crate::config;
use crate::envelope::{Envelope, Receipts};
use crate::fds::FdBudget;
use crate::metrics::Metrics;
use crate::notification::{BackendId, IdMint, Notification, NotificationId, Receipt};
use crate::peers::Failures;
use crate::session::token::Access;
use crate::session::{BackendListener, NewSessions, Registry, SessionContext};

/// Everything that a test waits for comes within this, or never.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// A listener for backends with its sessions, and a sender.
pub struct Setup {
    listener: Option<BackendListener>,
    pub context: Arc<SessionContext>,
    pub sender: Arc<TestSender>,
}

impl Setup {
    pub fn new() -> Self {
        Self::with(|_| {})
    }

    /// A setup with the defaults, changed by `change`.
    pub fn with(change: impl FnOnce(&mut config::TcpConfig)) -> Self {
        Self::of(PATIENCE, change)
    }

    /// A setup whose providers wait so long.
    pub fn with_ack_deadline(ack_deadline: Duration) -> Self {
        Self::of(ack_deadline, |_| {})
    }

    fn of(ack_deadline: Duration, change: impl FnOnce(&mut config::TcpConfig)) -> Self {
        let loopback = SocketAddr::from(([127, 0, 0, 1], 0));
        let mut tcp = config::TcpConfig {
            listen: loopback,
            max_connections: 10_000,
            secrets: Vec::new(),
            backends: Vec::new(),
            hello_deadline: PATIENCE,
            heartbeat: Duration::from_secs(20),
            ack_timeout: Duration::from_secs(60),
            write_deadline: PATIENCE,
            queue: 64,
            channels: 32,
            data_rate: 1 << 20,
            tls: None,
            failures_per_minute: 60,
        };
        change(&mut tcp);
        let registry = Arc::new(Registry::default());
        let hub = Arc::new(Hub::default());
        let bus: Arc<dyn Bus> = Arc::new(MemoryBus::new(
            "pay-1-0a1b2c".into(),
            Arc::clone(&registry) as _,
            Arc::clone(&hub),
            Arc::new(()),
        ));
        let context = Arc::new(SessionContext {
            failures: Failures::new(60),
            registry: Arc::clone(&registry),
            newcomers: NewSessions::default(),
            bus: Arc::clone(&bus),
            events: Events::new(hub, bus, 1 << 20),
            mint: IdMint::new(8),
            access: RwLock::new(Arc::new(Access::new(&tcp))),
            tcp,
            ack_deadline,
            max_body: 1 << 20,
            instance: "pay-1-0a1b2c".into(),
            metrics: Arc::new(Metrics::new()),
        });
        let listener = TcpListener::bind(loopback).expect("a port");
        let fds = FdBudget::with(20_000);
        let backends =
            BackendListener::open(listener, None, Arc::clone(&context), fds).expect("a listener");
        let (told, receipts) = unbounded();
        Self {
            listener: Some(backends),
            context,
            sender: Arc::new(TestSender {
                registry,
                mint: IdMint::new(7),
                log: Arc::new(ReceiptLog(told)),
                receipts,
            }),
        }
    }

    pub fn listener(&self) -> &BackendListener {
        self.listener.as_ref().expect("open until the test ends")
    }

    pub fn client(&self) -> Client {
        Client::connect(self.listener().addr(), None)
    }

    /// A client whose kernel takes few bytes that it has not read, and few that the relay has not.
    pub fn narrow_client(&self) -> Client {
        Client::connect(self.listener().addr(), Some(4096))
    }

    /// A client that has said HELLO and was told OK.
    pub fn backend(&self, hello: &str) -> Client {
        let mut client = self.client();
        client.say(hello);
        assert!(client.line().starts_with("OK "), "{hello}");
        client
    }

    /// Stops it at once, as dropping it does, but says so in the test.
    pub fn stop(mut self) {
        drop(self.listener.take());
        assert!(self.context.registry.is_empty());
    }
}

/// The providers' side.
pub struct TestSender {
    registry: Arc<Registry>,
    mint: IdMint,
    log: Arc<ReceiptLog>,
    receipts: Receiver<(NotificationId, Receipt)>,
}

struct ReceiptLog(Sender<(NotificationId, Receipt)>);

impl Receipts for ReceiptLog {
    fn receipt(&self, id: NotificationId, receipt: Receipt) {
        self.0.send((id, receipt)).expect("the test listens");
    }
}

impl TestSender {
    pub fn envelope(&self, to: &str, route: &str, body: &[u8]) -> Box<Envelope> {
        let receipts = Arc::clone(&self.log) as Arc<dyn Receipts>;
        self.envelope_for(to, route, body, receipts)
    }

    pub fn envelope_for(
        &self,
        to: &str,
        route: &str,
        body: &[u8],
        receipts: Arc<dyn Receipts>,
    ) -> Box<Envelope> {
        let notification = Notification {
            id: self.mint.mint(1_764_000_000_000),
            backend: BackendId::parse(to).expect("an id"),
            route: route.into(),
            verified: "none".into(),
            event: None,
            event_proven: false,
            at_unix_ms: 0,
            tries: 1,
            head: Vec::new(),
            body: body.to_vec(),
        };
        let deadline = Instant::now() + 10 * PATIENCE;
        Box::new(Envelope::new(Arc::new(notification), deadline, receipts))
    }

    /// Sends what must find a place.
    pub fn send(&self, to: &str, body: &[u8]) -> NotificationId {
        let envelope = self.envelope(to, "r", body);
        let id = envelope.notification.id;
        self.registry.send(envelope).expect("a place for it");
        id
    }

    /// The next receipt.
    pub fn receipt(&self) -> (NotificationId, Receipt) {
        self.receipts.recv_timeout(PATIENCE).expect("a receipt")
    }
}

/// A MSG as it came.
#[derive(Debug)]
pub struct Msg {
    pub id: String,
    pub route: String,
    pub body: Vec<u8>,
}

/// What a client reads.
#[derive(Debug)]
pub enum Heard {
    Msg(Msg),
    Line(String),
    Closed,
}

pub struct Client {
    pub socket: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Client {
    fn connect(addr: SocketAddr, buffer_bytes: Option<usize>) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        if let Some(bytes) = buffer_bytes {
            socket.set_recv_buffer_size(bytes).expect("an option");
            socket.set_send_buffer_size(bytes).expect("an option");
        }
        socket.connect(&addr.into()).expect("a connection");
        let socket = TcpStream::from(socket);
        socket.set_read_timeout(Some(PATIENCE)).expect("an option");
        socket.set_nodelay(true).expect("an option");
        let reader = BufReader::with_capacity(1024, socket.try_clone().expect("a descriptor"));
        Self { socket, reader }
    }

    pub fn say(&mut self, line: &str) {
        self.socket
            .write_all(format!("{line}\n").as_bytes())
            .expect("the relay takes it");
    }

    /// The next line; empty at the end.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.reader.read_line(&mut line).expect("a line in time");
        line.truncate(line.trim_end_matches('\n').len());
        line
    }

    /// The next frame; a connection that breaks is closed.
    pub fn hear(&mut self) -> Heard {
        let mut line = String::new();
        match self.reader.read_line(&mut line) {
            Ok(0) => return Heard::Closed,
            Ok(_) => {}
            Err(error) => {
                assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "in time");
                return Heard::Closed;
            }
        }
        let line = line.trim_end_matches('\n');
        if !line.starts_with("MSG ") {
            return Heard::Line(line.to_owned());
        }
        let value = |key: &str| {
            line.split(' ')
                .find_map(|token| token.strip_prefix(key))
                .unwrap_or_else(|| panic!("{key} in {line}"))
                .to_owned()
        };
        let bytes: usize = value("=").parse().expect("a length");
        let mut body = vec![0; bytes + 1];
        if self.reader.read_exact(&mut body).is_err() {
            return Heard::Closed;
        }
        assert_eq!(body.pop(), Some(b'\n'), "after {line}");
        Heard::Msg(Msg {
            id: value("id="),
            route: value("route="),
            body,
        })
    }

    /// The next frame, which is a MSG.
    pub fn msg(&mut self) -> Msg {
        match self.hear() {
            Heard::Msg(msg) => msg,
            other => panic!("no MSG but {other:?}"),
        }
    }

    /// Asks, so that everything said before has been heard when this returns.
    pub fn ping(&mut self) {
        self.say("PING");
        assert_eq!(self.line(), "PONG");
    }

    /// The relay closes, and has said nothing more.
    pub fn expect_closed(&mut self) {
        let mut rest = String::new();
        let end = self.reader.read_line(&mut rest);
        assert!(matches!(end, Ok(0)), "{end:?} {rest}");
    }
}
