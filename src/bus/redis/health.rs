//! Whether this node hears and is heard, for each bucket.
//!
//! A bucket is up while both connections of its link stand and a canary has made the whole way: published to the bucket's
//! primary in a guarded batch, counted by it, and received by this node, all on the present connections.

mod state;
mod verdict;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

pub use self::state::LinkState;
use self::state::{HealthState, LinkHealth, not_yet};
use super::link::LinkError;
use super::names::Bucket;
use super::split::{OtherPrimaries, Split};
use crate::bus::hub::Hub;
use crate::metrics::{BusMetrics, BusReadings};

/// How long a subscriber may receive no canary; there is one every second.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// Shared by the threads of all links and whoever asks.
pub struct Health {
    began: Instant,
    buckets: Vec<BucketHealth>,
    state: Mutex<HealthState>,
    changed: Condvar,
    settle_time: Duration,
    /// Some nodes use another primary: that nobody receives a message says nothing.
    is_split: AtomicBool,
    /// How long the last canary was on its way, in microseconds.
    lag: AtomicU64,
    hub: Arc<Hub>,
    metrics: BusMetrics,
}

/// Times are in microseconds from `began`; 0: not yet.
#[derive(Default)]
struct BucketHealth {
    /// A canary proves the bucket if it was sent after this.
    proof: AtomicU64,
    /// When the last canary was sent that its primary counted in a guarded batch.
    counted: AtomicU64,
    /// When the last canary was sent that this node received.
    received: AtomicU64,
    /// Since when the bucket is up; 0: it is down.
    up_since: AtomicU64,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Health(up: {})", self.state.lock().up)
    }
}

fn not_proven() -> LinkError {
    LinkError("this node has not received its own canary yet".into())
}

impl Health {
    /// For so many buckets, none of which has a link. `settle_time`: how long a bucket must have been up before a count of 0
    /// means that a backend is nowhere.
    pub fn new(buckets: usize, settle_time: Duration, hub: Arc<Hub>, metrics: BusMetrics) -> Self {
        hub.turn(Some(&not_yet().0)).tell();
        Self {
            began: Instant::now(),
            buckets: (0..buckets).map(|_| BucketHealth::default()).collect(),
            state: Mutex::new(HealthState {
                links: HashMap::new(),
                owners: vec![None; buckets],
                topology: None,
                split: Split::default(),
                sentinels: (0, 0),
                up: false,
                down_since: Instant::now(),
                last: None,
                logged: vec![not_yet(), not_proven()], // no news at the start
            }),
            changed: Condvar::new(),
            settle_time,
            is_split: AtomicBool::new(false),
            lag: AtomicU64::new(0),
            hub,
            metrics,
        }
    }

    /// Whether `bucket` is up.
    pub fn is_up(&self, bucket: Bucket) -> bool {
        self.buckets[bucket].up_since.load(Ordering::Relaxed) > 0
    }

    /// Whether every bucket is up, and no node seems to be on another primary.
    pub fn is_all_up(&self) -> bool {
        let state = self.state.lock();
        state.up && !state.split.is_suspected()
    }

    /// Whether a count of 0 in `bucket` means that the backend is on no node: other nodes have had time to subscribe again.
    pub fn is_settled(&self, bucket: Bucket) -> bool {
        let since = self.buckets[bucket].up_since.load(Ordering::Relaxed);
        let settled = Duration::from_micros(since) + self.settle_time;
        since > 0 && self.began.elapsed() >= settled && !self.is_split.load(Ordering::Relaxed)
    }

