//! What backends say to each other: SEND to one of them, PUB to whoever listens, SUB and UNSUB.
//!
//! None of it is a notification: nothing is stored, and nothing is said twice. A backend is told what became of what it
//! said if it gave a `ref`, and of every failure in any case. One that says more than `tcp.data_rate` is refused, and one
//! that does not read loses what others say to it, and is told how much.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Instant;

use super::mailbox::Mailbox;
use super::outgoing::Outgoing;
use super::registry::NotTold;
use super::serve::{Phase, Session};
use crate::bus::events::ListenerId;
use crate::bus::{Channel, Data, Event, Events, Reach, Ready};
use crate::envelope::{Receipts, Reply};
use crate::metrics::BusMetrics;
use crate::notification::{BackendId, NotificationId, Receipt, unix_ms};
use crate::wire::{self, FrameError, Line};

/// The longest `ref` that is said back, in bytes, unescaped: three times as long when escaped, it still fits a line.
const REF_BYTES_MAX: usize = 64;

/// What a frame costs of `tcp.data_rate` besides its data, in bytes: about what it takes to carry it to other nodes.
const FRAME_COST_BYTES: usize = 256;

/// The `ref` of a frame. Left out when too long, not cut: half a reference could be another frame's.
pub fn reference<'a>(line: &Line<'a>) -> Option<Cow<'a, str>> {
    line.text("ref").filter(|text| text.len() <= REF_BYTES_MAX)
}

/// A session's part in the talk; most have none.
#[derive(Default)]
pub struct Talk {
    gathering: Option<Box<Gathering>>,
    listening: Vec<Listening>,
    /// Bytes that may be said at once; `None`: nothing was said yet.
    purse: Option<Purse>,
}

/// Data that has not come whole.
struct Gathering {
    what: What,
    reference: Option<Arc<str>>,
    bytes: Vec<u8>,
    wanted: usize,
}

enum What {
    Send(BackendId),
    Pub(Channel),
}

struct Listening {
    channel: Channel,
    id: ListenerId,
    ear: Arc<Ear>,
}

/// What a listener and its session both know.
#[derive(Default)]
struct Ear {
    /// It listened once, and has heard, or would have.
    spent: AtomicBool,
    /// Events that found no room since the session was last told of such.
    lost: AtomicU32,
}

/// What a session may still say in this second.
struct Purse {
    bytes: usize,
    filled: Instant,
}

impl Talk {
    /// Whether data is being read.
    pub fn is_gathering(&self) -> bool {
        self.gathering.is_some()
    }

    /// Listens to nothing any more.
    pub fn fall_silent(&mut self, events: &Events) {
        for listening in self.listening.drain(..) {
            events.remove_listener(listening.id);
        }
    }

    /// Writes what the socket takes, and if there is room again, which channels have lost events.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&self, outgoing: &mut Outgoing, now: Instant) -> io::Result<()> {
        outgoing.flush(now)?;
        let lost = |listening: &Listening| listening.ear.lost.load(Ordering::Relaxed) > 0;
        let room = outgoing.open && !outgoing.link.is_backed_up();
        if room && self.listening.iter().any(lost) {
            outgoing.link.frame(now, |out| {
                for listening in &self.listening {
                    listening.ear.own_up(&listening.channel, out);
                }
            });
            outgoing.flush(now)?;
        }
        Ok(())
    }

    /// Takes `bytes` out of the purse, which holds `most` and gets `rate` a second.
    fn spend(&mut self, bytes: usize, rate: usize, most: usize, now: Instant) -> bool {
        let purse = self.purse.get_or_insert(Purse {
            bytes: most,
            filled: now,
        });
        let since = now.saturating_duration_since(purse.filled).as_secs_f64();
        let earned = (since * rate as f64) as usize;
        // Small steps would be rounded away.
        if earned > 0 {
            purse.bytes = most.min(purse.bytes.saturating_add(earned));
            purse.filled = now;
        }
        let enough = bytes <= purse.bytes;
        if enough {
            purse.bytes -= bytes;
        }
        enough
    }
}

