//! One reader reads for many sessions whose backends say nothing but ACK.
//!
//! A session's thread lends it its socket's way in while it sleeps, and is not woken for an ACK. Measured: a thread
//! woken for each costs more than the ACK does, and on a busy machine it is woken late. Whatever else comes is given back as
//! it is, with the socket, and the session's own thread sees to it: every other verb, a frame that is wrong, the end of
//! the connection. So what takes longer, or has to be answered, keeps no other session waiting.
//!
//! The reader has no thread either: it is a sideline of the one that waits for the providers, whose requests the ACKs answer.
//!
//! Of the two threads one reads at a time: the one that [`WayIn`] names, behind whose lock all reading is done here.

use std::io;
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::mailbox::{Command, Mailbox, Mailboxes};
use crate::metrics::Metrics;
use crate::notification::{NotificationId, Receipt};
use crate::readiness::{Readiness, Sideline};
use crate::wire::Line;

/// What one look takes from a socket at most, in bytes: a hundred ACKs.
const READ_BYTES: usize = 4096;

/// Who reads, to sessions.
#[derive(Debug)]
pub struct AckReader {
    readiness: Readiness,
    mailboxes: Arc<Mailboxes>,
    /// What is received into, between two looks empty. One thread looks, so nobody waits for it.
    input: Mutex<Vec<u8>>,
    metrics: Arc<Metrics>,
}

/// Who reads from a session's socket, and what the reader leaves for the session's own thread.
#[derive(Debug)]
pub struct WayIn {
    socket: Arc<OwnedFd>,
    /// The reader reads, and not the session's own thread.
    is_lent: bool,
    /// What was read and not understood: part of a line, or, with the socket given back, what the session's thread is to see to.
    rest: Vec<u8>,
    /// When the backend last said something, if the session's own thread does not know yet.
    heard: Option<Instant>,
}

/// What a session learns of its loan.
pub struct News {
    /// When the backend was last heard, if it was since the last look.
    pub heard: Option<Instant>,
    /// The session's own thread reads again, and first this.
    pub back: Option<Vec<u8>>,
}

impl AckReader {
    /// Reads for sessions in `mailboxes`, once a thread looks at it.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn new(mailboxes: Arc<Mailboxes>, metrics: Arc<Metrics>) -> io::Result<Self> {
        Ok(Self {
            readiness: Readiness::new()?,
            mailboxes,
            input: Mutex::new(Vec::with_capacity(READ_BYTES)),
            metrics,
        })
    }

    /// From now on the reader reads for session `number`; `false`: it cannot, and the session's own thread goes on.
    pub fn lend(&self, number: u64, mailbox: &Mailbox) -> bool {
        let mut way_in = mailbox.way_in();
        let added = self.readiness.add(&way_in.socket, number);
        way_in.is_lent = added.is_ok();
        drop(way_in);
        if let Err(error) = &added {
            log::debug!("session-{number} reads its ACKs itself: epoll: {error}");
        }
        added.is_ok()
    }

    /// From now on the session's own thread reads.
    pub fn take_back(&self, mailbox: &Mailbox) -> News {
        let mut way_in = mailbox.way_in();
        self.give_back(&mut way_in);
        way_in.news()
    }

    fn give_back(&self, way_in: &mut WayIn) {
        if way_in.is_lent {
            way_in.is_lent = false;
            self.readiness.remove(&way_in.socket);
        }
    }

    /// Something has come, or an end.
    fn look_at(&self, mailbox: &Mailbox, input: &mut Vec<u8>) {
        // Held over a read and over receipts, which cannot wait: the session's own thread is to go on where this one stops.
        let mut way_in = mailbox.way_in();
        if !way_in.is_lent {
            return; // it was taken back, after the system had told of it
        }
        let goes_on = self.read(mailbox, &mut way_in, input);
        if !goes_on {
            self.give_back(&mut way_in);
        }
        drop(way_in);
        // There may be room now for what waits.
        if !goes_on || mailbox.waiting() > 0 {
            mailbox.ring();
        }
    }

    /// One read, and what it says; `false`: from here on it is for the session's own thread.
    fn read(&self, mailbox: &Mailbox, way_in: &mut WayIn, input: &mut Vec<u8>) -> bool {
        input.clear();
        match rustix::io::read(&way_in.socket, spare_capacity(input)) {
            Err(Errno::AGAIN | Errno::INTR) => return true,
            Ok(0) | Err(_) => return false,
            Ok(_) => {}
        }
        let now = Instant::now();
        way_in.heard = Some(now);
        input.splice(..0, std::mem::take(&mut way_in.rest));
        let (used, goes_on) = self.understand(mailbox, input, now);
        if used < input.len() {
            way_in.rest = input[used..].to_vec();
        }
        goes_on
    }

    /// Does what the whole lines of `bytes` say, up to the first that is for the session's own thread; how many bytes that are,
    /// and whether there is no such line.
    fn understand(&self, mailbox: &Mailbox, bytes: &[u8], now: Instant) -> (usize, bool) {
        let (mut at, mut has_ponged) = (0, false);
        loop {
            let (line, used) = match Line::find(&bytes[at..]) {
                Ok(Some(found)) => found,
                Ok(None) => return (at, true),
                Err(_) => return (at, false),
            };
            match line.verb {
                "ACK" if line.data_bytes.is_none() => {
                    let id = line.text("id");
                    let id = id.as_deref().and_then(NotificationId::parse);
                    // The lock goes before the receipt does.
                    let found = id.and_then(|id| mailbox.outgoing().answered(id));
                    let Some(flying) = found else {
                        return (at, false);
                    };
                    let after = now.saturating_duration_since(flying.sent);
                    self.metrics.ack_after(after);
                    flying.reply.settle(Receipt::Ack);
                }
                // It was heard, which is all there is to it. Nobody is asked for two at once, and a flood of them is to keep
                // nobody else waiting.
                "PONG" if line.data_bytes.is_none() && !has_ponged => has_ponged = true,
                _ => return (at, false),
            }
            at += used;
        }
    }
}

impl Sideline for AckReader {
    fn readiness(&self) -> &Readiness {
        &self.readiness
    }

    fn look(&self, number: u64) {
        let Some(mailbox) = self.mailboxes.get(number) else {
            return; // it ended, after the system had told of it
        };
        let mut input = self.input.lock();
        // What it makes panic ends that session only.
        let looked = catch_unwind(AssertUnwindSafe(|| self.look_at(&mailbox, &mut input)));
        if looked.is_err() {
            *input = Vec::with_capacity(READ_BYTES);
            self.give_back(&mut mailbox.way_in());
            mailbox.command(Command::Close);
        }
    }
}

impl WayIn {
    /// To `socket`, from which the session's own thread reads.
    pub fn new(socket: Arc<OwnedFd>) -> Self {
        Self {
            socket,
            is_lent: false,
            rest: Vec::new(),
            heard: None,
        }
    }

    /// Whether the reader reads.
    pub fn is_lent(&self) -> bool {
        self.is_lent
    }

    /// What the session's own thread has to know.
    pub fn news(&mut self) -> News {
        News {
            heard: self.heard.take(),
            back: (!self.is_lent).then(|| std::mem::take(&mut self.rest)),
        }
    }
}
