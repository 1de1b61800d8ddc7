//! What a backend says, and what its session does: one function for each verb.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::end::End;
use super::hello::{self, CREDIT_MAX, Hello};
use super::mailbox::Command;
use super::outgoing::InFlight;
use super::registry::Registered;
use super::state::{LINGER, Phase, Session};
use crate::bus::{Reach, Topic};
use crate::notification::{Again, Nack, NotificationId, Receipt};
use crate::wire::{self, FrameError, Line};

/// How long a backend waits for OK at most. Usually the bus says earlier that it is up or down.
const ATTACH_MAX: Duration = Duration::from_secs(5);

/// The longest NACK reason that is kept, in bytes.
const REASON_BYTES_MAX: usize = 200;

/// A NACK's delay is at most this long: no provider waits longer for anything.
const NACK_DELAY_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

impl Session {
    /// Does what the whole lines of `bytes` say; returns how many bytes they are.
    pub fn consume(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        while at < bytes.len() {
            if matches!(self.phase, Phase::Leaving(leaving) if !leaving.is_listening) {
                return bytes.len();
            }
            if matches!(self.phase, Phase::Attaching { .. }) {
                break;
            }
            if self.gathering.is_some() {
                at += self.gather(&bytes[at..]);
                continue;
            }
            if self.skip > 0 {
                let past = self.skip.min(bytes.len() - at);
                self.skip -= past;
                at += past;
                if self.skip == 0 && bytes[at - 1] != b'\n' {
                    self.break_off_at(FrameError::UnendedData);
                }
                continue;
            }
            match Line::find(&bytes[at..]) {
                Ok(None) => break,
                Err(error) => self.break_off_at(error),
                Ok(Some((line, used))) => {
                    at += used;
                    self.obey(&line);
                }
            }
        }
        at
    }

    /// Does what was received while OK had to wait.
    pub fn consume_rest(&mut self) {
        let bytes = std::mem::take(&mut self.inbound);
        self.take_in(bytes);
    }

    /// Does what `bytes` say.
    pub fn take_in(&mut self, mut bytes: Vec<u8>) {
        let used = self.consume(&bytes);
        // Kept only while it holds a part of a line.
        if used < bytes.len() {
            bytes.drain(..used);
            self.inbound = bytes;
        }
    }

    fn obey(&mut self, line: &Line<'_>) {
        if let Some(bytes) = line.data_bytes {
            if bytes > self.context.max_body {
                let words = format!(
                    "{bytes} bytes of data are over the limit of {}",
                    self.context.max_body
                );
                return self.break_off("too-big", &words);
            }
            self.skip = bytes + 1; // unless the verb has a use for it
        }
        if matches!(self.phase, Phase::Greeting { .. }) {
            return self.greet(line);
        }
        match line.verb {
            "ACK" => self.acknowledged(line),
            "NACK" => self.refused(line),
            "TOUCH" => self.touched(line),
            "RDY" => match line.raw("max").and_then(hello::credit) {
                Some(credit) => self.mailbox.outgoing().credit = credit,
                None => {
                    let words = format!("RDY needs max=0 to max={CREDIT_MAX}");
                    self.say_error("limit", &[], &words);
                }
            },
            "PING" => self.say(|out| wire::line(out, "PONG").end()),
            "PONG" => {}
            "BYE" => self.leave(End::Bye, self.context.tcp.ack_timeout),
            "HELLO" => self.break_off("bad-hello", "HELLO was said already"),
            "SEND" => self.send(line),
            "PUB" => self.publish(line),
            "SUB" => self.subscribe(line),
            "UNSUB" => self.unsubscribe(line),
            _ => self.refuse(line, "unknown-verb", "this relay does not know the verb"),
        }
    }

    #[inline(never)] // keeps its stack out of the frames beneath an ACK
    fn greet(&mut self, line: &Line<'_>) {
        let access = Arc::clone(&self.context.access.read());
        match hello::judge(line, &access) {
            Err(refusal) => self.refuse_hello(&refusal),
            Ok(_) if !self.context.newcomers.remove(self.number) => self.make_room(),
            Ok(hello) => self.welcome(hello),
        }
    }

