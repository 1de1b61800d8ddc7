//! Events: `on`, `once`, `emit`, `remove_listener`, by channel, across nodes.
//!
//! An event is heard by whoever listens at that moment, on any node, and is kept for nobody. Listeners also hear when the
//! bus fails and when it is back, since what is emitted in between does not reach them.
//!
//! ```
//! use payrelay::bus::{Channel, Event, Events};
//!
//! let events = Events::alone();
//! let paid = Channel::parse("paid")?;
//! let listener = events.on(&paid, |event| match event {
//!     Event::Message(payload) => println!("{:?}", payload.json()),
//!     Event::Down(why) => println!("deaf: {why}"),
//!     Event::Up => println!("hearing again"),
//! });
//! events.emit_json(&paid, &serde_json::json!({"order": 7}), Box::new(|heard| assert_eq!(heard, Ok(1))))?;
//! assert!(events.remove_listener(listener));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use super::{Bus, MemoryBus, Reach, Ready, Sessions, Stamp, Told, Topic};
use crate::envelope::{Envelope, Reply};
use crate::notification::BackendId;

/// The longest name of a channel, in bytes: with it, a line of the protocol has room for the other keys.
pub const CHANNEL_BYTES_MAX: usize = 128;

/// The largest payload, in bytes, unless [`Events::new`] is told another.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

/// A channel's name: 1 to 128 of `A-Z a-z 0-9 . _ - : /`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Channel(Arc<str>);

/// Why a text is no channel's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadChannel {
    /// It has no bytes, or more than [`CHANNEL_BYTES_MAX`]; the number is how many.
    Length(usize),
    /// It has a byte outside `A-Z a-z 0-9 . _ - : /`; the number is that byte's place, from 0.
    BadByte(usize),
}

impl fmt::Display for BadChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Length(bytes) => write!(
                f,
                "a channel's name has 1 to {CHANNEL_BYTES_MAX} bytes, this one {bytes}"
            ),
            Self::BadByte(at) => write!(
                f,
                "a channel's name is made of A-Z a-z 0-9 . _ - : / only; byte {} is something else",
                at + 1
            ),
        }
    }
}

impl std::error::Error for BadChannel {}

impl Channel {
    /// Takes `text` as a channel's name.
    ///
    /// # Errors
    /// It is none.
    pub fn parse(text: &str) -> Result<Self, BadChannel> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || b"._-:/".contains(&b);
        if !(1..=CHANNEL_BYTES_MAX).contains(&text.len()) {
            return Err(BadChannel::Length(text.len()));
        }
        match text.bytes().position(|b| !allowed(b)) {
            Some(at) => Err(BadChannel::BadByte(at)),
            None => Ok(Self(text.into())),
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What was emitted, byte for byte.
#[derive(Clone, Copy)]
pub struct Payload<'a>(&'a [u8]);

/// Shows how many bytes, not which: they may be a payment's.
impl fmt::Debug for Payload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl<'a> Payload<'a> {
    /// The bytes.
    pub fn bytes(&self) -> &'a [u8] {
        self.0
    }

    /// The value, if the bytes are JSON.
    pub fn json(&self) -> Option<serde_json::Value> {
        serde_json::from_slice(self.0).ok()
    }
}

/// What a listener hears.
#[derive(Clone, Copy, Debug)]
pub enum Event<'a> {
    /// Somebody emitted this on the listener's channel.
    Message(Payload<'a>),
    /// The bus has failed, and why: what others emit from now on is not heard.
    Down(&'a str),
    /// The bus is back, and the channel is heard again. What was emitted in between is lost.
    Up,
}

/// What hears events. It is called on the bus's own thread: it must not wait.
pub type Listener = Box<dyn Fn(Event<'_>) + Send + Sync>;

/// Which listener; for [`Events::remove_listener`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId {
    channel: Channel,
    number: u64,
}

/// Why an event was not emitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotEmitted {
    /// It is larger than this many bytes.
    TooBig(usize),
    /// The value has no form in JSON.
    NotJson,
}

impl fmt::Display for NotEmitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooBig(max) => write!(f, "an event has at most {max} bytes"),
            Self::NotJson => write!(f, "the value has no form in JSON"),
        }
    }
}

impl std::error::Error for NotEmitted {}

