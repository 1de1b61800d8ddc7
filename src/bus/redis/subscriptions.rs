//! What is subscribed to on the present connection of a subscriber: what is wanted, and what Redis has confirmed. No I/O.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::names::Bucket;
use crate::bus::types::{Ready, Topic};

/// After this, what is not confirmed is asked for again.
const ASK_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// What a channel carries.
#[derive(Clone, Debug)]
pub enum Carries {
    /// What is for this node, or for all nodes.
    Own,
    Topic(Topic),
}

/// A channel.
struct Entry {
    bucket: Bucket,
    carries: Carries,
    wanted: bool,
    /// Subscriptions that Redis has not confirmed.
    unconfirmed: u32,
    asked_at: Instant,
    /// Since when it has not been confirmed, if it is not.
    missing_since: Instant,
    waiting: Vec<Ready>,
}

/// What a command is to be sent for: the channels of one bucket.
pub type ByBucket = HashMap<Bucket, Vec<String>>;

/// All channels of one connection, by name.
#[derive(Default)]
pub struct ChannelSubscriptions {
    entries: HashMap<String, Entry>,
    /// Entries that are wanted and not confirmed.
    missing: usize,
}

impl ChannelSubscriptions {
    /// How many channels there are, and how many are confirmed.
    pub fn counts(&self) -> (usize, usize) {
        (
            self.entries.len(),
            self.entries.len().saturating_sub(self.missing),
        )
    }

    /// Whether all that is wanted is confirmed.
    pub fn all_confirmed(&self) -> bool {
        self.missing == 0
    }

    /// Forgets everything; gives back those who wait.
    pub fn clear(&mut self) -> Vec<Ready> {
        self.missing = 0;
        let entries = self.entries.drain();
        entries.flat_map(|(_, entry)| entry.waiting).collect()
    }

    /// Notes that `name` is about to be subscribed to; `ready` is kept until that is confirmed.
    pub fn enter(
        &mut self,
        name: &str,
        bucket: Bucket,
        carries: Carries,
        ready: Vec<Ready>,
        now: Instant,
    ) {
        let entry = self
            .entries
            .entry(name.to_owned())
            .or_insert_with(|| Entry {
                bucket,
                carries,
                wanted: false,
                unconfirmed: 0,
                asked_at: now,
                missing_since: now,
                waiting: Vec::new(),
            });
        if !entry.wanted || entry.unconfirmed == 0 {
            entry.missing_since = now;
        }
        self.missing += usize::from(!(entry.wanted && entry.unconfirmed > 0));
        entry.wanted = true;
        entry.unconfirmed += 1;
        entry.asked_at = now;
        entry.waiting.extend(ready);
    }

    /// Whether `name` is wanted already; `Some(true)`: and confirmed.
    pub fn is_confirmed(&self, name: &str) -> Option<bool> {
        let entry = self.entries.get(name).filter(|entry| entry.wanted)?;
        Some(entry.unconfirmed == 0)
    }

    /// Keeps `ready` until `name`, which is wanted already, is confirmed.
    pub fn wait(&mut self, name: &str, ready: Vec<Ready>) {
        if let Some(entry) = self.entries.get_mut(name) {
            entry.waiting.extend(ready);
        }
    }

    /// `name` is not wanted any more: whether it is to be unsubscribed from, and who waited for it.
    pub fn leave(&mut self, name: &str) -> Option<(Bucket, Vec<Ready>)> {
        let entry = self.entries.get_mut(name).filter(|entry| entry.wanted)?;
        self.missing -= usize::from(entry.unconfirmed > 0);
        entry.wanted = false;
        Some((entry.bucket, std::mem::take(&mut entry.waiting)))
    }

    /// What `name` carries, and in which bucket; `None`: it is not known.
    pub fn carries(&self, name: &str) -> Option<(Bucket, &Carries)> {
        let entry = self.entries.get(name)?;
        Some((entry.bucket, &entry.carries))
    }

    /// Redis has confirmed `name`. Gives back who waited, once it stands.
    pub fn confirmed(&mut self, name: &str) -> Option<(Carries, Vec<Ready>)> {
        let entry = self.entries.get_mut(name)?;
        if entry.unconfirmed == 0 {
            return None;
        }
        entry.unconfirmed -= 1;
        if entry.unconfirmed > 0 || !entry.wanted {
            return None;
        }
        self.missing -= 1;
        Some((entry.carries.clone(), std::mem::take(&mut entry.waiting)))
    }

    /// Redis has ended the subscription to `name`. Whether it was not asked to.
    pub fn ended(&mut self, name: &str, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(name) else {
            return false;
        };
        if !entry.wanted {
            if entry.unconfirmed == 0 {
                self.entries.remove(name);
            }
            return false;
        }
        if entry.unconfirmed > 0 {
            return false; // it answers an earlier command, and a later one subscribes again
        }
        // The slot has moved, or its primary is another server now.
        entry.unconfirmed = 1;
        entry.missing_since = now;
        entry.asked_at = now;
        self.missing += 1;
        true
    }

    /// What has not been confirmed for a while and is to be asked for again.
    pub fn take_overdue(&mut self, now: Instant) -> ByBucket {
        let mut again = ByBucket::new();
        if self.missing == 0 {
            return again;
        }
        for (name, entry) in &mut self.entries {
            if entry.wanted && entry.unconfirmed > 0 && now >= entry.asked_at + ASK_AGAIN_AFTER {
                entry.unconfirmed = 1;
                entry.asked_at = now;
                again.entry(entry.bucket).or_default().push(name.clone());
            }
        }
        again
    }

    /// For how long the oldest of what is wanted and not confirmed has been so.
    pub fn missing_for(&self, now: Instant) -> Duration {
        if self.missing == 0 {
            return Duration::ZERO;
        }
        let missing = self
            .entries
            .values()
            .filter(|entry| entry.wanted && entry.unconfirmed > 0);
        let oldest = missing.map(|entry| entry.missing_since).min();
        oldest.map_or(Duration::ZERO, |oldest| {
            now.saturating_duration_since(oldest)
        })
    }

    /// Forgets the channels of buckets that are another link's; gives back the topics for which somebody waits.
    pub fn retain_buckets(&mut self, buckets: &[Bucket]) -> Vec<(Topic, Vec<Ready>)> {
        let mut waiting = Vec::new();
        let missing = &mut self.missing;
        self.entries.retain(|_, entry| {
            let stays = buckets.binary_search(&entry.bucket).is_ok();
            if !stays {
                *missing -= usize::from(entry.wanted && entry.unconfirmed > 0);
                if let Carries::Topic(topic) = &entry.carries {
                    waiting.push((topic.clone(), std::mem::take(&mut entry.waiting)));
                }
            }
            stays
        });
        waiting
    }
}
