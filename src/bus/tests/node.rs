//! Nodes without sockets: a bus, events, and sessions that are the test's own.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::server::Server;
use super::sessions::{Behavior, TestSessions};
use crate::bus::{
    AckTimes, Arrivals, Bus, Channel, Data, Events, Hub, LateReceipt, Presence, Reach, RedisBus,
    Sessions, Topic,
};
use crate::config::{self, Secret};
use crate::envelope::{Envelope, Receipts, Reply};
use crate::metrics::Metrics;
use crate::notification::{BackendId, IdMint, Notification, NotificationId, Receipt, unix_ms};

/// Everything that a test waits for comes within this, or never.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// What is told at once comes within this, even when the machine is busy.
pub const AT_ONCE: Duration = Duration::from_secs(2);

/// How long a node waits for Redis at its start.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);

/// A breath between two looks at something that gives no sign by itself.
#[expect(
    clippy::disallowed_methods,
    reason = "what is looked at gives no sign by itself"
)]
pub fn pause() {
    std::thread::park_timeout(Duration::from_millis(2));
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < until, "waited in vain: {what}");
        pause();
    }
}

pub fn id(text: &str) -> BackendId {
    BackendId::parse(text).expect("an id")
}

pub fn channel(text: &str) -> Channel {
    Channel::parse(text).expect("a channel")
}

/// Whoever waits for arrivals.
pub struct ArrivalLog(Sender<BackendId>);

impl Arrivals for ArrivalLog {
    fn here(&self, backend: &BackendId) {
        let _ = self.0.send(backend.clone()); // nobody may be there to read
    }

    fn late(&self, _late: LateReceipt) {}
}

/// Whoever waits for receipts.
struct ReceiptChannel(Sender<(NotificationId, Receipt)>);

impl Receipts for ReceiptChannel {
    fn receipt(&self, id: NotificationId, receipt: Receipt) {
        let _ = self.0.send((id, receipt));
    }
}

/// One node.
pub struct Node {
    pub name: String,
    pub bus: Arc<dyn Bus>,
    pub events: Events,
    pub sessions: Arc<TestSessions>,
    pub arrivals: Receiver<BackendId>,
    mint: IdMint,
    receipt_channel: Arc<ReceiptChannel>,
    pub receipts: Receiver<(NotificationId, Receipt)>,
}

pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;

impl Node {
    pub fn new(
        name: &str,
        bus: impl FnOnce(Arc<TestSessions>, Arc<Hub>, Arc<ArrivalLog>) -> Arc<dyn Bus>,
    ) -> Self {
        let (sessions, hub) = (Arc::new(TestSessions::new()), Arc::new(Hub::default()));
        let (come, arrivals) = unbounded();
        let bus = bus(
            Arc::clone(&sessions),
            Arc::clone(&hub),
            Arc::new(ArrivalLog(come)),
        );
        let (told, receipts) = unbounded();
        Self {
            name: name.into(),
            events: Events::new(hub, Arc::clone(&bus), PAYLOAD_BYTES_MAX),
            bus,
            sessions,
            arrivals,
            mint: IdMint::new(name.bytes().map(u64::from).sum()),
            receipt_channel: Arc::new(ReceiptChannel(told)),
            receipts,
        }
    }

    /// A node called `name` on `server`.
    pub fn on(server: &Server, name: &str) -> Self {
        Self::at(server.url(), name)
    }

    pub fn at(url: String, name: &str) -> Self {
        Self::over(config::RedisServers::One(Secret::new(&url)), name)
    }

    pub fn over(servers: config::RedisServers, name: &str) -> Self {
        let config = config::RedisConfig {
            servers,
            prefix: "p".into(),
            connect_timeout: CONNECT_TIMEOUT,
            response_timeout: Duration::from_secs(1),
            settle_time: Duration::ZERO,
            ca: None,
        };
        let metrics = Metrics::new().bus();
        Self::new(name, |sessions, hub, arrivals| {
            let acks = AckTimes {
                timeout: Duration::from_secs(60),
                deadline: Duration::from_secs(4),
            };
            let bus = RedisBus::start(&config, name, acks, sessions, hub, arrivals, metrics);
            Arc::new(bus.expect("a bus"))
        })
    }

    /// Connects a backend, and waits until other nodes reach it.
    pub fn seat(&self, backend: &str, behavior: Behavior) {
        self.sessions.seat(&id(backend), behavior);
        self.look_until_settled(Topic::Backend(id(backend)));
    }

