//! Names of channels and keys in Redis, and the bucket that each lies in.
//!
//! On one primary there is one bucket, and names have no tag. In a cluster every name carries the tag of its bucket, so all
//! names of a bucket lie in one slot and fail and move together.

use std::fmt::Write as _;

use super::resp;
use super::slots;
use crate::bus::types::Topic;
use crate::config::{RedisConfig, RedisServers};
use crate::notification::{BackendId, EventKey};

/// The number of a bucket.
pub type Bucket = usize;

/// The bucket of `all`: one, so that announcements have one order.
pub const ALL: Bucket = 0;

/// Names of channels and keys in Redis.
pub struct KeyNames {
    prefix: String,
    /// The name of this node's run.
    pub instance: String,
    /// For each bucket what stands after the prefix: `:`, or `:{<tag>}:`.
    infixes: Vec<String>,
    pub verbs: &'static Verbs,
}

/// The commands by which messages go through Redis.
pub struct Verbs {
    pub publish: &'static str,
    pub subscribe: &'static [u8],
    pub unsubscribe: &'static [u8],
    /// The subcommand of PUBSUB that lists channels.
    pub channels: &'static [u8],
}

const PLAIN: Verbs = Verbs {
    publish: "PUBLISH",
    subscribe: b"SUBSCRIBE",
    unsubscribe: b"UNSUBSCRIBE",
    channels: b"CHANNELS",
};

/// Messages stay in their shard.
const SHARDED: Verbs = Verbs {
    publish: "SPUBLISH",
    subscribe: b"SSUBSCRIBE",
    unsubscribe: b"SUNSUBSCRIBE",
    channels: b"SHARDCHANNELS",
};

impl KeyNames {
    /// For the servers of `config`.
    pub fn of(config: &RedisConfig, instance: &str) -> Self {
        match config.servers {
            RedisServers::Cluster { .. } => Self::sharded(&config.prefix, instance),
            RedisServers::One(_) | RedisServers::Sentinel { .. } => {
                Self::plain(&config.prefix, instance)
            }
        }
    }

    /// For one primary.
    pub fn plain(prefix: &str, instance: &str) -> Self {
        Self {
            prefix: prefix.into(),
            instance: instance.into(),
            infixes: vec![":".into()],
            verbs: &PLAIN,
        }
    }

    /// For a cluster.
    pub fn sharded(prefix: &str, instance: &str) -> Self {
        let tags = slots::tags().into_iter();
        Self {
            prefix: prefix.into(),
            instance: instance.into(),
            infixes: tags.map(|tag| format!(":{{{tag}}}:")).collect(),
            verbs: &SHARDED,
        }
    }

    /// How many buckets there are.
    pub fn buckets(&self) -> usize {
        self.infixes.len()
    }

    fn bucket_of(&self, name: &str) -> Bucket {
        match self.infixes.len() {
            1 => 0,
            buckets => usize::from(slots::crc16(name.as_bytes())) % buckets,
        }
    }

    /// The bucket of a backend: of its channel, and of the receipts of what is sent to it.
    pub fn bucket_of_backend(&self, backend: &BackendId) -> Bucket {
        self.bucket_of(backend.as_str())
    }

    /// The bucket of a topic.
    pub fn bucket(&self, topic: &Topic) -> Bucket {
        match topic {
            Topic::Backend(backend) => self.bucket_of_backend(backend),
            Topic::Event(channel) => self.bucket_of(channel.as_str()),
        }
    }

    fn name(&self, bucket: Bucket, kind: &str, name: &str) -> String {
        [&self.prefix, &self.infixes[bucket], kind, name].concat()
    }

    /// The channel of `topic`.
    pub fn topic(&self, topic: &Topic) -> String {
        let bucket = self.bucket(topic);
        match topic {
            Topic::Backend(backend) => self.name(bucket, "to:", backend.as_str()),
            Topic::Event(channel) => self.name(bucket, "event:", channel.as_str()),
        }
    }

    /// The channel of the node called `instance` in `bucket`; `*`: a pattern for all nodes.
    pub fn node(&self, bucket: Bucket, instance: &str) -> String {
        self.name(bucket, "node:", instance)
    }

    /// The channel of all nodes.
    pub fn all(&self) -> String {
        self.name(ALL, "all", "")
    }

    /// The key that a batch is guarded with. It never exists.
    pub fn guard(&self, bucket: Bucket) -> String {
        self.name(bucket, "guard", "")
    }

    /// What the keys of the shared outbox in `bucket` begin with.
    pub fn store_prefix(&self, bucket: Bucket) -> String {
        self.name(bucket, "outbox:", "")
    }

    /// The bucket and the key of an event.
    pub fn event_seen(&self, key: &EventKey) -> (Bucket, String) {
        let bytes = key.bytes();
        let first = bytes.first().copied().unwrap_or_default();
        let bucket = usize::from(first) % self.buckets();
        let mut name = self.name(bucket, "event-seen:", "");
        for byte in bytes {
            // A String takes everything.
            let _ = write!(name, "{byte:02x}");
        }
        (bucket, name)
    }

    /// A command that publishes what `write` appends, to a backend's channel.
    pub fn publish_to(
        &self,
        bucket: Bucket,
        backend: &BackendId,
        write: impl FnOnce(&mut Vec<u8>),
    ) -> Vec<u8> {
        let channel = [&self.prefix, &self.infixes[bucket], "to:", backend.as_str()];
        resp::publish(self.verbs.publish, &channel, write)
    }

    /// A command that publishes what `write` appends, to the channel called `channel`.
    pub fn publish(&self, channel: &str, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        resp::publish(self.verbs.publish, &[channel], write)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bus::channel::Channel;

    #[test]
    fn names_are_what_the_table_says() {
        let backend = BackendId::parse("game-01").expect("an id");
        let channel = Channel::parse("news/today").expect("a channel");
        let one = KeyNames::plain("p", "a-1");
        assert_eq!(one.topic(&Topic::Backend(backend.clone())), "p:to:game-01");
        assert_eq!(one.topic(&Topic::Event(channel)), "p:event:news/today");
        assert_eq!(
            (one.node(0, "a-1"), one.all()),
            ("p:node:a-1".into(), "p:all".into())
        );

        let many = KeyNames::sharded("p", "a-1");
        let bucket = many.bucket_of_backend(&backend);
        let tag = &slots::tags()[bucket];
        assert_eq!(
            many.topic(&Topic::Backend(backend)),
            format!("p:{{{tag}}}:to:game-01")
        );
        assert_eq!(slots::slot(tag) / slots::SLOTS_EACH, bucket);
        let (bucket, name) = many.event_seen(&EventKey::from_bytes([200; 16]));
        assert_eq!(bucket, 200);
        assert!(name.ends_with(&"c8".repeat(16)) && name.contains(":event-seen:"));
    }
}
