//! The thread of one provider connection: reads a request whole, checks its framing, hands it over, and reads the next.
//!
//! It never waits for a backend. The answer is written by the thread that learns the outcome (see `pending`); this thread finishes
//! what the socket did not take. Nothing here judges HTTP (`framing`) or knows what is answered (the handler).

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use httparse::EMPTY_HEADER;

use super::channel::{ReadError, Reader};
use super::closing::{CloseReason, Closing};
use super::context::EdgeContext;
use super::framing::{
    Body, Chunks, Framing, HEAD_BYTES_MAX, HEADERS_MAX, Head, HeadScan, HeadSpan, parse_head,
};
use super::peer::Peer;
use super::pending::{Answered, Persistence};
use super::refusal::Refusal;
use super::responder::Responder;
use super::socket::Received;
use super::table::{Connection, ConnectionGuard};
use super::{HttpRequest, SEND_DEADLINE, reply};
use crate::log_once::LogOnce;

/// What an idle connection keeps for input, in bytes; most callbacks fit in it whole.
const IDLE_INPUT_BYTES: usize = 4 * 1024;

/// The least that the buffer grows to when a request does not fit, in bytes.
const GROWN_INPUT_BYTES: usize = 16 * 1024;

/// A connection's stack, in bytes: without a pool its requests are judged on it, with JSON at a bounded depth and signatures.
/// Measured: 48 KiB are enough for a debug build, with the backtrace of a panic; the rest is for the handler.
pub const STACK_BYTES: usize = 256 * 1024;

/// Serves the connection of `guard` until one side ends it.
pub fn serve(guard: &ConnectionGuard, context: &EdgeContext) {
    let Some(connection) = guard.connection() else {
        return;
    };
    let mut thread = ConnectionThread {
        connection,
        context,
        reader: Reader::new(&connection.channel),
        peer: Peer::new(connection.peer),
        input: Vec::with_capacity(IDLE_INPUT_BYTES),
        is_kept: false,
        answer_due: None,
    };
    let stop = loop {
        if let Err(stop) = thread.serve_one() {
            break stop;
        }
    };
    thread.end(stop);
}

struct ConnectionThread<'a> {
    connection: &'a Arc<Connection>,
    context: &'a EdgeContext,
    reader: Reader<'a>,
    peer: Peer,
    /// Received and not yet handed over. Never without spare capacity when something is received into it.
    input: Vec<u8>,
    /// A request was handed over; what follows is a kept connection's.
    is_kept: bool,
    /// When the last answer must have gone out; `None`: it has, or no request was handed over yet.
    answer_due: Option<Instant>,
}

/// What came of looking at a request.
enum Step {
    /// It was handed over, and ended here in the input.
    HandedOver(usize),
    /// Its head says that there is more of it, of this shape.
    BodyMissing(Framing),
}