/// The library's and the sessions' way to events.
#[derive(Clone)]
pub struct Events {
    hub: Arc<Hub>,
    bus: Arc<dyn Bus>,
    payload_bytes_max: usize,
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Events({:?})", self.hub)
    }
}

impl Events {
    /// Events over `bus`, whose listeners stand in `hub`.
    pub fn new(hub: Arc<Hub>, bus: Arc<dyn Bus>, payload_bytes_max: usize) -> Self {
        Self {
            hub,
            bus,
            payload_bytes_max,
        }
    }

    /// Events within this process only.
    pub fn alone() -> Self {
        let hub = Arc::new(Hub::default());
        let bus = MemoryBus::new(
            "alone".into(),
            Arc::new(Nobody),
            Arc::clone(&hub),
            Arc::new(()),
        );
        Self::new(hub, Arc::new(bus), PAYLOAD_BYTES_MAX)
    }

    /// Calls `listener` for every event on `channel`, and when the bus fails and is back. If it is down already, the
    /// listener hears that at once, from this thread.
    pub fn on(
        &self,
        channel: &Channel,
        listener: impl Fn(Event<'_>) + Send + Sync + 'static,
    ) -> ListenerId {
        self.add(channel, false, Box::new(listener), None).0
    }

    /// The same, for the first event only: then the listener is removed, before it is called.
    pub fn once(
        &self,
        channel: &Channel,
        listener: impl Fn(Event<'_>) + Send + Sync + 'static,
    ) -> ListenerId {
        self.add(channel, true, Box::new(listener), None).0
    }

    /// [`Events::on`] or [`Events::once`] for those who want to know when other nodes' events reach the listener: at once,
    /// or when `ready` is called.
    pub fn add(
        &self,
        channel: &Channel,
        once: bool,
        listener: Listener,
        ready: Option<Ready>,
    ) -> (ListenerId, Reach) {
        let (id, news) = self.hub.add(channel, once, listener);
        if let Some(news) = news {
            news.tell();
        }
        let reach = self.bus.look_again(Topic::Event(channel.clone()), ready);
        (id, reach)
    }

    /// Removes a listener; says whether it was there. A call that another thread has begun may still come to its end.
    pub fn remove_listener(&self, id: ListenerId) -> bool {
        let removed = self.hub.remove(&id);
        if removed {
            self.bus.look_again(Topic::Event(id.channel), None);
        }
        removed
    }

    /// Emits `payload` on `channel`; `told` hears on how many nodes there was a listener, or that the bus is down (then
    /// nobody heard). Does not wait.
    ///
    /// # Errors
    /// The payload is too big; `told` is dropped.
    pub fn emit(&self, channel: &Channel, payload: &[u8], told: Told) -> Result<(), NotEmitted> {
        if payload.len() > self.payload_bytes_max {
            return Err(NotEmitted::TooBig(self.payload_bytes_max));
        }
        self.bus.emit(channel, payload, told);
        Ok(())
    }

    /// [`Events::emit`] for a value, which listeners get back with [`Payload::json`].
    ///
    /// # Errors
    /// The value cannot be written as JSON, or is too big.
    pub fn emit_json(
        &self,
        channel: &Channel,
        value: &impl Serialize,
        told: Told,
    ) -> Result<(), NotEmitted> {
        let payload = serde_json::to_vec(value).map_err(|_| NotEmitted::NotJson)?;
        self.emit(channel, &payload, told)
    }
}

/// The listeners of this node. The lock is never held while one is called.
#[derive(Default)]
pub struct Hub {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_channel: HashMap<Channel, Vec<Arc<Entry>>>,
    /// The number of the next listener.
    next: u64,
    /// Why the bus is down, if it is.
    down: Option<Arc<str>>,
    /// How often it has failed or come back.
    changes: u64,
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Hub({} channels)", self.channels().len())
    }
}

struct Entry {
    number: u64,
    once: bool,
    removed: AtomicBool,
    /// The last change of the bus that the listener knows of. Two threads may bring news at once; the lock is held over
    /// the call, for it is what keeps the older from coming last.
    knows: Mutex<u64>,
    listener: Listener,
}

impl Entry {
    fn call(&self, event: Event<'_>) {
        if self.removed.load(Ordering::Relaxed) {
            return;
        }
        // Called by the thread that serves all others too: one listener's panic is its own.
        if catch_unwind(AssertUnwindSafe(|| (self.listener)(event))).is_err() {
            log::error!("a listener of an event panicked; it stays");
        }
    }
}

/// That the bus has failed, or is back, still to be told to listeners.
#[must_use = "somebody wants to know"]
pub struct News {
    change: u64,
    down: Option<Arc<str>>,
    listeners: Vec<Arc<Entry>>,
}

impl News {
    /// Tells each, unless it has heard of something later.
    pub fn tell(self) {
        let event = self.down.as_deref().map_or(Event::Up, Event::Down);
        for entry in self.listeners {
            let mut knows = entry.knows.lock();
            if *knows < self.change {
                *knows = self.change;
                entry.call(event);
            }
        }
    }
}

impl Hub {
    /// The news are for the new listener: a failure that began before it came.
    fn add(&self, channel: &Channel, once: bool, listener: Listener) -> (ListenerId, Option<News>) {
        let mut table = self.table.lock();
        let number = table.next;
        table.next += 1;
        let missed = u64::from(table.down.is_some());
        let entry = Arc::new(Entry {
            number,
            once,
            removed: AtomicBool::new(false),
            knows: Mutex::new(table.changes - missed),
            listener,
        });
        let news = table.down.clone().map(|why| News {
            change: table.changes,
            down: Some(why),
            listeners: vec![Arc::clone(&entry)],
        });
        let list = table.by_channel.entry(channel.clone()).or_default();
        list.push(entry);
        let id = ListenerId {
            channel: channel.clone(),
            number,
        };
        (id, news)
    }

