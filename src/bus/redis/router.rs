//! Which link carries which bucket. Everything that is published goes through here.
//!
//! *Order.* A command is put into a queue while the table is locked for reading, and a bucket changes its queue while it is
//! locked for writing: the commands of one bucket keep their order when it moves to another primary.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crossbeam_channel::Sender;
use parking_lot::{Mutex, RwLock};

use super::health::Health;
use super::names::{ALL, Bucket, KeyNames};
use super::queue::{Handover, OnReply, PublishQueue, QueuedCommand};
use crate::bus::types::{Reach, Ready, Stamp, Topic};
use crate::notification::BackendId;

/// The table of buckets, and what is published on `all`.
pub struct Router {
    pub names: KeyNames,
    owners: RwLock<Vec<Option<Arc<PublishQueue>>>>,
    /// Changes with every change of `owners`.
    version: AtomicU64,
    /// Backends that have come and were not announced yet. Each is a session's, so there are no more than those.
    here: Mutex<Vec<(BackendId, Stamp)>>,
    /// The other nodes shall say which backends they have: this one may have missed arrivals.
    who: AtomicBool,
    /// Makes the topology's thread look, if there is one.
    look: Sender<()>,
    health: Arc<Health>,
}

impl fmt::Debug for Router {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Router({} buckets)", self.names.buckets())
    }
}

impl Router {
    /// No bucket has a link yet.
    pub fn new(names: KeyNames, look: Sender<()>, health: Arc<Health>) -> Self {
        Self {
            owners: RwLock::new(vec![None; names.buckets()]),
            names,
            version: AtomicU64::new(1),
            here: Mutex::default(),
            who: AtomicBool::new(false),
            look,
            health,
        }
    }

    /// Sends a command towards the primary of `bucket`; it comes back when there is no room, or no primary.
    pub fn send(&self, bucket: Bucket, bytes: Vec<u8>, then: OnReply) -> Result<(), OnReply> {
        self.send_again(QueuedCommand::new(bucket, bytes, then))
    }

    /// Sends what was sent before, to the link that its bucket belongs to now.
    pub fn send_again(&self, outgoing: QueuedCommand) -> Result<(), OnReply> {
        match &self.owners.read()[outgoing.bucket] {
            Some(queue) => queue.send(outgoing),
            None => Err(outgoing.then),
        }
    }

    /// Sends `outgoing` to the primary called `name`, which imports its slot, if there is a link to it.
    pub fn send_asking(&self, name: &str, outgoing: QueuedCommand) -> Result<(), OnReply> {
        let owners = self.owners.read();
        let queue = owners.iter().flatten().find(|queue| queue.name == name);
        match queue {
            Some(queue) => queue.send(QueuedCommand {
                asking: true,
                ..outgoing
            }),
            None => Err(outgoing.then),
        }
    }

    /// Has the subscriber look at `topic`; `None`: there is no connection.
    pub fn request(&self, topic: Topic, ready: Option<Ready>) -> Option<Reach> {
        let reach = ready.as_ref().map_or(Reach::Settled, |_| Reach::Soon);
        let queue = self.owner(self.names.bucket(&topic))?;
        queue.requests.add(topic, ready).then(|| {
            queue.wake_subscriber();
            reach
        })
    }

    /// The queue of `bucket`.
    pub fn owner(&self, bucket: Bucket) -> Option<Arc<PublishQueue>> {
        self.owners.read()[bucket].clone()
    }

    /// The buckets of `queue`, in order.
    pub fn buckets_of(&self, queue: &PublishQueue) -> Vec<Bucket> {
        let owners = self.owners.read();
        let of = |(bucket, owner): (Bucket, &Option<Arc<PublishQueue>>)| {
            let owner = owner.as_ref()?;
            (owner.number == queue.number).then_some(bucket)
        };
        owners.iter().enumerate().filter_map(of).collect()
    }

    /// Changes whenever a bucket goes to another queue. Read before the buckets, so that no change is missed.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Every queue that has a bucket.
    pub fn queues(&self) -> Vec<Arc<PublishQueue>> {
        let mut queues: Vec<Arc<PublishQueue>> =
            self.owners.read().iter().flatten().cloned().collect();
        queues.sort_by_key(|queue| queue.number);
        queues.dedup_by_key(|queue| queue.number);
        queues
    }

    // ---- what is published on `all` --------------------------------------------------------------------------------

    /// Announces that a session of `backend` is here.
    pub fn announce(&self, backend: BackendId, stamp: Stamp) {
        let first = {
            let mut here = self.here.lock();
            here.push((backend, stamp));
            here.len() == 1
        };
        // Once: thousands that come at the same moment must not fill the queue.
        if first {
            self.ring_all();
        }
    }

