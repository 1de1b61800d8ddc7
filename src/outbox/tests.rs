//! The store on a real file, with a registry of no sessions and a bus that is the test's own.

use std::path::PathBuf;
use std::time::Instant;

use crossbeam_channel::Receiver;

use super::*;
use crate::bus::{Arrivals, Forward, LateReceipt};
use crate::config;
use crate::dispatcher::Dispatcher;
use crate::envelope::{Envelope, Sent};
use crate::notification::{BackendId, EventKey, IdMint, Nack, Notification, Receipt};
use crate::session::CREDIT_DEFAULT;
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
fn a_bus_is_offered_one_and_after_its_ack_the_others() {
    // Long enough to store all of them before any is tried.
    let setup = Setup::open(|config| config.retry_first = Duration::from_secs(1));
    for _ in 0..5 {
        assert!(setup.store("a", false, None).is_ok());
    }
    // Nobody is there: after the wait one is tried, and comes back untried.
    let first = setup.envelope();
    assert_eq!(
        (first.notification.tries, &*first.notification.body),
        (1, &b"body"[..])
    );
    let first_id = first.notification.id;
    first.settle(Receipt::Gone);
    let second = setup.envelope();
    assert_eq!(second.notification.id, first_id);
    assert!(
        setup.envelopes.is_empty(),
        "nobody has said that it is there"
    );
    second.settle(Receipt::Gone);
    assert!(
        setup
            .rows()
            .iter()
            .all(|row| row.tries == 0 && row.due == 0)
    );
    // It comes: all are delivered, in order.
    setup.here("a");
    let mut ids = Vec::new();
    while ids.len() < 5 {
        let envelope = setup.envelope();
        let id = envelope.notification.id;
        envelope.reply.sent(Sent::now(1));
        envelope.settle(Receipt::Ack);
        ids.push(id);
    }
    let rows = setup.states(&[State::Done; 5]);
    assert!(rows.iter().all(|row| row.tries == 1));
    ids.dedup();
    assert_eq!(ids, rows.iter().map(|row| row.id).collect::<Vec<_>>());
}

#[test]
fn a_backend_that_comes_while_one_is_offered_gets_that_one_first() {
    let setup = Setup::open(|config| config.retry_first = Duration::from_secs(1));
    for _ in 0..3 {
        assert!(setup.store("a", false, None).is_ok());
    }
    let ahead = setup.envelope();
    let first = ahead.notification.id;
    setup.here("a");
    // What is for another backend shows that the first one's coming was heard of.
    assert!(setup.store("b", false, None).is_ok());
    setup.here("b");
    let other = setup.envelope();
    assert_eq!(other.notification.backend.as_str(), "b", "before the first");
    other.reply.sent(Sent::now(2));
    other.settle(Receipt::Ack);
    ahead.settle(Receipt::Gone);
    let again = setup.envelope();
    assert_eq!(again.notification.id, first);
    again.reply.sent(Sent::now(1));
    again.settle(Receipt::Ack);
    for _ in 0..2 {
        let envelope = setup.envelope();
        envelope.reply.sent(Sent::now(1));
        envelope.settle(Receipt::Ack);
    }
    setup.states(&[State::Done; 4]);
}

#[test]
fn a_backend_that_has_got_the_one_sent_ahead_gets_the_others_before_its_ack() {
    let setup = Setup::open(|config| config.retry_first = Duration::from_secs(1));
    for _ in 0..3 {
        assert!(setup.store("a", false, None).is_ok());
    }
    let ahead = setup.envelope();
    setup.here("a");
    ahead.reply.sent(Sent::now(1));
    let others = [setup.envelope(), setup.envelope()];
    ahead.settle(Receipt::Ack);
    for envelope in others {
        envelope.reply.sent(Sent::now(1));
        envelope.settle(Receipt::Ack);
    }
    setup.states(&[State::Done; 3]);
}

#[test]
fn an_ack_that_comes_while_the_file_cannot_be_read_is_noted_when_it_can() {
    let setup = Setup::open(|_| ());
    let seq = setup.store("a", true, None).expect("room");
    let other = Connection::open(&setup.path).expect("sqlite");
    let rename = |from, to| {
        let change = format!("ALTER TABLE {from} RENAME TO {to}");
        other.execute_batch(&change).expect("renamed");
    };
    rename("notification", "elsewhere");
    setup.inbox.held(HeldReceipt {
        seq,
        receipt: Receipt::Ack,
        sent: Some(Sent::now(1)),
    });
    setup.taken();
    // It takes this only when it has done with that.
    setup.here("b");
    setup.taken();
    rename("elsewhere", "notification");
    setup.states(&[State::Done]);
    assert!(setup.envelopes.is_empty());
}

