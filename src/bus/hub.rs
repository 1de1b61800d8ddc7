//! The listeners of this node, by channel; and what they are called with.

use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use super::channel::Channel;

/// What was emitted, byte for byte.
#[derive(Clone, Copy)]
pub struct EventPayload<'a>(&'a [u8]);

/// Shows how many bytes, not which: they may be a payment's.
impl fmt::Debug for EventPayload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Payload({} bytes)", self.0.len())
    }
}

impl<'a> EventPayload<'a> {
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
    Message(EventPayload<'a>),
    /// The bus has failed, and why: what others emit from now on is not heard.
    Down(&'a str),
    /// The bus is back, and the channel is heard again. What was emitted in between is lost.
    Up,
}

/// What hears events. It is called on the bus's own thread: it must not wait.
pub type EventListener = Box<dyn Fn(Event<'_>) + Send + Sync>;

/// Which listener; for [`Events::remove_listener`](super::Events::remove_listener).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId {
    pub(super) channel: Channel,
    number: u64,
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
    listener: EventListener,
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
pub struct StateChange {
    change: u64,
    down: Option<Arc<str>>,
    listeners: Vec<Arc<Entry>>,
}

impl StateChange {
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
    /// Adds a listener. The news are for it alone: a failure that began before it came.
    pub(super) fn add(
        &self,
        channel: &Channel,
        once: bool,
        listener: EventListener,
    ) -> (ListenerId, Option<StateChange>) {
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
        let news = table.down.clone().map(|why| StateChange {
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

    /// Removes a listener; says whether it was there.
    pub(super) fn remove(&self, id: &ListenerId) -> bool {
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
            entry.call(Event::Message(EventPayload(payload)));
        }
        true
    }

    /// Notes that the bus is down and why, or up again. To be called in the order in which that happens; the news are for
    /// every listener of every channel, and told when no lock is held.
    pub fn turn(&self, down: Option<&str>) -> StateChange {
        let mut table = self.table.lock();
        table.changes += 1;
        table.down = down.map(Into::into);
        StateChange {
            change: table.changes,
            down: table.down.clone(),
            listeners: table.by_channel.values().flatten().cloned().collect(),
        }
    }
}
