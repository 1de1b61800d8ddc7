//! A connection on a thread of its own: read a request whole, hand it over, answer, again.
//!
//! That is where everything is served that takes time. Between two requests a plain connection goes to the `poller`, if its
//! front has one, and the thread ends. Nothing here judges HTTP (`framing`) or knows what is answered (the handler).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use httparse::EMPTY_HEADER;

use super::SEND_DEADLINE;
use super::channel::{Ear, Trouble, Unheard};
use super::exchange::{Fate, Found, Stage};
use super::framing::{
    Body, Chunks, HEAD_BYTES_MAX, HEADERS_MAX, Head, HeadScan, HeadSpan, Shape, parse_head,
};
use super::guests::{Guest, Seat};
use super::house::House;
use super::refusal::Refusal;
use super::reply;
use super::socket::{Received, receive_now, receive_until};
use super::standing::{NotHanded, Standing};
use crate::thread::Crew;

/// What an idle connection keeps for input; most callbacks fit in it whole.
const IDLE_INPUT_BYTES: usize = 4 * 1024;

/// The least that a buffer grows to when a request does not fit.
const GROWN_INPUT_BYTES: usize = 16 * 1024;

/// How long a thread stays with a connection that others could wait for: who has sent one large body may send another.
/// Measured: a thread for each body of 64 KiB takes more of the processor than the body.
const STAY: Duration = Duration::from_secs(1);

/// How long, and for how many bytes, we read on after the last answer, so that closing does not destroy it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// A connection's stack, in bytes: its requests are judged on it, with JSON at a bounded depth and signatures.
/// Measured: 48 KiB are enough for a debug build, with the backtrace of a panic; the rest is for the handler.
const STACK_BYTES: usize = 256 * 1024;

/// Serves a connection that has just come: with others, if it can be, or on a thread of its own.
pub(super) fn receive(seat: Seat, house: &Arc<House>, crew: &Arc<Crew>) {
    let Some(guest) = seat.guest() else {
        return;
    };
    let mut standing = Standing::new(guest);
    let peers = house.peers();
    let says_for_whom = standing.introduce(&peers);
    if let Some(poller) = house.poller(guest)
        && !says_for_whom
        && (standing.speaks_for_others || peers.allow.admit(guest.peer.ip()))
    {
        standing.has_arrived = true;
        standing.whole_by = Some(guest.since + house.limits.request_deadline);
        return poller.watch(seat, standing);
    }
    start(seat, standing, house, crew);
}

/// Serves a connection on a thread of its own from now on.
pub(super) fn start(seat: Seat, standing: Standing, house: &Arc<House>, crew: &Crew) {
    let Some(guest) = seat.guest().map(Arc::clone) else {
        return;
    };
    let theirs = Arc::clone(house);
    let name = format!("{}-conn-{}", house.name, guest.number);
    let has_begun = !standing.input.is_empty();
    let started = crew.spawn(name, STACK_BYTES, move || serve(seat, standing, &theirs));
    if let Err(error) = started {
        if house.no_thread.lock().begins() {
            log::error!("{}: no thread for {}: {error}", house.name, guest.peer);
        }
        // To each request one answer: none behind the last, nor within one that has begun to go out.
        let asks = match guest.exchange.stage() {
            Stage::Clear => true,
            Stage::Written(_) => has_begun,
            Stage::Owed => guest.exchange.forfeit(),
            Stage::Sending | Stage::Left | Stage::Last => false,
        };
        if asks {
            house.turn_away(&guest.channel, Refusal::NoResources);
        }
    }
}

/// Serves whoever has `seat` until one of us closes, or there is nothing to do but wait.
fn serve(seat: Seat, standing: Standing, house: &Arc<House>) {
    let Some(guest) = seat.guest() else {
        return;
    };
    let mut conn = Conn {
        guest,
        house,
        ear: Ear::new(&guest.channel),
        settles_first: standing.is_kept && standing.input.is_empty(),
        standing,
        has_served: false,
    };
    if conn.standing.input.capacity() == conn.standing.input.len() {
        conn.standing.input.reserve(IDLE_INPUT_BYTES);
    }
    let standing = loop {
        match conn.turn() {
            Ok(()) => {}
            Err(Stop::Waits) => break conn.standing.at_rest(),
            Err(Stop::Quietly) => return guest.channel.say_end(),
            Err(Stop::Alerted) => return conn.linger(),
            Err(Stop::Answered) => return conn.part(),
            Err(Stop::Refusing(refusal)) => return conn.refuse(refusal),
        }
    };
    if let Some(poller) = house.poller(guest) {
        poller.watch(seat, standing);
    }
}

