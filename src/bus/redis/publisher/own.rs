//! What this node publishes by itself: canaries, the wake-up of its subscriber, announcements.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{CANARY_EVERY, Work};
use crate::bus::frames;
use crate::bus::redis::handler::UNASKED;
use crate::bus::redis::names::{ALL, Bucket};
use crate::bus::redis::queue::{OnReply, QueuedCommand};

/// How long a command is held whose slot has moved, until the topology says where to.
const HELD_MAX: Duration = Duration::from_secs(1);

/// Backends in one HERE.
const HERE_MAX: usize = 256;

impl Work {
    /// Adds what this node publishes by itself: canaries, the wake-up, announcements.
    pub(super) fn add_own(&mut self, now: Instant) {
        let due = now >= self.canary_at;
        if due {
            self.canary_at = now + CANARY_EVERY;
            self.parts.pending.sweep(now);
            self.parts.queries.sweep(now);
            self.parts.health.refresh();
            // Without a connection they are kept, unless their bucket belongs to another link by now.
            if self.connection.is_some() || self.buckets.is_empty() {
                for receipt in std::mem::take(&mut self.unheard) {
                    if let Err(then) = self.parts.router.send_again(receipt) {
                        self.fail(then);
                    }
                }
            }
        }
        if !self.held.is_empty() && now >= self.held_since + HELD_MAX {
            for outgoing in std::mem::take(&mut self.held) {
                self.fail(outgoing.then);
            }
        }
        if self.connection.is_none() {
            return; // once connected, everything is announced
        }
        self.is_scheduled = due;
        if self.queue.take_canary() || due {
            let canary = self.parts.health.canary();
            for n in 0..self.buckets.len() {
                let bucket = self.buckets[n];
                self.publish_own(bucket, OnReply::Canary(canary), |out| {
                    frames::canary(out, canary);
                });
            }
        }
        if self.queue.take_wake() {
            self.publish_own(self.wake_bucket, OnReply::Nothing, frames::wake);
        }
        if self.buckets.first() == Some(&ALL) {
            self.announce();
        }
    }

    fn announce(&mut self) {
        let router = Arc::clone(&self.parts.router);
        let node = &router.names.instance;
        if router.take_who() {
            let who = router.names.publish(&router.names.all(), |out| {
                frames::who(out, UNASKED, node);
            });
            self.push(QueuedCommand::new(ALL, who, OnReply::Nothing));
        }
        let here = router.take_here(HERE_MAX);
        if !here.is_empty() {
            let here = router.names.publish(&router.names.all(), |out| {
                frames::here(out, node, &here);
            });
            self.push(QueuedCommand::new(ALL, here, OnReply::Nothing));
        }
    }

    /// Publishes on this node's own channel.
    pub(super) fn publish_own(
        &mut self,
        bucket: Bucket,
        then: OnReply,
        write: impl FnOnce(&mut Vec<u8>),
    ) {
        let names = &self.parts.router.names;
        let command = names.publish(&names.node(bucket, &names.instance), write);
        self.push(QueuedCommand::new(bucket, command, then));
    }
}
