//! What the subscriber subscribes to: the channels of its buckets, and topics as they are asked about.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::Work;
use crate::bus::redis::connection::RedisConnection;
use crate::bus::redis::link::LinkError;
use crate::bus::redis::names::{ALL, Bucket};
use crate::bus::redis::resp;
use crate::bus::redis::subscriptions::{ByBucket, Carries};
use crate::bus::types::{Ready, Topic};

/// Channels in one SUBSCRIBE.
const SUBSCRIBE_MAX: usize = 512;

impl Work {
    pub(super) fn wanted(&self, buckets: &[Bucket]) -> Vec<(Bucket, Topic)> {
        let names = &self.parts.router.names;
        let wanted = self.parts.wanted().into_iter();
        let wanted = wanted.map(|topic| (names.bucket(&topic), topic));
        wanted
            .filter(|(bucket, _)| buckets.binary_search(bucket).is_ok())
            .collect()
    }

    /// This node's own channels in `buckets`.
    pub(super) fn own(&self, buckets: &[Bucket]) -> Vec<(Bucket, String)> {
        let names = &self.parts.router.names;
        let mut own: Vec<_> = buckets
            .iter()
            .map(|bucket| (*bucket, names.node(*bucket, &names.instance)))
            .collect();
        if buckets.first() == Some(&ALL) {
            own.push((ALL, names.all()));
        }
        own
    }

    /// Subscribes to what is in buckets that this link has got, and forgets those that it has lost.
    pub(super) fn follow_buckets(
        &mut self,
        connection: &mut RedisConnection,
    ) -> Result<(), LinkError> {
        let version = self.parts.router.version();
        if version == self.version {
            return Ok(());
        }
        self.version = version;
        let router = Arc::clone(&self.parts.router);
        let buckets = router.buckets_of(&self.queue);
        if buckets == self.buckets {
            return Ok(());
        }
        let new: Vec<Bucket> = buckets
            .iter()
            .copied()
            .filter(|bucket| self.buckets.binary_search(bucket).is_err())
            .collect();
        self.buckets = buckets;
        for (topic, waiting) in self.subscriptions.retain_buckets(&self.buckets) {
            // Another link's subscriber looks at everything of a new bucket; this is for who waits.
            waiting.into_iter().for_each(|ready| {
                router.request(topic.clone(), Some(ready));
            });
        }
        let now = Instant::now();
        let mut by_bucket = ByBucket::new();
        for (bucket, name) in self.own(&new) {
            self.subscriptions
                .enter(&name, bucket, Carries::Own, Vec::new(), now);
            by_bucket.entry(bucket).or_default().push(name);
        }
        for (bucket, topic) in self.wanted(&new) {
            let name = router.names.topic(&topic);
            let carries = Carries::Topic(topic);
            self.subscriptions
                .enter(&name, bucket, carries, Vec::new(), now);
            by_bucket.entry(bucket).or_default().push(name);
        }
        self.deaf.extend(new);
        self.wants_canary = true;
        self.command(connection, router.names.verbs.subscribe, &by_bucket)?;
        self.queue.unsettled.store(true, Ordering::Relaxed);
        self.count();
        Ok(())
    }

    pub(super) fn answer_requests(
        &mut self,
        connection: &mut RedisConnection,
    ) -> Result<(), LinkError> {
        let requests = self.queue.requests.take();
        if requests.is_empty() {
            return Ok(());
        }
        // Each topic is looked at once, however often it was asked about: two looks could see a session come and go, and
        // the commands would leave in the wrong order.
        let mut topics: HashMap<Topic, Vec<Ready>> = HashMap::new();
        for (topic, ready) in requests {
            topics.entry(topic).or_default().extend(ready);
        }
        let router = Arc::clone(&self.parts.router);
        let (mut wanted, mut unwanted) = (ByBucket::new(), ByBucket::new());
        let now = Instant::now();
        for (topic, ready) in topics {
            let bucket = router.names.bucket(&topic);
            if self.buckets.binary_search(&bucket).is_err() {
                // It has moved since it was asked about.
                ready.into_iter().for_each(|ready| ready());
                continue;
            }
            let name = router.names.topic(&topic);
            let wants = self.parts.wants(&topic);
            match (wants, self.subscriptions.is_confirmed(&name)) {
                (true, Some(true)) => {
                    // Who waits is new, even if the topic is not: others may hold an older session.
                    if !ready.is_empty() {
                        self.parts.stands(&topic);
                    }
                    ready.into_iter().for_each(|ready| ready());
                }
                (true, Some(false)) => self.subscriptions.wait(&name, ready),
                (true, None) => {
                    let carries = Carries::Topic(topic);
                    self.subscriptions.enter(&name, bucket, carries, ready, now);
                    wanted.entry(bucket).or_default().push(name);
                }
                (false, _) => {
                    if let Some((bucket, waiting)) = self.subscriptions.leave(&name) {
                        waiting.into_iter().for_each(|ready| ready());
                        unwanted.entry(bucket).or_default().push(name);
                    }
                    ready.into_iter().for_each(|ready| ready());
                }
            }
        }
        self.command(connection, router.names.verbs.unsubscribe, &unwanted)?;
        self.command(connection, router.names.verbs.subscribe, &wanted)?;
        self.count();
        Ok(())
    }

    pub(super) fn ask_again(&mut self, connection: &mut RedisConnection) -> Result<(), LinkError> {
        let names = &self.parts.router.names;
        // On one primary no channel moves.
        if names.buckets() == 1 || self.subscriptions.all_confirmed() {
            return Ok(());
        }
        let again = self.subscriptions.take_overdue(Instant::now());
        self.command(connection, names.verbs.subscribe, &again)
    }

    /// One command for the channels of each bucket: in a cluster, one command cannot name two slots.
    pub(super) fn command(
        &self,
        connection: &mut RedisConnection,
        verb: &[u8],
        names: &ByBucket,
    ) -> Result<(), LinkError> {
        for names in names.values().flat_map(|names| names.chunks(SUBSCRIBE_MAX)) {
            let mut parts = vec![verb];
            parts.extend(names.iter().map(|name| name.as_bytes()));
            let mut bytes = Vec::new();
            resp::command(&mut bytes, &parts);
            connection.send(&bytes)?;
        }
        Ok(())
    }

    pub(super) fn count(&self) {
        let (wanted, standing) = self.subscriptions.counts();
        let health = &self.parts.health;
        health.subscriptions(self.queue.number, wanted, standing);
    }
}
