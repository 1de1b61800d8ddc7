//! What backends say to each other: SEND to one of them, PUB to a channel, SUB and UNSUB.
//!
//! None of it is a notification: nothing is stored, and nothing is repeated. A backend learns what became of a frame if the
//! frame had a `ref`, and of every failure in any case. A backend that says more than `tcp.data_rate` is refused. One that
//! does not read loses what others say to it, and is told how much.

use std::borrow::Cow;
use std::sync::Arc;

use super::mailbox::Mailbox;
use super::state::{DataPurpose, IncomingData, Phase, Session};
use super::subscription::{EventWriter, SubscriptionState, TokenBucket};
use crate::bus::{Channel, Data, Event, Reach, Ready};
use crate::envelope::{Receipts, Reply};
use crate::notification::{BackendId, NotificationId, Receipt, unix_ms};
use crate::wire::{self, FrameError, Line};

/// The longest `ref` that is repeated, in bytes, unescaped: escaped, three times as long, it still fits a line.
const REF_BYTES_MAX: usize = 64;

/// What a frame costs of `tcp.data_rate` besides its data, in bytes: about what it takes to carry it to other nodes.
const FRAME_COST_BYTES: usize = 256;

/// The `ref` of a frame. Left out when too long, not cut: half a reference could be another frame's.
fn reference<'a>(line: &Line<'a>) -> Option<Cow<'a, str>> {
    line.text("ref").filter(|text| text.len() <= REF_BYTES_MAX)
}

/// The backend that a result is for.
#[derive(Clone)]
struct Asker {
    mailbox: Arc<Mailbox>,
    reference: Option<Arc<str>>,
}

impl Asker {
    fn ok(&self) {
        let Some(reference) = &self.reference else {
            return;
        };
        self.mailbox
            .answer(|out| wire::line(out, "OK").arg("ref", reference).end());
    }

    fn fail(&self, code: &str, words: &str) {
        self.mailbox.answer(|out| {
            let mut line = wire::line(out, "ERR").arg("code", code);
            if let Some(reference) = &self.reference {
                line = line.arg("ref", reference);
            }
            line.arg("msg", words).end();
        });
    }
}

/// For SEND.
impl Receipts for Asker {
    fn receipt(&self, _id: NotificationId, receipt: Receipt) {
        match receipt {
            Receipt::Ack => self.ok(),
            Receipt::Busy => self.fail("busy", "the backend has not read what it was sent before"),
            Receipt::Unreachable => {
                self.fail("offline", "it is not on this node, and the bus is down");
            }
            Receipt::Gone | Receipt::Nack(_) | Receipt::Expired => {
                self.fail("offline", "no session has this id");
            }
        }
    }
}

impl Session {
    fn asker(&self, reference: Option<Arc<str>>) -> Asker {
        Asker {
            mailbox: Arc::clone(&self.mailbox),
            reference,
        }
    }

    #[inline(never)] // keeps its stack out of the frames beneath an ACK
    pub fn send(&mut self, line: &Line<'_>) {
        match line.text("to").map(|to| BackendId::parse(&to)) {
            Some(Ok(to)) => self.begin(line, DataPurpose::Send(to)),
            _ => self.refuse(line, "bad-frame", "SEND needs to=<backend id> and data"),
        }
    }

    #[inline(never)] // keeps its stack out of the frames beneath an ACK
    pub fn publish(&mut self, line: &Line<'_>) {
        match line.text("ch").map(|ch| Channel::parse(&ch)) {
            Some(Ok(channel)) => self.begin(line, DataPurpose::Pub(channel)),
            Some(Err(bad)) => self.refuse(line, "bad-frame", &bad.to_string()),
            None => self.refuse(line, "bad-frame", "PUB needs ch=<channel> and data"),
        }
    }

    /// Refuses one frame. Its data is skipped.
    pub fn refuse(&mut self, line: &Line<'_>, code: &str, words: &str) {
        let reference = reference(line);
        let about = reference.as_deref().map(|text| ("ref", text));
        self.say_error(code, about.as_slice(), words);
    }

    fn begin(&mut self, line: &Line<'_>, what: DataPurpose) {
        let Some(wanted) = line.data_bytes else {
            return self.refuse(line, "bad-frame", "the data is missing");
        };
        if !self.affords(line, wanted) {
            return;
        }
        self.skip = 0;
        self.gathering = Some(Box::new(IncomingData {
            what,
            reference: reference(line).map(|text| text.as_ref().into()),
            bytes: Vec::new(),
            wanted,
        }));
    }

    /// Whether the backend may say this much now. If not, it is told so.
    fn affords(&mut self, line: &Line<'_>, bytes: usize) -> bool {
        let (rate, max_body) = (self.context.tcp.data_rate, self.context.max_body);
        // The largest frame is allowed at any rate, only not often.
        let most = rate.max(max_body) + FRAME_COST_BYTES;
        let bucket = self
            .bucket
            .get_or_insert_with(|| TokenBucket::full(most, self.now));
        let affords = bucket.take(bytes + FRAME_COST_BYTES, rate, most, self.now);
        if !affords {
            let words = format!("more than tcp.data_rate ({rate} bytes a second) at once");
            self.refuse(line, "limit", &words);
        }
        affords
    }

