//! The thread that publishes to one primary: it sends what it finds in the queue in one go.
//!
//! It waits for the replies of each batch, so a batch is what has come meanwhile; the busier it is, the fewer round trips
//! for each message. While the connection is down, what comes fails at once.

mod own;
mod primary;
mod replies;

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{RedisError, Value};

use super::RECONNECT;
use super::connection::RedisConnection;
use super::guard::Guard;
use super::link::{self, LinkError, Server};
use super::names::{ALL, Bucket};
use super::parts::BusParts;
use super::queue::{OnReply, PublishQueue, QueuedCommand};
use super::resp;
use crate::backoff::Backoff;
use crate::bus::frames;
use crate::heartbeat::{self, Pulse, Role};
use crate::thread::JoinOnDrop;

/// The most commands in one round trip, but for the node's own.
const BATCH_MAX: usize = 128;

/// The most bytes in one round trip, but for its last command.
const BATCH_BYTES_MAX: usize = 1 << 20;

/// The most receipts that wait to be published again, about 200 bytes each.
const UNHEARD_KEPT_MAX: usize = 8192;

/// How often this node publishes a canary to itself.
const CANARY_EVERY: Duration = Duration::from_secs(1);

/// How often a primary that refuses the guard is asked for it again: it is believed as soon as it may write.
const GUARD_AGAIN_AFTER: Duration = Duration::from_millis(100);

/// How often the log says that Redis refuses something.
const REFUSAL_EVERY: Duration = Duration::from_secs(10);

/// Starts the thread. It ends when `queue` is told to leave.
///
/// # Errors
/// The system has no room for another thread.
pub fn start(
    server: Server,
    queue: Arc<PublishQueue>,
    parts: Arc<BusParts>,
) -> io::Result<JoinOnDrop> {
    let mut work = Work {
        server,
        queue,
        parts,
        connection: None,
        backoff: RECONNECT,
        retry_at: Instant::now(),
        canary_at: Instant::now(),
        is_scheduled: false,
        guard_at: None,
        guarded: 0,
        uncounted: 0,
        buckets: Vec::new(),
        version: 0,
        wake_bucket: ALL,
        rest: VecDeque::new(),
        held: Vec::new(),
        held_since: Instant::now(),
        unheard: Vec::new(),
        batch: Vec::new(),
        bytes: Vec::new(),
        replies: Vec::new(),
        refusals: Refusals::default(),
    };
    let role = Role::vital(
        super::thread_name("bus-publisher", work.queue.number),
        "nothing reaches backends on other nodes",
    );
    heartbeat::supervise(role, super::STACK_BYTES, move |pulse| work.run(pulse))
}

/// A command of the present batch.
struct Entry {
    bucket: Bucket,
    then: OnReply,
    /// Where its bytes end in the batch's.
    end: usize,
    /// ASKING goes before it, and has a reply of its own.
    asking: bool,
}

struct Work {
    server: Server,
    queue: Arc<PublishQueue>,
    parts: Arc<BusParts>,
    connection: Option<RedisConnection>,
    backoff: Backoff,
    retry_at: Instant,
    canary_at: Instant,
    /// The canaries of this batch are those of each second, not some that were asked for.
    is_scheduled: bool,
    /// When the guard is to be asked for again, which the primary has refused.
    guard_at: Option<Instant>,
    /// Which of the buckets it was asked for last.
    guarded: usize,
    /// Canaries in a row that the primary counted for nobody.
    uncounted: u32,
    /// The buckets of this link, in order, and the version of the router's table that they are of.
    buckets: Vec<Bucket>,
    version: u64,
    /// Where the subscriber is woken, even after the link has lost its last bucket.
    wake_bucket: Bucket,
    /// What was taken out of the queue and is to be sent next.
    rest: VecDeque<QueuedCommand>,
    /// What the primary has sent away since `held_since`: its slot has moved.
    held: Vec<QueuedCommand>,
    held_since: Instant,
    /// Receipts to be published again, when there is a connection and a second has passed.
    unheard: Vec<QueuedCommand>,
    batch: Vec<Entry>,
    bytes: Vec<u8>,
    replies: Vec<Result<Value, RedisError>>,
    refusals: Refusals,
}

/// Logs commands that Redis refuses, but not every one: there may be thousands a second.
#[derive(Default)]
struct Refusals {
    logged: Option<Instant>,
}

impl Refusals {
    fn log(&mut self, why: &LinkError) {
        if self
            .logged
            .is_none_or(|logged| logged.elapsed() >= REFUSAL_EVERY)
        {
            self.logged = Some(Instant::now());
            log::warn!("redis refuses a command: {why}");
        }
    }
}

