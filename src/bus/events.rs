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

use std::fmt;
use std::sync::Arc;

use serde::Serialize;

use super::channel::Channel;
use super::hub::{Event, EventListener, Hub, ListenerId};
use super::memory::MemoryBus;
use super::types::{Data, OnEmitted, Reach, Ready, Stamp, Topic};
use super::verbs::{Bus, Sessions};
use crate::envelope::{Envelope, Reply};
use crate::notification::BackendId;

/// The largest payload, in bytes, unless [`Events::new`] is told another.
const PAYLOAD_BYTES_MAX: usize = 1 << 20;

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
        listener: EventListener,
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
    pub fn emit(
        &self,
        channel: &Channel,
        payload: &[u8],
        on_emitted: OnEmitted,
    ) -> Result<(), NotEmitted> {
        if payload.len() > self.payload_bytes_max {
            return Err(NotEmitted::TooBig(self.payload_bytes_max));
        }
        self.bus.emit(channel, payload, on_emitted);
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
        on_emitted: OnEmitted,
    ) -> Result<(), NotEmitted> {
        let payload = serde_json::to_vec(value).map_err(|_| NotEmitted::NotJson)?;
        self.emit(channel, &payload, on_emitted)
    }
}

/// No sessions at all.
struct Nobody;

impl Sessions for Nobody {
    fn hand_over(&self, _envelope: Box<Envelope>) -> bool {
        false
    }

    fn pass_on(&self, _data: &Data, _reply: Reply) -> bool {
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
