//! What is sent again, in which order, and what is noted of it.

use std::time::{Duration, Instant};

use rusqlite::Connection;

use super::{PATIENCE, Setup};
use crate::bus::{Arrivals, LateReceipt};
use crate::envelope::{Envelope, Sent};
use crate::notification::Receipt;
use crate::outbox::{HeldReceipt, State};
use crate::session::CREDIT_DEFAULT;

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