impl Ear {
    fn own_up(&self, channel: &Channel, out: &mut Vec<u8>) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let words = format!("{lost} events were not read in time and are lost");
            wire::line(out, "ERR")
                .arg("code", "busy")
                .arg("ch", channel.as_str())
                .arg("msg", &words)
                .end();
        }
    }
}

/// Where what became of something is said.
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

    #[inline(never)] // its stack is not needed beneath an ACK
    pub(super) fn send(&mut self, line: &Line<'_>) {
        match line.text("to").map(|to| BackendId::parse(&to)) {
            Some(Ok(to)) => self.begin(line, What::Send(to)),
            _ => self.refuse(line, "bad-frame", "SEND needs to=<backend id> and data"),
        }
    }

    #[inline(never)] // its stack is not needed beneath an ACK
    pub(super) fn publish(&mut self, line: &Line<'_>) {
        match line.text("ch").map(|ch| Channel::parse(&ch)) {
            Some(Ok(channel)) => self.begin(line, What::Pub(channel)),
            Some(Err(bad)) => self.refuse(line, "bad-frame", &bad.to_string()),
            None => self.refuse(line, "bad-frame", "PUB needs ch=<channel> and data"),
        }
    }

    /// Refuses one frame; its data is read past.
    fn refuse(&mut self, line: &Line<'_>, code: &str, words: &str) {
        let reference = reference(line);
        let about = reference.as_deref().map(|text| ("ref", text));
        self.complain(code, about.as_slice(), words);
    }

    fn begin(&mut self, line: &Line<'_>, what: What) {
        let Some(wanted) = line.data_bytes else {
            return self.refuse(line, "bad-frame", "the data is missing");
        };
        if !self.affords(line, wanted) {
            return;
        }
        self.skip = 0;
        self.talk.gathering = Some(Box::new(Gathering {
            what,
            reference: reference(line).map(|text| text.as_ref().into()),
            bytes: Vec::new(),
            wanted,
        }));
    }

    /// Whether the session may say this much now; if not, it is told so.
    fn affords(&mut self, line: &Line<'_>, bytes: usize) -> bool {
        let (rate, max_body) = (self.house.tcp.data_rate, self.house.max_body);
        // The largest frame is allowed at any rate, only not often.
        let most = rate.max(max_body) + FRAME_COST_BYTES;
        let affords = self
            .talk
            .spend(bytes + FRAME_COST_BYTES, rate, most, self.now);
        if !affords {
            let words = format!("more than tcp.data_rate ({rate} bytes a second) at once");
            self.refuse(line, "limit", &words);
        }
        affords
    }

    /// Takes data from `bytes`; says how many.
    pub(super) fn gather(&mut self, bytes: &[u8]) -> usize {
        let Some(gathering) = &mut self.talk.gathering else {
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
                self.talk.gathering = None;
                self.break_off_at(FrameError::UnendedData);
                return bytes.len();
            }
        }
        if let Some(whole) = self.talk.gathering.take() {
            self.say_to_others(*whole);
        }
        some + 1
    }

    fn say_to_others(&mut self, said: Gathering) {
        let asker = self.asker(said.reference);
        let Some(from) = self.backend.clone() else {
            return;
        };
        match said.what {
            What::Send(to) => {
                let data = Data {
                    from,
                    to,
                    bytes: said.bytes,
                };
                let reply = Reply::new(self.house.mint.mint(unix_ms()), Arc::new(asker));
                match self.house.registry.tell(&data) {
                    Ok(()) => reply.settle(Receipt::Ack),
                    Err(NotTold::Full) => reply.settle(Receipt::Busy),
                    Err(NotTold::Absent) => self.house.bus.carry(data, reply),
                }
            }
            What::Pub(channel) => {
                let fails = asker.clone();
                let told = Box::new(move |heard: Result<u64, _>| match heard {
                    Ok(_) => asker.ok(),
                    Err(down) => asker.fail("offline", &format!("{down}; nobody has heard this")),
                });
                if let Err(bad) = self.house.events.emit(&channel, &said.bytes, told) {
                    fails.fail("too-big", &bad.to_string());
                }
            }
        }
    }

    #[inline(never)] // its stack is not needed beneath an ACK
    pub(super) fn subscribe(&mut self, line: &Line<'_>) {
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
        self.forget(&channel); // again is anew
        let max = self.house.tcp.channels;
        if self.talk.listening.len() >= max {
            let words = format!("a session listens to tcp.channels ({max}) at most");
            return self.refuse(line, "limit", &words);
        }
        let asker = self.asker(reference(line).map(|text| text.as_ref().into()));
        let ear = Arc::new(Ear::default());
        let hearing = Hearing {
            mailbox: Arc::downgrade(&self.mailbox),
            channel: channel.clone(),
            once,
            ear: Arc::clone(&ear),
            metrics: self.house.metrics.bus(),
        };
        let listener = Box::new(move |event: Event<'_>| hearing.hear(event));
        let later = asker.clone();
        let ready: Ready = Box::new(move || later.ok());
        let (id, reach) = self.house.events.add(&channel, once, listener, Some(ready));
        self.talk.listening.push(Listening { channel, id, ear });
        match reach {
            Reach::Soon => {}
            Reach::Settled => asker.ok(),
            // The listener has said so already, for the channel.
            Reach::Down if asker.reference.is_none() => {}
            Reach::Down => asker.fail(
                "offline",
                "the bus is down; the channel is heard once it is back, and OK says so",
            ),
        }
    }

    #[inline(never)] // its stack is not needed beneath an ACK
    pub(super) fn unsubscribe(&mut self, line: &Line<'_>) {
        match line.text("ch").map(|ch| Channel::parse(&ch)) {
            Some(Ok(channel)) => {
                self.forget(&channel);
                let reference = reference(line).map(|text| text.as_ref().into());
                self.asker(reference).ok();
            }
            Some(Err(bad)) => self.refuse(line, "bad-frame", &bad.to_string()),
            None => self.refuse(line, "bad-frame", "UNSUB needs ch=<channel>"),
        }
    }

    /// Listens to `channel` no more, nor counts those that listened once and have heard.
    fn forget(&mut self, channel: &Channel) {
        let events = &self.house.events;
        self.talk.listening.retain(|listening| {
            if listening.channel == *channel {
                events.remove_listener(listening.id.clone());
                return false;
            }
            let ear = &listening.ear;
            !ear.spent.load(Ordering::Relaxed) || ear.lost.load(Ordering::Relaxed) > 0
        });
    }
}

