//! The mailbox's bound and order, and when the session's thread is woken.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::envelope::Receipts;
use crate::notification::{BackendId, IdMint, Notification, NotificationId, Receipt};
use crate::session::link::Link;

#[derive(Default)]
struct ReceiptLog(Mutex<Vec<Receipt>>);

impl Receipts for ReceiptLog {
    fn receipt(&self, _id: NotificationId, receipt: Receipt) {
        self.0.lock().push(receipt);
    }
}

fn mailbox(capacity: usize) -> Mailbox {
    let (ours, _) = std::os::unix::net::UnixStream::pair().expect("a socket");
    let link = Link::new(Arc::new(OwnedFd::from(ours)), None, Instant::now());
    let outgoing = Outgoing::new(link, Duration::from_secs(60));
    Mailbox::new(capacity, outgoing).expect("an eventfd")
}

fn envelope(n: u64, deadline: Instant, log: &Arc<ReceiptLog>) -> Box<Envelope> {
    let notification = Notification {
        id: IdMint::new(0).mint(n),
        backend: BackendId::parse("a").expect("an id"),
        route: "r".into(),
        verified: "none".into(),
        event: None,
        event_proven: false,
        at_unix_ms: n,
        tries: 1,
        head: Vec::new(),
        body: Vec::new(),
    };
    let receipts = Arc::clone(log) as Arc<dyn Receipts>;
    Box::new(Envelope::new(Arc::new(notification), deadline, receipts))
}

fn number(envelope: &Envelope) -> u64 {
    envelope.notification.at_unix_ms
}

/// Takes out everything.
fn order(mailbox: &Mailbox) -> Vec<u64> {
    mailbox
        .shut_and_take_all()
        .map(|envelope| number(&envelope))
        .collect()
}

/// What the session's thread does before it sleeps; it has room for `credit` MSG.
fn look(mailbox: &Mailbox, credit: usize, now: Instant) -> Waiting {
    let mut outgoing = mailbox.outgoing();
    (outgoing.is_open, outgoing.credit) = (credit > 0, credit);
    let waiting = mailbox.hand_over_waiting(&mut outgoing, now);
    mailbox.prepare_sleep(&outgoing);
    waiting
}

fn is_woken(mailbox: &Mailbox) -> bool {
    rustix::io::read(mailbox.waker().fd(), &mut [0; 8]).is_ok()
}

#[test]
fn a_full_mailbox_gives_the_envelope_back_also_when_the_oldest_was_looked_at() {
    let (log, now) = (Arc::new(ReceiptLog::default()), Instant::now());
    let later = now + Duration::from_secs(1);
    let mailbox = mailbox(2);
    assert!(mailbox.push(envelope(1, later, &log)).is_ok());
    assert_eq!(look(&mailbox, 0, now).next_deadline, Some(later));
    assert!(mailbox.push(envelope(2, later, &log)).is_ok());
    let Err(NotAccepted::Full(refused)) = mailbox.push(envelope(3, later, &log)) else {
        panic!("there is no room for a third");
    };
    assert_eq!(number(&refused), 3);
    assert_eq!((mailbox.waiting(), order(&mailbox)), (2, vec![1, 2]));
}

#[test]
fn what_has_expired_is_taken_out_while_nothing_can_be_sent() {
    let (log, now) = (Arc::new(ReceiptLog::default()), Instant::now());
    let later = now + Duration::from_secs(1);
    let mailbox = mailbox(4);
    for (n, deadline) in [(1, now), (2, now), (3, later)] {
        assert!(mailbox.push(envelope(n, deadline, &log)).is_ok());
    }
    let waiting = look(&mailbox, 0, now);
    assert_eq!(waiting.next_deadline, Some(later));
    assert_eq!((waiting.expired.len(), mailbox.waiting()), (2, 1));
    drop(waiting);
    assert_eq!(*log.0.lock(), [Receipt::Gone, Receipt::Gone]);
    assert_eq!(order(&mailbox), [3]);
}

#[test]
fn a_successor_gets_everything_in_order() {
    let (log, now) = (Arc::new(ReceiptLog::default()), Instant::now());
    let later = now + Duration::from_secs(1);
    let (old, new) = (mailbox(4), mailbox(4));
    for n in 1..=3 {
        assert!(old.push(envelope(n, later, &log)).is_ok());
    }
    let _ = look(&old, 0, now); // the oldest is looked at, and must stay the oldest
    assert!(old.transfer_to(&new).is_empty());
    assert_eq!((old.waiting(), order(&new)), (0, vec![1, 2, 3]));
    // A later sender finds it shut, and then the successor.
    assert!(matches!(
        old.push(envelope(4, later, &log)),
        Err(NotAccepted::Shut(_))
    ));
}

