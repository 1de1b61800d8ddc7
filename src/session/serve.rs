//! One session from accept to close: a thread that sleeps on its socket and its bell (see `sleep`), or on its bell alone while
//! another reads the ACKs (see `lend`).
//!
//! The life of a session has three phases: it greets until a HELLO is accepted, serves, and leaves. Only this file closes
//! a socket. It never waits for anything but `poll`.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;

use super::acks::AckReader;
use super::end::End;
use super::lend::Lending;
use super::mailbox::{Command, Mailbox};
use super::outgoing::Outgoing;
use super::registry::{Registry, Seated};
use super::talk::Talk;
use super::token::Access;
use crate::bus::{Bus, Events, Topic};
use crate::config;
use crate::metrics::Metrics;
use crate::notification::{BackendId, IdMint, Receipt};
use crate::peers::{Failures, Judged};
use crate::wire::{self, FrameError};

/// How long a session that was told BYE may still acknowledge, and how long its last words may take to be read.
const LINGER: Duration = Duration::from_secs(2);

/// How long a backend waits for OK at most. The bus says earlier that it is down; this is for a bus that says nothing.
pub(super) const ATTACH_MAX: Duration = Duration::from_secs(5);

/// What all sessions of a node share.
pub struct House {
    pub registry: Arc<Registry>,
    pub bus: Arc<dyn Bus>,
    pub events: Events,
    /// For what backends send each other; apart from the notifications' by its process part.
    pub mint: IdMint,
    pub access: RwLock<Arc<Access>>,
    pub tcp: config::Tcp,
    /// How often each peer's HELLO has failed.
    pub failures: Failures,
    /// `http.max_body`: no MSG is larger, and no data from a backend may be.
    pub max_body: usize,
    pub instance: String,
    pub metrics: Arc<Metrics>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    Greeting {
        until: Instant,
    },
    /// HELLO is accepted, and other nodes do not reach this one's backend yet: OK would be said too early.
    Attaching {
        until: Instant,
        credit: usize,
    },
    Serving,
    Leaving(Leaving),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Leaving {
    pub(super) until: Instant,
    /// Whether ACKs still count. After a protocol error nothing the peer says does.
    pub(super) listening: bool,
    /// The last word has been written, and the peer knows that it was the last.
    half_closed: bool,
}

pub struct Session {
    pub(super) number: u64,
    pub(super) peer: SocketAddr,
    pub(super) house: Arc<House>,
    pub(super) socket: Arc<OwnedFd>,
    pub(super) mailbox: Arc<Mailbox>,
    /// What is read is sealed.
    pub(super) sealed: bool,
    /// Part of a line.
    pub(super) inbound: Vec<u8>,
    /// Data of no use, its LF included, still to be read past.
    pub(super) skip: usize,
    pub(super) lending: Lending,
    pub(super) backend: Option<BackendId>,
    pub(super) phase: Phase,
    end: End,
    pub(super) heard: Instant,
    /// PINGs since the last byte.
    pub(super) pings: u32,
    /// A HELLO was accepted, and the log does not say so yet.
    pub(super) unannounced: Option<Seated>,
    pub(super) talk: Talk,
    pub(super) now: Instant,
}

impl Session {
    /// A session for a connection just accepted: its non-blocking socket, and the mailbox that writes to it.
    pub fn new(
        number: u64,
        socket: Arc<OwnedFd>,
        peer: SocketAddr,
        mailbox: Arc<Mailbox>,
        house: Arc<House>,
        reader: Arc<AckReader>,
    ) -> Self {
        let now = Instant::now();
        let sealed = mailbox.outgoing().link.is_sealed();
        Self {
            number,
            peer,
            socket,
            sealed,
            mailbox,
            inbound: Vec::new(),
            skip: 0,
            lending: Lending::new(reader),
            backend: None,
            phase: Phase::Greeting {
                until: now + house.tcp.hello_deadline,
            },
            end: End::Peer,
            heard: now,
            pings: 0,
            unannounced: None,
            talk: Talk::default(),
            now,
            house,
        }
    }

    /// Lives until the connection is over.
    pub fn run(mut self: Box<Self>) {
        while self.turn().is_some() {}
    }

    /// Lives until a TLS handshake is over; `false`: so is the connection.
    pub fn shake_hands(&mut self) -> bool {
        while self.mailbox.outgoing().link.is_handshaking() {
            if self.turn().is_none() {
                return false;
            }
        }
        true
    }

