//! A session's mailbox: a bounded queue of envelopes, a word or two of command, the way out, the way in while it is lent, and the
//! bell that wakes the thread.
//!
//! Whoever sends never waits: a full mailbox is an answer. The session's thread never looks without having been rung,
//! and is rung only when it sleeps.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Mutex, MutexGuard, RwLock};
use rustix::event::{EventfdFlags, eventfd};

use super::acks::WayIn;
use super::outgoing::Outgoing;
use crate::envelope::Envelope;

/// What a session's thread can be told from outside. Commands do not queue behind envelopes, and none can be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Another session has taken the id over.
    GiveWay = 1,
    /// The node is stopping: say BYE, let what is in flight finish.
    Drain = 2,
    /// Close at once.
    Close = 4,
    /// Other nodes reach this session's backend: it may be told OK.
    Reached = 8,
}

/// Commands that have come and were not looked at yet.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commands(u8);

impl Commands {
    /// Whether `command` is among them.
    pub fn has(self, command: Command) -> bool {
        self.0 & command as u8 != 0
    }
}

/// Why an envelope was not taken; it comes back.
#[derive(Debug)]
pub enum NotTaken {
    /// As many wait as may.
    Full(Box<Envelope>),
    /// The session is leaving: its id is free, or another session's.
    Shut(Box<Envelope>),
}

/// The mailboxes of all sessions, those that have not said HELLO included, by the sessions' numbers.
#[derive(Debug, Default)]
pub struct Mailboxes(Mutex<HashMap<u64, Arc<Mailbox>>>);

impl Mailboxes {
    /// A session begins.
    pub fn insert(&self, number: u64, mailbox: Arc<Mailbox>) {
        self.0.lock().insert(number, mailbox);
    }

    /// A session has ended.
    pub fn remove(&self, number: u64) {
        // The lock goes first: with the last hold on a mailbox its descriptors are closed.
        let mailbox = self.0.lock().remove(&number);
        drop(mailbox);
    }

    /// The mailbox of session `number`, if it has not ended.
    pub fn get(&self, number: u64) -> Option<Arc<Mailbox>> {
        self.0.lock().get(&number).map(Arc::clone)
    }

    /// Tells every session the same.
    pub fn command_all(&self, command: Command) {
        let mailboxes: Vec<_> = self.0.lock().values().map(Arc::clone).collect();
        for mailbox in mailboxes {
            mailbox.command(command);
        }
    }
}

/// What waits for a session, and its bell.
#[derive(Debug)]
pub struct Mailbox {
    queue: Mutex<Queue>,
    /// In the queue; counted before it is put in.
    waiting: AtomicUsize,
    capacity: usize,
    /// Nothing may be put in any more. Held to read while something is put in or handed over, so that whoever shuts the
    /// mailbox knows that what he finds in it is all, and that nobody else is sending any of it.
    shut: RwLock<bool>,
    commands: AtomicU8,
    outgoing: Mutex<Outgoing>,
    /// Locked before `outgoing`, if both are.
    way_in: Mutex<WayIn>,
    bell: OwnedFd,
    /// The thread sleeps, or is about to: the next sender must ring.
    asleep: AtomicBool,
}

/// What waits, oldest first. The lock around it is held over moves of memory only.
#[derive(Debug, Default)]
struct Queue {
    /// The oldest, when it was looked at and left: crossbeam's channel cannot be peeked into.
    oldest: Option<Box<Envelope>>,
    /// There while something is in it. crossbeam allocates all slots at once, 1.7 KiB for 64 of them, and of thousands of
    /// sessions few have anything waiting.
    channel: Option<Channel>,
}

type Channel = (Sender<Box<Envelope>>, Receiver<Box<Envelope>>);

impl Queue {
    /// Puts `envelope` at the end, or gives it back if `capacity` are in the channel.
    fn put(&mut self, envelope: Box<Envelope>, capacity: usize) -> Result<(), Box<Envelope>> {
        let (inlet, _) = self.channel.get_or_insert_with(|| bounded(capacity));
        inlet
            .try_send(envelope)
            .map_err(crossbeam_channel::TrySendError::into_inner)
    }

    /// Takes the oldest out.
    fn take(&mut self) -> Option<Box<Envelope>> {
        if let Some(envelope) = self.oldest.take() {
            return Some(envelope);
        }
        let (_, outlet) = self.channel.as_ref()?;
        let envelope = outlet.try_recv().ok();
        if outlet.is_empty() {
            self.channel = None;
        }
        envelope
    }
}

