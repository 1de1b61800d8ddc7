//! A session's mailbox: the envelopes that wait, the commands to its thread, and the way to its socket.
//!
//! Sending never waits. A thread that brings an envelope writes the MSG itself when nothing waits and the socket is free;
//! otherwise the envelope goes into the mailbox, and the session's thread writes it. A full mailbox is an answer.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender, unbounded};

use super::outgoing::Outgoing;
use super::waker::Waker;
use crate::envelope::Envelope;
use crate::lock::{Mutex, MutexGuard};

/// A bit of [`Mailbox::waiting`]: no envelope is accepted any more. One number tells senders both, so they need no lock.
const SHUT: usize = 1 << (usize::BITS - 1);

/// What other threads tell a session's thread. A command does not wait behind envelopes, and cannot be refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Another session has the backend id now.
    TakenOver = 1,
    /// The node is stopping: say BYE, let what is in flight finish.
    Drain = 2,
    /// Close at once.
    Close = 4,
    /// Other nodes reach this session's backend: it may be told OK.
    Reachable = 8,
    /// A person wants the backend to go, and to come back later.
    Disconnect = 16,
    /// Close at once if no HELLO was accepted: another connection needs the place.
    MakeRoom = 32,
}

/// The commands since the last look.
#[derive(Clone, Copy, Debug, Default)]
pub struct Commands(u8);

impl Commands {
    /// Whether `command` is among them.
    pub fn has(self, command: Command) -> bool {
        self.0 & command as u8 != 0
    }
}

/// Why an envelope was not accepted; it comes back.
#[derive(Debug)]
pub enum NotAccepted {
    /// `tcp.queue` envelopes wait.
    Full(Box<Envelope>),
    /// The session is ending: its id is free, or another session's.
    Shut(Box<Envelope>),
}

/// What waits for a session.
#[derive(Debug)]
pub struct Mailbox {
    sender: Sender<Box<Envelope>>,
    receiver: Receiver<Box<Envelope>>,
    /// How many envelopes wait, and [`SHUT`]. It is the channel's bound: an envelope is counted before it is sent.
    waiting: AtomicUsize,
    capacity: usize,
    /// The oldest envelope, if the session's thread has looked at its deadline: a channel cannot be peeked into. Locked by
    /// every thread that takes envelopes out, so that they come out in order; senders do not touch it.
    oldest: Mutex<Option<Box<Envelope>>>,
    /// While its thread sleeps: whether it could send one more MSG.
    has_room: AtomicBool,
    commands: AtomicU8,
    outgoing: Mutex<Outgoing>,
    waker: Waker,
}

/// What the session's thread learns of the envelopes that wait.
#[derive(Debug, Default)]
pub struct Waiting {
    /// Taken out because no request waits for them any more. To be settled when no lock is held.
    #[expect(clippy::vec_box)] // they are boxes already
    pub expired: Vec<Box<Envelope>>,
    /// When the oldest that is left expires. `None`: no envelope is left, as far as the thread has seen.
    pub next_deadline: Option<Instant>,
}

impl Mailbox {
    /// An empty mailbox for `capacity` envelopes, in front of `outgoing`.
    ///
    /// # Errors
    /// No file descriptor is left for the waker.
    pub fn new(capacity: usize, outgoing: Outgoing) -> io::Result<Self> {
        // A bounded channel would allocate all its slots at once, for thousands of sessions of which few have anything waiting.
        let (sender, receiver) = unbounded();
        Ok(Self {
            sender,
            receiver,
            waiting: AtomicUsize::new(0),
            capacity,
            oldest: Mutex::default(),
            has_room: AtomicBool::new(false),
            commands: AtomicU8::new(0),
            outgoing: Mutex::new(outgoing),
            waker: Waker::new()?,
        })
    }

    // ---- for other threads -----------------------------------------------------------------------------------------

    /// Sends `envelope`, or puts it in; gives it back when the mailbox is full or shut.
    pub fn push(&self, envelope: Box<Envelope>) -> Result<(), NotAccepted> {
        if self.is_empty_and_open()
            && let Some(mut outgoing) = self.outgoing.try_lock()
            && outgoing.may_send()
            && outgoing.link.is_flushed()
            // Once more, now that the session's thread cannot take one out: what waits goes first.
            && self.is_empty_and_open()
        {
            let now = Instant::now();
            let is_broken = outgoing.send(*envelope, now).is_err();
            // The session's thread writes the rest, or sees that the connection is broken.
            if is_broken || !outgoing.link.is_flushed() {
                drop(outgoing);
                self.waker.wake();
            }
            return Ok(());
        }
        self.put(envelope)
    }

    fn put(&self, envelope: Box<Envelope>) -> Result<(), NotAccepted> {
        let before = self.waiting.fetch_add(1, Ordering::SeqCst);
        if before & SHUT != 0 || before >= self.capacity {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(match before & SHUT {
                0 => NotAccepted::Full(envelope),
                _ => NotAccepted::Shut(envelope),
            });
        }
        // Cannot fail: this mailbox holds the receiver too.
        if let Err(unsent) = self.sender.send(envelope) {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
            return Err(NotAccepted::Shut(unsent.into_inner()));
        }
        // A thread without room knows when the oldest expires, and need not hear of the ones behind it.
        if before == 0 || self.has_room.load(Ordering::SeqCst) {
            self.waker.wake();
        }
        Ok(())
    }