#[test]
fn dropping_a_mailbox_tells_every_sender() {
    let (log, now) = (Arc::new(ReceiptLog::default()), Instant::now());
    let mailbox = mailbox(4);
    assert!(mailbox.push(envelope(1, now, &log)).is_ok());
    assert!(mailbox.push(envelope(2, now, &log)).is_ok());
    drop(mailbox);
    assert_eq!(*log.0.lock(), [Receipt::Gone, Receipt::Gone]);
}

#[test]
fn what_comes_after_the_last_look_wakes_the_thread() {
    let (log, now) = (Arc::new(ReceiptLog::default()), Instant::now());
    let later = now + Duration::from_secs(1);
    let mailbox = mailbox(4);
    assert!(mailbox.push(envelope(1, later, &log)).is_ok());
    assert!(!is_woken(&mailbox), "it is awake");
    let seen = Waiting::default(); // it came after the look
    mailbox.prepare_sleep(&mailbox.outgoing());
    assert!(!mailbox.may_sleep(&seen), "it does not know the deadline");
    let seen = look(&mailbox, 0, now);
    assert!(mailbox.may_sleep(&seen), "it cannot send");
    assert!(mailbox.push(envelope(2, later, &log)).is_ok());
    assert!(!is_woken(&mailbox), "it could not send this one either");
    mailbox.command(Command::Drain);
    assert!(is_woken(&mailbox));
    mailbox.waker().awake(false);
    let seen = look(&mailbox, 0, now);
    assert!(!mailbox.may_sleep(&seen), "a command is seen first");
    assert!(mailbox.commands().has(Command::Drain));
    let seen = look(&mailbox, 9, now);
    assert!(mailbox.may_sleep(&seen) && mailbox.waiting() == 0);
    assert!(mailbox.put(envelope(3, later, &log)).is_ok());
    assert!(is_woken(&mailbox), "it can send");
}

#[test]
fn with_room_it_is_woken_for_each_although_something_waits() {
    let (log, now) = (Arc::new(ReceiptLog::default()), Instant::now());
    let later = now + Duration::from_secs(1);
    let mailbox = mailbox(4);
    let seen = look(&mailbox, 9, now);
    assert!(mailbox.may_sleep(&seen));
    for n in 1..=2 {
        assert!(mailbox.put(envelope(n, later, &log)).is_ok());
        assert!(is_woken(&mailbox));
        mailbox.prepare_sleep(&mailbox.outgoing());
    }
    assert!(!mailbox.may_sleep(&seen));
}

#[test]
fn the_thread_is_woken_for_what_a_sender_leaves_unwritten() {
    let (log, now) = (Arc::new(ReceiptLog::default()), Instant::now());
    let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a socket");
    ours.set_nonblocking(true).expect("an option");
    let link = Link::new(Arc::new(OwnedFd::from(ours)), None, now);
    let outgoing = Outgoing::new(link, Duration::from_secs(60));
    let mailbox = Mailbox::new(4, outgoing).expect("an eventfd");
    let seen = look(&mailbox, 9, now);
    assert!(mailbox.outgoing().link.is_flushed() && mailbox.may_sleep(&seen));
    let mut large = envelope(1, now + Duration::from_secs(9), &log);
    if let Some(notification) = Arc::get_mut(&mut large.notification) {
        notification.body = vec![0; 8 << 20];
    }
    assert!(mailbox.push(large).is_ok());
    assert!(!mailbox.outgoing().link.is_flushed());
    assert!(is_woken(&mailbox), "it would sleep over the rest");
}

#[test]
fn a_session_that_was_taken_over_sends_nothing_more() {
    let (log, now) = (Arc::new(ReceiptLog::default()), Instant::now());
    let later = now + Duration::from_secs(1);
    let (old, new) = (mailbox(4), mailbox(4));
    for n in 1..=2 {
        assert!(old.push(envelope(n, later, &log)).is_ok());
    }
    // Its thread has not heard of it, and the socket is free.
    let mut taken = old.shut_and_take_all();
    assert_eq!(taken.next().as_deref().map(number), Some(1));
    drop(look(&old, 9, now));
    assert!(matches!(
        old.push(envelope(3, later, &log)),
        Err(NotAccepted::Shut(_))
    ));
    assert_eq!(taken.next().as_deref().map(number), Some(2));
    drop(taken);
    assert!(old.transfer_to(&new).is_empty());
    assert_eq!((old.outgoing().in_flight(), order(&new)), (0, vec![]));
}
