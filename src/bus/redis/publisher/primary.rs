//! The publisher's connection: to a server that proves to be the primary, for as long as it is that.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::{CANARY_EVERY, GUARD_AGAIN_AFTER, Work};
use crate::bus::frames;
use crate::bus::redis::connection::RedisConnection;
use crate::bus::redis::guard::Guard;
use crate::bus::redis::link::{self, LinkError};
use crate::bus::redis::names::{ALL, Bucket};

impl Work {
    pub(super) fn connect(&mut self, now: Instant) {
        if self.connection.is_some() || now < self.retry_at || self.queue.is_leaving() {
            return;
        }
        let Some(first) = self.buckets.first().copied() else {
            self.retry_at = now + CANARY_EVERY; // nothing to publish there yet, or any more
            return;
        };
        match self.connect_guarded(first) {
            Ok(connection) => {
                *self.queue.peer.lock() = connection.peer();
                self.connection = Some(connection);
                self.queue.connected.store(true, Ordering::SeqCst);
                self.backoff.reset();
                self.uncounted = 0;
                self.canary_at = now;
                if first == ALL {
                    // What was announced and got lost with the last connection is not known.
                    self.parts.router.announce_all(self.parts.sessions.stamps());
                }
                self.parts.health.publisher_connected(self.queue.number);
            }
            Err(why) => self.lose(why),
        }
    }

    /// A connection to a server that proves to be the primary.
    fn connect_guarded(&mut self, bucket: Bucket) -> Result<RedisConnection, LinkError> {
        let mut connection = self.server.connect(None)?;
        let key = self.parts.router.names.guard(bucket);
        let reply = link::ask(&mut connection, &[b"DEL", key.as_bytes()]);
        match Guard::of(&reply) {
            Guard::Proven => Ok(connection),
            Guard::ProvenBut(why) => {
                self.refusals.log(&why);
                Ok(connection)
            }
            Guard::Wait(why) | Guard::Leave(why) => Err(why),
        }
    }

    /// Asks a primary again that has refused the guard. Once it does not any more, canaries prove the rest.
    pub(super) fn ask_for_guard(&mut self, now: Instant) {
        if self.guard_at.is_none_or(|at| now < at) {
            return;
        }
        let (Some(connection), false) = (&mut self.connection, self.buckets.is_empty()) else {
            self.guard_at = None;
            return;
        };
        // Not always the same bucket: its slot may be the one that has moved.
        self.guarded = (self.guarded + 1) % self.buckets.len();
        let key = self.parts.router.names.guard(self.buckets[self.guarded]);
        let reply = link::ask(connection, &[b"DEL", key.as_bytes()]);
        match (&reply, Guard::of(&reply)) {
            (_, Guard::Proven | Guard::ProvenBut(_)) => {
                (self.guard_at, self.canary_at) = (None, now)
            }
            (_, Guard::Leave(why)) => self.leave(why),
            (Err(error), _) if link::is_broken(error) => self.lose(LinkError::from_reply(error)),
            (_, Guard::Wait(_)) => self.guard_at = Some(now + GUARD_AGAIN_AFTER),
        }
    }

    pub(super) fn lose(&mut self, why: LinkError) {
        self.connection = None;
        self.guard_at = None;
        self.queue.connected.store(false, Ordering::SeqCst);
        self.retry_at = Instant::now() + self.backoff.next_wait();
        self.parts.health.publisher(self.queue.number, Err(why));
        self.parts.router.look_now();
    }

    /// This server is not the primary. The subscriber, which may be on it too, is told through it.
    pub(super) fn leave(&mut self, why: LinkError) {
        self.queue.reconnect_subscriber(why.clone());
        if let Some(connection) = &mut self.connection {
            let names = &self.parts.router.names;
            let channel = names.node(self.wake_bucket, &names.instance);
            let wake = names.publish(&channel, frames::wake);
            // If that fails, the subscriber's silence ends its connection.
            let _ = connection.send(&wake);
            let _ = connection.receive();
        }
        self.lose(why);
    }
}
