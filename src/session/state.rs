//! One session: what its thread knows, and how it ends.
//!
//! A session greets until a HELLO is accepted, serves, and leaves. Only its own thread has it; other threads use the
//! [`Mailbox`].

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::context::SessionContext;
use super::end::End;
use super::hello::HelloRefusal;
use super::mailbox::Mailbox;
use super::registry::Registered;
use super::subscription::{Subscriptions, TokenBucket};
use crate::bus::{Channel, Topic};
use crate::notification::{BackendId, Receipt};
use crate::peers::Judged;
use crate::wire::{self, FrameError};

/// How long a connection stays open after BYE or a fatal ERR, so that the peer can read it, at most.
pub const LINGER: Duration = Duration::from_secs(2);

/// Where a session is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No HELLO was accepted.
    Greeting { until: Instant },
    /// HELLO is accepted, and other nodes do not reach this backend yet: OK would be too early.
    Attaching { until: Instant, credit: usize },
    /// OK is sent.
    Serving,
    /// BYE or a fatal ERR is sent.
    Leaving(Leaving),
}

/// The end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaving {
    /// When the connection is closed, whatever is in flight.
    pub until: Instant,
    /// Whether ACKs still count. After a protocol error nothing that the peer says does.
    pub is_listening: bool,
    /// Everything has been written, and the peer knows that nothing more will come.
    pub is_half_closed: bool,
}

/// Data that has not arrived whole.
pub struct IncomingData {
    /// What it is for.
    pub what: DataPurpose,
    /// The `ref` of its frame.
    pub reference: Option<Arc<str>>,
    /// What has arrived.
    pub bytes: Vec<u8>,
    /// How many bytes it will be.
    pub wanted: usize,
}

/// What data is for.
pub enum DataPurpose {
    /// One backend.
    Send(BackendId),
    /// Everybody who listens to a channel.
    Pub(Channel),
}

/// One session, as its thread knows it.
pub struct Session {
    pub number: u64,
    pub peer: SocketAddr,
    pub context: Arc<SessionContext>,
    pub socket: Arc<OwnedFd>,
    pub mailbox: Arc<Mailbox>,
    pub is_tls: bool,
    /// Part of a line.
    pub inbound: Vec<u8>,
    /// How many bytes of data without use, their LF included, are still to be skipped.
    pub skip: usize,
    pub backend: Option<BackendId>,
    pub phase: Phase,
    pub end: End,
    /// When the last byte arrived.
    pub heard: Instant,
    /// PINGs since then.
    pub pings: u32,
    /// A HELLO was accepted, and the log does not say so yet.
    pub unannounced: Option<Registered>,
    pub gathering: Option<Box<IncomingData>>,
    pub subscriptions: Subscriptions,
    /// For `tcp.data_rate`; `None`: nothing was said yet.
    pub bucket: Option<TokenBucket>,
    /// The time when the thread last woke.
    pub now: Instant,
}

impl Session {
    /// A session for a connection just accepted: its non-blocking socket, and the mailbox that writes to it.
    pub fn new(
        number: u64,
        socket: Arc<OwnedFd>,
        peer: SocketAddr,
        mailbox: Arc<Mailbox>,
        context: Arc<SessionContext>,
    ) -> Self {
        let now = Instant::now();
        let is_tls = mailbox.outgoing().link.is_tls();
        Self {
            number,
            peer,
            socket,
            is_tls,
            mailbox,
            inbound: Vec::new(),
            skip: 0,
            backend: None,
            phase: Phase::Greeting {
                until: now + context.tcp.hello_deadline,
            },
            end: End::Peer,
            heard: now,
            pings: 0,
            unannounced: None,
            gathering: None,
            subscriptions: Subscriptions::default(),
            bucket: None,
            now,
            context,
        }
    }

