//! What is done with what is heard: envelopes to sessions, receipts to whoever waits, the verdict over two sessions of one id.

use std::sync::Arc;
use std::time::Instant;

use super::UNASKED;
use super::link;
use super::names::Names;
use super::post::{Post, Then, Word};
use super::subscriber::{Asks, Ear};
use crate::bus::abroad::Abroad;
use crate::bus::events::Hub;
use crate::bus::frames::{self, Frame};
use crate::bus::roll::RollCalls;
use crate::bus::{Arrivals, Sessions, Stamp, Topic};
use crate::envelope::{Envelope, Progress, Receipts, Reply};
use crate::metrics::BusMetrics;
use crate::notification::{BackendId, NotificationId, Receipt};

/// Backends in one ROLL.
const ROLL_MAX: usize = 1000;

/// What is done with what is heard. Runs on the subscriber's thread and must not wait.
pub struct Hearing {
    pub names: Names,
    pub post: Arc<Post>,
    pub asks: Arc<Asks>,
    pub abroad: Arc<Abroad>,
    pub calls: Arc<RollCalls>,
    pub sessions: Arc<dyn Sessions>,
    pub arrivals: Arc<dyn Arrivals>,
    pub hub: Arc<Hub>,
    pub metrics: BusMetrics,
}

impl Hearing {
    fn came(&self, node: &str, backend: &BackendId, stamp: Stamp) {
        if node != self.names.instance {
            self.sessions.witness(stamp);
            match self.sessions.stamp(backend) {
                Some(ours) if (ours, &*self.names.instance) < (stamp, node) => {
                    self.yield_to_newer(backend, ours);
                }
                // Its node may have been deaf when ours was announced.
                Some(ours) => self.post.announce(backend.clone(), ours),
                None => {}
            }
        }
        self.abroad.moved(backend, stamp, Instant::now());
        self.arrivals.here(backend);
    }

    fn yield_to_newer(&self, backend: &BackendId, ours: Stamp) {
        for envelope in self.sessions.yield_to_newer(backend, ours) {
            // It waited for a session that has moved. Where to is known only to Redis, so its sender must ask again.
            envelope.settle(Receipt::Gone);
        }
        // Its session has no seat to give up any more, and so will not ask.
        self.asks.note(Topic::Backend(backend.clone()));
    }

    fn roll(&self, n: u64, origin: &str) {
        let backends = self.sessions.stamps();
        let mut rest = &backends[..];
        loop {
            let (part, after) = rest.split_at(rest.len().min(ROLL_MAX));
            rest = after;
            let bytes = link::publish(&self.names.to("node:", origin), |out| {
                frames::roll(out, n, &self.names.instance, part, !rest.is_empty());
            });
            // Whoever asked hears that this node was silent.
            if self.post.send(bytes, Then::Nothing).is_err() || rest.is_empty() {
                return;
            }
        }
    }

    fn back(
        &self,
        origin: &str,
        to: &BackendId,
        progress: Option<Arc<Progress>>,
    ) -> Arc<dyn Receipts> {
        Arc::new(Back {
            progress,
            channel: self.names.to("node:", origin).concat(),
            to: to.clone(),
            post: Arc::clone(&self.post),
            metrics: self.metrics.clone(),
        })
    }
}

impl Ear for Hearing {
    fn own(&mut self, message: &[u8]) -> Option<u64> {
        match frames::read(message, None)? {
            Frame::Receipt {
                id,
                to,
                receipt,
                sent,
            } => {
                if !self.abroad.told(&to, id, receipt, sent) {
                    log::debug!("{id}: a receipt that nobody waits for any more");
                }
            }
            Frame::Canary(word) => return Some(word),
            // This node's own answer stands from the beginning.
            Frame::Who { n, origin } if origin != self.names.instance => self.roll(n, origin),
            Frame::Here { node, backends }
            | Frame::Roll {
                n: UNASKED,
                node,
                backends,
                ..
            } => {
                for (backend, stamp) in backends {
                    self.came(node, &backend, stamp);
                }
            }
            Frame::Roll {
                n,
                node,
                more,
                backends,
            } => self.calls.answer(n, node, more, backends),
            Frame::Who { .. }
            | Frame::Wake
            | Frame::Msg { .. }
            | Frame::Data { .. }
            | Frame::Event(_) => {}
        }
        None
    }

    fn on(&mut self, topic: &Topic, message: &[u8]) -> bool {
        match topic {
            Topic::Backend(backend) => match frames::read(message, Some(backend)) {
                Some(Frame::Msg {
                    notification,
                    origin,
                    ttl,
                }) => {
                    self.metrics.received();
                    let deadline = Instant::now() + ttl;
                    let progress = Arc::new(Progress::default());
                    let receipts = self.back(origin, backend, Some(Arc::clone(&progress)));
                    let envelope = Envelope::new(Arc::new(notification), deadline, receipts);
                    let envelope = envelope.tracked(progress);
                    !self.sessions.hand_over(Box::new(envelope))
                }
                Some(Frame::Data { id, data, origin }) => {
                    let reply = Reply::new(id, self.back(origin, backend, None));
                    !self.sessions.pass_on(&data, reply)
                }
                _ => {
                    self.metrics.not_understood();
                    false
                }
            },
            Topic::Event(channel) => {
                if let Some(Frame::Event(payload)) = frames::read(message, None) {
                    self.hub.dispatch(channel, payload);
                }
                !self.hub.has(channel) // a listener that listens once is gone now
            }
        }
    }

    fn wants(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Backend(backend) => self.sessions.stamp(backend).is_some(),
            Topic::Event(channel) => self.hub.has(channel),
        }
    }

    fn wanted(&self) -> Vec<Topic> {
        let backends = self.sessions.stamps().into_iter();
        let channels = self.hub.channels().into_iter();
        backends
            .map(|(backend, _)| Topic::Backend(backend))
            .chain(channels.map(Topic::Event))
            .collect()
    }

    fn stands(&mut self, topic: &Topic) {
        if let Topic::Backend(backend) = topic
            && let Some(stamp) = self.sessions.stamp(backend)
        {
            self.post.announce(backend.clone(), stamp);
        }
    }

    fn hears_again(&mut self) {
        self.abroad.was_deaf(Instant::now());
        self.post.announce_all(self.sessions.stamps());
    }
}

/// The way back to the node that a notification came from.
struct Back {
    /// Whether it became a MSG here: its origin counts tries by that.
    progress: Option<Arc<Progress>>,
    channel: String,
    to: BackendId,
    post: Arc<Post>,
    metrics: BusMetrics,
}

impl Receipts for Back {
    fn receipt(&self, id: NotificationId, receipt: Receipt) {
        let bytes = link::publish(&[&self.channel], |out| {
            let sent = self.progress.as_ref().and_then(|progress| progress.sent());
            frames::told(out, id, &self.to, &receipt, sent);
        });
        // Lost, it costs the provider a retry, or this backend a redelivery; never an answer that is not true.
        if self.post.send(bytes, Then::Again(Word::default())).is_err() {
            self.metrics.receipt_lost();
        }
    }
}