struct Conn<'a> {
    guest: &'a Arc<Guest>,
    house: &'a Arc<House>,
    ear: Ear<'a>,
    standing: Standing,
    /// There is nothing to be received before the last request is settled: that was found already.
    settles_first: bool,
    /// A request was handed over by this thread. Only after one does it give the connection back: a connection that the poller
    /// cannot wait for would else go to and fro between them, for nothing.
    has_served: bool,
}

/// Why the connection ends.
enum Stop {
    /// It does not: others can wait for it.
    Waits,
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

impl From<NotHanded> for Stop {
    fn from(why: NotHanded) -> Self {
        match why {
            NotHanded::Gone => Self::Quietly,
            NotHanded::Refused(refusal) => Self::Refusing(refusal),
        }
    }
}

impl Conn<'_> {
    /// One request, handed over.
    fn turn(&mut self) -> Result<(), Stop> {
        let deadline = match self.standing.whole_by {
            Some(by) if !self.standing.input.is_empty() => by,
            _ => self.wait_for_first_byte()?,
        };
        let mut scan = HeadScan::default();
        let span = loop {
            if let Some(span) = scan.go_on(&self.standing.input)? {
                break span;
            }
            self.receive_more(HEAD_BYTES_MAX + GROWN_INPUT_BYTES, deadline)?;
        };
        let body_max = self.house.limits.max_body;
        let speaker;
        let shape = {
            let mut slots = [EMPTY_HEADER; HEADERS_MAX];
            let head = parse_head(
                &self.standing.input[span.start..span.end],
                &mut slots,
                body_max,
            )?;
            speaker = self.standing.speaker(self.house, &head)?;
            match head.shape.body {
                Body::Length(length) if self.standing.input.len() - span.end >= length => {
                    let end = span.end + length;
                    self.standing.answer_due = self.hand_over(&head, speaker, span.end, end)?;
                    self.forget(end);
                    return Ok(());
                }
                Body::Length(_) | Body::Chunked => head.shape,
            }
        };
        let end = self.receive_body(span, shape, deadline)?;
        let mut slots = [EMPTY_HEADER; HEADERS_MAX];
        let head = parse_head(
            &self.standing.input[span.start..span.end],
            &mut slots,
            body_max,
        )?;
        self.standing.answer_due = self.hand_over(&head, speaker, span.end, end)?;
        self.forget(end);
        Ok(())
    }

    /// Learns who has connected, and whether they may.
    fn arrive(&mut self, deadline: Instant) -> Result<(), Stop> {
        let peers = self.house.peers();
        if self.standing.introduce(&peers) {
            match self.ear.hear_proxy(&mut self.standing.input, deadline) {
                Ok(source) => self.standing.peer = source.unwrap_or(self.standing.peer),
                Err(Unheard::NoHeader) => return Err(Refusal::NoProxyHeader.into()),
                Err(Unheard::Gone) => return Err(Stop::Quietly),
            }
        }
        if self.standing.speaks_for_others {
            return Ok(());
        }
        Standing::admit(self.house, &peers, self.standing.peer)?;
        Ok(())
    }

