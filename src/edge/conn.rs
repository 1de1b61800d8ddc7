//! One connection's life: read a request whole, hand it over, answer, again.
//!
//! A request that arrives at once and whole costs one receive and one send. Nothing here judges HTTP (`framing`) or knows
//! what is answered (the handler).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use httparse::EMPTY_HEADER;

use super::channel::{Ear, Trouble, Unheard};
use super::exchange::{Fate, Found};
use super::framing::{
    Body, Chunks, HEAD_BYTES_MAX, HEADERS_MAX, Head, HeadScan, HeadSpan, Shape, parse_head,
};
use super::guests::Guest;
use super::house::House;
use super::proxy::forwarded_for;
use super::refusal::Refusal;
use super::reply;
use super::socket::{Received, receive_now, receive_until};
use super::ticket::Ticket;
use super::{Peers, Request, SEND_DEADLINE};

/// What an idle connection keeps for input; most callbacks fit in it whole.
const IDLE_INPUT_BYTES: usize = 4 * 1024;

/// The least that a buffer grows to when a request does not fit.
const GROWN_INPUT_BYTES: usize = 16 * 1024;

/// How long, and for how many bytes, we read on after the last answer, so that closing does not destroy it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Serves `guest` until one of us closes.
pub(super) fn serve(guest: &Arc<Guest>, house: &Arc<House>) {
    let mut conn = Conn {
        guest,
        house,
        ear: Ear::new(&guest.channel),
        peer: guest.peer,
        speaks_for_others: false,
        input: Vec::with_capacity(IDLE_INPUT_BYTES),
        kept: false,
        due: guest.since,
    };
    loop {
        match conn.turn() {
            Ok(()) => {}
            Err(Stop::Quietly) => return guest.channel.say_end(),
            Err(Stop::Alerted) => return conn.linger(),
            Err(Stop::Answered) => return conn.part(),
            Err(Stop::Refusing(refusal)) => return conn.refuse(refusal),
        }
    }
}

struct Conn<'a> {
    guest: &'a Arc<Guest>,
    house: &'a Arc<House>,
    ear: Ear<'a>,
    /// Who has connected, to us or to the proxy before us.
    peer: SocketAddr,
    /// It is a proxy that says in each request for whom.
    speaks_for_others: bool,
    /// What was received and not yet served. Never without spare capacity when something is received into it.
    input: Vec<u8>,
    /// A request was handed over: what follows is a kept connection's.
    kept: bool,
    /// When the answer to the last request must be there.
    due: Instant,
}

/// Why the connection ends.
enum Stop {
    /// Nobody asked anything, or nobody is there to read an answer.
    Quietly,
    /// It was told by an alert why.
    Alerted,
    /// The last answer has been sent.
    Answered,
    Refusing(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refusing(refusal)
    }
}

