//! The queue to one primary, bounded, whose senders never wait; and what the two threads of that link tell each other.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use redis::Value;

use super::link::LinkError;
use super::names::Bucket;
use super::requests::Requests;
use crate::bus::types::Unreachable;
use crate::metrics::BusMetrics;
use crate::notification::{BackendId, NotificationId};

/// Commands that may wait.
const QUEUE_MAX: usize = 8192;

/// Bytes that may wait; one more command is taken while there are fewer.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// What is done with Redis's reply.
pub enum OnReply {
    /// Nothing.
    Nothing,
    /// It is this node's own canary, with what that says.
    Canary(u64),
    /// It is a receipt. If its node does not receive it, it is published again; the number says how often it was.
    Receipt(u32),
    /// It is the number of nodes that received this notification.
    Envelope(BackendId, NotificationId),
    /// The caller wants the number of nodes that received it.
    Count(Box<dyn FnOnce(Result<u64, Unreachable>) + Send>),
    /// The caller wants the reply.
    Reply(Box<dyn FnOnce(Result<Value, Unreachable>) + Send>),
}

/// A command on its way.
pub struct QueuedCommand {
    /// The bucket of its channel or key.
    pub bucket: Bucket,
    pub bytes: Vec<u8>,
    pub then: OnReply,
    /// The slot's owner has said that the key may be at the importing primary, which is asked with ASKING.
    pub asking: bool,
}

impl QueuedCommand {
    /// A command for the owner of its slot.
    pub fn new(bucket: Bucket, bytes: Vec<u8>, then: OnReply) -> Self {
        Self {
            bucket,
            bytes,
            then,
            asking: false,
        }
    }
}

/// A bucket that goes to another queue, or to none.
pub type Handover = (Bucket, Option<Arc<PublishQueue>>);

/// The queue to one primary.
pub struct PublishQueue {
    /// Tells links apart.
    pub number: u64,
    /// The primary, for people.
    pub name: String,
    inlet: Sender<QueuedCommand>,
    outlet: Receiver<QueuedCommand>,
    queued_bytes: AtomicUsize,
    /// What the subscriber shall look at.
    pub requests: Requests,
    /// The subscriber shall be woken by a message.
    wake: AtomicBool,
    /// The subscriber waits for a canary now, not in a second.
    canary: AtomicBool,
    /// The publisher has a connection, so commands may be under way on it.
    pub connected: AtomicBool,
    /// The address of the server that the publisher was connected to last.
    pub peer: Mutex<Option<String>>,
    /// Something that the subscriber wants is not confirmed.
    pub unsettled: AtomicBool,
    /// The link ends: a connection that is lost stays lost.
    leaving: AtomicBool,
    /// Why the subscriber shall connect anew.
    reconnect: Mutex<Option<LinkError>>,
    handovers: Mutex<Vec<Handover>>,
    metrics: BusMetrics,
}

impl fmt::Debug for PublishQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "PublishQueue({}, {} waiting)",
            self.name,
            self.inlet.len()
        )
    }
}

impl PublishQueue {
    /// An empty queue.
    pub fn new(number: u64, name: String, metrics: BusMetrics) -> Self {
        let (inlet, outlet) = bounded(QUEUE_MAX);
        Self {
            number,
            name,
            inlet,
            outlet,
            queued_bytes: AtomicUsize::new(0),
            requests: Requests::default(),
            wake: AtomicBool::new(false),
            canary: AtomicBool::new(false),
            connected: AtomicBool::new(false),
            peer: Mutex::default(),
            unsettled: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            reconnect: Mutex::default(),
            handovers: Mutex::default(),
            metrics,
        }
    }

    /// Puts a command into the queue. It comes back when there is no room.
    pub fn send(&self, outgoing: QueuedCommand) -> Result<(), OnReply> {
        let size = outgoing.bytes.len();
        if self.queued_bytes.fetch_add(size, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            self.metrics.refused();
            return Err(outgoing.then);
        }
        self.inlet.try_send(outgoing).map_err(|refused| {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            self.metrics.refused();
            refused.into_inner().then
        })
    }

    /// The other end, for the publisher.
    pub fn outlet(&self) -> &Receiver<QueuedCommand> {
        &self.outlet
    }

    /// `outgoing` was taken out.
    pub fn taken(&self, outgoing: &QueuedCommand) {
        self.queued_bytes
            .fetch_sub(outgoing.bytes.len(), Ordering::Relaxed);
    }

    /// Takes out all that waits.
    pub fn drain(&self) -> Vec<QueuedCommand> {
        let all: Vec<_> = self.outlet.try_iter().collect();
        all.iter().for_each(|outgoing| self.taken(outgoing));
        all
    }

    /// Makes the publisher look. If the queue is full, it is about to.
    pub fn ring(&self) {
        let nothing = QueuedCommand::new(0, Vec::new(), OnReply::Nothing);
        let _ = self.inlet.try_send(nothing);
    }

    /// Wakes the subscriber through Redis: nothing else can, while it waits for messages.
    pub fn wake_subscriber(&self) {
        if !self.wake.swap(true, Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Whether the subscriber is to be woken; not twice.
    pub fn take_wake(&self) -> bool {
        self.wake.swap(false, Ordering::Relaxed)
    }

    /// Has canaries published now.
    pub fn ask_for_canary(&self) {
        self.canary.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Whether a canary was asked for; not twice.
    pub fn take_canary(&self) -> bool {
        self.canary.swap(false, Ordering::Relaxed)
    }

    /// From now on a connection that is lost stays lost: nothing shall wait for Redis when the link ends.
    pub fn leave(&self) {
        self.leaving.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Whether the link ends.
    pub fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::Relaxed)
    }

    /// The subscriber shall connect anew, because of `why`. It sees that at its next message.
    pub fn reconnect_subscriber(&self, why: LinkError) {
        *self.reconnect.lock() = Some(why);
    }

    /// Why it shall, if it shall; not twice.
    pub fn take_reconnect(&self) -> Option<LinkError> {
        self.reconnect.lock().take()
    }

    /// Has the publisher hand buckets over as soon as none of their commands is under way.
    pub fn hand_over(&self, handovers: Vec<Handover>) {
        self.handovers.lock().extend(handovers);
        self.ring();
    }

    /// What is to be handed over; not twice.
    pub fn take_handovers(&self) -> Vec<Handover> {
        std::mem::take(&mut *self.handovers.lock())
    }
}