    fn welcome(&mut self, hello: Hello) {
        let Hello { id, credit } = hello;
        self.backend = Some(id.clone());
        let context = Arc::clone(&self.context);
        if self.has_peer_closed() {
            context.metrics.session_opened();
            // Registered, it would end the backend's live session, perhaps on another node. It can still SEND and PUB what
            // it sent along.
            return self.open(credit);
        }
        let registered = context.registry.register(&id, self.number, &self.mailbox);
        // Not before: who sees the session counted may send to it.
        context.metrics.session_opened();
        self.unannounced = Some(registered);
        if registered == Registered::Superseded {
            return self.leave(End::Takeover, LINGER);
        }
        // Before the bus is asked: its answer may come at once.
        let until = self.now + ATTACH_MAX;
        self.phase = Phase::Attaching { until, credit };
        let mailbox = Arc::clone(&self.mailbox);
        let ready = Box::new(move || mailbox.command(Command::Reachable));
        match context.bus.look_again(Topic::Backend(id), Some(ready)) {
            Reach::Soon => {}
            // Served from here all the same, while the bus is down.
            Reach::Settled | Reach::Down => self.open(credit),
        }
    }

    /// Whether the peer has closed its side already.
    fn has_peer_closed(&self) -> bool {
        let gone = PollFlags::RDHUP | PollFlags::HUP | PollFlags::ERR;
        let mut socket = [PollFd::new(&self.socket, PollFlags::RDHUP)];
        let polled = poll(&mut socket, Some(&Timespec::default()));
        polled.is_ok() && socket[0].revents().intersects(gone)
    }

    /// Says OK: from now on what is for this backend comes here.
    #[inline(never)] // keeps its stack out of the frames beneath an ACK
    pub fn open(&mut self, credit: usize) {
        let Some(id) = &self.backend else { return };
        self.phase = Phase::Serving;
        let context = &self.context;
        let session = self.number;
        let mut outgoing = self.mailbox.outgoing();
        outgoing.credit = credit;
        outgoing.session = session;
        outgoing.is_open = true;
        outgoing.link.frame(self.now, |out| {
            wire::line(out, "OK")
                .arg("id", id.as_str())
                .arg("node", &context.instance)
                .plain("session", session)
                .seconds("heartbeat", context.tcp.heartbeat)
                .plain("max_body", context.max_body)
                .end();
        });
    }

    /// The id of the MSG that `line` names.
    fn named(&mut self, line: &Line<'_>) -> Option<NotificationId> {
        let id = line.text("id");
        let id = id.as_deref().and_then(NotificationId::parse);
        if id.is_none() {
            self.break_off("bad-frame", "id=<the id of a MSG> is missing or malformed");
        }
        id
    }

    /// The MSG that `line` names, taken out of what is in flight.
    fn answered(&mut self, line: &Line<'_>) -> Option<InFlight> {
        let id = self.named(line)?;
        let found = self.mailbox.outgoing().answered(id);
        if found.is_none() {
            self.say_unknown(id);
        }
        found
    }

    fn say_unknown(&mut self, id: NotificationId) {
        let id = id.to_string();
        let words = "no MSG with this id is in flight on this session";
        self.say_error("unknown-id", &[("id", &id)], words);
    }

    fn acknowledged(&mut self, line: &Line<'_>) {
        if let Some(flying) = self.answered(line) {
            self.context
                .metrics
                .ack_after(self.now.saturating_duration_since(flying.sent));
            flying.reply.settle(Receipt::Ack);
        }
    }

    #[inline(never)] // keeps its stack out of the frames beneath an ACK
    fn refused(&mut self, line: &Line<'_>) {
        let again = match line.raw("delay").map(nack_delay) {
            None => Again::Whenever,
            Some(Some(again)) => again,
            Some(None) => {
                let words = "delay is -1, or seconds from 0 to 604800";
                return self.break_off("bad-frame", words);
            }
        };
        if let Some(flying) = self.answered(line) {
            let reason = line.text("reason").map(|text| cut(&text).into());
            flying.reply.settle(Receipt::Nack(Nack { again, reason }));
        }
    }

    fn touched(&mut self, line: &Line<'_>) {
        if let Some(id) = self.named(line) {
            let found = self.mailbox.outgoing().touch(id, self.now);
            if !found {
                self.say_unknown(id);
            }
        }
    }
}

fn nack_delay(text: &str) -> Option<Again> {
    if text == "-1" {
        return Some(Again::Never);
    }
    let plain = text.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    let seconds: f64 = text.parse().ok().filter(|_| plain)?;
    let delay = Duration::try_from_secs_f64(seconds).ok()?;
    (delay <= NACK_DELAY_MAX).then_some(Again::After(delay))
}

fn cut(text: &str) -> &str {
    let mut end = text.len().min(REASON_BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}
