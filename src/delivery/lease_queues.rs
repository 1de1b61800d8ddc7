//! Envelopes that wait until Redis has said whose their event is, and those behind them.
//!
//! For one backend, notifications are first attempted in the order in which they were taken. So a notification whose lease is asked
//! for holds its place, and whatever is taken for its backend meanwhile, with an event or without, queues behind it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::dispatcher::Dispatcher;
use crate::envelope::Envelope;
use crate::lock::Mutex;
use crate::notification::{BackendId, NotificationId};

/// The queues of all backends that have an envelope waiting. Together they hold no more than there are waits.
pub struct LeaseQueues {
    dispatcher: Dispatcher,
    /// How many queues there are, to be read without the lock.
    count: AtomicUsize,
    queues: Mutex<HashMap<BackendId, LeaseQueue>>,
}

#[derive(Default)]
struct LeaseQueue {
    entries: VecDeque<Entry>,
    /// A thread is dispatching what was at the front; others leave the queue to it, so that the order holds.
    is_dispatching: bool,
}

struct Entry {
    envelope: Box<Envelope>,
    is_ready: bool,
}

/// The place of one envelope in its queue. Dropped without [`go`](Self::go), the envelope is dropped too.
pub struct QueueEntry {
    queues: Arc<LeaseQueues>,
    backend: BackendId,
    id: NotificationId,
    goes: bool,
}

impl LeaseQueues {
    /// None yet; what may go is given to `dispatcher`.
    pub fn new(dispatcher: Dispatcher) -> Arc<Self> {
        Arc::new(Self {
            dispatcher,
            count: AtomicUsize::new(0),
            queues: Mutex::new(HashMap::new()),
        })
    }

    /// Dispatches `envelope`, after all that its backend has waiting. Never waits.
    pub fn dispatch(&self, envelope: Box<Envelope>) {
        if self.count.load(Ordering::Acquire) == 0 {
            return self.dispatcher.take(envelope);
        }
        let backend = envelope.notification.backend.clone();
        let mut queues = self.queues.lock();
        let Some(queue) = queues.get_mut(&backend) else {
            drop(queues);
            return self.dispatcher.take(envelope);
        };
        queue.entries.push_back(Entry {
            envelope,
            is_ready: true,
        });
        drop(queues);
        self.dispatch_ready(&backend);
    }

    /// Gives `envelope` its place; it is dispatched when the place says so, and what was taken before is.
    pub fn hold(self: &Arc<Self>, envelope: Box<Envelope>) -> QueueEntry {
        let place = QueueEntry {
            queues: Arc::clone(self),
            backend: envelope.notification.backend.clone(),
            id: envelope.notification.id,
            goes: false,
        };
        let mut queues = self.queues.lock();
        let queue = queues.entry(place.backend.clone()).or_default();
        queue.entries.push_back(Entry {
            envelope,
            is_ready: false,
        });
        self.count.store(queues.len(), Ordering::Release);
        place
    }

    /// Dispatches what is ready at the front of the queue of `backend`, one at a time and without the lock.
    fn dispatch_ready(&self, backend: &BackendId) {
        let mut is_mine = false;
        loop {
            let mut queues = self.queues.lock();
            let Some(queue) = queues.get_mut(backend) else {
                return;
            };
            if queue.is_dispatching && !is_mine {
                return;
            }
            let next = match queue.entries.front() {
                Some(entry) if entry.is_ready => queue.entries.pop_front(),
                _ => None,
            };
            is_mine = next.is_some();
            queue.is_dispatching = is_mine;
            if next.is_none() && queue.entries.is_empty() {
                queues.remove(backend);
                self.count.store(queues.len(), Ordering::Release);
            }
            drop(queues);
            let Some(entry) = next else { return };
            self.dispatcher.take(entry.envelope);
        }
    }
}

impl QueueEntry {
    /// The envelope may go.
    pub fn go(mut self) {
        self.goes = true;
    }
}

impl Drop for QueueEntry {
    fn drop(&mut self) {
        let mut queues = self.queues.queues.lock();
        let mut dropped = None;
        if let Some(queue) = queues.get_mut(&self.backend) {
            let is_it = |entry: &Entry| entry.envelope.notification.id == self.id;
            match queue.entries.iter().position(is_it) {
                Some(at) if self.goes => queue.entries[at].is_ready = true,
                Some(at) => dropped = queue.entries.remove(at),
                None => {}
            }
        }
        drop(queues);
        drop(dropped); // without the lock: it tells its sender
        self.queues.dispatch_ready(&self.backend);
    }
}
