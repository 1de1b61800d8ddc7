//! What the nodes know together of events, as keys in Redis that run out by themselves.
//!
//! `<prefix>:event-seen:<key in hex>` is `taken <instance>` while a node has the event under way, and `kept` once it is
//! delivered or stored. Scripts, because each step must look and write in one go; they run on every Redis there is.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use redis::Value;

use super::Names;
use super::health::Health;
use super::link;
use super::post::{Post, Then};
use crate::bus::{Claim, Claimed, Ledger, Unreachable};
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

/// The ledger in Redis.
pub struct RedisLedger {
    post: Arc<Post>,
    health: Arc<Health>,
    prefix: String,
    /// What our own keys say.
    taken: String,
    /// How long a claim stands that is neither kept nor freed, in milliseconds: its node has died.
    hold_ms: String,
}

impl fmt::Debug for RedisLedger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RedisLedger({})", self.taken)
    }
}

impl RedisLedger {
    pub(super) fn new(post: Arc<Post>, health: Arc<Health>, names: &Names, hold: Duration) -> Self {
        Self {
            post,
            health,
            prefix: names.to("event-seen", ":").concat(),
            taken: format!("taken {}", names.instance),
            hold_ms: hold.as_millis().to_string(),
        }
    }

    fn name(&self, key: &EventKey) -> String {
        let mut name = self.prefix.clone();
        for byte in key.bytes() {
            // A String takes everything.
            let _ = fmt::Write::write_fmt(&mut name, format_args!("{byte:02x}"));
        }
        name
    }
}

impl Ledger for RedisLedger {
    fn claim(&self, key: &EventKey, then: Claimed) {
        if !self.health.is_up() {
            return then(Claim::Unknown);
        }
        let name = self.name(key);
        let ours = self.taken.clone();
        let mut bytes = Vec::new();
        link::command(
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
        let tell = Then::Reply(Box::new(move |reply| {
            then(match reply {
                Ok(Value::BulkString(whose)) if whose == ours.as_bytes() => Claim::Mine,
                Ok(Value::BulkString(whose)) if whose == KEPT => Claim::Kept,
                Ok(Value::BulkString(_)) => Claim::Taken,
                Ok(_) | Err(Unreachable) => Claim::Unknown,
            });
        }));
        if let Err(Then::Reply(tell)) = self.post.send(bytes, tell) {
            tell(Err(Unreachable));
        }
    }

    fn keep(&self, key: &EventKey, window: Duration) {
        let name = self.name(key);
        let window_ms = window.as_millis().to_string();
        let mut bytes = Vec::new();
        let parts: [&[u8]; 5] = [b"SET", name.as_bytes(), KEPT, b"PX", window_ms.as_bytes()];
        link::command(&mut bytes, &parts);
        // Lost, it costs a second delivery of a retry that comes in at another node.
        let _ = self.post.send(bytes, Then::Nothing);
    }

    fn free(&self, key: &EventKey) {
        let name = self.name(key);
        let mut bytes = Vec::new();
        let parts: [&[u8]; 5] = [b"EVAL", FREE, b"1", name.as_bytes(), self.taken.as_bytes()];
        link::command(&mut bytes, &parts);
        // Lost, the claim runs out by itself.
        let _ = self.post.send(bytes, Then::Nothing);
    }
}