#[test]
fn what_was_read_ahead_is_looked_at_again_before_it_is_sent() {
    let setup = Setup::quiet();
    let window = CREDIT_DEFAULT.div_ceil(2);
    let store = || setup.store("a", false, None).expect("room");
    let seqs: Vec<i64> = (0..window + 3).map(|_| store()).collect();
    setup.here("a");
    let under_way: Vec<_> = (0..window).map(|_| setup.envelope()).collect();
    // Of those behind them, whose numbers are read by then, one expires and one is dropped.
    let other = Connection::open(&setup.path).expect("sqlite");
    for (change, seq) in [
        ("UPDATE notification SET state = 2 WHERE seq = ?1", window),
        ("DELETE FROM notification WHERE seq = ?1", window + 1),
    ] {
        assert_eq!(other.execute(change, [seqs[seq]]), Ok(1));
    }
    for envelope in under_way {
        envelope.settle(Receipt::Ack);
    }
    let last = setup.envelope();
    let rows = setup.rows();
    assert_eq!(rows.last().map(|row| row.id), Some(last.notification.id));
    last.settle(Receipt::Ack);
    let mut states = vec![State::Done; window + 2];
    states[window] = State::Dead;
    setup.states(&states);
    assert!(setup.envelopes.is_empty());
}

#[test]
fn what_comes_back_unsent_goes_before_what_was_read_ahead() {
    let setup = Setup::quiet();
    let window = CREDIT_DEFAULT.div_ceil(2);
    for _ in 0..window * 2 {
        assert!(setup.store("a", false, None).is_ok());
    }
    setup.here("a");
    let first: Vec<_> = (0..window).map(|_| setup.envelope()).collect();
    let ids: Vec<_> = first
        .iter()
        .map(|envelope| envelope.notification.id)
        .collect();
    for envelope in first {
        envelope.settle(Receipt::Gone);
    }
    setup.here("a");
    assert_eq!(setup.envelope().notification.id, ids[0]);
}

#[test]
fn what_a_session_gives_back_unsent_goes_before_what_was_read_ahead() {
    let setup = Setup::quiet();
    let window = CREDIT_DEFAULT.div_ceil(2);
    let first = setup.store("a", true, None).expect("room");
    for _ in 0..window * 2 {
        assert!(setup.store("a", false, None).is_ok());
    }
    setup.here("a");
    let under_way: Vec<_> = (0..window).map(|_| setup.envelope()).collect();
    setup.outbox.on_held_receipt(HeldReceipt {
        seq: first,
        receipt: Receipt::Busy,
        sent: None,
    });
    let deadline = Instant::now() + PATIENCE;
    while setup.rows()[0].due != 0 {
        assert!(Instant::now() < deadline, "nobody lets go of it");
        std::thread::yield_now();
    }
    // By the time that one more is on disk, the redelivery thread knows of the one before.
    assert!(setup.store("b", true, None).is_ok());
    for envelope in under_way {
        envelope.settle(Receipt::Ack);
    }
    assert_eq!(setup.envelope().notification.id, setup.rows()[0].id);
}