    fn remove(&self, id: &ListenerId) -> bool {
        let mut table = self.table.lock();
        let Some(list) = table.by_channel.get_mut(&id.channel) else {
            return false;
        };
        let Some(at) = list.iter().position(|entry| entry.number == id.number) else {
            return false;
        };
        let entry = list.remove(at);
        if list.is_empty() {
            table.by_channel.remove(&id.channel);
        }
        drop(table);
        entry.removed.store(true, Ordering::Relaxed);
        true
    }

    /// Whether anybody listens to `channel`.
    pub fn has(&self, channel: &Channel) -> bool {
        self.table.lock().by_channel.contains_key(channel)
    }

    /// Every channel that somebody listens to.
    pub fn channels(&self) -> Vec<Channel> {
        self.table.lock().by_channel.keys().cloned().collect()
    }

    /// Calls the listeners of `channel` in the order they came; says whether there was one.
    pub fn dispatch(&self, channel: &Channel, payload: &[u8]) -> bool {
        let hearing = {
            let mut table = self.table.lock();
            let Some(list) = table.by_channel.get_mut(channel) else {
                return false;
            };
            let hearing = list.clone();
            // Under the lock: of two events at the same moment only one finds it.
            list.retain(|entry| !entry.once);
            if list.is_empty() {
                table.by_channel.remove(channel);
            }
            hearing
        };
        for entry in &hearing {
            entry.call(Event::Message(Payload(payload)));
        }
        true
    }

    /// Notes that the bus is down and why, or up again. To be called in the order in which that happens; the news are for
    /// every listener of every channel, and told when no lock is held.
    pub fn turn(&self, down: Option<&str>) -> News {
        let mut table = self.table.lock();
        table.changes += 1;
        table.down = down.map(Into::into);
        News {
            change: table.changes,
            down: table.down.clone(),
            listeners: table.by_channel.values().flatten().cloned().collect(),
        }
    }
}

/// No sessions at all.
struct Nobody;

impl Sessions for Nobody {
    fn hand_over(&self, _envelope: Box<Envelope>) -> bool {
        false
    }

    fn pass_on(&self, _data: &super::Data, _reply: Reply) -> bool {
        false
    }

    fn stamp(&self, _backend: &BackendId) -> Option<Stamp> {
        None
    }

    fn stamps(&self) -> Vec<(BackendId, Stamp)> {
        Vec::new()
    }

    fn witness(&self, _stamp: Stamp) {}

    fn yield_to_newer(&self, _backend: &BackendId, _stamp: Stamp) -> Vec<Box<Envelope>> {
        Vec::new()
    }
}
