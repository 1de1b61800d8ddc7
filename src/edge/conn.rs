//! One connection's life: read a request whole, hand it over, answer, again.
//!
//! A request that arrives at once and whole costs one receive and one send. Nothing here judges HTTP (`framing`) or knows
//! what is answered (the handler).

use std::net::Shutdown;
use std::time::{Duration, Instant};

use httparse::EMPTY_HEADER;

use super::framing::{
    Body, Chunks, HEAD_BYTES_MAX, HEADERS_MAX, Head, HeadScan, HeadSpan, Shape, parse_head,
};
use super::front::House;
use super::guests::Guest;
use super::refusal::Refusal;
use super::reply::{self, After};
use super::socket::{Received, receive_now, receive_until, receive_waiting, send_until};
use super::{Reply, Request, SEND_DEADLINE};

/// What an idle connection keeps for input; most callbacks fit in it whole.
const IDLE_INPUT_BYTES: usize = 4 * 1024;

/// What an idle connection keeps for output.
const IDLE_OUTPUT_BYTES: usize = 1024;

/// The least that a buffer grows to when a request does not fit.
const GROWN_INPUT_BYTES: usize = 16 * 1024;

/// How long, and for how many bytes, we read on after the last answer, so that closing does not destroy it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Serves `guest` until one of us closes.
pub(super) fn serve(guest: &Guest, house: &House) {
    let mut conn = Conn {
        guest,
        house,
        input: Vec::with_capacity(IDLE_INPUT_BYTES),
        output: Vec::new(),
        kept: false,
        times_out: false,
    };
    loop {
        match conn.turn() {
            Ok(Next::Again) => {}
            Ok(Next::Close) | Err(Stop::Quietly) => return,
            Ok(Next::Linger) => return conn.linger(),
            Err(Stop::Refusing(refusal)) => {
                house.refuse(&mut conn.output, refusal);
                if conn.send() {
                    conn.linger();
                }
                return;
            }
        }
    }
}

struct Conn<'a> {
    guest: &'a Guest,
    house: &'a House,
    /// What was received and not yet served. Never without spare capacity when something is received into it.
    input: Vec<u8>,
    output: Vec<u8>,
    /// A request was served: what follows is a kept connection's.
    kept: bool,
    /// The socket's own receive timeout is set.
    times_out: bool,
}

/// After an answer.
enum Next {
    Again,
    Close,
    /// Close, but there is unread input.
    Linger,
}

/// Why there is no answer from the handler.
enum Stop {
    /// Nobody asked anything, or nobody is there to read an answer.
    Quietly,
    Refusing(Refusal),
}

impl From<Refusal> for Stop {
    fn from(refusal: Refusal) -> Self {
        Self::Refusing(refusal)
    }
}

