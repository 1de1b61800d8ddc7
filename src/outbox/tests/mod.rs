//! The store on a real file, with a registry of no sessions and a bus that is the test's own.

mod files;
mod redelivery;

use std::path::PathBuf;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::*;
use crate::bus::{Arrivals, Forward};
use crate::config;
use crate::dispatcher::Dispatcher;
use crate::envelope::{Envelope, Sent};
use crate::notification::{BackendId, EventKey, IdMint, Nack, Notification, Receipt};
use crate::timeline::Timeline;

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

/// Hands every envelope to the test.
struct Hand(Sender<Box<Envelope>>);

impl Forward for Hand {
    fn forward(&self, envelope: Box<Envelope>) {
        let _ = self.0.send(envelope); // a test that is over does not listen
    }
}

struct Setup {
    // In this order: the threads end while the outbox can still be asked.
    threads: Option<OutboxThreads>,
    outbox: Arc<Outbox>,
    inbox: Arc<Inbox>,
    envelopes: Receiver<Box<Envelope>>,
    mint: IdMint,
    path: PathBuf,
    _folder: Arc<tempfile::TempDir>,
}

impl Setup {
    fn open(change: impl FnOnce(&mut config::OutboxConfig)) -> Self {
        let folder = Arc::new(tempfile::tempdir().expect("a folder"));
        Self::open_in(folder, change)
    }

    /// One in which nothing is tried before its backend comes.
    fn quiet() -> Self {
        let setup = Self::open(|config| {
            config.retry_first = Duration::from_secs(3600);
            config.retry_max = Duration::from_secs(3600);
        });
        // It has looked at the disk by the time that it takes this. (While nothing is pending, it is told of no arrival.)
        let nobody = BackendId::parse("nobody").expect("an id");
        setup.inbox.written(Vec::new(), &[], &[nobody]);
        setup.taken();
        setup
    }

    fn here(&self, backend: &str) {
        self.inbox.here(&BackendId::parse(backend).expect("an id"));
    }

    /// Waits until the redelivery's thread has taken everything that it was told.
    fn taken(&self) {
        let deadline = Instant::now() + PATIENCE;
        while !self.inbox.is_taken() {
            assert!(Instant::now() < deadline, "the thread takes nothing");
            std::thread::yield_now();
        }
    }

    fn open_in(
        folder: Arc<tempfile::TempDir>,
        change: impl FnOnce(&mut config::OutboxConfig),
    ) -> Self {
        let mut config = config::OutboxConfig {
            path: folder.path().join("outbox.db"),
            retry_first: Duration::from_millis(100),
            retry_max: Duration::from_secs(1),
            max_tries: 100,
            redelivery_rate: 1_000_000,
            expire: Duration::from_secs(3600),
            keep: Duration::from_secs(3600),
            max_messages: 1000,
            max_bytes: 1 << 30,
            max_log_bytes: 256 << 20,
            shared: config::SharedOutbox::Off,
            inherit_after: Duration::from_secs(60),
        };
        change(&mut config);
        let (put, envelopes) = bounded(1000);
        let inbox = Arc::new(Inbox::default());
        let path = config.path.clone();
        let opened = Outbox::open(OutboxOptions {
            config,
            patience: PATIENCE,
            queue: 100,
            inbox: Arc::clone(&inbox),
            dispatcher: Dispatcher::new(Arc::default(), Arc::new(Hand(put))),
            metrics: Arc::default(),
            shared: None,
        });
        let (outbox, threads) = opened.expect("an outbox");
        Self {
            threads: Some(threads),
            outbox,
            inbox,
            envelopes,
            mint: IdMint::new(0),
            path,
            _folder: folder,
        }
    }

    /// Stores one for `backend` and waits until it is on disk: its row.
    fn store(&self, backend: &str, held: bool, again: Option<Again>) -> Result<i64, NotStored> {
        let notification = Notification {
            id: self.mint.mint(unix_ms()),
            backend: BackendId::parse(backend).expect("an id"),
            route: "r".into(),
            verified: "none".into(),
            event: Some("e".into()),
            event_proven: false,
            at_unix_ms: unix_ms(),
            tries: 1,
            head: b"head".to_vec(),
            body: b"body".to_vec(),
        };
        let (tell, told) = bounded(1);
        let key = EventKey::of(&notification);
        let undelivered = Undelivered {
            notification: Arc::new(notification),
            key,
            why: "offline".into(),
            again,
            sent: None,
            held,
            timeline: Timeline::default(),
        };
        self.outbox.store(undelivered, move |stored| {
            let _ = tell.send(stored);
        });
        told.recv_timeout(PATIENCE).expect("an answer")
    }

    fn envelope(&self) -> Box<Envelope> {
        self.envelopes.recv_timeout(PATIENCE).expect("an envelope")
    }