impl Conn<'_> {
    /// One request, handed over.
    fn turn(&mut self) -> Result<(), Stop> {
        let deadline = self.wait_for_first_byte()?;
        let mut scan = HeadScan::default();
        let span = loop {
            if let Some(span) = scan.go_on(&self.input)? {
                break span;
            }
            self.receive_more(HEAD_BYTES_MAX + GROWN_INPUT_BYTES, deadline)?;
        };
        let body_max = self.house.limits.max_body;
        let speaker;
        let shape = {
            let mut slots = [EMPTY_HEADER; HEADERS_MAX];
            let head = parse_head(&self.input[span.start..span.end], &mut slots, body_max)?;
            speaker = self.speaker(&head)?;
            match head.shape.body {
                Body::Length(length) if self.input.len() - span.end >= length => {
                    let end = span.end + length;
                    self.due = self.hand_over(&head, speaker, span.end, end)?;
                    self.forget(end);
                    return Ok(());
                }
                Body::Length(_) | Body::Chunked => head.shape,
            }
        };
        let end = self.receive_body(span, shape, deadline)?;
        let mut slots = [EMPTY_HEADER; HEADERS_MAX];
        let head = parse_head(&self.input[span.start..span.end], &mut slots, body_max)?;
        self.due = self.hand_over(&head, speaker, span.end, end)?;
        self.forget(end);
        Ok(())
    }

    /// Learns who has connected, and whether they may.
    fn arrive(&mut self, deadline: Instant) -> Result<(), Stop> {
        let peers = self.house.peers();
        let is_proxy = peers.trusted_proxies.contains(self.peer.ip());
        if is_proxy && peers.proxy_protocol {
            match self.ear.hear_proxy(&mut self.input, deadline) {
                Ok(source) => self.peer = source.unwrap_or(self.peer),
                Err(Unheard::NoHeader) => return Err(Refusal::NoProxyHeader.into()),
                Err(Unheard::Gone) => return Err(Stop::Quietly),
            }
        }
        self.speaks_for_others = is_proxy && !peers.proxy_protocol;
        if self.speaks_for_others {
            return Ok(());
        }
        self.admit(&peers, self.peer)
    }

    fn admit(&self, peers: &Peers, peer: SocketAddr) -> Result<(), Stop> {
        if peers.allow.admit(peer.ip()) {
            return Ok(());
        }
        log::debug!("{0}: {1} is not in {0}.allow", self.house.name, peer.ip());
        Err(Refusal::Forbidden.into())
    }

    /// Who says this, and whether they may: asked for each request, for a list may have changed.
    fn speaker(&self, head: &Head<'_, '_>) -> Result<SocketAddr, Stop> {
        let peers = self.house.peers();
        let mut speaker = self.peer;
        if self.speaks_for_others {
            let hop = self.peer.ip();
            let ip = forwarded_for(head.headers, hop, &peers.trusted_proxies);
            if ip != hop {
                speaker = SocketAddr::new(ip, 0);
            }
        }
        self.admit(&peers, speaker)?;
        Ok(speaker)
    }

    /// Waits until there is at least one byte of a request, and the one before is answered; returns when the whole of it
    /// must be here.
    fn wait_for_first_byte(&mut self) -> Result<Instant, Stop> {
        let limit = self.house.limits.request_deadline;
        if !self.kept {
            let deadline = self.guest.since + limit;
            if !self.house.guests.is_closing() {
                self.arrive(deadline)?;
            }
            if !self.input.is_empty() {
                return Ok(deadline); // it came with a proxy's header
            }
            // After the state is told: whoever closes looks at it after saying so, so one of us sees the other.
            let received = if self.house.guests.is_closing() {
                let now = self.ear.receive_now(&mut self.input);
                now.unwrap_or(Received::End)
            } else {
                self.ear.receive_until(&mut self.input, deadline)
            };
            return match received {
                Received::Bytes(_) => Ok(deadline),
                Received::End | Received::TimedOut => Err(Stop::Quietly),
                Received::Broken => Err(self.broken()),
            };
        }
        let mut came = Received::Bytes(self.input.len());
        if self.input.is_empty() && self.guest.exchange.may_wait_for_peer() {
            came = self.receive_next();
        }
        self.settle()?;
        match came {
            Received::Bytes(0) => self.wait_for_first_byte(),
            Received::Bytes(_) => {
                self.guest.has_begun();
                Ok(Instant::now() + limit)
            }
            Received::End | Received::TimedOut => Err(Stop::Quietly),
            Received::Broken => Err(self.broken()),
        }
    }

    /// The connection is gone, or what came over it is not TLS.
    #[cold]
    fn broken(&mut self) -> Stop {
        match self.ear.trouble.take() {
            None => Stop::Quietly,
            Some(Trouble::Clear) => Refusal::InTheClear.into(),
            Some(Trouble::Tls(error)) => {
                self.house.watcher.refused(Refusal::InTheClear.word());
                let (front, peer) = (self.house.name, self.guest.peer);
                log::debug!("{front}: TLS with {peer} failed: {error}");
                Stop::Alerted
            }
        }
    }

    /// Waits for the next request on a kept connection, of which the last may not be answered yet.
    fn receive_next(&mut self) -> Received {
        let most = self.house.idle_max.min(self.house.limits.answer_deadline);
        match self.ear.receive_waiting(&mut self.input, most) {
            None | Some(Received::TimedOut) => {}
            Some(received) => return received,
        }
        // Either the answer is long overdue, or the peer has been idle for a while; but not yet for long enough.
        match self.guest.exchange.written() {
            None => Received::TimedOut,
            Some(at) => self
                .ear
                .receive_until(&mut self.input, at + self.house.idle_max),
        }
    }

    /// Waits until the last request is answered, and writes what is left of the answer.
    fn settle(&mut self) -> Result<(), Stop> {
        match self.guest.exchange.settle(self.due) {
            Found::Written(_) => Ok(()),
            Found::Forfeited => Err(Refusal::Unanswered.into()),
            Found::Last => Err(Stop::Answered),
            Found::Left(rest, fate) => {
                if !self.send(&rest) {
                    return Err(Stop::Quietly);
                }
                if fate == Fate::Close {
                    return Err(Stop::Answered);
                }
                self.guest.waits(self.house.guests.epoch(), false);
                self.guest.exchange.all_written(Instant::now());
                self.house.guests.has_begun_to_wait(self.guest);
                Ok(())
            }
        }
    }

    /// Receives what there is, into a buffer that may grow to `whole` bytes.
    fn receive_more(&mut self, whole: usize, deadline: Instant) -> Result<(), Stop> {
        self.guest.has_begun();
        self.grow(whole)?;
        match self.ear.receive_until(&mut self.input, deadline) {
            Received::Bytes(_) => Ok(()),
            Received::Broken => Err(self.broken()),
            Received::End | Received::TimedOut if self.guest.is_gone() => Err(Stop::Quietly),
            // A stray empty line after the last request is no request.
            Received::End | Received::TimedOut if self.input == b"\r\n" => Err(Stop::Quietly),
            Received::End => Err(Refusal::CutShort.into()),
            Received::TimedOut => Err(Refusal::Slow(self.house.limits.request_deadline).into()),
        }
    }

    /// Makes the buffer larger if there is little room left in it. Doubling, so that memory follows what was really sent
    /// and not what was announced.
    fn grow(&mut self, whole: usize) -> Result<(), Stop> {
        let (len, capacity) = (self.input.len(), self.input.capacity());
        if capacity >= whole || capacity - len >= IDLE_INPUT_BYTES {
            return Ok(());
        }
        let grown = (capacity * 2).max(GROWN_INPUT_BYTES).min(whole);
        self.input
            .try_reserve_exact(grown - len)
            .map_err(|_| Stop::Refusing(Refusal::NoResources))
    }

    /// Receives the rest of the body; returns where it ends in the input.
    fn receive_body(
        &mut self,
        span: HeadSpan,
        shape: Shape,
        deadline: Instant,
    ) -> Result<usize, Stop> {
        if shape.expects_continue && self.input.len() == span.end {
            let by = Instant::now() + SEND_DEADLINE;
            if !self.guest.channel.send_until(reply::CONTINUE, by) {
                return Err(Stop::Quietly);
            }
        }
        match shape.body {
            Body::Length(length) => {
                let end = span.end + length;
                while self.input.len() < end {
                    self.receive_more(end, deadline)?;
                }
                Ok(end)
            }
            Body::Chunked => self.receive_chunks(span.end, deadline),
        }
    }

    fn receive_chunks(&mut self, start: usize, deadline: Instant) -> Result<usize, Stop> {
        let body_max = self.house.limits.max_body;
        let whole = start
            .saturating_add(body_max)
            .saturating_add(GROWN_INPUT_BYTES);
        let mut chunks = Chunks::new(body_max);
        let mut end = start;
        loop {
            let piece = &mut self.input[end..];
            let decoded = chunks.decode(piece)?;
            let next = end + decoded.consumed;
            end += decoded.kept;
            self.input.drain(end..next);
            if decoded.done {
                return Ok(end);
            }
            self.receive_more(whole, deadline)?;
        }
    }

    /// Hands the whole request over; the body lies between `body` and `end` of the input. Returns when the answer is due.
    fn hand_over(
        &self,
        head: &Head<'_, '_>,
        peer: SocketAddr,
        body: usize,
        end: usize,
    ) -> Result<Instant, Stop> {
        let is_ours = self.guest.is_whole();
        if self.house.guests.is_closing() {
            return Err(Refusal::Draining.into());
        }
        if !is_ours {
            return Err(Stop::Quietly);
        }
        let due = Instant::now() + self.house.limits.answer_deadline;
        self.guest.exchange.begin();
        let request = Request {
            method: head.method,
            target: &head.target,
            headers: head.headers,
            body: &self.input[body..end],
            peer,
        };
        let ticket = Ticket::new(Arc::clone(self.guest), Arc::clone(self.house), head.shape);
        self.house.handler.handle(&request, ticket);
        Ok(due)
    }

    /// Forgets the request that ended at `end` of the input.
    fn forget(&mut self, end: usize) {
        self.input.drain(..end);
        if self.input.capacity() > IDLE_INPUT_BYTES {
            self.input.shrink_to(IDLE_INPUT_BYTES);
        }
        self.ear.rest();
        self.kept = true;
    }

    fn send(&self, bytes: &[u8]) -> bool {
        let by = Instant::now() + SEND_DEADLINE;
        self.guest.channel.send_until(bytes, by)
    }

    /// Says no, and closes.
    fn refuse(&mut self, refusal: Refusal) {
        let mut output = Vec::new();
        self.house.refuse(&mut output, refusal);
        let by = Instant::now() + SEND_DEADLINE;
        let channel = &self.guest.channel;
        let sent = match refusal {
            Refusal::InTheClear => channel.send_plainly(&output, by),
            _ => channel.refuse_until(&output, refusal.alert(), by),
        };
        if sent {
            self.linger();
        }
    }

    /// Closes after the last answer; if the peer has sent more than we shall read, not at once.
    fn part(&mut self) {
        self.guest.channel.say_end();
        if self.input.is_empty() && self.ear.is_empty() {
            self.input.reserve(1);
            match receive_now(self.guest.channel.stream(), &mut self.input) {
                Some(Received::Bytes(_)) => {}
                Some(Received::End | Received::TimedOut | Received::Broken) | None => return,
            }
        }
        self.linger();
    }

    /// Ends our side and reads on for a moment: closing over unread input would be a reset, and could destroy the answer.
    fn linger(&mut self) {
        self.guest.lingers();
        if !self.guest.channel.end_sending() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        let mut drained = 0;
        while drained < LINGER_BYTES {
            self.input.clear();
            match receive_until(self.guest.channel.stream(), &mut self.input, deadline) {
                Received::Bytes(bytes) => drained += bytes,
                Received::End | Received::TimedOut | Received::Broken => return,
            }
        }
    }
}