    /// Writes a frame that is not acknowledged. `false`: the session is not open, or has not read what it was sent before.
    pub fn tell(&self, write: impl FnOnce(&mut Vec<u8>)) -> bool {
        let outgoing = self.outgoing.lock();
        let takes = outgoing.is_open && !outgoing.link.is_backed_up();
        if takes {
            self.write(outgoing, write);
        }
        takes
    }

    /// Writes a frame that answers the backend, or that it must not miss, however much it has not read. The session does not
    /// read meanwhile, so there are no more of these than the backend has asked for.
    pub fn answer(&self, write: impl FnOnce(&mut Vec<u8>)) {
        let outgoing = self.outgoing.lock();
        if !outgoing.link.is_half_closed() {
            self.write(outgoing, write);
        }
    }

    fn write(&self, mut outgoing: MutexGuard<'_, Outgoing>, write: impl FnOnce(&mut Vec<u8>)) {
        let now = Instant::now();
        outgoing.link.frame(now, write);
        let is_broken = outgoing.flush(now).is_err();
        let is_unwritten = is_broken || !outgoing.link.is_flushed();
        drop(outgoing);
        if is_unwritten {
            self.waker.wake();
        }
    }

    /// Tells the session's thread to do something else than deliver.
    pub fn command(&self, command: Command) {
        self.commands.fetch_or(command as u8, Ordering::SeqCst);
        self.waker.wake();
    }

    /// Wakes the session's thread.
    pub fn wake(&self) {
        self.waker.wake();
    }

    /// Shuts the mailbox and moves what waits in it to `successor`, in order. Gives back what did not fit.
    pub fn transfer_to(&self, successor: &Self) -> Vec<NotAccepted> {
        let all = self.shut_and_take_all();
        all.filter_map(|envelope| successor.put(envelope).err())
            .collect()
    }

    /// Shuts the mailbox. The iterator takes out what waits in it: the session's thread sends no more of it.
    pub fn shut_and_take_all(&self) -> impl Iterator<Item = Box<Envelope>> {
        self.waiting.fetch_or(SHUT, Ordering::SeqCst);
        std::iter::from_fn(|| {
            while self.waiting() > 0 {
                let envelope = self.take_next(&mut self.oldest.lock());
                if let Some(envelope) = envelope {
                    self.count_down();
                    return Some(envelope);
                }
                // Counted, and not in the channel yet: its sender is between two instructions.
                std::thread::yield_now();
            }
            None
        })
    }

    /// How many envelopes wait.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst) & !SHUT
    }

    fn is_empty_and_open(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) == 0
    }

    /// The session's link and MSG in flight.
    pub fn outgoing(&self) -> MutexGuard<'_, Outgoing> {
        self.outgoing.lock()
    }

    // ---- for the session's thread ----------------------------------------------------------------------------------

    /// Turns what waits into MSG as far as `outgoing`, which is this mailbox's own, lets it. Takes out what has expired: a
    /// session that cannot send would keep it for no one.
    pub fn hand_over_waiting(&self, outgoing: &mut Outgoing, now: Instant) -> Waiting {
        let mut waiting = Waiting::default();
        if self.waiting() == 0 {
            return waiting;
        }
        // Held over moves of memory only.
        let mut oldest = self.oldest.lock();
        // Asked under the lock: the thread that shut the mailbox takes out the rest.
        while self.waiting.load(Ordering::SeqCst) & SHUT == 0
            && let Some(envelope) = self.take_next(&mut oldest)
        {
            if envelope.deadline <= now {
                waiting.expired.push(envelope);
            } else if outgoing.may_send() {
                outgoing.hand_over(*envelope, now);
            } else {
                waiting.next_deadline = Some(envelope.deadline);
                *oldest = Some(envelope);
                break;
            }
            self.count_down();
        }
        waiting
    }

    fn take_next(&self, oldest: &mut Option<Box<Envelope>>) -> Option<Box<Envelope>> {
        oldest.take().or_else(|| self.receiver.try_recv().ok())
    }

    fn count_down(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// The commands since the last look.
    pub fn commands(&self) -> Commands {
        match self.commands.load(Ordering::SeqCst) {
            0 => Commands(0),
            _ => Commands(self.commands.swap(0, Ordering::SeqCst)),
        }
    }

    /// The thread is about to sleep. To be said with the lock of `outgoing` held: another thread that leaves something
    /// unwritten after this one has looked must find it asleep.
    pub fn prepare_sleep(&self, outgoing: &Outgoing) {
        self.has_room.store(outgoing.may_send(), Ordering::SeqCst);
        self.waker.prepare_sleep();
    }

    /// Whether the thread, having prepared, may sleep. `false`: there is something that it has not looked at.
    pub fn may_sleep(&self, seen: &Waiting) -> bool {
        let has_unseen = self.waiting() > 0
            && (seen.next_deadline.is_none() || self.has_room.load(Ordering::SeqCst));
        !has_unseen && self.commands.load(Ordering::SeqCst) == 0
    }

    /// What wakes the thread.
    pub fn waker(&self) -> &Waker {
        &self.waker
    }
}

#[cfg(test)]
mod tests;
