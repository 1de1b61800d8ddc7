//! What the nodes know together of events, as keys in Redis that expire by themselves.
//!
//! `event-seen:<key in hex>` is `taken <instance>` while a node has the event under way, and `kept` once it is delivered or
//! stored. Scripts, because each step must look and write in one go; each has one key, so they run in a cluster too.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::health::Health;
use super::names::Bucket;
use super::queue::OnReply;
use super::resp;
use super::router::Router;
use crate::bus::types::{EventLease, OnLease, Unreachable};
use crate::bus::verbs::DedupeStore;
use crate::notification::EventKey;

/// Takes the key unless another has it; says whose it is then.
const CLAIM: &[u8] = b"local v = redis.call('GET', KEYS[1]) \
    if v and v ~= ARGV[1] then return v end \
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
    return ARGV[1]";

/// Lets go of the key, unless it has run out and another has the event under way by now.
const FREE: &[u8] = b"local v = redis.call('GET', KEYS[1]) \
    if v == ARGV[1] or v == 'kept' then redis.call('DEL', KEYS[1]) end return 0";

/// What a settled event's key says.
const KEPT: &[u8] = b"kept";

/// The store in Redis.
pub struct RedisDedupe {
    router: Arc<Router>,
    health: Arc<Health>,
    /// What our own keys say.
    taken: String,
    /// How long a claim stands that is neither kept nor freed, in milliseconds: its node has died.
    hold_ms: String,
}

impl fmt::Debug for RedisDedupe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisDedupe({})", self.taken)
    }
}

impl RedisDedupe {
    pub(super) fn new(router: Arc<Router>, health: Arc<Health>, hold: Duration) -> Self {
        Self {
            health,
            taken: format!("taken {}", router.names.instance),
            router,
            hold_ms: hold.as_millis().to_string(),
        }
    }

    fn name(&self, key: &EventKey) -> (Bucket, String) {
        self.router.names.event_seen(key)
    }
}

impl DedupeStore for RedisDedupe {
    fn claim(&self, key: &EventKey, then: OnLease) {
        let (bucket, name) = self.name(key);
        if !self.health.is_up(bucket) {
            return then(EventLease::Unknown);
        }
        let ours = self.taken.clone();
        let mut bytes = Vec::new();
        resp::command(
            &mut bytes,
            &[
                b"EVAL",
                CLAIM,
                b"1",
                name.as_bytes(),
                ours.as_bytes(),
                self.hold_ms.as_bytes(),
            ],
        );
        let tell = OnReply::Reply(Box::new(move |reply| {
            then(match reply {
                Ok(Value::BulkString(whose)) if whose == ours.as_bytes() => EventLease::Mine,
                Ok(Value::BulkString(whose)) if whose == KEPT => EventLease::Kept,
                Ok(Value::BulkString(_)) => EventLease::Taken,
                Ok(_) | Err(Unreachable) => EventLease::Unknown,
            });
        }));
        if let Err(OnReply::Reply(tell)) = self.router.send(bucket, bytes, tell) {
            tell(Err(Unreachable));
        }
    }

    fn keep(&self, key: &EventKey, window: Duration) {
        let (bucket, name) = self.name(key);
        let window_ms = window.as_millis().to_string();
        let mut bytes = Vec::new();
        let parts: [&[u8]; 5] = [b"SET", name.as_bytes(), KEPT, b"PX", window_ms.as_bytes()];
        resp::command(&mut bytes, &parts);
        // Lost, a retry that arrives at another node is delivered twice.
        let _ = self.router.send(bucket, bytes, OnReply::Nothing);
    }

    fn free(&self, key: &EventKey) {
        let (bucket, name) = self.name(key);
        let mut bytes = Vec::new();
        let parts: [&[u8]; 5] = [b"EVAL", FREE, b"1", name.as_bytes(), self.taken.as_bytes()];
        resp::command(&mut bytes, &parts);
        // Lost, the claim expires by itself.
        let _ = self.router.send(bucket, bytes, OnReply::Nothing);
    }
}