    /// Waits until every bucket is up, or `deadline`; says whether all are.
    pub fn wait_up(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while !state.up {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        state.up
    }

    // ---- what the threads report -----------------------------------------------------------------------------------

    /// There is a link called `name`, which has no connections yet.
    pub fn add_link(&self, number: u64, name: &str) {
        let link = LinkHealth {
            name: name.to_owned(),
            publisher: Err(not_yet()),
            subscriber: Err(not_yet()),
            wanted: 0,
            standing: 0,
        };
        self.state.lock().links.insert(number, link);
    }

    /// A link has ended.
    pub fn remove_link(&self, number: u64) {
        self.state.lock().links.remove(&number);
    }

    /// These buckets belong to these links from now on.
    pub fn assign(&self, changed: &[(Bucket, Option<u64>)]) {
        self.change(|health, state| {
            for (bucket, owner) in changed {
                state.owners[*bucket] = *owner;
                health.prove_anew(*bucket);
            }
        });
    }

    /// Why the topology is not known; `None`: it is.
    pub fn topology(&self, trouble: Option<LinkError>) {
        self.change(|_, state| state.topology = trouble);
    }

    /// The nodes that this node has found on another primary.
    pub fn found_elsewhere(&self, found: Option<OtherPrimaries>) {
        self.change(|_, state| state.split.found(found, Instant::now()));
    }

    /// `node` says on this primary that it uses another one, `at`. What nobody here receives may be received there.
    pub fn said_elsewhere(&self, node: &str, at: &str) {
        self.change(|health, state| {
            state.split.said(node, at, Instant::now());
            health.settle_anew();
        });
    }

    /// `node` is heard on this primary.
    pub fn joined(&self, node: &str) {
        self.change(|_, state| state.split.joined(node, Instant::now()));
    }

    /// This node is about to use the primary `name`. Its link is down until then.
    pub fn about_to_use(&self, name: &str) {
        self.state.lock().split.uses(name);
    }

    /// How many sentinels answer, of how many.
    pub fn sentinels(&self, answering: usize, all: usize) {
        self.state.lock().sentinels = (answering, all);
    }

    /// What the publisher's connection of a link is now.
    pub fn publisher(&self, link: u64, now: LinkState) {
        self.change(|_, state| {
            if let Some(link) = state.links.get_mut(&link) {
                link.publisher = now;
            }
        });
    }

    /// The publisher of a link has a new connection: only canaries sent from now on prove its buckets.
    pub fn publisher_connected(&self, number: u64) {
        self.change(|health, state| {
            for bucket in 0..state.owners.len() {
                if state.owners[bucket] == Some(number) {
                    health.prove_anew(bucket);
                }
            }
            if let Some(link) = state.links.get_mut(&number) {
                link.publisher = Ok(());
            }
        });
    }

    /// What the subscriber's connection of a link is now.
    pub fn subscriber(&self, link: u64, now: LinkState) {
        self.change(|_, state| {
            if let Some(link) = state.links.get_mut(&link) {
                link.subscriber = now;
            }
        });
    }

    /// Whether the subscriber of a link has everything it wants.
    pub fn subscriber_stands(&self, link: u64) -> bool {
        let state = self.state.lock();
        let link = state.links.get(&link);
        link.is_some_and(|link| link.subscriber.is_ok())
    }

    /// How many subscriptions a link wants, and how many Redis has confirmed.
    pub fn subscriptions(&self, link: u64, wanted: usize, standing: usize) {
        if let Some(link) = self.state.lock().links.get_mut(&link) {
            (link.wanted, link.standing) = (wanted, standing);
        }
    }

    /// What a canary says that is sent now.
    pub fn canary(&self) -> u64 {
        self.now()
    }

    /// The primary of `bucket` has counted a canary, in a guarded batch.
    pub fn counted(&self, bucket: Bucket, canary: u64) {
        self.buckets[bucket]
            .counted
            .fetch_max(canary, Ordering::Relaxed);
        self.proven(bucket);
    }

    /// This node has received a canary of `bucket`.
    pub fn received(&self, bucket: Bucket, canary: u64) {
        let now = self.now();
        let sane = canary.min(now);
        self.lag.store(now - sane, Ordering::Relaxed);
        self.buckets[bucket]
            .received
            .fetch_max(sane, Ordering::Relaxed);
        self.proven(bucket);
    }

    fn proven(&self, bucket: Bucket) {
        if !self.is_up(bucket) && self.is_proven(bucket) {
            self.refresh();
        }
    }

    /// Looks whether a proof has grown too old. To be called every second, by any thread.
    pub fn refresh(&self) {
        self.change(|_, _| {});
    }

    fn now(&self) -> u64 {
        (self.began.elapsed().as_micros() as u64).max(1)
    }

    fn prove_anew(&self, bucket: Bucket) {
        let bucket = &self.buckets[bucket];
        bucket.proof.store(self.now(), Ordering::Relaxed);
        bucket.up_since.store(0, Ordering::Relaxed);
    }

    fn proof(&self, bucket: Bucket) -> u64 {
        let bucket = &self.buckets[bucket];
        let counted = bucket.counted.load(Ordering::Relaxed);
        counted.min(bucket.received.load(Ordering::Relaxed))
    }

    fn is_proven(&self, bucket: Bucket) -> bool {
        let since = self.buckets[bucket].proof.load(Ordering::Relaxed);
        let proof = self.proof(bucket);
        proof > 0 && proof >= since
    }

    /// How old the oldest proof is of any bucket.
    fn proof_age(&self) -> Duration {
        let oldest = (0..self.buckets.len())
            .map(|bucket| self.proof(bucket))
            .min();
        Duration::from_micros(self.now().saturating_sub(oldest.unwrap_or_default()))
    }

    /// For the metrics.
    pub fn readings(&self) -> BusReadings {
        let state = self.state.lock();
        let up = (0..self.buckets.len()).filter(|bucket| self.is_up(*bucket));
        BusReadings {
            canary_age: Some(self.proof_age()),
            canary_lag: Duration::from_micros(self.lag.load(Ordering::Relaxed)),
            subscriptions_wanted: state.links.values().map(|link| link.wanted).sum(),
            subscriptions_standing: state.links.values().map(|link| link.standing).sum(),
            buckets: self.buckets.len(),
            buckets_up: up.count(),
            primaries: state.primaries(),
            sentinels: state.sentinels.1,
            sentinels_answering: state.sentinels.0,
        }
    }
}
