//! The way out to Redis: a bounded queue, and a thread that sends what it finds in one go.
//!
//! Whoever publishes never waits for Redis: a queue that is full, or a connection that is down, is an answer. The thread
//! waits for the replies of each batch, so a batch is what has come meanwhile; the busier it is, the fewer round trips
//! for each message.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use redis::{Connection, Value};

use super::backoff::Backoff;
use super::health::Health;
use super::link::{self, Place, Trouble};
use crate::bus::abroad::Abroad;
use crate::bus::roll::RollCalls;
use crate::bus::{Sessions, Stamp, Unreachable, frames};
use crate::metrics::BusMetrics;
use crate::notification::{BackendId, NotificationId};
use crate::thread::{self, JoinOnDrop};

/// Messages that may wait for the thread.
const QUEUE_MAX: usize = 8192;

/// Bytes that may wait for it; one more message is taken while there are fewer.
const QUEUE_BYTES_MAX: usize = 64 << 20;

/// The most messages in one round trip.
const BATCH_MAX: usize = 128;

/// The most bytes in one round trip, but for its last message.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How often this node publishes a word to itself.
const CANARY_EVERY: Duration = Duration::from_secs(1);

/// Backends in one HERE.
const HERE_MAX: usize = 256;

/// What is done with Redis's reply.
pub enum Then {
    /// Nothing.
    Nothing,
    /// It is the number of nodes that heard of this notification.
    Parcel(BackendId, NotificationId),
    /// Somebody wants to see it.
    Reply(Box<dyn FnOnce(Result<Value, Unreachable>) + Send>),
}

/// A command on its way.
struct Outgoing {
    bytes: Vec<u8>,
    then: Then,
}

/// Whoever has this can publish.
pub struct Post {
    inlet: Sender<Outgoing>,
    queued_bytes: AtomicUsize,
    /// Backends that have come and were not announced yet. Each is a session's, so there are no more than those.
    here: Mutex<Vec<(BackendId, Stamp)>>,
    /// The other nodes shall say who is there: this one may have missed arrivals.
    who: AtomicBool,
    /// This node's subscriber shall be woken.
    wake: AtomicBool,
    /// Redis may be gone: the connection shall be tried now.
    doubt: AtomicBool,
    metrics: BusMetrics,
}

impl fmt::Debug for Post {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Post({} waiting)", self.inlet.len())
    }
}

impl Post {
    /// Puts a command into the queue. It comes back when there is no room.
    pub fn send(&self, bytes: Vec<u8>, then: Then) -> Result<(), Then> {
        let size = bytes.len();
        if self.queued_bytes.fetch_add(size, Ordering::Relaxed) > QUEUE_BYTES_MAX {
            self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            self.metrics.refused();
            return Err(then);
        }
        self.inlet
            .try_send(Outgoing { bytes, then })
            .map_err(|refused| {
                self.queued_bytes.fetch_sub(size, Ordering::Relaxed);
                self.metrics.refused();
                refused.into_inner().then
            })
    }

    /// Announces that a session of `backend` is here.
    pub fn announce(&self, backend: BackendId, stamp: Stamp) {
        self.here.lock().push((backend, stamp));
        self.ring();
    }