    /// Waits until there is at least one byte of a request, and the one before is answered; returns when the whole of it
    /// must be here.
    fn wait_for_first_byte(&mut self) -> Result<Instant, Stop> {
        let limit = self.house.limits.request_deadline;
        if !self.standing.is_kept {
            let deadline = self.guest.since + limit;
            if !self.standing.has_arrived && !self.house.guests.is_closing() {
                self.arrive(deadline)?;
                self.standing.has_arrived = true;
            }
            if !self.standing.input.is_empty() {
                return Ok(deadline); // it came with a proxy's header
            }
            // After the state is told: whoever closes looks at it after saying so, so one of us sees the other.
            let received = if self.house.guests.is_closing() {
                let now = self.ear.receive_now(&mut self.standing.input);
                now.unwrap_or(Received::End)
            } else {
                self.ear.receive_until(&mut self.standing.input, deadline)
            };
            return match received {
                Received::Bytes(_) => Ok(deadline),
                Received::End | Received::TimedOut => Err(Stop::Quietly),
                Received::Broken => Err(self.broken()),
            };
        }
        let mut came = Received::Bytes(self.standing.input.len());
        let settles_first = std::mem::take(&mut self.settles_first);
        if self.standing.input.is_empty()
            && !settles_first
            && self.guest.exchange.may_wait_for_peer()
        {
            came = match self.has_served && self.house.poller(self.guest).is_some() {
                true => self.receive_soon()?,
                false => self.receive_next(),
            };
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

    /// Waits for the next request for a moment, and then leaves that to others.
    fn receive_soon(&mut self) -> Result<Received, Stop> {
        let now = Instant::now();
        let until = (now + STAY.min(self.house.idle_max)).min(self.standing.answer_due.max(now));
        match self.ear.receive_until(&mut self.standing.input, until) {
            Received::TimedOut => Err(Stop::Waits),
            received => Ok(received),
        }
    }

    /// Waits for the next request on a kept connection, of which the last may not be answered yet.
    fn receive_next(&mut self) -> Received {
        let most = self.house.idle_max.min(self.house.limits.answer_deadline);
        match self.ear.receive_waiting(&mut self.standing.input, most) {
            None | Some(Received::TimedOut) => {}
            Some(received) => return received,
        }
        // Either the answer is long overdue, or the peer has been idle for a while; but not yet for long enough.
        match self.guest.exchange.stage() {
            Stage::Clear | Stage::Owed | Stage::Sending | Stage::Left | Stage::Last => {
                Received::TimedOut
            }
            Stage::Written(at) => self
                .ear
                .receive_until(&mut self.standing.input, at + self.house.idle_max),
        }
    }

    /// Waits until the last request is answered, and writes what is left of the answer.
    fn settle(&mut self) -> Result<(), Stop> {
        match self.guest.exchange.settle(self.standing.answer_due) {
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
        match self.ear.receive_until(&mut self.standing.input, deadline) {
            Received::Bytes(_) => Ok(()),
            Received::Broken => Err(self.broken()),
            Received::End | Received::TimedOut if self.guest.is_gone() => Err(Stop::Quietly),
            // A stray empty line after the last request is no request.
            Received::End | Received::TimedOut if self.standing.input == b"\r\n" => {
                Err(Stop::Quietly)
            }
            Received::End => Err(Refusal::CutShort.into()),
            Received::TimedOut => Err(Refusal::Slow(self.house.limits.request_deadline).into()),
        }
    }

    /// Makes the buffer larger if there is little room left in it. Doubling, so that memory follows what was really sent
    /// and not what was announced.
    fn grow(&mut self, whole: usize) -> Result<(), Stop> {
        let (len, capacity) = (self.standing.input.len(), self.standing.input.capacity());
        if capacity >= whole || capacity - len >= IDLE_INPUT_BYTES {
            return Ok(());
        }
        let grown = (capacity * 2).max(GROWN_INPUT_BYTES).min(whole);
        self.standing
            .input
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
        if shape.expects_continue && self.standing.input.len() == span.end {
            let by = Instant::now() + SEND_DEADLINE;
            if !self.guest.channel.send_until(reply::CONTINUE, by) {
                return Err(Stop::Quietly);
            }
        }
        match shape.body {
            Body::Length(length) => {
                let end = span.end + length;
                while self.standing.input.len() < end {
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
            let piece = &mut self.standing.input[end..];
            let decoded = chunks.decode(piece)?;
            let next = end + decoded.consumed;
            end += decoded.kept;
            self.standing.input.drain(end..next);
            if decoded.done {
                return Ok(end);
            }
            self.receive_more(whole, deadline)?;
        }
    }

    /// Hands over the request whose body lies between `body` and `end` of the input.
    fn hand_over(
        &self,
        head: &Head<'_, '_>,
        peer: SocketAddr,
        body: usize,
        end: usize,
    ) -> Result<Instant, Stop> {
        let (guest, house) = (self.guest, self.house);
        let due = self
            .standing
            .hand_over(guest, house, head, peer, body, end)?;
        Ok(due)
    }

    /// Forgets the request that ended at `end` of the input.
    fn forget(&mut self, end: usize) {
        self.standing.forget(end);
        if self.standing.input.capacity() > IDLE_INPUT_BYTES {
            self.standing.input.shrink_to(IDLE_INPUT_BYTES);
        }
        self.ear.rest();
        self.has_served = true;
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
        if self.standing.input.is_empty() && self.ear.is_empty() {
            self.standing.input.reserve(1);
            match receive_now(self.guest.channel.stream(), &mut self.standing.input) {
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
            self.standing.input.clear();
            match receive_until(
                self.guest.channel.stream(),
                &mut self.standing.input,
                deadline,
            ) {
                Received::Bytes(bytes) => drained += bytes,
                Received::End | Received::TimedOut | Received::Broken => return,
            }
        }
    }
}
