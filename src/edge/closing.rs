//! Why a connection ends, and how: what it is told, and that its peer can read that.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::SEND_DEADLINE;
use super::context::EdgeContext;
use super::refusal::{Refusal, RefusedRequest};
use super::socket::{Received, receive_now, receive_until};
use super::table::Connection;

/// How long, and for how many bytes, the thread reads on after the last answer, so that closing does not destroy it.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: usize = 256 * 1024;

/// Why the connection ends.
pub enum CloseReason {
    /// No request came, or the peer is not there to read an answer.
    Quietly,
    /// An alert told the peer why.
    Alerted,
    /// The last answer has been sent.
    Answered,
    /// The peer is answered with this refusal.
    Refusing(Refusal),
}

impl From<Refusal> for CloseReason {
    fn from(refusal: Refusal) -> Self {
        Self::Refusing(refusal)
    }
}

/// A connection whose last answer has gone out, or never will.
pub struct Closing<'a> {
    pub connection: &'a Connection,
    pub context: &'a EdgeContext,
    /// Nothing is received and not opened yet.
    pub is_read: bool,
    pub peer: IpAddr,
    /// Received and not handed over.
    pub input: Vec<u8>,
}

impl Closing<'_> {
    /// Closes it.
    pub fn close(mut self, stop: CloseReason) {
        match stop {
            CloseReason::Quietly => self.connection.channel.say_end(),
            CloseReason::Alerted => self.linger(),
            CloseReason::Answered => self.close_after_answer(),
            CloseReason::Refusing(refusal) => self.refuse(refusal),
        }
    }

    fn refuse(&mut self, refusal: Refusal) {
        let context = self.context;
        let output = context.refusal(refusal);
        // A node that stops refuses whoever comes.
        if refusal != Refusal::Draining {
            let (peer, name) = (self.peer, context.table.name);
            let request = RefusedRequest::of(&self.input, peer, refusal, name);
            context.handler.refused(&request);
        }
        let by = Instant::now() + SEND_DEADLINE;
        let channel = &self.connection.channel;
        let sent = match refusal {
            Refusal::InTheClear => channel.send_plainly(&output, by),
            _ => channel.refuse_until(&output, refusal.alert(), by),
        };
        if sent {
            self.linger();
        }
    }

    /// Closes after the last answer; if the peer has sent more than will be read, not at once.
    fn close_after_answer(&mut self) {
        self.connection.channel.say_end();
        if self.input.is_empty() && self.is_read {
            self.input.reserve(1);
            match receive_now(self.connection.channel.stream(), &mut self.input) {
                Some(Received::Bytes(_)) => {}
                Some(Received::End | Received::TimedOut | Received::Broken) | None => return,
            }
        }
        self.linger();
    }

    /// Ends this side and reads on for a moment: closing over unread input would be a reset, and could destroy the answer.
    fn linger(&mut self) {
        self.connection.lingers();
        if !self.connection.channel.end_sending() {
            return;
        }
        let deadline = Instant::now() + LINGER;
        let mut drained = 0;
        while drained < LINGER_BYTES {
            self.input.clear();
            match receive_until(self.connection.channel.stream(), &mut self.input, deadline) {
                Received::Bytes(bytes) => drained += bytes,
                Received::End | Received::TimedOut | Received::Broken => return,
            }
        }
    }
}