impl Conn<'_> {
    /// One request and its answer.
    fn turn(&mut self) -> Result<Next, Stop> {
        let deadline = self.wait_for_first_byte()?;
        let mut scan = HeadScan::default();
        let span = loop {
            if let Some(span) = scan.go_on(&self.input)? {
                break span;
            }
            self.receive_more(HEAD_BYTES_MAX + GROWN_INPUT_BYTES, deadline)?;
        };
        let body_max = self.house.limits.max_body;
        let shape = {
            let mut slots = [EMPTY_HEADER; HEADERS_MAX];
            let head = parse_head(&self.input[span.start..span.end], &mut slots, body_max)?;
            match head.shape.body {
                Body::Length(length) if self.input.len() - span.end >= length => {
                    let end = span.end + length;
                    let reply = self.hand_over(&head, span.end, end)?;
                    let shape = head.shape;
                    return Ok(self.answer(&reply, shape, end));
                }
                Body::Length(_) | Body::Chunked => head.shape,
            }
        };
        let end = self.receive_body(span, shape, deadline)?;
        let mut slots = [EMPTY_HEADER; HEADERS_MAX];
        let head = parse_head(&self.input[span.start..span.end], &mut slots, body_max)?;
        let reply = self.hand_over(&head, span.end, end)?;
        Ok(self.answer(&reply, shape, end))
    }

    /// Waits until there is at least one byte of a request; returns when the whole of it must be here.
    fn wait_for_first_byte(&mut self) -> Result<Instant, Stop> {
        let limit = self.house.limits.request_deadline;
        let idle_max = self.house.idle_max;
        let is_begun = !self.input.is_empty();
        if self.kept {
            self.guest.waits(self.house.guests.epoch(), is_begun);
            self.house.guests.tell_newcomer();
        }
        if is_begun {
            return Ok(Instant::now() + limit);
        }
        let stream = &self.guest.stream;
        // After the state is told: whoever closes looks at it after saying so, so one of us sees the other.
        let received = if self.house.guests.is_closing() {
            receive_now(stream, &mut self.input).unwrap_or(Received::End)
        } else if !self.kept {
            let deadline = self.guest.since + limit;
            if let Received::Bytes(_) = receive_until(stream, &mut self.input, deadline) {
                return Ok(deadline);
            }
            return Err(Stop::Quietly);
        } else {
            if !self.times_out {
                self.times_out = stream.set_read_timeout(Some(idle_max)).is_ok();
            }
            if self.times_out {
                receive_waiting(stream, &mut self.input)
            } else {
                receive_until(stream, &mut self.input, Instant::now() + idle_max)
            }
        };
        match received {
            Received::Bytes(_) => Ok(Instant::now() + limit),
            Received::End | Received::TimedOut | Received::Broken => Err(Stop::Quietly),
        }
    }

    /// Receives what there is, into a buffer that may grow to `whole` bytes.
    fn receive_more(&mut self, whole: usize, deadline: Instant) -> Result<(), Stop> {
        self.guest.has_begun();
        self.grow(whole)?;
        match receive_until(&self.guest.stream, &mut self.input, deadline) {
            Received::Bytes(_) => Ok(()),
            Received::Broken => Err(Stop::Quietly),
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
            if !send_until(&self.guest.stream, reply::CONTINUE, &[], by) {
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

    /// Hands the whole request over; the body lies between `body` and `end` of the input.
    fn hand_over(&self, head: &Head<'_, '_>, body: usize, end: usize) -> Result<Reply, Stop> {
        let is_ours = self.guest.is_whole();
        if self.house.guests.is_closing() {
            return Err(Refusal::Draining.into());
        }
        if !is_ours {
            return Err(Stop::Quietly);
        }
        Ok(self.house.handler.handle(&Request {
            method: head.method,
            target: &head.target,
            headers: head.headers,
            body: &self.input[body..end],
            peer: self.guest.peer,
        }))
    }

    /// Sends the handler's reply; the request ended at `end` of the input.
    fn answer(&mut self, reply: &Reply, shape: Shape, end: usize) -> Next {
        let keep = shape.keep_alive && !self.house.guests.is_closing();
        let after = match (keep, shape.http_1_0) {
            (true, false) => After::Keep,
            (true, true) => After::SayKeep,
            (false, _) => After::SayClose,
        };
        reply::render(&mut self.output, reply, after, shape.is_head);
        if !self.send() {
            return Next::Close;
        }
        let is_more = self.input.len() > end;
        self.input.drain(..end);
        if !keep {
            return if is_more { Next::Linger } else { self.peek() };
        }
        if self.input.capacity() > IDLE_INPUT_BYTES {
            self.input.shrink_to(IDLE_INPUT_BYTES);
        }
        if self.output.capacity() > IDLE_OUTPUT_BYTES {
            self.output = Vec::new();
        }
        self.kept = true;
        Next::Again
    }

    fn send(&self) -> bool {
        let by = Instant::now() + SEND_DEADLINE;
        send_until(&self.guest.stream, &self.output, &[], by)
    }

    /// Whether the peer has sent more than we shall read.
    fn peek(&mut self) -> Next {
        match receive_now(&self.guest.stream, &mut self.input) {
            Some(Received::Bytes(_)) => Next::Linger,
            _ => Next::Close,
        }
    }

    /// Ends our side and reads on for a moment: closing over unread input would be a reset, and could destroy the answer.
    fn linger(&mut self) {
        self.guest.lingers();
        if self.guest.stream.shutdown(Shutdown::Write).is_err() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        let mut drained = 0;
        while drained < LINGER_BYTES {
            self.input.clear();
            match receive_until(&self.guest.stream, &mut self.input, deadline) {
                Received::Bytes(bytes) => drained += bytes,
                Received::End | Received::TimedOut | Received::Broken => return,
            }
        }
    }
}