    /// Announces all of `backends`, and nothing that was to be announced before; and asks the others to do the same, to
    /// this node.
    pub fn announce_all(&self, backends: Vec<(BackendId, Stamp)>) {
        *self.here.lock() = backends;
        self.who.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Wakes this node's subscriber through Redis: nothing else can, while it waits for messages.
    pub fn wake_subscriber(&self) {
        if !self.wake.swap(true, Ordering::Relaxed) {
            self.ring();
        }
    }

    /// The subscriber has lost its connection, so this one is tried now: else the first to publish would find out, and the
    /// bus be called up while it is not.
    pub fn doubt(&self) {
        self.doubt.store(true, Ordering::Relaxed);
        self.ring();
    }

    /// Makes the thread look. If the queue is full, it is about to.
    fn ring(&self) {
        let _ = self.inlet.try_send(Outgoing {
            bytes: Vec::new(),
            then: Then::Nothing,
        });
    }
}

/// The thread.
pub struct Publisher {
    post: Arc<Post>,
    stopping: Arc<AtomicBool>,
    _thread: JoinOnDrop,
}

impl Drop for Publisher {
    fn drop(&mut self) {
        // The queue has many owners, so its closing cannot be what ends the thread.
        self.stopping.store(true, Ordering::Relaxed);
        self.post.ring();
    }
}

/// What the thread works with.
pub struct Tools {
    pub place: Arc<Place>,
    pub prefix: String,
    pub instance: String,
    pub sessions: Arc<dyn Sessions>,
    pub abroad: Arc<Abroad>,
    pub calls: Arc<RollCalls>,
    pub health: Arc<Health>,
    pub metrics: BusMetrics,
}

impl Publisher {
    /// Starts the thread, and gives the way to it.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(tools: Tools) -> io::Result<(Self, Arc<Post>)> {
        let (inlet, inbox) = bounded(QUEUE_MAX);
        let post = Arc::new(Post {
            inlet,
            queued_bytes: AtomicUsize::new(0),
            here: Mutex::default(),
            who: AtomicBool::new(false),
            wake: AtomicBool::new(false),
            doubt: AtomicBool::new(false),
            metrics: tools.metrics.clone(),
        });
        let stopping = Arc::new(AtomicBool::new(false));
        let work = Work {
            tools,
            inbox,
            post: Arc::clone(&post),
            stopping: Arc::clone(&stopping),
            connection: None,
            backoff: Backoff::default(),
            retry_at: Instant::now(),
            canary_at: Instant::now(),
            batch: Vec::new(),
            bytes: Vec::new(),
        };
        let thread = thread::spawn("bus-publish", super::STACK_BYTES, move || work.run())?;
        let publisher = Self {
            post: Arc::clone(&post),
            stopping,
            _thread: thread,
        };
        Ok((publisher, post))
    }
}

struct Work {
    tools: Tools,
    inbox: Receiver<Outgoing>,
    post: Arc<Post>,
    stopping: Arc<AtomicBool>,
    connection: Option<Connection>,
    backoff: Backoff,
    retry_at: Instant,
    canary_at: Instant,
    /// What is done with the replies of this batch, in order.
    batch: Vec<Then>,
    bytes: Vec<u8>,
}

impl Work {
    fn run(mut self) {
        while !self.stopping.load(Ordering::Relaxed) {
            let due = match self.connection {
                Some(_) => self.canary_at,
                None => self.canary_at.min(self.retry_at),
            };
            let first = self.inbox.recv_deadline(due).ok();
            let now = Instant::now();
            self.connect(now);
            if let Some(first) = first {
                self.add(first);
            }
            self.collect();
            self.add_own(now);
            if let Err(why) = self.exchange() {
                self.lose(why);
            }
        }
        self.send_rest();
    }

    /// The last words, such as what became of notifications from other nodes; then nobody can be told anything more.
    fn send_rest(&mut self) {
        loop {
            self.collect();
            if self.batch.is_empty() {
                return;
            }
            if let Err(why) = self.exchange() {
                self.lose(why);
            }
        }
    }

    /// Adds what waits, as far as one round trip goes.
    fn collect(&mut self) {
        while self.batch.len() < BATCH_MAX && self.bytes.len() < BATCH_BYTES_MAX {
            let Ok(next) = self.inbox.try_recv() else {
                break;
            };
            self.add(next);
        }
    }

    fn add(&mut self, outgoing: Outgoing) {
        if outgoing.bytes.is_empty() {
            return; // only to wake this thread
        }
        self.post
            .queued_bytes
            .fetch_sub(outgoing.bytes.len(), Ordering::Relaxed);
        self.bytes.extend_from_slice(&outgoing.bytes);
        self.batch.push(outgoing.then);
    }