    pub fn unseat(&self, backend: &str) {
        self.sessions.unseat(&id(backend));
        self.look_until_settled(Topic::Backend(id(backend)));
    }

    fn look_until_settled(&self, topic: Topic) {
        let (ready, is_ready) = unbounded();
        let ready = Box::new(move || {
            let _ = ready.send(());
        });
        if self.bus.look_again(topic, Some(ready)) == Reach::Soon {
            is_ready.recv_timeout(PATIENCE).expect("it is told");
        }
    }

    /// Listens; returns when every node's events are heard.
    pub fn listen(&self, on: &str, once: bool) -> Heard {
        let (heard, hears) = unbounded();
        let listener = Box::new(move |event: crate::bus::Event<'_>| {
            let _ = heard.send(match event {
                crate::bus::Event::Message(payload) => Word::Said(payload.bytes().to_vec()),
                crate::bus::Event::Down(_) => Word::Down,
                crate::bus::Event::Up => Word::Up,
            });
        });
        let (ready, is_ready) = unbounded();
        let ready = Box::new(move || {
            let _ = ready.send(());
        });
        let (id, reach) = self.events.add(&channel(on), once, listener, Some(ready));
        if reach == Reach::Soon {
            is_ready.recv_timeout(PATIENCE).expect("it is told");
        }
        Heard { id, hears }
    }

    /// Emits, and waits until it is known on how many nodes that was heard; `None`: the bus is down.
    pub fn emit(&self, on: &str, payload: &[u8]) -> Option<u64> {
        let (told, is_told) = unbounded();
        let told = Box::new(move |heard: Result<u64, _>| {
            let _ = told.send(heard.ok());
        });
        let emitted = self.events.emit(&channel(on), payload, told);
        emitted.expect("it is not too big");
        is_told.recv_timeout(PATIENCE).expect("it is told")
    }

    pub fn notification(&self, to: &str) -> Notification {
        Notification {
            id: self.mint.mint(unix_ms()),
            backend: id(to),
            route: "r".into(),
            verified: "none".into(),
            event: None,
            event_proven: false,
            at_unix_ms: unix_ms(),
            tries: 1,
            head: Vec::new(),
            body: b"x".to_vec(),
        }
    }

    /// Delivers as a node does: to its own session, or to the others.
    pub fn deliver(&self, notification: Notification) -> NotificationId {
        let notification_id = notification.id;
        let envelope = Envelope::new(
            Arc::new(notification),
            Instant::now() + PATIENCE,
            Arc::clone(&self.receipt_channel) as _,
        );
        let envelope = Box::new(envelope);
        match self.sessions.behavior(&envelope.notification.backend) {
            Some(_) => {
                self.sessions.hand_over(envelope);
            }
            None => self.bus.forward(envelope),
        }
        notification_id
    }

    /// Sends one backend's data to another.
    pub fn carry(&self, from: &str, to: &str, bytes: &[u8]) -> NotificationId {
        let data = Data {
            from: id(from),
            to: id(to),
            bytes: bytes.to_vec(),
        };
        let data_id = self.mint.mint(unix_ms());
        let reply = Reply::new(data_id, Arc::clone(&self.receipt_channel) as _);
        match self.sessions.behavior(&data.to) {
            Some(_) => {
                self.sessions.pass_on(&data, reply);
            }
            None => self.bus.carry(data, reply),
        }
        data_id
    }

    pub fn receipt(&self) -> (NotificationId, Receipt) {
        self.receipts.recv_timeout(PATIENCE).expect("a receipt")
    }

    pub fn presence(&self) -> Presence {
        let (told, is_told) = unbounded();
        self.bus.presence(Box::new(move |presence| {
            let _ = told.send(presence);
        }));
        is_told.recv_timeout(PATIENCE).expect("it is told")
    }
}

/// What a listener heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Word {
    Said(Vec<u8>),
    Down,
    Up,
}

pub struct Heard {
    pub id: crate::bus::ListenerId,
    hears: Receiver<Word>,
}

impl Heard {
    pub fn next(&self) -> Word {
        self.hears.recv_timeout(PATIENCE).expect("a word")
    }

    pub fn said(&self) -> Vec<u8> {
        match self.next() {
            Word::Said(payload) => payload,
            other => panic!("{other:?} instead of an event"),
        }
    }

    pub fn so_far(&self) -> Vec<Word> {
        self.hears.try_iter().collect()
    }
}