    /// Announces all of `backends`, and nothing that was to be announced before; and asks the others to do the same, to
    /// this node.
    pub fn announce_all(&self, backends: Vec<(BackendId, Stamp)>) {
        *self.here.lock() = backends;
        self.who.store(true, Ordering::Relaxed);
        self.ring_all();
    }

    fn ring_all(&self) {
        if let Some(queue) = self.owner(ALL) {
            queue.ring();
        }
    }

    /// Takes at most `most` of what is to be announced; the rest is asked for by another ring.
    pub fn take_here(&self, most: usize) -> Vec<(BackendId, Stamp)> {
        let mut here = self.here.lock();
        let rest = here.len().saturating_sub(most);
        let some = here.split_off(rest);
        drop(here);
        if rest > 0 {
            self.ring_all();
        }
        some
    }

    /// Whether the other nodes shall be asked; not twice.
    pub fn take_who(&self) -> bool {
        self.who.swap(false, Ordering::Relaxed)
    }

    // ---- the topology ----------------------------------------------------------------------------------------------

    /// Makes the topology's thread look now: a server has said that it is not the primary, or has said nothing.
    pub fn look_now(&self) {
        let _ = self.look.try_send(()); // full: it is about to look
    }

    /// The topology says which queue each bucket belongs to.
    pub fn assign(&self, wanted: &[Option<Arc<PublishQueue>>]) {
        let mut later: Vec<(Arc<PublishQueue>, Vec<Handover>)> = Vec::new();
        let mut changed = Vec::new();
        {
            let mut owners = self.owners.write();
            for (bucket, (owner, wanted)) in owners.iter_mut().zip(wanted).enumerate() {
                let number =
                    |queue: &Option<Arc<PublishQueue>>| queue.as_ref().map(|queue| queue.number);
                if number(owner) == number(wanted) {
                    continue;
                }
                match owner {
                    // Commands may be under way there: its publisher hands over when their replies have come.
                    Some(old) if old.connected.load(Ordering::SeqCst) => {
                        match later
                            .iter_mut()
                            .find(|(queue, _)| queue.number == old.number)
                        {
                            Some((_, list)) => list.push((bucket, wanted.clone())),
                            None => later.push((Arc::clone(old), vec![(bucket, wanted.clone())])),
                        }
                    }
                    // What waits there fails at once, as whatever is sent without a connection.
                    Some(_) | None => {
                        owner.clone_from(wanted);
                        changed.push((bucket, number(wanted)));
                    }
                }
            }
        }
        for (queue, handovers) in later {
            queue.hand_over(handovers);
        }
        self.moved(&changed);
    }

    /// Hands over what `queue` was told to. Called by its publisher, while none of its commands is under way: `held` are the
    /// commands that the old primary has sent away, which go first. What stays is put into `rest`, in order. Gives back what
    /// could not be handed over.
    pub fn carry_out(
        &self,
        queue: &PublishQueue,
        held: &mut Vec<QueuedCommand>,
        rest: &mut VecDeque<QueuedCommand>,
    ) -> Vec<OnReply> {
        let handovers = queue.take_handovers();
        let mut failed = Vec::new();
        if handovers.is_empty() {
            return failed;
        }
        let mut changed = Vec::new();
        {
            let mut owners = self.owners.write();
            let waiting = held.drain(..).chain(rest.drain(..)).chain(queue.drain());
            let mut kept = VecDeque::new();
            for outgoing in waiting {
                let to = handovers
                    .iter()
                    .rev()
                    .find(|(bucket, _)| *bucket == outgoing.bucket);
                match to {
                    _ if outgoing.bytes.is_empty() => {}
                    None => kept.push_back(outgoing),
                    Some((_, Some(to))) => failed.extend(to.send(outgoing).err()),
                    Some((_, None)) => failed.push(outgoing.then),
                }
            }
            *rest = kept;
            for (bucket, to) in &handovers {
                owners[*bucket].clone_from(to);
                changed.push((*bucket, to.as_ref().map(|queue| queue.number)));
            }
        }
        self.moved(&changed);
        failed
    }

    fn moved(&self, changed: &[(Bucket, Option<u64>)]) {
        if changed.is_empty() {
            return;
        }
        self.health.assign(changed);
        self.version.fetch_add(1, Ordering::AcqRel);
        // Old and new subscribers look at what is theirs now.
        for queue in self.queues() {
            queue.wake_subscriber();
            // One that the publisher has sent before health knew proves nothing, and the next is a second away.
            if changed.iter().any(|(_, to)| *to == Some(queue.number)) {
                queue.ask_for_canary();
            }
        }
    }
}