impl Mailbox {
    /// An empty mailbox for `capacity` envelopes.
    ///
    /// # Errors
    /// No file descriptor is left for the bell.
    pub fn new(capacity: usize, outgoing: Outgoing) -> io::Result<Self> {
        Ok(Self {
            queue: Mutex::default(),
            waiting: AtomicUsize::new(0),
            capacity,
            shut: RwLock::new(false),
            commands: AtomicU8::new(0),
            way_in: Mutex::new(WayIn::new(Arc::clone(outgoing.link.socket()))),
            outgoing: Mutex::new(outgoing),
            bell: eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?,
            asleep: AtomicBool::new(false),
        })
    }

    /// Sends `envelope`, or puts it in; gives it back when the mailbox is full or shut.
    ///
    /// When nothing waits and the socket is free, the caller writes the MSG itself: waking the session's thread for it
    /// would cost more than the write.
    pub fn push(&self, envelope: Box<Envelope>) -> Result<(), NotTaken> {
        if self.waiting() == 0
            && let Some(mut outgoing) = self.outgoing.try_lock()
            && outgoing.may_take()
            && outgoing.link.is_flushed()
            && self.waiting() == 0
            // Asked last: an heir may be taking out what was put in before this envelope, so that nothing seems to wait.
            && !*self.shut.read()
        {
            let now = Instant::now();
            let broken = outgoing.send(*envelope, now).is_err();
            // What is left, and what is broken, is for the thread to see to.
            if broken || !outgoing.link.is_flushed() {
                drop(outgoing);
                self.ring();
            }
            return Ok(());
        }
        self.put(envelope)
    }

    /// Puts `envelope` in, or gives it back when the mailbox is full or shut.
    fn put(&self, envelope: Box<Envelope>) -> Result<(), NotTaken> {
        let shut = self.shut.read();
        if *shut {
            return Err(NotTaken::Shut(envelope));
        }
        if self.waiting.fetch_add(1, Ordering::SeqCst) >= self.capacity {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(NotTaken::Full(envelope));
        }
        // Cannot be full: `waiting` counts at least what the queue holds.
        let put = self.queue.lock().put(envelope, self.capacity);
        if let Err(envelope) = put {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(NotTaken::Full(envelope));
        }
        drop(shut);
        self.ring();
        Ok(())
    }

    /// Writes a frame that nobody acknowledges. `false`: the session is not open, or has not read what it was sent before.
    pub fn tell(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let outgoing = self.outgoing.lock();
        let takes = outgoing.open && !outgoing.link.is_backed_up();
        if takes {
            self.write(outgoing, write);
        }
        takes
    }

    /// Writes a frame that answers what the backend has said, or that it must not miss. However much it has not read: it is
    /// not listened to meanwhile, so there are no more of these than it has asked for.
    pub fn answer(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let outgoing = self.outgoing.lock();
        if !outgoing.link.is_half_closed() {
            self.write(outgoing, write);
        }
    }

    fn write(&self, mut outgoing: MutexGuard<'_, Outgoing>, write: impl FnOnce(&mut Vec<u8>)) {
        let now = Instant::now();
        outgoing.link.frame(now, write);
        let broken = outgoing.flush(now).is_err();
        let unwritten = broken || !outgoing.link.is_flushed();
        drop(outgoing);
        if unwritten {
            self.ring(); // the thread sees to the rest
        }
    }

    /// Tells the session's thread to do something else than deliver.
    pub fn command(&self, command: Command) {
        self.commands.fetch_or(command as u8, Ordering::SeqCst);
        self.ring();
    }

    /// Shuts the mailbox: whatever is pushed from now on comes back, and what waits is sent no more.
    pub fn shut(&self) {
        *self.shut.write() = true;
    }

    /// Shuts the mailbox and moves what waits here, in order, to `heir`; gives back what found no place.
    pub fn bequeath(&self, heir: &Mailbox) -> Vec<NotTaken> {
        self.shut();
        let mut left_over = Vec::new();
        while let Some(envelope) = self.take() {
            left_over.extend(heir.put(envelope).err());
        }
        left_over
    }

