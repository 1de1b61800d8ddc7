//! The links of this node: for each primary in use a publisher, a subscriber and the queue between them and the node.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use crossbeam_channel::{Sender, bounded};

use super::link::Server;
use super::parts::BusParts;
use super::publisher;
use super::queue::PublishQueue;
use super::subscriber;
use crate::thread::JoinOnDrop;

/// The two threads of one primary.
struct ShardLink {
    queue: Arc<PublishQueue>,
    /// Ends the subscriber's wait for the next try.
    stop: Option<Sender<()>>,
    publisher: JoinOnDrop,
    subscriber: JoinOnDrop,
}

impl ShardLink {
    /// Has both threads end, without waiting for them.
    fn leave(&mut self) {
        self.queue.leave();
        self.stop = None;
    }

    fn has_ended(&self) -> bool {
        self.publisher.is_finished() && self.subscriber.is_finished()
    }
}

/// All links, by the name of their primary. Dropping it ends them.
pub struct ShardLinks {
    parts: Arc<BusParts>,
    links: HashMap<String, ShardLink>,
    /// How many links are unused but for buckets that they have not handed over yet.
    being_left: usize,
    /// Links that were told to end. A connection to a server that stands still takes seconds for that.
    ending: Vec<ShardLink>,
    next: u64,
}

impl Drop for ShardLinks {
    fn drop(&mut self) {
        self.links.values_mut().for_each(ShardLink::leave);
    }
}

impl ShardLinks {
    /// No links yet.
    pub fn new(parts: Arc<BusParts>) -> Self {
        Self {
            parts,
            links: HashMap::new(),
            being_left: 0,
            ending: Vec::new(),
            next: 0,
        }
    }

    /// Has each bucket carried by the primary that `primaries` names for it, which `server` knows how to connect to. Links to
    /// other primaries end.
    ///
    /// # Errors
    /// The system has no room for a thread: the buckets of that primary stay where they were.
    pub fn apply(
        &mut self,
        primaries: &[Option<String>],
        server: impl Fn(&str) -> io::Result<Server>,
    ) -> io::Result<()> {
        let mut trouble = Ok(());
        for name in primaries.iter().flatten() {
            if !self.links.contains_key(name) {
                match server(name).and_then(|server| self.link(name, server)) {
                    Ok(link) => drop(self.links.insert(name.clone(), link)),
                    Err(error) => trouble = Err(error),
                }
            }
        }
        let queue = |name: &Option<String>| {
            let link = self.links.get(name.as_ref()?)?;
            Some(Arc::clone(&link.queue))
        };
        let wanted: Vec<_> = primaries.iter().map(queue).collect();
        self.parts.router.assign(&wanted);
        self.end_unused(primaries);
        trouble
    }

    fn link(&mut self, name: &str, server: Server) -> io::Result<ShardLink> {
        self.next += 1;
        let metrics = self.parts.metrics.clone();
        let queue = Arc::new(PublishQueue::new(self.next, name.to_owned(), metrics));
        self.parts.health.add_link(queue.number, name);
        let (stop, stopped) = bounded(0);
        let parts = Arc::clone(&self.parts);
        let publisher = publisher::start(server.clone(), Arc::clone(&queue), Arc::clone(&parts))?;
        let subscriber = subscriber::start(server, Arc::clone(&queue), parts, stopped);
        if subscriber.is_err() {
            queue.leave();
        }
        Ok(ShardLink {
            queue,
            stop: Some(stop),
            publisher,
            subscriber: subscriber?,
        })
    }

    /// Ends links without a bucket, and joins those that have ended.
    fn end_unused(&mut self, primaries: &[Option<String>]) {
        // A bucket that is to be handed over still belongs to its old link.
        let in_use = self.parts.router.queues();
        let mut being_left = 0;
        let unused = self.links.extract_if(|name, link| {
            let wanted = primaries.iter().flatten().any(|primary| primary == name);
            let has_bucket = in_use.iter().any(|queue| queue.number == link.queue.number);
            being_left += usize::from(!wanted && has_bucket);
            !wanted && !has_bucket
        });
        for (_, mut link) in unused {
            link.leave();
            self.parts.health.remove_link(link.queue.number);
            self.ending.push(link);
        }
        self.being_left = being_left;
        self.ending.retain(|link| !link.has_ended());
    }

    /// Whether links still have buckets that are to be handed over.
    pub fn are_being_left(&self) -> bool {
        self.being_left > 0
    }

    /// Wakes every subscriber that waits for something to be confirmed; whether one does.
    pub fn wake_unsettled(&self) -> bool {
        let unsettled = |link: &&ShardLink| {
            link.queue
                .unsettled
                .load(std::sync::atomic::Ordering::Relaxed)
        };
        let links = self.links.values().filter(unsettled);
        links.map(|link| link.queue.wake_subscriber()).count() > 0
    }
}
