//! What the publisher does with the replies to a batch.

use std::time::Instant;

use redis::{RedisError, Value};

use super::{BATCH_BYTES_MAX, Entry, GUARD_AGAIN_AFTER, UNHEARD_KEPT_MAX, Work};
use crate::bus::redis::guard::Guard;
use crate::bus::redis::link::LinkError;
use crate::bus::redis::names::Bucket;
use crate::bus::redis::queue::{OnReply, QueuedCommand};
use crate::bus::redis::resp;
use crate::bus::types::Unreachable;
use crate::notification::Receipt;

/// How often a receipt is published that no node receives: the node it is for has a few seconds to come back.
const UNHEARD_MAX: u32 = 5;

/// After how many canaries that the primary counts for nobody the subscriber must be on another server.
const UNCOUNTED_MAX: u32 = 2;

impl Work {
    /// Does what is to be done with the replies. `guard`: what its reply says, if it has come.
    pub(super) fn conclude(&mut self, guard: Option<&Guard>) {
        let proven = match guard {
            Some(Guard::ProvenBut(why)) => {
                self.refusals.log(why);
                true
            }
            Some(Guard::Proven) => true,
            Some(Guard::Wait(_) | Guard::Leave(_)) | None => false,
        };
        let mut standing = match guard {
            Some(Guard::Wait(why)) => {
                self.guard_at = Some(Instant::now() + GUARD_AGAIN_AFTER);
                Some(Err(why.clone()))
            }
            _ => None,
        };
        let bytes = std::mem::take(&mut self.bytes);
        let mut replies = std::mem::take(&mut self.replies).into_iter();
        let mut batch = std::mem::take(&mut self.batch);
        let mut start = 0;
        let mut uncounted = None;
        for entry in batch.drain(..) {
            let command = &bytes[start..entry.end];
            start = entry.end;
            match replies.next() {
                Some(Ok(value)) => {
                    if let OnReply::Canary(_) = entry.then {
                        standing.get_or_insert(Ok(()));
                        let counted = !proven || resp::count(&value) > 0;
                        uncounted = Some(uncounted.unwrap_or(false) || !counted);
                    }
                    self.replied(entry, value, proven, command);
                }
                Some(Err(error)) => {
                    if let Some(standing_now) = self.refused(entry, &error, command) {
                        standing.get_or_insert(Err(standing_now));
                    }
                }
                None => self.unanswered(entry, command),
            }
        }
        self.replies = Vec::new();
        self.batch = batch;
        self.bytes = bytes;
        self.bytes.clear();
        // A large batch was an exception.
        self.bytes.shrink_to(2 * BATCH_BYTES_MAX);
        if let Some(standing) = standing {
            self.parts.health.publisher(self.queue.number, standing);
        }
        // Of those that are asked for when buckets move, some come before the subscription, several in a moment.
        if let Some(uncounted) = uncounted.filter(|_| self.is_scheduled) {
            self.judge_subscriber(uncounted);
        }
    }

    /// The primary counts this node's own subscription, or the subscriber is on another server.
    fn judge_subscriber(&mut self, uncounted: bool) {
        let stands = self.parts.health.subscriber_stands(self.queue.number);
        self.uncounted = if uncounted && stands {
            self.uncounted + 1
        } else {
            0
        };
        if self.uncounted >= UNCOUNTED_MAX {
            self.uncounted = 0;
            let why =
                "the primary does not know this node's subscriptions: they are on another server";
            self.queue.reconnect_subscriber(LinkError(why.into()));
            self.queue.wake_subscriber();
        }
    }