    fn rows(&self) -> Vec<Row> {
        self.outbox
            .list(&Filter::default(), 0, 1000)
            .expect("readable")
    }

    /// Waits until the rows are in these states.
    fn states(&self, wanted: &[State]) -> Vec<Row> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let rows = self.rows();
            let states: Vec<State> = rows.iter().map(|row| row.state).collect();
            if states == wanted {
                return rows;
            }
            assert!(
                Instant::now() < deadline,
                "{states:?} instead of {wanted:?}"
            );
            std::thread::yield_now();
        }
    }
}

#[test]
fn what_is_held_waits_for_its_session() {
    let setup = Setup::open(|_| {});
    let seq = setup.store("a", true, None).expect("room");
    setup.here("a");
    assert!(setup.store("b", false, None).is_ok());
    assert_eq!(setup.envelope().notification.backend.as_str(), "b");
    let sent = Some(Sent::now(3));
    setup.outbox.on_held_receipt(HeldReceipt {
        seq,
        receipt: Receipt::Expired,
        sent,
    });
    let mut again = setup.envelope();
    while again.notification.backend.as_str() == "b" {
        again = setup.envelope();
    }
    assert_eq!(again.notification.tries, 2);
    again.reply.sent(Sent::now(4));
    again.settle(Receipt::Nack(Nack {
        again: Again::Never,
        reason: None,
    }));
    let rows = setup.states(&[State::Dead, State::Pending]);
    assert_eq!(
        (rows[0].tries, rows[0].why.as_str()),
        (2, "refused for good: no reason given")
    );
}

#[test]
fn what_is_too_old_dies_and_what_is_done_is_deleted() {
    let setup = Setup::open(|config| {
        config.expire = Duration::from_millis(50);
        config.keep = Duration::from_millis(50);
    });
    let seq = setup.store("a", true, None).expect("room");
    assert!(setup.store("b", false, None).is_ok());
    // Nothing is taken out of a session's hand.
    let rows = setup.states(&[State::Pending, State::Dead]);
    assert!(rows[1].why.starts_with("expired"), "{}", rows[1].why);
    setup.outbox.on_held_receipt(HeldReceipt {
        seq,
        receipt: Receipt::Ack,
        sent: None,
    });
    setup.states(&[State::Dead]);
    let readings = setup.outbox.readings();
    assert_eq!((readings.pending, readings.done, readings.dead), (0, 0, 1));
    assert_eq!(readings.backends, [("b".to_owned(), 0, 1)]);
}

#[test]
fn it_goes_on_after_a_stop_where_it_was() {
    let mut setup = Setup::open(|_| {});
    let seq = setup.store("a", true, None).expect("room");
    assert!(setup.store("b", false, Some(Again::Never)).is_ok());
    setup.threads.take();
    assert_eq!(
        setup.store("a", false, None),
        Err(NotStored::Busy),
        "it is closed"
    );
    let folder = Arc::clone(&setup._folder);
    drop(setup);
    let setup = Setup::open_in(folder, |_| {});
    let mut keys = Vec::new();
    let all = setup.outbox.keys(PATIENCE, 10, |key, _, _| keys.push(key));
    assert!(all.is_ok() && keys.len() == 2);
    // Nobody has it in hand any more.
    let envelope = setup.envelope();
    assert_eq!(envelope.notification.backend.as_str(), "a");
    envelope.settle(Receipt::Ack);
    let rows = setup.states(&[State::Done, State::Dead]);
    assert_eq!(rows[0].seq, seq);
}

#[test]
fn orders_change_what_they_name() {
    let setup = Setup::open(|_| {});
    assert!(setup.store("a", true, None).is_ok());
    assert!(setup.store("a", false, Some(Again::Never)).is_ok());
    assert!(setup.store("b", false, Some(Again::Never)).is_ok());
    let order = |what, backend: Option<&str>| {
        let filter = Filter {
            backend: backend.map(str::to_owned),
            ..Filter::default()
        };
        let ordered = setup.outbox.order(Order {
            what,
            filter,
            after: 0,
            by: "a test".into(),
        });
        ordered.expect("done")
    };
    let drop = |pending| order(AdminAction::Drop { pending }, Some("a"));
    let spared = drop(false);
    assert_eq!((spared.changed, spared.spared), (0, 1));
    let dropped = drop(true);
    assert_eq!(
        (dropped.changed, dropped.in_hand, dropped.next),
        (1, 1, None)
    );
    assert_eq!(dropped.freed.len(), 1);
    let retried = order(AdminAction::Retry, Some("b"));
    assert_eq!((retried.changed, retried.freed.len()), (1, 0));
    assert_eq!(setup.envelope().notification.backend.as_str(), "b");
    setup.states(&[State::Pending, State::Pending]);
}