/// While a try is being noted its row is not to be read; once it is noted, somebody must look again.
#[test]
fn what_comes_back_while_the_disk_is_slow_is_not_forgotten() {
    let setup = Setup::open(|_| {});
    let here = || setup.here("a");
    assert!(setup.store("a", false, None).is_ok());
    here();
    let other = Connection::open(&setup.path).expect("sqlite");
    let envelope = setup.envelope();
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    envelope.reply.sent(Sent::now(1));
    envelope.settle(Receipt::Gone);
    // Several times `retry_first`: the redelivery thread has looked, and found nothing that it may read.
    let early = setup.envelopes.recv_timeout(Duration::from_millis(500));
    assert!(early.is_err());
    other.execute_batch("ROLLBACK").expect("free");
    assert_eq!(setup.envelope().notification.tries, 2);
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
fn what_the_disk_has_changed_is_a_dead_letter_and_not_a_payment() {
    let setup = Setup::open(|_| {});
    assert!(setup.store("a", true, None).is_ok());
    let seq = setup
        .store("a", false, Some(Again::After(PATIENCE)))
        .expect("room");
    let other = Connection::open(&setup.path).expect("sqlite");
    other
        .execute("UPDATE payload SET body = x'00' WHERE seq = ?1", [seq])
        .expect("changed");
    other
        .execute("UPDATE notification SET due = 0 WHERE seq = ?1", [seq])
        .expect("changed");
    setup.here("a");
    let rows = setup.states(&[State::Pending, State::Dead]);
    assert!(rows[1].why.starts_with("damaged"), "{}", rows[1].why);
    assert!(setup.envelopes.is_empty());
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

/// The files are looked at before a commit too; here they are lost while the writer is at it.
#[test]
fn what_is_committed_to_a_file_that_is_gone_by_then_is_not_stored() {
    let setup = Setup::open(|_| {});
    assert!(setup.store("a", true, None).is_ok());
    let other = Connection::open(&setup.path).expect("sqlite");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    std::thread::scope(|scope| {
        let storing = scope.spawn(|| setup.store("a", true, None));
        // By then the writer has looked at the files, and waits for the lock. Were it slower, it would refuse all the same.
        let early = setup.envelopes.recv_timeout(Duration::from_millis(200));
        assert!(early.is_err());
        std::fs::rename(&setup.path, setup.path.with_extension("old")).expect("moved");
        other.execute_batch("ROLLBACK").expect("free");
        assert_eq!(storing.join().expect("an end"), Err(NotStored::File));
    });
    let unwell = setup.outbox.unwell().unwrap_or_default();
    assert!(unwell.contains("was deleted or moved away"), "{unwell}");
}

/// What the mirror's thread asks for is no commit, and leaves the writer no idle second.
#[test]
fn a_file_that_is_lost_while_the_mirror_is_busy_is_said_within_two_seconds() {
    let setup = Setup::open(|_| {});
    assert!(setup.store("a", true, None).is_ok());
    std::fs::rename(&setup.path, setup.path.with_extension("old")).expect("moved");
    let look_every = Duration::from_millis(20);
    let is_said = (0..100).any(|_| {
        let put = ops::MirrorOp::Put(Vec::new());
        setup
            .outbox
            .ops
            .send(Op::Mirror(Box::new(put)))
            .expect("the writer works");
        #[expect(
            clippy::disallowed_methods,
            reason = "what is looked at gives no sign by itself"
        )]
        std::thread::park_timeout(look_every);
        setup.outbox.unwell().is_some()
    });
    assert!(is_said, "nothing is said of a file that is gone");
    let unwell = setup.outbox.unwell().unwrap_or_default();
    assert!(unwell.contains("was deleted or moved away"), "{unwell}");
}

#[test]
fn a_try_that_was_given_up_and_sent_all_the_same_is_counted() {
    let setup = Setup::open(|_| {});
    assert!(setup.store("a", false, None).is_ok());
    let late = |envelope: &Envelope, receipt| LateReceipt {
        id: envelope.notification.id,
        backend: envelope.notification.backend.clone(),
        tries: envelope.notification.tries,
        receipt,
        sent: Sent::now(7),
    };
    // The word comes after it was given up, and then while it is offered again.
    let first = setup.envelope();
    let word = late(&first, Receipt::Gone);
    first.settle(Receipt::Unreachable);
    setup.inbox.late(word);
    let second = next_with_tries(&setup, 2);
    setup.inbox.late(late(&second, Receipt::Gone));
    second.settle(Receipt::Unreachable);
    let third = next_with_tries(&setup, 3);
    setup.inbox.late(late(&third, Receipt::Ack));
    third.settle(Receipt::Unreachable);
    let rows = setup.states(&[State::Done]);
    assert_eq!(rows[0].tries, 3);
}

/// The next envelope that is that try; those before it were offered before the word of a late receipt was on disk.
fn next_with_tries(setup: &Setup, tries: u32) -> Box<Envelope> {
    loop {
        let envelope = setup.envelope();
        if envelope.notification.tries == tries {
            return envelope;
        }
        envelope.settle(Receipt::Unreachable);
    }
}

#[test]
fn a_reader_that_does_not_end_lets_the_log_grow_to_its_bound_and_no_further() {
    let setup = Setup::open(|config| config.max_log_bytes = 2 << 20);
    let reader = Connection::open(&setup.path).expect("sqlite");
    let begin = "BEGIN; SELECT count(*) FROM notification";
    reader.execute_batch(begin).expect("a reader");
    let mut stored = 0;
    let refused = loop {
        match setup.store("a", true, None) {
            Ok(_) => stored += 1,
            Err(refused) => break refused,
        }
        assert!(stored < 2000, "the log has no bound");
    };
    assert_eq!(refused, NotStored::Log);
    let log = setup.path.with_extension("db-wal");
    let bytes = std::fs::metadata(&log).expect("a log").len();
    assert!(bytes > 2 << 20 && bytes < 3 << 20, "{bytes}");
    let unwell = setup.outbox.unwell().unwrap_or_default();
    assert!(
        unwell.contains("outbox.max_log_bytes is 2 MiB") && unwell.contains("reading"),
        "{unwell}"
    );
    // When it ends, everything goes on by itself.
    reader.execute_batch("COMMIT").expect("an end");
    assert!(setup.store("a", true, None).is_ok());
    assert_eq!(setup.outbox.unwell(), None);
    assert_eq!(setup.outbox.readings().pending, stored + 1);
}
