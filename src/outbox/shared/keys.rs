//! The keys of the shared outbox in Redis, and the scripts that look at them.
//!
//! | key (`<prefix>:outbox:` …, in a cluster `<prefix>:{<tag>}:outbox:` …) | what is in it |
//! |---|---|
//! | `stores` | a hash: for each database file that was ever mirrored its node's name |
//! | `lease:<store>` | the instance that has the file open; runs out when that node is gone |
//! | `out:<store>` | a hash: for each pending notification and each dead letter its record |
//! | `moved:<store>` | a hash: what other nodes have taken over, until its node has been told |
//! | `takeover:<store>` | the instance that is taking over |

use crate::bus::store_command;
use crate::notification::NotificationId;

/// Holds the lease and says who held it before, and how many records there are.
/// KEYS lease, stores, out; ARGV instance, milliseconds, store, name.
pub const LEASE: &[u8] = b"local before = redis.call('GET', KEYS[1]) \
    redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) \
    redis.call('HSET', KEYS[2], ARGV[3], ARGV[4]) \
    return {before or '', redis.call('HLEN', KEYS[3])}";

/// For each id a digit: 1 it is there, 2 another node has taken it over, 0 neither. KEYS out, moved; ARGV ids.
pub const CHECK: &[u8] = b"local told = {} \
    for i = 1, #ARGV do \
      if redis.call('HEXISTS', KEYS[1], ARGV[i]) == 1 then told[i] = '1' \
      elseif redis.call('HEXISTS', KEYS[2], ARGV[i]) == 1 then told[i] = '2' \
      else told[i] = '0' end \
    end \
    return table.concat(told)";

/// A page of ids without their records, which HSCAN alone would send too. KEYS out; ARGV cursor, count.
pub const IDS: &[u8] = b"local page = redis.call('HSCAN', KEYS[1], ARGV[1], 'COUNT', ARGV[2]) \
    local ids = {} \
    for i = 1, #page[2], 2 do ids[#ids + 1] = page[2][i] end \
    return {page[1], ids}";

/// Says for a while that this node alone takes over, unless another one does; 0 milliseconds: it has ended. KEYS takeover; ARGV instance,
/// milliseconds.
pub const TAKEOVER: &[u8] = b"local holder = redis.call('GET', KEYS[1]) \
    if holder and holder ~= ARGV[1] then return 0 end \
    if ARGV[2] == '0' then redis.call('DEL', KEYS[1]) \
    else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end \
    return 1";

/// Forgets a file of which nothing is left and whose node is gone; says whether it did. Should it come back, its node says its name
/// again. KEYS stores, out, lease; ARGV store.
pub const FORGET: &[u8] = b"if redis.call('EXISTS', KEYS[2], KEYS[3]) > 0 then return 0 end \
    redis.call('HDEL', KEYS[1], ARGV[1]) \
    return 1";

/// Takes these over, unless their node is back: for each id a digit, 1 if it was there still.
/// KEYS lease, out, moved of the node that is gone, moved of the one that takes over; ARGV milliseconds, ids.
pub const TAKE: &[u8] = b"if redis.call('EXISTS', KEYS[1]) == 1 then return '' end \
    local told = {} \
    for i = 2, #ARGV do \
      if redis.call('HDEL', KEYS[2], ARGV[i]) == 1 then \
        redis.call('HSET', KEYS[3], ARGV[i], '') \
        redis.call('HDEL', KEYS[4], ARGV[i]) \
        told[i - 1] = '1' \
      else told[i - 1] = '0' end \
    end \
    redis.call('PEXPIRE', KEYS[3], ARGV[1]) \
    return table.concat(told)";

/// The names of the keys.
#[derive(Clone, Debug)]
pub struct Keys {
    prefix: String,
    /// This node's file.
    pub store: String,
}

impl Keys {
    /// For the file called `store`.
    pub fn new(prefix: String, store: String) -> Self {
        Self { prefix, store }
    }

    pub fn stores(&self) -> String {
        format!("{}stores", self.prefix)
    }

    pub fn out(&self, store: &str) -> String {
        format!("{}out:{store}", self.prefix)
    }

    pub fn moved(&self, store: &str) -> String {
        format!("{}moved:{store}", self.prefix)
    }

    pub fn lease(&self, store: &str) -> String {
        format!("{}lease:{store}", self.prefix)
    }

    pub fn takeover(&self, store: &str) -> String {
        format!("{}takeover:{store}", self.prefix)
    }
}

/// A script with its keys and arguments, as it is sent.
pub fn script(script: &[u8], keys: &[impl AsRef<str>], arguments: &[impl AsRef<str>]) -> Vec<u8> {
    let count = keys.len().to_string();
    let mut parts: Vec<&[u8]> = vec![b"EVAL", script, count.as_bytes()];
    parts.extend(keys.iter().map(|key| key.as_ref().as_bytes()));
    parts.extend(arguments.iter().map(|part| part.as_ref().as_bytes()));
    let mut command = Vec::new();
    store_command(&mut command, &parts);
    command
}

/// The ids as they stand in Redis.
pub fn texts(ids: &[NotificationId]) -> Vec<String> {
    ids.iter().map(ToString::to_string).collect()
}

/// Those of `ids` for which a script has told `digit`.
pub fn told(ids: &[NotificationId], digits: &[u8], digit: u8) -> Vec<NotificationId> {
    let pairs = ids.iter().zip(digits);
    let wanted = pairs.filter(|(_, told)| **told == digit);
    wanted.map(|(id, _)| *id).collect()
}