    /// Appends a frame to what is to be written.
    pub fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.mailbox.outgoing().link.frame(self.now, write);
    }

    /// Appends an ERR with `code`, the pairs of `about` and the text.
    #[cold]
    pub fn say_error(&mut self, code: &str, about: &[(&str, &str)], words: &str) {
        self.say(|out| {
            let mut line = wire::line(out, "ERR").arg("code", code);
            for (key, value) in about {
                line = line.arg(key, value);
            }
            line.arg("msg", words).end();
        });
    }

    /// Delivers nothing more, says BYE unless the peer did, and waits for `linger` at most for what is in flight.
    #[cold]
    pub fn leave(&mut self, end: End, linger: Duration) {
        if matches!(self.phase, Phase::Leaving(_)) {
            return;
        }
        self.unregister(end);
        self.phase = Phase::Leaving(Leaving {
            until: self.now + linger,
            is_listening: self.backend.is_some(), // a HELLO that crosses the BYE is no error
            is_half_closed: false,
        });
        if end != End::Bye {
            self.say(|out| {
                wire::line(out, "BYE")
                    .arg("reason", end.word())
                    .plain("retry", end.retry_s())
                    .end();
            });
        }
    }

    /// [`Session::break_off`] for a malformed frame.
    pub fn break_off_at(&mut self, error: FrameError) {
        self.break_off(error.code(), &error.to_string());
    }

    /// Tells the peer what it did wrong, and ignores what else it says.
    #[cold]
    pub fn break_off(&mut self, code: &'static str, words: &str) {
        match self.phase {
            Phase::Greeting { .. } => self.turn_away(code, words, None),
            _ => self.end_with_error(code, words),
        }
    }

    /// [`Session::break_off`] for a HELLO that is refused.
    #[cold]
    pub fn refuse_hello(&mut self, refusal: &HelloRefusal) {
        self.turn_away(refusal.code, &refusal.words, refusal.id.as_ref());
    }

    fn turn_away(&mut self, code: &'static str, words: &str, id: Option<&BackendId>) {
        match self.count_failed_hello(code, id) {
            None => self.end_with_error(code, words),
            Some(left) => {
                let words =
                    format!("too many failed HELLOs from your address; come again in {left} s");
                self.end_with_error("limit", &words);
            }
        }
    }

    /// Counts a failed HELLO. `Some(seconds)`: the peer has failed too often, and may try again after that time. A peer that
    /// shows a good token is let in all the same, for others may come from its address.
    fn count_failed_hello(&self, code: &'static str, id: Option<&BackendId>) -> Option<u64> {
        match self.context.failures.count(self.peer.ip(), self.now) {
            Judged::Within => {
                let by = id.map_or_else(String::new, |id| format!(" by {id}"));
                log::info!("{}: refused, {code}{by}", self.peer);
                None
            }
            Judged::Beyond { first, left } => {
                if first {
                    let (peer, most) = (self.peer.ip(), self.context.failures.most());
                    log::warn!(
                        "{peer}: more than tcp.failures_per_minute = {most} failed HELLOs; \
                         the next {} s are not logged",
                        left.as_secs()
                    );
                }
                Some(left.as_secs() + 1)
            }
        }
    }

    /// Another connection has been given this one's place before its HELLO came.
    #[cold]
    pub fn make_room(&mut self) {
        let words = "tcp.max_connections is reached, and no HELLO had come on this connection";
        self.end_with_error("limit", words);
    }

    /// [`Session::break_off`], without counting a failed HELLO.
    #[cold]
    fn end_with_error(&mut self, code: &'static str, words: &str) {
        self.context.metrics.session_refused(code);
        self.unregister(End::Protocol);
        let lost = self.mailbox.outgoing().take_in_flight();
        drop(lost); // tells the senders
        self.phase = Phase::Leaving(Leaving {
            until: self.now + LINGER,
            is_listening: false,
            is_half_closed: false,
        });
        self.say_error(code, &[("fatal", "1")], words);
    }

    /// Makes sure that no sender finds this session any more, and that nothing waits for it in vain.
    fn unregister(&mut self, end: End) {
        self.end = end;
        self.mailbox.outgoing().is_open = false;
        if let Some(id) = &self.backend
            && self.context.registry.remove(id, self.number)
        {
            self.context
                .bus
                .look_again(Topic::Backend(id.clone()), None);
        }
        self.subscriptions.clear(&self.context.events);
        // After the entry is removed: a sender that finds the mailbox shut looks for the next session. A successor has
        // taken out what waited. Without one, dropping it tells the senders.
        self.mailbox.shut_and_take_all().for_each(drop);
    }

    /// What the senders of all that is in flight hear now that the connection ends.
    fn receipt_of_lost(&self) -> Receipt {
        match self.phase {
            // It had as long as any provider waits: it was there, and did not answer in time.
            Phase::Leaving(leaving) if self.end == End::Takeover && self.now >= leaving.until => {
                Receipt::Expired
            }
            _ => Receipt::Gone,
        }
    }
}

/// Also when a panic ends the thread: no sender may wait for a session that has ended.
impl Drop for Session {
    fn drop(&mut self) {
        let end = self.end;
        if !matches!(self.phase, Phase::Leaving(_)) {
            self.unregister(end);
        }
        let lost = self.mailbox.outgoing().take_in_flight();
        if let Some(id) = &self.backend {
            self.context.metrics.session_closed(end.word());
            log::info!("{id} gone ({}), {} in flight", end.word(), lost.len());
        }
        let receipt = self.receipt_of_lost();
        for flying in lost {
            flying.reply.settle(receipt.clone());
        }
    }
}