    /// How many envelopes wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    /// The way out, for the session's own thread.
    pub fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock()
    }

    /// The way in, for whoever of the two threads reads.
    pub fn way_in(&self) -> MutexGuard<'_, WayIn> {
        self.way_in.lock()
    }

    /// Turns waiting envelopes into MSG as far as `outgoing`, which is this mailbox's own, lets them.
    pub fn hand_over_waiting(&self, outgoing: &mut Outgoing, now: Instant) {
        let shut = self.shut.read();
        while !*shut && outgoing.may_take() {
            let Some(envelope) = self.take() else {
                return;
            };
            outgoing.hand_over(*envelope, now);
        }
    }

    /// The oldest envelope.
    pub fn take(&self) -> Option<Box<Envelope>> {
        let envelope = self.queue.lock().take()?;
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        Some(envelope)
    }

    /// Takes out what its sender no longer waits for, so that a session that cannot take anything holds no bodies for
    /// nobody; says when to come back.
    #[expect(clippy::vec_box)] // they are boxes already
    pub fn expire(&self, now: Instant) -> (Vec<Box<Envelope>>, Option<Instant>) {
        let mut expired = Vec::new();
        let mut queue = self.queue.lock();
        loop {
            let Some(envelope) = queue.take() else {
                return (expired, None);
            };
            if envelope.deadline > now {
                let next = envelope.deadline;
                queue.oldest = Some(envelope);
                return (expired, Some(next));
            }
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            expired.push(envelope);
        }
    }

    /// The commands since the last look.
    pub fn commands(&self) -> Commands {
        Commands(self.commands.swap(0, Ordering::SeqCst))
    }

    /// The bell, to sleep on; readable once rung.
    pub fn bell(&self) -> BorrowedFd<'_> {
        self.bell.as_fd()
    }

    /// Announces that the thread is about to sleep, and then gives it the way out to look at. Not the other way round: who
    /// leaves something unwritten after the look must see that it has to ring.
    pub fn lie_down(&self) -> MutexGuard<'_, Outgoing> {
        self.asleep.store(true, Ordering::SeqCst);
        self.outgoing.lock()
    }

    /// Whether the thread, having lain down, may sleep; `false` if something has come that it must look at first.
    ///
    /// `hungry` says whether the thread would take an envelope if there were one.
    pub fn may_sleep(&self, hungry: bool) -> bool {
        let something = self.commands.load(Ordering::SeqCst) != 0 || (hungry && self.waiting() > 0);
        if something {
            self.asleep.store(false, Ordering::SeqCst);
        }
        !something
    }

    /// The thread is up again; `rung`: the bell was what woke it.
    pub fn awake(&self, rung: bool) {
        self.asleep.store(false, Ordering::SeqCst);
        if rung {
            let mut count = [0; 8];
            // Nothing to read means that somebody else's ring was read already.
            let _ = rustix::io::read(&self.bell, &mut count);
        }
    }

    /// Wakes the session's thread, or keeps it from falling asleep without another look.
    pub fn ring(&self) {
        if self.asleep.swap(false, Ordering::SeqCst) {
            // Fails only when the count would overflow, and then it is rung anyway.
            let _ = rustix::io::write(&self.bell, &1u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::Duration;

    use super::*;
    use crate::envelope::Receipts;
    use crate::notification::{BackendId, IdMint, Notification, NotificationId, Receipt};
    use crate::session::link::Link;

    #[derive(Default)]
    struct Ledger(Mutex<Vec<Receipt>>);

    impl Receipts for Ledger {
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

    fn envelope(n: u64, deadline: Instant, ledger: &Arc<Ledger>) -> Box<Envelope> {
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
        let receipts = Arc::clone(ledger) as Arc<dyn Receipts>;
        Box::new(Envelope::new(Arc::new(notification), deadline, receipts))
    }

    fn order(mailbox: &Mailbox) -> Vec<u64> {
        std::iter::from_fn(|| mailbox.take())
            .map(|envelope| envelope.notification.at_unix_ms)
            .collect()
    }

    #[test]
    fn a_full_mailbox_gives_the_envelope_back_even_when_the_oldest_was_looked_at() {
        let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
        let later = now + Duration::from_secs(1);
        let mailbox = mailbox(2);
        assert!(mailbox.push(envelope(1, later, &ledger)).is_ok());
        assert_eq!(mailbox.expire(now).1, Some(later));
        assert!(mailbox.push(envelope(2, later, &ledger)).is_ok());
        let Err(NotTaken::Full(refused)) = mailbox.push(envelope(3, later, &ledger)) else {
            panic!("there is no room for a third");
        };
        assert_eq!(refused.notification.at_unix_ms, 3);
        assert_eq!((mailbox.waiting(), order(&mailbox)), (2, vec![1, 2]));
    }

    #[test]
    fn what_has_expired_is_taken_out_and_its_sender_told() {
        let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
        let later = now + Duration::from_secs(1);
        let mailbox = mailbox(4);
        for (n, deadline) in [(1, now), (2, now), (3, later)] {
            assert!(mailbox.push(envelope(n, deadline, &ledger)).is_ok());
        }
        let (expired, next) = mailbox.expire(now);
        assert_eq!(
            (expired.len(), next, mailbox.waiting()),
            (2, Some(later), 1)
        );
        drop(expired);
        assert_eq!(*ledger.0.lock(), [Receipt::Gone, Receipt::Gone]);
        assert_eq!(order(&mailbox), [3]);
    }

    #[test]
    fn an_heir_gets_everything_in_order() {
        let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
        let later = now + Duration::from_secs(1);
        let (old, new) = (mailbox(4), mailbox(4));
        for n in 1..=3 {
            assert!(old.push(envelope(n, later, &ledger)).is_ok());
        }
        let _ = old.expire(now); // the oldest is looked at, and must stay the oldest
        assert!(old.bequeath(&new).is_empty());
        assert_eq!((old.waiting(), order(&new)), (0, vec![1, 2, 3]));
        // Who comes after that finds out, and the heir.
        assert!(matches!(
            old.push(envelope(4, later, &ledger)),
            Err(NotTaken::Shut(_))
        ));
    }

    #[test]
    fn an_empty_mailbox_holds_no_channel_whether_it_was_used_or_not() {
        let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
        let later = now + Duration::from_secs(1);
        let mailbox = mailbox(4);
        let has_channel = || mailbox.queue.lock().channel.is_some();
        assert!(!has_channel());
        for n in 1..=4 {
            assert!(mailbox.push(envelope(n, later, &ledger)).is_ok());
        }
        assert!(has_channel());
        let _ = mailbox.expire(now); // the oldest is looked at
        assert_eq!(order(&mailbox), [1, 2, 3, 4]);
        assert!(!has_channel());
        assert!(mailbox.push(envelope(5, now, &ledger)).is_ok());
        assert_eq!(mailbox.expire(now).0.len(), 1);
        assert!(!has_channel());
    }

    #[test]
    fn dropping_a_mailbox_tells_every_sender() {
        let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
        let mailbox = mailbox(4);
        assert!(mailbox.push(envelope(1, now, &ledger)).is_ok());
        assert!(mailbox.push(envelope(2, now, &ledger)).is_ok());
        drop(mailbox);
        assert_eq!(*ledger.0.lock(), [Receipt::Gone, Receipt::Gone]);
    }

    #[test]
    fn whoever_comes_after_the_last_look_rings() {
        let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
        let mailbox = mailbox(4);
        let mut count = [0; 8];
        assert!(mailbox.push(envelope(1, now, &ledger)).is_ok());
        assert!(
            rustix::io::read(mailbox.bell(), &mut count).is_err(),
            "awake: no ring"
        );
        drop(mailbox.lie_down());
        assert!(!mailbox.may_sleep(true), "something is there");
        drop(mailbox.lie_down());
        assert!(mailbox.may_sleep(false), "but nobody would take it");
        mailbox.command(Command::Drain);
        assert!(
            rustix::io::read(mailbox.bell(), &mut count).is_ok(),
            "asleep: rung"
        );
        mailbox.awake(false);
        drop(mailbox.lie_down());
        assert!(!mailbox.may_sleep(false), "a command is never slept over");
        assert!(mailbox.commands().has(Command::Drain));
    }

    #[test]
    fn what_a_sender_leaves_unwritten_is_rung_for_once_the_thread_has_lain_down() {
        let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
        let (ours, _theirs) = std::os::unix::net::UnixStream::pair().expect("a socket");
        ours.set_nonblocking(true).expect("an option");
        let ours = Arc::new(OwnedFd::from(ours));
        let mut outgoing = Outgoing::new(Link::new(ours, None, now), Duration::from_secs(60));
        (outgoing.open, outgoing.credit) = (true, 9);
        let mailbox = Mailbox::new(4, outgoing).expect("an eventfd");
        assert!(mailbox.lie_down().link.is_flushed(), "nothing to wait for");
        let mut large = envelope(1, now + Duration::from_secs(9), &ledger);
        if let Some(notification) = Arc::get_mut(&mut large.notification) {
            notification.body = vec![0; 8 << 20];
        }
        assert!(mailbox.push(large).is_ok());
        assert!(!mailbox.outgoing().link.is_flushed());
        let mut count = [0; 8];
        let rung = rustix::io::read(mailbox.bell(), &mut count).is_ok();
        assert!(
            rung || !mailbox.may_sleep(true),
            "it would sleep over the rest"
        );
    }

    #[test]
    fn nobody_overtakes_what_an_heir_is_taking_out() {
        let (ledger, now) = (Arc::new(Ledger::default()), Instant::now());
        let later = now + Duration::from_secs(1);
        let (old, new) = (mailbox(4), mailbox(4));
        assert!(old.push(envelope(1, later, &ledger)).is_ok());
        // Its session has not heard of it yet, and the socket is free.
        old.shut();
        {
            let mut outgoing = old.outgoing();
            (outgoing.open, outgoing.credit) = (true, 9);
            old.hand_over_waiting(&mut outgoing, now);
        }
        assert!(old.bequeath(&new).is_empty());
        assert!(matches!(
            old.push(envelope(2, later, &ledger)),
            Err(NotTaken::Shut(_))
        ));
        assert_eq!((old.outgoing().in_flight(), order(&new)), (0, vec![1]));
    }
}