    /// One round: write what there is, sleep, do what has come. `None`: the connection is over.
    fn turn(&mut self) -> Option<()> {
        if self.write().is_none() {
            self.take_back();
            self.consume_rest();
            self.hear_last_words();
            return None;
        }
        let woken = self.sleep()?;
        self.now = Instant::now();
        self.look_at_loan();
        self.look_at_commands()?;
        if woken.readable {
            self.take_back(); // a connection that broke is reported in any case
            self.read()?;
        }
        // Here and not where the HELLO is read: formatting is deep, and a stack keeps for ever the pages it ever used.
        if let Some(seated) = self.unannounced.take() {
            self.announce(seated);
        }
        self.look_at_clock()
    }

    #[cold]
    fn announce(&self, seated: Seated) {
        let Some(id) = &self.backend else { return };
        match seated {
            Seated::New => log::info!("{id} connected from {}", self.peer),
            Seated::TookOver => log::info!("{id} taken over from {}", self.peer),
        }
    }

    // ---- out -------------------------------------------------------------------------------------------------------

    /// Turns waiting envelopes into MSG, as far as the credit goes, and writes what the socket takes.
    fn write(&mut self) -> Option<()> {
        if self.mailbox.waiting() > 0 {
            let (expired, _) = self.mailbox.expire(self.now);
            for envelope in expired {
                envelope.settle(Receipt::Expired); // not sent for nothing
            }
        }
        let mut outgoing = self.mailbox.outgoing();
        self.mailbox.hand_over_waiting(&mut outgoing, self.now);
        self.talk.flush(&mut outgoing, self.now).ok()?;
        if let Phase::Leaving(leaving) = &mut self.phase {
            let quiet = outgoing.in_flight() == 0 && outgoing.link.is_flushed();
            if quiet && !leaving.half_closed {
                leaving.half_closed = true;
                // An answer could no longer be sent, and trying would cut the peer off from what it has not read.
                leaving.listening = false;
                leaving.until = leaving.until.min(self.now + LINGER);
                outgoing.link.half_close();
            }
        }
        Some(())
    }

    pub(super) fn say(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.mailbox.outgoing().link.frame(self.now, write);
    }

    #[cold]
    pub(super) fn complain(&mut self, code: &str, about: &[(&str, &str)], words: &str) {
        self.say(|out| {
            let mut line = wire::line(out, "ERR").arg("code", code);
            for (key, value) in about {
                line = line.arg(key, value);
            }
            line.arg("msg", words).end();
        });
    }

    // ---- in --------------------------------------------------------------------------------------------------------

    #[inline(never)] // its stack is not needed beneath an ACK
    fn look_at_commands(&mut self) -> Option<()> {
        let commands = self.mailbox.commands();
        if commands.has(Command::Close) {
            return None;
        }
        if commands.has(Command::GiveWay) {
            self.leave(End::Takeover, LINGER);
        }
        if commands.has(Command::Reached)
            && let Phase::Attaching { credit, .. } = self.phase
        {
            self.open(credit);
            self.consume_rest();
        }
        if commands.has(Command::Drain) {
            match self.phase {
                // Whoever drains the node says Close when its time is up.
                Phase::Serving => self.leave(End::Drain, Duration::from_secs(3600)),
                Phase::Greeting { .. } | Phase::Attaching { .. } => self.leave(End::Drain, LINGER),
                Phase::Leaving(_) => {}
            }
        }
        Some(())
    }

    // ---- the clock -------------------------------------------------------------------------------------------------

    fn look_at_clock(&mut self) -> Option<()> {
        if self.is_stalled()? {
            if self.end == End::Peer {
                self.end = End::Slow;
            }
            return None; // it takes no byte, so there is no way to say BYE
        }
        match self.phase {
            Phase::Greeting { until } if self.now >= until => {
                self.break_off("bad-hello", "no HELLO within tcp.hello_deadline");
            }
            Phase::Attaching { until, credit } if self.now >= until => {
                log::warn!("the bus does not say whether other nodes are reached; serving without");
                self.open(credit);
                self.consume_rest();
            }
            Phase::Leaving(leaving) if self.now >= leaving.until => return None,
            Phase::Greeting { .. } | Phase::Attaching { .. } | Phase::Leaving(_) => {}
            Phase::Serving => {
                self.forget_unanswered();
                let idle = self.mailbox.outgoing().in_flight() == 0;
                if idle && self.now >= self.idle_at() {
                    self.leave(End::Idle, LINGER);
                } else if self.now >= self.next_ping() {
                    self.pings += 1;
                    self.say(|out| wire::line(out, "PING").end());
                }
            }
        }
        Some(())
    }