impl Work {
    fn run(&mut self, pulse: &Pulse) {
        if self.connection.is_some() || !self.batch.is_empty() {
            // After a panic nobody knows which replies are still to come on the connection, nor for what.
            self.replies.clear();
            self.lose(LinkError("the thread that publishes has panicked".into()));
            self.exchange();
        }
        while !self.queue.is_leaving() {
            let due = match self.connection {
                None => self.canary_at.min(self.retry_at),
                Some(_) => self.guard_at.unwrap_or(self.canary_at).min(self.canary_at),
            };
            pulse.idle();
            let first = match self.rest.pop_front() {
                Some(outgoing) => Some(outgoing),
                None => self.receive(due),
            };
            let now = Instant::now();
            let failed = self
                .parts
                .router
                .carry_out(&self.queue, &mut self.held, &mut self.rest);
            failed.into_iter().for_each(|then| self.fail(then));
            self.follow_buckets();
            self.connect(now); // Redis may take its time; the bus itself says so
            self.ask_for_guard(now);
            pulse.busy();
            if let Some(first) = first {
                self.add(first);
            }
            self.collect();
            self.add_own(now);
            self.exchange();
        }
        self.send_rest();
    }

    /// Sends the last commands, such as receipts for other nodes; nothing can be told to anybody after that.
    fn send_rest(&mut self) {
        // The subscriber ends at its next message.
        if self.connection.is_some() {
            self.publish_own(self.wake_bucket, OnReply::Nothing, frames::wake);
        }
        self.collect();
        while !self.batch.is_empty() {
            self.exchange();
            self.collect();
        }
        self.lose(LinkError("this node has left the server".into()));
        for outgoing in std::mem::take(&mut self.held) {
            self.fail(outgoing.then);
        }
    }

    fn follow_buckets(&mut self) {
        let version = self.parts.router.version();
        if version != self.version {
            self.version = version;
            self.buckets = self.parts.router.buckets_of(&self.queue);
            if let Some(first) = self.buckets.first() {
                self.wake_bucket = *first;
                self.retry_at = self.retry_at.min(Instant::now());
            }
        }
    }

    fn receive(&self, due: Instant) -> Option<QueuedCommand> {
        let outgoing = self.queue.outlet().recv_deadline(due).ok()?;
        self.queue.taken(&outgoing);
        Some(outgoing)
    }

    /// Adds what waits, as far as one round trip goes.
    fn collect(&mut self) {
        while self.batch.len() < BATCH_MAX && self.bytes.len() < BATCH_BYTES_MAX {
            let next = self.rest.pop_front().or_else(|| {
                let outgoing = self.queue.outlet().try_recv().ok()?;
                self.queue.taken(&outgoing);
                Some(outgoing)
            });
            let Some(next) = next else { break };
            self.add(next);
        }
    }

    fn add(&mut self, outgoing: QueuedCommand) {
        if outgoing.bytes.is_empty() {
            return; // only to wake this thread
        }
        if self.connection.is_none() {
            return match outgoing.then {
                OnReply::Receipt(_) if self.unheard.len() < UNHEARD_KEPT_MAX => {
                    self.unheard.push(outgoing)
                }
                then => self.fail(then),
            };
        }
        // Behind those of its bucket that wait to be handed over.
        if !self.held.is_empty() && self.held.iter().any(|held| held.bucket == outgoing.bucket) {
            return self.held.push(outgoing);
        }
        self.push(outgoing);
    }

    fn push(&mut self, outgoing: QueuedCommand) {
        if outgoing.asking {
            resp::command(&mut self.bytes, &[b"ASKING"]);
        }
        self.bytes.extend_from_slice(&outgoing.bytes);
        self.batch.push(Entry {
            bucket: outgoing.bucket,
            then: outgoing.then,
            end: self.bytes.len(),
            asking: outgoing.asking,
        });
    }

    /// Sends the batch, and deals with every reply. When it returns, the batch is empty.
    fn exchange(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let Some(connection) = &mut self.connection else {
            return self.conclude(None);
        };
        self.parts.metrics.batch(self.batch.len());
        // All buckets of the batch belong to this primary, and the guard asks about the server: any of them will do.
        let bucket = self.batch.last().map_or(ALL, |entry| entry.bucket);
        let commands = self.bytes.len();
        let key = self.parts.router.names.guard(bucket);
        resp::command(&mut self.bytes, &[b"DEL", key.as_bytes()]);
        let sent = connection.send(&self.bytes);
        self.bytes.truncate(commands);
        let mut broken = sent.err().map(LinkError::from);
        let mut guard = None;
        for n in 0..=self.batch.len() {
            if broken.is_some() {
                break;
            }
            if self.batch.get(n).is_some_and(|entry| entry.asking) {
                // Its own reply says nothing.
                let _ = connection.receive();
            }
            match connection.receive() {
                Err(error) if link::is_broken(&error) => broken = Some(LinkError::from(error)),
                reply if n == self.batch.len() => guard = Some(Guard::of(&reply)),
                reply => self.replies.push(reply),
            }
        }
        self.conclude(guard.as_ref());
        match (broken, guard) {
            (Some(why), _) => self.lose(why),
            (None, Some(Guard::Leave(why))) => self.leave(why),
            (None, _) => {}
        }
    }
}