/// A session's ear on one channel.
struct Hearing {
    // Weak: the listener must not keep a session's socket open.
    mailbox: std::sync::Weak<Mailbox>,
    channel: Channel,
    once: bool,
    ear: Arc<Ear>,
    metrics: BusMetrics,
}

impl Hearing {
    fn hear(&self, event: Event<'_>) {
        let Some(mailbox) = self.mailbox.upgrade() else {
            return;
        };
        let channel = self.channel.as_str();
        match event {
            Event::Message(payload) => {
                self.ear.spent.fetch_or(self.once, Ordering::Relaxed);
                let told = mailbox.tell(|out| {
                    self.ear.own_up(&self.channel, out);
                    wire::line(out, "EVENT")
                        .arg("ch", channel)
                        .end_with_data(payload.bytes().len());
                    out.extend_from_slice(payload.bytes());
                    out.push(b'\n');
                });
                if told {
                    self.metrics.event_sent();
                } else {
                    self.metrics.event_lost();
                    if self.ear.lost.fetch_add(1, Ordering::Relaxed) == 0 {
                        mailbox.ring(); // it may have room by now, and says so when it has
                    }
                }
            }
            Event::Down(why) => {
                mailbox.answer(|out| {
                    wire::line(out, "ERR")
                        .arg("code", "offline")
                        .arg("ch", channel)
                        .arg(
                            "msg",
                            &format!("{why}; events of other nodes are not heard"),
                        )
                        .end();
                });
            }
            Event::Up => {
                mailbox.answer(|out| wire::line(out, "OK").arg("ch", channel).end());
            }
        }
    }
}