    /// Whether the peer has taken no byte for `tcp.write_deadline`.
    fn is_stalled(&self) -> Option<bool> {
        let mut outgoing = self.mailbox.outgoing();
        let stalled = |outgoing: &Outgoing| {
            let since = outgoing.link.stalled_since();
            since.is_some_and(|since| self.now >= since + self.house.tcp.write_deadline)
        };
        if !stalled(&outgoing) {
            return Some(false);
        }
        // Tried once more: `poll` calls a socket writable only when a third of its buffer is free, and a peer that reads
        // slowly may not have come that far.
        outgoing.flush(self.now).ok()?;
        Some(stalled(&outgoing))
    }

    /// A MSG that was not answered within `tcp.ack_timeout` no longer counts against the credit.
    fn forget_unanswered(&mut self) {
        loop {
            // The lock goes before the receipt does.
            let Some(flying) = self.mailbox.outgoing().overdue(self.now) else {
                return;
            };
            log::debug!("{} not answered within ack_timeout", flying.reply.id());
            flying.reply.settle(Receipt::Expired);
        }
    }

    // ---- leaving ---------------------------------------------------------------------------------------------------

    /// Hands over nothing more, says BYE unless the peer did, and gives what is in flight `linger` to be answered.
    #[cold]
    pub(super) fn leave(&mut self, end: End, linger: Duration) {
        if matches!(self.phase, Phase::Leaving(_)) {
            return;
        }
        self.vacate(end);
        self.phase = Phase::Leaving(Leaving {
            until: self.now + linger,
            listening: self.backend.is_some(), // a HELLO that crosses the BYE is not at fault
            half_closed: false,
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

    pub(super) fn break_off_at(&mut self, error: FrameError) {
        self.break_off(error.code(), &error.to_string());
    }

    /// Tells the peer what it did wrong, and listens to it no more.
    #[cold]
    pub(super) fn break_off(&mut self, code: &'static str, words: &str) {
        if let Phase::Greeting { .. } = self.phase {
            return match self.failed_hello(code) {
                None => self.end_with_error(code, words),
                Some(left) => {
                    let words =
                        format!("too many failed HELLOs from your address; come again in {left} s");
                    self.end_with_error("limit", &words);
                }
            };
        }
        self.end_with_error(code, words);
    }

    /// Counts a HELLO that may not enter; in how many seconds its peer may try again, if it has done so too often. Whoever
    /// shows a good token enters all the same, for others may come from its address.
    fn failed_hello(&self, code: &'static str) -> Option<u64> {
        match self.house.failures.count(self.peer.ip(), self.now) {
            Judged::Within => {
                log::info!("{}: refused, {code}", self.peer);
                None
            }
            Judged::Beyond { first, left } => {
                if first {
                    let (peer, most) = (self.peer.ip(), self.house.failures.most());
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

    fn end_with_error(&mut self, code: &'static str, words: &str) {
        self.house.metrics.session_refused(code);
        self.vacate(End::Protocol);
        let lost = self.mailbox.outgoing().take_in_flight();
        drop(lost); // tells the senders
        self.phase = Phase::Leaving(Leaving {
            until: self.now + LINGER,
            listening: false,
            half_closed: false,
        });
        self.complain(code, &[("fatal", "1")], words);
    }

    /// Makes sure that nobody finds this session any more, and nothing waits for it in vain.
    fn vacate(&mut self, end: End) {
        self.end = end;
        self.take_back();
        self.mailbox.outgoing().open = false;
        if let Some(id) = &self.backend
            && self.house.registry.remove(id, self.number)
        {
            self.house.bus.look_again(Topic::Backend(id.clone()), None);
        }
        self.talk.fall_silent(&self.house.events);
        // After the seat is given up: a sender that finds the mailbox shut looks for the next one. A successor has
        // taken out what waited; if there is none, dropping it tells the senders.
        self.mailbox.shut();
        while self.mailbox.take().is_some() {}
    }
}

/// Also when a panic ends the thread: nobody may wait for a session that is no more.
impl Drop for Session {
    fn drop(&mut self) {
        let end = self.end;
        if !matches!(self.phase, Phase::Leaving(_)) {
            self.vacate(end);
        }
        self.take_back();
        let lost = self.mailbox.outgoing().take_in_flight();
        if let Some(id) = &self.backend {
            self.house.metrics.session_closed(end.word());
            log::info!("{id} gone ({}), {} in flight", end.word(), lost.len());
        }
    }
}