    /// Adds what this node says by itself: the wake-up, who has come, the canary.
    fn add_own(&mut self, now: Instant) {
        if self.post.doubt.swap(false, Ordering::Relaxed) || now >= self.canary_at {
            self.canary_at = now + CANARY_EVERY;
            self.tools.abroad.sweep(now);
            self.tools.calls.sweep(now);
            let word = self.tools.health.canary_word();
            self.publish_own("node:", |out| frames::canary(out, word));
        }
        if self.connection.is_none() {
            return; // once connected, everybody is announced
        }
        if self.post.wake.swap(false, Ordering::Relaxed) {
            self.publish_own("node:", frames::wake);
        }
        if self.post.who.swap(false, Ordering::Relaxed) {
            let node = &self.tools.instance;
            self.bytes
                .extend(link::publish(&[&self.tools.prefix, ":all"], |out| {
                    frames::who(out, super::UNASKED, node);
                }));
            self.batch.push(Then::Nothing);
        }
        let here = {
            let mut here = self.post.here.lock();
            let rest = here.len().saturating_sub(HERE_MAX);
            let some = here.split_off(rest);
            if rest > 0 {
                self.post.ring();
            }
            some
        };
        if !here.is_empty() {
            let channel = format!("{}:all", self.tools.prefix);
            let node = &self.tools.instance;
            self.bytes.extend(link::publish(&[&channel], |out| {
                frames::here(out, node, &here);
            }));
            self.batch.push(Then::Nothing);
        }
    }

    fn publish_own(&mut self, kind: &str, write: impl FnOnce(&mut Vec<u8>)) {
        let channel = [&self.tools.prefix, ":", kind, &self.tools.instance];
        self.bytes.extend(link::publish(&channel, write));
        self.batch.push(Then::Nothing);
    }

    fn connect(&mut self, now: Instant) {
        if self.connection.is_some() || now < self.retry_at {
            return;
        }
        match self.tools.place.connect(None) {
            Ok(connection) => {
                self.connection = Some(connection);
                self.backoff = Backoff::default();
                // What was announced and got lost with the last connection is not known.
                self.post.announce_all(self.tools.sessions.stamps());
                self.tools.health.publisher(Ok(()));
            }
            Err(why) => self.lose(why),
        }
    }

    /// Sends the batch, and deals with every reply. When it returns, the batch is empty.
    fn exchange(&mut self) -> Result<(), Trouble> {
        let Some(connection) = &mut self.connection else {
            self.fail_batch();
            return Ok(());
        };
        if self.batch.is_empty() {
            return Ok(());
        }
        self.tools.metrics.batch(self.batch.len());
        let sent = connection.send_packed_command(&self.bytes);
        self.bytes.clear();
        // A large batch was an exception.
        self.bytes.shrink_to(2 * BATCH_BYTES_MAX);
        let mut broken = sent.err().map(Trouble::from);
        for then in self.batch.drain(..) {
            if broken.is_some() {
                reply(&self.tools, then, Err(Unreachable));
                continue;
            }
            match connection.recv_response() {
                Ok(value) => reply(&self.tools, then, Ok(value)),
                Err(error) => {
                    reply(&self.tools, then, Err(Unreachable));
                    let is_broken = link::is_broken(&error);
                    let trouble = Trouble::from(error);
                    if is_broken {
                        broken = Some(trouble);
                    } else {
                        // Redis understood and refused: a right that is missing, a limit that is reached.
                        log::warn!("redis refuses a command: {trouble}");
                    }
                }
            }
        }
        broken.map_or(Ok(()), Err)
    }

    fn lose(&mut self, why: Trouble) {
        self.connection = None;
        self.retry_at = Instant::now() + self.backoff.next();
        self.tools.health.publisher(Err(why));
        self.fail_batch();
    }

    fn fail_batch(&mut self) {
        self.bytes.clear();
        for then in self.batch.drain(..) {
            reply(&self.tools, then, Err(Unreachable));
        }
    }
}

fn reply(tools: &Tools, then: Then, value: Result<Value, Unreachable>) {
    match then {
        Then::Nothing => {}
        Then::Parcel(backend, id) => match value {
            Ok(value) => tools.abroad.heard_by(&backend, id, link::count(&value)),
            Err(Unreachable) => tools.abroad.failed(&backend, id),
        },
        Then::Reply(tell) => tell(value),
    }
}