    /// Takes data from `bytes`; returns how many bytes.
    pub fn gather(&mut self, bytes: &[u8]) -> usize {
        let Some(gathering) = &mut self.gathering else {
            return 0;
        };
        let missing = gathering.wanted - gathering.bytes.len();
        let some = missing.min(bytes.len());
        gathering.bytes.extend_from_slice(&bytes[..some]);
        if gathering.bytes.len() < gathering.wanted {
            return some;
        }
        match bytes.get(some) {
            None => return some,
            Some(b'\n') => {}
            Some(_) => {
                self.gathering = None;
                self.break_off_at(FrameError::UnendedData);
                return bytes.len();
            }
        }
        if let Some(whole) = self.gathering.take() {
            self.pass_on(*whole);
        }
        some + 1
    }

    fn pass_on(&mut self, said: IncomingData) {
        let asker = self.asker(said.reference);
        let Some(from) = self.backend.clone() else {
            return;
        };
        match said.what {
            DataPurpose::Send(to) => {
                let data = Data {
                    from,
                    to,
                    bytes: said.bytes,
                };
                let reply = Reply::new(self.context.mint.mint(unix_ms()), Arc::new(asker));
                match self.context.registry.tell(&data) {
                    Receipt::Gone => self.context.bus.carry(data, reply),
                    told => reply.settle(told),
                }
            }
            DataPurpose::Pub(channel) => {
                let fails = asker.clone();
                let told = Box::new(move |heard: Result<u64, _>| match heard {
                    Ok(_) => asker.ok(),
                    Err(down) => asker.fail("offline", &format!("{down}; nobody has heard this")),
                });
                if let Err(bad) = self.context.events.emit(&channel, &said.bytes, told) {
                    fails.fail("too-big", &bad.to_string());
                }
            }
        }
    }

    #[inline(never)] // keeps its stack out of the frames beneath an ACK
    pub fn subscribe(&mut self, line: &Line<'_>) {
        let channel = match line.text("ch").map(|ch| Channel::parse(&ch)) {
            Some(Ok(channel)) => channel,
            Some(Err(bad)) => return self.refuse(line, "bad-frame", &bad.to_string()),
            None => return self.refuse(line, "bad-frame", "SUB needs ch=<channel>"),
        };
        let once = match line.raw("once") {
            None | Some("0") => false,
            Some("1") => true,
            Some(_) => return self.refuse(line, "bad-frame", "once is 0 or 1"),
        };
        if matches!(self.phase, Phase::Leaving(_)) {
            return self.refuse(
                line,
                "offline",
                "this session is ending and hears nothing new",
            );
        }
        if !self.affords(line, 0) {
            return;
        }
        self.subscriptions.remove(&channel, &self.context.events); // a second SUB replaces the first
        let max = self.context.tcp.channels;
        if self.subscriptions.len() >= max {
            let words = format!("a session listens to tcp.channels ({max}) at most");
            return self.refuse(line, "limit", &words);
        }
        let asker = self.asker(reference(line).map(|text| text.as_ref().into()));
        let state = Arc::new(SubscriptionState::default());
        let writer = EventWriter {
            mailbox: Arc::downgrade(&self.mailbox),
            channel: channel.clone(),
            once,
            state: Arc::clone(&state),
            metrics: self.context.metrics.bus(),
        };
        let listener = Box::new(move |event: Event<'_>| writer.write(event));
        let later = asker.clone();
        let ready: Ready = Box::new(move || later.ok());
        let (id, reach) = self
            .context
            .events
            .add(&channel, once, listener, Some(ready));
        self.subscriptions.add(channel, id, state);
        match reach {
            Reach::Soon => {}
            Reach::Settled => asker.ok(),
            // The listener has told the backend so already, for the channel.
            Reach::Down if asker.reference.is_none() => {}
            Reach::Down => asker.fail(
                "offline",
                "the bus is down; the channel is heard once it is back, and OK says so",
            ),
        }
    }

    #[inline(never)] // keeps its stack out of the frames beneath an ACK
    pub fn unsubscribe(&mut self, line: &Line<'_>) {
        match line.text("ch").map(|ch| Channel::parse(&ch)) {
            Some(Ok(channel)) => {
                self.subscriptions.remove(&channel, &self.context.events);
                let reference = reference(line).map(|text| text.as_ref().into());
                self.asker(reference).ok();
            }
            Some(Err(bad)) => self.refuse(line, "bad-frame", &bad.to_string()),
            None => self.refuse(line, "bad-frame", "UNSUB needs ch=<channel>"),
        }
    }
}
