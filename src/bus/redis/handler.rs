//! What is done with each message: envelopes go to sessions, receipts to the request that waits, announcements to the decision
//! between two sessions of one backend.

use std::sync::Arc;
use std::time::Instant;

use super::names::{ALL, Bucket};
use super::parts::BusParts;
use super::queue::OnReply;
use crate::bus::frames::{self, Frame};
use crate::bus::types::{LateReceipt, Stamp, Topic};
use crate::envelope::{Envelope, Progress, Receipts, Reply, Sent};
use crate::notification::{BackendId, NotificationId, Receipt};

/// Backends in one ROLL.
const ROLL_MAX: usize = 1000;

/// The number of the question who is there that a node asks by itself, when it may have missed arrivals.
pub const UNASKED: u64 = 0;

/// What is done with each message. Runs on the subscribers' threads and must not wait.
impl BusParts {
    /// A message on this node's own channel in `bucket`, or on that of all nodes. Whether it was a canary.
    pub fn own(&self, bucket: Bucket, message: &[u8]) -> bool {
        let Some(frame) = frames::read(message, None) else {
            self.metrics.not_understood();
            return false;
        };
        match frame {
            Frame::Receipt {
                id,
                to,
                receipt,
                tries,
                sent,
            } => self.receipt(id, to, receipt, tries, sent),
            Frame::Canary(canary) => {
                self.health.received(bucket, canary);
                return true;
            }
            // This node's own answer is there from the beginning.
            Frame::Who { n, origin } if origin != self.router.names.instance => {
                self.health.joined(origin);
                self.answer_who(n, origin);
            }
            Frame::OtherPrimaries { node, at } if node != self.router.names.instance => {
                self.health.said_elsewhere(node, &at);
                self.router.look_now();
            }
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
            } => self.queries.answer(n, node, more, backends),
            Frame::Who { .. }
            | Frame::Wake
            | Frame::OtherPrimaries { .. }
            | Frame::Msg { .. }
            | Frame::Data { .. }
            | Frame::Event(_) => {}
        }
        false
    }

    /// A message for `topic`; whether the topic may not be wanted any more.
    pub fn on(self: &Arc<Self>, topic: &Topic, message: &[u8]) -> bool {
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
                    let tries = Some(notification.tries);
                    let receipts = self.back(origin, backend, tries, Some(Arc::clone(&progress)));
                    let envelope = Envelope::new(Arc::new(notification), deadline, receipts);
                    let envelope = envelope.tracked(progress);
                    !self.sessions.hand_over(Box::new(envelope))
                }
                Some(Frame::Data { id, data, origin }) => {
                    let reply = Reply::new(id, self.back(origin, backend, None, None));
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

    /// Whether this node wants to hear of `topic`.
    pub fn wants(&self, topic: &Topic) -> bool {
        match topic {
            Topic::Backend(backend) => self.sessions.stamp(backend).is_some(),
            Topic::Event(channel) => self.hub.has(channel),
        }
    }

    /// Everything it wants to hear of.
    pub fn wanted(&self) -> Vec<Topic> {
        let backends = self.sessions.stamps().into_iter();
        let channels = self.hub.channels().into_iter();
        backends
            .map(|(backend, _)| Topic::Backend(backend))
            .chain(channels.map(Topic::Event))
            .collect()
    }

    /// `topic` is heard from now on.
    pub fn stands(&self, topic: &Topic) {
        if let Topic::Backend(backend) = topic
            && let Some(stamp) = self.sessions.stamp(backend)
        {
            self.router.announce(backend.clone(), stamp);
        }
    }

    /// Everything wanted of `buckets` is heard, after a time in which it was not.
    pub fn hears_again(&self, buckets: &[Bucket]) {
        let names = &self.router.names;
        let concerned = |backend: &BackendId| buckets.contains(&names.bucket_of_backend(backend));
        self.pending.may_have_missed(concerned, Instant::now());
        if buckets.contains(&ALL) {
            self.router.announce_all(self.sessions.stamps());
        }
    }

    fn receipt(
        &self,
        id: NotificationId,
        backend: BackendId,
        receipt: Receipt,
        tries: Option<u32>,
        sent: Option<Sent>,
    ) {
        if self
            .pending
            .on_receipt(&backend, id, tries, receipt.clone(), sent)
        {
            return;
        }
        log::debug!("{id}: a receipt for which no request is waiting");
        // What was given up here was sent there all the same: that counts as a try.
        if let (Some(tries), Some(sent)) = (tries, sent) {
            self.arrivals.late(LateReceipt {
                id,
                backend,
                tries,
                receipt,
                sent,
            });
        }
    }

    fn came(&self, node: &str, backend: &BackendId, stamp: Stamp) {
        let instance = &*self.router.names.instance;
        if node != instance {
            self.sessions.witness(stamp);
            match self.sessions.stamp(backend) {
                Some(ours) if (ours, instance) < (stamp, node) => {
                    self.yield_to_newer(backend, ours);
                }
                // Its node may have heard nothing when ours was announced.
                Some(ours) => self.router.announce(backend.clone(), ours),
                None => {}
            }
        }
        self.pending.moved(backend, stamp, Instant::now());
        self.arrivals.here(backend);
    }

    fn yield_to_newer(&self, backend: &BackendId, ours: Stamp) {
        for envelope in self.sessions.yield_to_newer(backend, ours) {
            // It waited for a session that has moved. Where to is known only to Redis, so its sender must ask again.
            envelope.settle(Receipt::Gone);
        }
        // Its session has left the registry, and so will not ask.
        self.router.request(Topic::Backend(backend.clone()), None);
    }

    fn answer_who(&self, n: u64, origin: &str) {
        let names = &self.router.names;
        let backends = self.sessions.stamps();
        let channel = names.node(ALL, origin);
        let mut rest = &backends[..];
        loop {
            let (part, after) = rest.split_at(rest.len().min(ROLL_MAX));
            rest = after;
            let bytes = names.publish(&channel, |out| {
                frames::roll(out, n, &names.instance, part, !rest.is_empty());
            });
            // The node that asked shows this one as silent.
            if self.router.send(ALL, bytes, OnReply::Nothing).is_err() || rest.is_empty() {
                return;
            }
        }
    }

    fn back(
        self: &Arc<Self>,
        origin: &str,
        to: &BackendId,
        tries: Option<u32>,
        progress: Option<Arc<Progress>>,
    ) -> Arc<dyn Receipts> {
        // In the bucket of the message: they fail together.
        let bucket = self.router.names.bucket_of_backend(to);
        Arc::new(ReceiptSender {
            progress,
            tries,
            bucket,
            channel: self.router.names.node(bucket, origin),
            to: to.clone(),
            parts: Arc::clone(self),
        })
    }
}

/// Sends the receipt to the node that a notification came from.
struct ReceiptSender {
    /// Whether it became a MSG here: its origin counts tries by that.
    progress: Option<Arc<Progress>>,
    tries: Option<u32>,
    bucket: Bucket,
    channel: String,
    to: BackendId,
    parts: Arc<BusParts>,
}

impl Receipts for ReceiptSender {
    fn receipt(&self, id: NotificationId, receipt: Receipt) {
        let sent = self.progress.as_ref().and_then(|progress| progress.sent());
        let bytes = self.parts.router.names.publish(&self.channel, |out| {
            frames::receipt_line(out, id, &self.to, &receipt, self.tries, sent);
        });
        // Lost, it costs the provider a retry, or this backend a redelivery; never an answer that is not true.
        if self
            .parts
            .router
            .send(self.bucket, bytes, OnReply::Receipt(0))
            .is_err()
        {
            self.parts.metrics.receipt_lost();
        }
    }
}
