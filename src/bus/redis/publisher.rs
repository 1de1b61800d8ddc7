//! The way out to Redis: a thread that sends what it finds in the queue in one go.
//!
//! It waits for the replies of each batch, so a batch is what has come meanwhile; the busier it is, the fewer round trips
//! for each message. While the connection is down, what comes fails at once.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use redis::{Connection, Value};

use super::backoff::Backoff;
use super::health::Health;
use super::link::{self, Place, Trouble};
use super::post::{Outgoing, Post, Then, Word};
use crate::bus::abroad::Abroad;
use crate::bus::roll::RollCalls;
use crate::bus::{Sessions, Unreachable, frames};
use crate::metrics::BusMetrics;
use crate::thread::{self, JoinOnDrop};

/// The most messages in one round trip.
const BATCH_MAX: usize = 128;

/// The most bytes in one round trip, but for its last message.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// How often a word is said that nobody hears: the node it is for has a few seconds to come back.
const UNHEARD_MAX: u32 = 5;

/// The most words that wait to be said again, about 200 bytes each.
const KEPT_MAX: usize = 8192;

/// How often this node publishes a word to itself.
const CANARY_EVERY: Duration = Duration::from_secs(1);

/// How often the log says that Redis refuses something.
const REFUSAL_EVERY: Duration = Duration::from_secs(10);

/// Backends in one HERE.
const HERE_MAX: usize = 256;

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
        let (post, inbox) = Post::open(tools.metrics.clone());
        let post = Arc::new(post);
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
            unheard: Vec::new(),
            batch: Vec::new(),
            bytes: Vec::new(),
            refusals: Refusals::default(),
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
    /// What has to be said again, when there is a connection and a second has passed.
    unheard: Vec<Word>,
    /// What is done with the replies of this batch, in order.
    batch: Vec<Then>,
    bytes: Vec<u8>,
    refusals: Refusals,
}

/// Speaks of commands that Redis refuses, but not of every one: there may be thousands a second.
#[derive(Default)]
struct Refusals {
    said: Option<Instant>,
}

impl Refusals {
    fn say(&mut self, trouble: &Trouble) {
        if self.said.is_none_or(|said| said.elapsed() >= REFUSAL_EVERY) {
            self.said = Some(Instant::now());
            log::warn!("redis refuses a command: {trouble}");
        }
    }
}

impl Work {
    fn run(mut self) {
        while !self.stopping.load(Ordering::Relaxed) {
            let retry = self.connection.is_none() && !self.post.leaving.load(Ordering::Relaxed);
            let due = match retry {
                true => self.canary_at.min(self.retry_at),
                false => self.canary_at,
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
        if let Then::Again(mut word) = outgoing.then {
            word.bytes = outgoing.bytes;
            return match self.connection {
                Some(_) => self.say(word),
                None => self.keep(word),
            };
        }
        self.bytes.extend_from_slice(&outgoing.bytes);
        self.batch.push(outgoing.then);
    }

    fn say(&mut self, word: Word) {
        self.bytes.extend_from_slice(&word.bytes);
        self.batch.push(Then::Again(word));
    }

    /// Keeps a word for later. One that comes twice, or late, harms nobody.
    fn keep(&mut self, word: Word) {
        match word.unheard < UNHEARD_MAX && self.unheard.len() < KEPT_MAX {
            true => self.unheard.push(word),
            false => self.tools.metrics.receipt_lost(),
        }
    }

    /// Adds what this node says by itself: the wake-up, who has come, the canary.
    fn add_own(&mut self, now: Instant) {
        let due = now >= self.canary_at;
        if due {
            self.canary_at = now + CANARY_EVERY;
            self.tools.abroad.sweep(now);
            self.tools.calls.sweep(now);
            if self.connection.is_some() {
                for word in std::mem::take(&mut self.unheard) {
                    self.say(word);
                }
            }
        }
        if self.connection.is_none() {
            return; // once connected, everybody is announced
        }
        if self.post.sing.swap(false, Ordering::Relaxed) || due {
            let word = self.tools.health.canary_word();
            self.publish_own(Then::Canary, |out| frames::canary(out, word));
        }
        if self.post.wake.swap(false, Ordering::Relaxed) {
            self.publish_own(Then::Nothing, frames::wake);
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

    /// Publishes on this node's own channel.
    fn publish_own(&mut self, then: Then, write: impl FnOnce(&mut Vec<u8>)) {
        let channel = [&self.tools.prefix, ":node:", &self.tools.instance];
        self.bytes.extend(link::publish(&channel, write));
        self.batch.push(then);
    }

    fn connect(&mut self, now: Instant) {
        let leaving = self.post.leaving.load(Ordering::Relaxed);
        if self.connection.is_some() || now < self.retry_at || leaving {
            return;
        }
        match self.tools.place.connect(None) {
            Ok(connection) => {
                self.connection = Some(connection);
                self.backoff = Backoff::default();
                self.canary_at = now;
                // What was announced and got lost with the last connection is not known.
                self.post.announce_all(self.tools.sessions.stamps());
                self.post.sing.store(true, Ordering::Relaxed);
                self.tools.health.publisher_anew();
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
        let mut unheard = Vec::new();
        for then in self.batch.drain(..) {
            if broken.is_some() {
                unheard.extend(reply(&self.tools, then, Err(Unreachable)));
                continue;
            }
            match link::receive(connection) {
                Ok(value) => {
                    if matches!(then, Then::Canary) {
                        self.tools.health.publisher(Ok(()));
                    }
                    unheard.extend(reply(&self.tools, then, Ok(value)));
                }
                Err(error) => {
                    let is_broken = link::is_broken(&error);
                    let trouble = Trouble::from(error);
                    if is_broken {
                        broken = Some(trouble);
                    } else if matches!(then, Then::Canary) {
                        self.tools.health.publisher(Err(trouble));
                    } else {
                        // Redis understood and refused: a right that is missing, a limit that is reached.
                        self.refusals.say(&trouble);
                    }
                    unheard.extend(reply(&self.tools, then, Err(Unreachable)));
                }
            }
        }
        for word in unheard {
            self.keep(word);
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
        for then in std::mem::take(&mut self.batch) {
            if let Some(word) = reply(&self.tools, then, Err(Unreachable)) {
                self.keep(word);
            }
        }
    }
}

/// Does what is to be done with Redis's reply; gives back a word that nobody has heard.
fn reply(tools: &Tools, then: Then, value: Result<Value, Unreachable>) -> Option<Word> {
    match then {
        Then::Nothing | Then::Canary => {}
        Then::Again(mut word) => {
            if value.is_ok_and(|value| link::count(&value) > 0) {
                return None;
            }
            word.unheard += 1;
            return Some(word);
        }
        Then::Envelope(backend, id) => match value {
            Ok(value) => tools.abroad.heard_by(&backend, id, link::count(&value)),
            Err(Unreachable) => tools.abroad.failed(&backend, id),
        },
        Then::Reply(tell) => tell(value),
    }
    None
}
