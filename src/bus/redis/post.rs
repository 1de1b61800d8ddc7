//! The queue to Redis: bounded, and its senders never wait. A queue that is full is an answer.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use redis::Value;

use crate::bus::{Stamp, Unreachable};
use crate::metrics::BusMetrics;
use crate::notification::{BackendId, NotificationId};

/// Messages that may wait for the thread.
const QUEUE_MAX: usize = 8192;

/// Bytes that may wait for it; one more message is taken while there are fewer.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// What is done with Redis's reply.
pub enum Then {
    /// Nothing.
    Nothing,
    /// It says whether this node may publish at all.
    Canary,
    /// It says what became of a notification. If the node it is for does not hear, it is said again.
    Again(Word),
    /// It is the number of nodes that heard of this notification.
    Envelope(BackendId, NotificationId),
    /// Somebody wants to see it.
    Reply(Box<dyn FnOnce(Result<Value, Unreachable>) + Send>),
}

/// A word that is said until it is heard, for a while.
#[derive(Default)]
pub struct Word {
    pub bytes: Vec<u8>,
    /// How often nobody has heard it.
    pub unheard: u32,
}

/// A command on its way.
pub struct Outgoing {
    pub bytes: Vec<u8>,
    pub then: Then,
}

/// Whoever has this can publish.
pub struct Post {
    inlet: Sender<Outgoing>,
    pub(super) queued_bytes: AtomicUsize,
    /// Backends that have come and were not announced yet. Each is a session's, so there are no more than those.
    pub(super) here: Mutex<Vec<(BackendId, Stamp)>>,
    /// The other nodes shall say who is there: this one may have missed arrivals.
    pub(super) who: AtomicBool,
    /// This node's subscriber shall be woken.
    pub(super) wake: AtomicBool,
    /// It waits for a canary, and not for the next second.
    pub(super) sing: AtomicBool,
    /// The node stops: a Redis that is not there is not waited for any more.
    pub(super) leaving: AtomicBool,
    metrics: BusMetrics,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Post({} waiting)", self.inlet.len())
    }
}

impl Post {
    /// An empty queue, and its other end.
    pub fn open(metrics: BusMetrics) -> (Self, Receiver<Outgoing>) {
        let (inlet, inbox) = bounded(QUEUE_MAX);
        let post = Self {
            inlet,
            queued_bytes: AtomicUsize::new(0),
            here: Mutex::default(),
            who: AtomicBool::new(false),
            wake: AtomicBool::new(false),
            sing: AtomicBool::new(false),
            leaving: AtomicBool::new(false),
            metrics,
        };
        (post, inbox)
    }

    /// Puts a command into the queue. It comes back when there is no room.
    pub fn send(&self, bytes: Vec<u8>, then: Then) -> Result<(), Then> {
        let size = bytes.len();
        if self.queued_bytes.fetch_add(size, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            self.metrics.refused();
            return Err(then);
        }
        self.inlet
            .try_send(Outgoing { bytes, then })
            .map_err(|refused| {
                self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
                self.metrics.refused();
                refused.into_inner().then
            })
    }

    /// Announces that a session of `backend` is here.
    pub fn announce(&self, backend: BackendId, stamp: Stamp) {
        let first = {
            let mut here = self.here.lock();
            here.push((backend, stamp));
            here.len() == 1
        };
        // Once: thousands that come at the same moment must not fill the queue with rings.
        if first {
            self.ring();
        }
    }

    /// Announces all of `backends`, and nothing that was to be announced before; and asks the others to do the same, to
    /// this node.
    pub fn announce_all(&self, backends: Vec<(BackendId, Stamp)>) {
        *self.here.lock() = backends;
        self.who.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Wakes this node's subscriber through Redis: nothing else can, while it waits for messages.
    pub fn wake_subscriber(&self) {
        if !self.wake.swap(true, Ordering::Relaxed) {
            self.ring();
        }
    }

    /// Publishes a canary now.
    pub fn sing(&self) {
        self.sing.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// From now on, a connection that is lost stays lost: nobody shall wait for Redis at the stop.
    pub fn connect_no_more(&self) {
        self.leaving.store(true, Ordering::Relaxed);
    }

    /// Makes the thread look. If the queue is full, it is about to.
    pub fn ring(&self) {
        let _ = self.inlet.try_send(Outgoing {
            bytes: Vec::new(),
            then: Then::Nothing,
        });
    }
}