impl ConnectionThread<'_> {
    /// Receives one request and hands it over.
    fn serve_one(&mut self) -> Result<(), CloseReason> {
        let deadline = self.wait_for_first_byte()?;
        let mut scan = HeadScan::default();
        let span = loop {
            if let Some(span) = scan.go_on(&self.input)? {
                break span;
            }
            self.receive_more(HEAD_BYTES_MAX + GROWN_INPUT_BYTES, deadline)?;
        };
        let end = match self.hand_over_from_input(span, None)? {
            Step::HandedOver(end) => end,
            Step::BodyMissing(shape) => {
                let end = self.receive_body(span, shape, deadline)?;
                self.hand_over_from_input(span, Some(end))?;
                end
            }
        };
        self.forget(end);
        Ok(())
    }

    /// Hands the request over whose head lies at `span`, if its body is here; `body_end` says where, once it was received.
    fn hand_over_from_input(
        &mut self,
        span: HeadSpan,
        body_end: Option<usize>,
    ) -> Result<Step, CloseReason> {
        // Taken out, so that the head may borrow from it while the last answer is waited for.
        let input = std::mem::take(&mut self.input);
        let step = self.hand_over_from(&input, span, body_end);
        self.input = input;
        step
    }

    fn hand_over_from(
        &mut self,
        input: &[u8],
        span: HeadSpan,
        body_end: Option<usize>,
    ) -> Result<Step, CloseReason> {
        let mut slots = [EMPTY_HEADER; HEADERS_MAX];
        let head = &input[span.start..span.end];
        let head = parse_head(head, &mut slots, self.context.limits.max_body)?;
        let end = match (body_end, head.shape.body) {
            (Some(end), _) => end,
            (None, Body::Length(length)) if input.len() - span.end >= length => span.end + length,
            (None, Body::Length(_) | Body::Chunked) => return Ok(Step::BodyMissing(head.shape)),
        };
        let peer = self.peer.client(&head, self.context)?;
        self.settle()?;
        self.hand_over(&head, peer, &input[span.end..end])?;
        Ok(Step::HandedOver(end))
    }

    /// Waits until there is at least one byte of a request; returns when the whole of it must be here.
    fn wait_for_first_byte(&mut self) -> Result<Instant, CloseReason> {
        let limit = self.context.limits.request_deadline;
        if !self.is_kept {
            return self.wait_for_first_request(self.connection.since + limit);
        }
        if !self.input.is_empty() {
            return Ok(Instant::now() + limit); // the peer sent it behind the last request
        }
        if !self.connection.answer.may_read() {
            self.settle()?; // a part of the answer is left
        }
        match self.receive_next() {
            Received::Bytes(_) => Ok(Instant::now() + limit),
            Received::End | Received::TimedOut => {
                // A peer that has ended its sending still gets its answer.
                self.settle()?;
                Err(CloseReason::Quietly)
            }
            Received::Broken => {
                self.settle()?;
                Err(self.broken())
            }
        }
    }

    fn wait_for_first_request(&mut self, deadline: Instant) -> Result<Instant, CloseReason> {
        let (reader, input) = (&mut self.reader, &mut self.input);
        self.peer.arrive(self.context, reader, input, deadline)?;
        if !self.input.is_empty() {
            return Ok(deadline); // it came with a proxy's header
        }
        match self.reader.receive_until(&mut self.input, deadline) {
            Received::Bytes(_) => Ok(deadline),
            Received::End | Received::TimedOut => Err(CloseReason::Quietly),
            Received::Broken => Err(self.broken()),
        }
    }

    /// The connection is gone, or what came over it is not TLS.
    #[cold]
    fn broken(&mut self) -> CloseReason {
        match self.reader.error.take() {
            None => CloseReason::Quietly,
            Some(ReadError::Clear) => Refusal::InTheClear.into(),
            Some(ReadError::Tls(error, offer)) => {
                static NO_AGREEMENT: LogOnce = LogOnce::new();
                let table = &self.context.table;
                table.watcher.refused(Refusal::InTheClear.word());
                let (name, peer) = (table.name, self.connection.peer);
                match offer {
                    Some(offer) => {
                        NO_AGREEMENT.warn(format_args!("{name}: no TLS with {peer}: {offer}"));
                    }
                    None => log::debug!("{name}: TLS with {peer} failed: {error}"),
                }
                CloseReason::Alerted
            }
        }
    }

    /// Waits for the next request on a kept connection, whose last may not be answered yet.
    fn receive_next(&mut self) -> Received {
        let context = self.context;
        let most = context.limits.idle_max.min(context.limits.answer_deadline);
        match self.reader.receive_waiting(&mut self.input, most) {
            None | Some(Received::TimedOut) => {}
            Some(received) => return received,
        }
        // Either the answer is long overdue, or the peer has been idle for a while; but not yet for long enough.
        match self.connection.answer.answered_at() {
            None => Received::TimedOut,
            Some(at) => self
                .reader
                .receive_until(&mut self.input, at + context.limits.idle_max),
        }
    }

    /// Waits until the last request is answered, and writes what is left of the answer.
    fn settle(&mut self) -> Result<(), CloseReason> {
        let Some(due) = self.answer_due.take() else {
            return Ok(());
        };
        match self.connection.answer.wait(due) {
            Answered::At(_) => Ok(()),
            Answered::Expired => Err(Refusal::Unanswered.into()),
            Answered::Closed => Err(CloseReason::Answered),
            Answered::Unfinished(rest, persistence) => {
                if !self.send(&rest) {
                    return Err(CloseReason::Quietly);
                }
                if persistence == Persistence::Close {
                    return Err(CloseReason::Answered);
                }
                let now = Instant::now();
                self.connection.waits(now);
                self.connection.answer.finished(now);
                self.context.table.has_begun_to_wait(self.connection);
                Ok(())
            }
        }
    }

    /// Receives what there is, into a buffer that may grow to `whole` bytes.
    fn receive_more(&mut self, whole: usize, deadline: Instant) -> Result<(), CloseReason> {
        self.settle()?;
        self.connection.has_begun();
        self.grow(whole)?;
        match self.reader.receive_until(&mut self.input, deadline) {
            Received::Bytes(_) => Ok(()),
            Received::Broken => Err(self.broken()),
            Received::End | Received::TimedOut if self.connection.is_gone() => {
                Err(CloseReason::Quietly)
            }
            // A stray empty line after the last request is no request.
            Received::End | Received::TimedOut if self.input == b"\r\n" => {
                Err(CloseReason::Quietly)
            }
            Received::End => Err(Refusal::CutShort.into()),
            Received::TimedOut => Err(Refusal::Slow(self.context.limits.request_deadline).into()),
        }
    }

    /// Makes the buffer larger if there is little room left in it. Doubling, so that memory follows what was really sent
    /// and not what was announced.
    fn grow(&mut self, whole: usize) -> Result<(), CloseReason> {
        let (len, capacity) = (self.input.len(), self.input.capacity());
        if capacity >= whole || capacity - len >= IDLE_INPUT_BYTES {
            return Ok(());
        }
        let grown = (capacity * 2).max(GROWN_INPUT_BYTES).min(whole);
        self.input
            .try_reserve_exact(grown - len)
            .map_err(|_| CloseReason::Refusing(Refusal::NoResources))
    }

    /// Receives the rest of the body; returns where it ends in the input.
    fn receive_body(
        &mut self,
        span: HeadSpan,
        shape: Framing,
        deadline: Instant,
    ) -> Result<usize, CloseReason> {
        if shape.expects_continue && self.input.len() == span.end {
            self.settle()?;
            if !self.send(reply::CONTINUE) {
                return Err(CloseReason::Quietly);
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

    fn receive_chunks(&mut self, start: usize, deadline: Instant) -> Result<usize, CloseReason> {
        let body_max = self.context.limits.max_body;
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

    /// Hands over a whole request.
    fn hand_over(
        &mut self,
        head: &Head<'_, '_>,
        peer: SocketAddr,
        body: &[u8],
    ) -> Result<(), CloseReason> {
        let context = self.context;
        let is_ours = self.connection.is_whole();
        if context.table.is_closing() {
            return Err(Refusal::Draining.into());
        }
        if !is_ours {
            return Err(CloseReason::Quietly); // evicted
        }
        self.answer_due = Some(Instant::now() + context.limits.answer_deadline);
        self.is_kept = true;
        let request = HttpRequest {
            method: head.method,
            target: &head.target,
            headers: head.headers,
            body,
            peer,
        };
        let responder = Responder::new(Arc::clone(self.connection), head.shape);
        context.handler.handle(&request, responder);
        Ok(())
    }

    /// Forgets the request that ended at `end` of the input.
    fn forget(&mut self, end: usize) {
        self.input.drain(..end);
        if self.input.capacity() > IDLE_INPUT_BYTES {
            self.input.shrink_to(IDLE_INPUT_BYTES);
        }
        self.reader.rest();
    }

    fn send(&self, bytes: &[u8]) -> bool {
        let by = Instant::now() + SEND_DEADLINE;
        self.connection.channel.send_until(bytes, by)
    }

    /// Ends the connection. The last answer goes out before anything else is said.
    fn end(mut self, stop: CloseReason) {
        let stop = match stop {
            CloseReason::Refusing(refusal) => self.settle().err().unwrap_or(refusal.into()),
            other => other,
        };
        let closing = Closing {
            connection: self.connection,
            context: self.context,
            is_read: self.reader.is_empty(),
            peer: self.peer.address.ip(),
            input: self.input,
        };
        closing.close(stop);
    }
}