    fn replied(&mut self, entry: Entry, value: Value, proven: bool, command: &[u8]) {
        let parts = &self.parts;
        match entry.then {
            OnReply::Nothing => {}
            OnReply::Canary(canary) => {
                if proven && resp::count(&value) > 0 {
                    parts.health.counted(entry.bucket, canary);
                }
            }
            OnReply::Receipt(_) if proven && resp::count(&value) > 0 => {}
            then @ OnReply::Receipt(_) => self.keep_copy(entry.bucket, then, command),
            OnReply::Envelope(backend, id) => match (proven, resp::count(&value)) {
                (true, 0) if parts.health.is_settled(entry.bucket) => {
                    parts.pending.counted(&backend, id, 0);
                }
                // Its node may not have subscribed yet, or is subscribed elsewhere.
                (_, 0) => parts.pending.fail(&backend, id, Receipt::Unreachable),
                (true, nodes) => parts.pending.counted(&backend, id, nodes),
                (false, _) => parts.pending.unproven(&backend, id, Instant::now()),
            },
            OnReply::Count(tell) => tell(proven.then(|| resp::count(&value)).ok_or(Unreachable)),
            OnReply::Reply(tell) => tell(Ok(value)),
        }
    }

    /// Redis refuses a command. For a canary that says something of the connection, which is given back.
    fn refused(&mut self, entry: Entry, error: &RedisError, command: &[u8]) -> Option<LinkError> {
        let is_canary = matches!(entry.then, OnReply::Canary(_));
        match error.code() {
            // It went with ASKING, and the slot has moved again: not a third time.
            _ if entry.asking => self.parts.router.look_now(),
            Some("MOVED") => {
                self.parts.router.look_now();
                if !is_canary {
                    self.hold(entry, command);
                }
                return None;
            }
            Some("ASK") if !is_canary => {
                self.ask_elsewhere(entry, error, command);
                return None;
            }
            Some("CLUSTERDOWN" | "TRYAGAIN") => self.parts.router.look_now(),
            _ if is_canary => return Some(LinkError::from_reply(error)),
            _ => self.refusals.log(&LinkError::from_reply(error)),
        }
        self.unanswered(entry, command);
        None
    }

    /// Holds a command until the topology says where its slot has moved to.
    fn hold(&mut self, entry: Entry, command: &[u8]) {
        if self.held.is_empty() {
            self.held_since = Instant::now();
        }
        let outgoing = QueuedCommand::new(entry.bucket, command.to_vec(), entry.then);
        self.held.push(outgoing);
    }

    /// The slot is being handed over, and its key may be at the new primary already.
    fn ask_elsewhere(&mut self, entry: Entry, error: &RedisError, command: &[u8]) {
        let outgoing = QueuedCommand::new(entry.bucket, command.to_vec(), entry.then);
        let sent = match error.redirect_node() {
            Some((name, _)) => self.parts.router.send_asking(name, outgoing),
            None => Err(outgoing.then),
        };
        if let Err(then) = sent {
            self.fail(then);
        }
    }

    fn unanswered(&mut self, entry: Entry, command: &[u8]) {
        match entry.then {
            then @ OnReply::Receipt(_) => self.keep_copy(entry.bucket, then, command),
            then => self.fail(then),
        }
    }

    fn keep_copy(&mut self, bucket: Bucket, then: OnReply, command: &[u8]) {
        self.keep(QueuedCommand::new(bucket, command.to_vec(), then));
    }

    /// Keeps a receipt for later. One that comes twice, or late, harms nobody.
    fn keep(&mut self, mut receipt: QueuedCommand) {
        let OnReply::Receipt(unheard) = &mut receipt.then else {
            return;
        };
        *unheard += 1;
        match *unheard <= UNHEARD_MAX && self.unheard.len() < UNHEARD_KEPT_MAX {
            true => self.unheard.push(receipt),
            false => self.parts.metrics.receipt_lost(),
        }
    }

    /// A command was not carried out, or nothing is known of that.
    pub(super) fn fail(&self, then: OnReply) {
        match then {
            OnReply::Nothing | OnReply::Canary(_) => {}
            OnReply::Receipt(_) => self.parts.metrics.receipt_lost(),
            OnReply::Envelope(backend, id) => {
                self.parts.pending.fail(&backend, id, Receipt::Unreachable);
            }
            OnReply::Count(tell) => tell(Err(Unreachable)),
            OnReply::Reply(tell) => tell(Err(Unreachable)),
        }
    }
}
