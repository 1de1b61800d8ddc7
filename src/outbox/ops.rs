//! What the writer is asked to do, and what bounds it.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::store::error::NotStored;
use super::store::exported::Parsed;
use super::store::filter::Filter;
use super::store::row::{Row, State};
use crate::bus::StoreConnection;
use crate::envelope::Sent;
use crate::notification::{Again, BackendId, EventKey, Notification, NotificationId};
use crate::timeline::Timeline;

/// How many rows one round of housekeeping, or one order of an operator, changes.
pub const ROWS_AT_ONCE: usize = 256;

/// How many pending rows are counted for which nothing is deleted.
pub const SPARED_MAX: usize = 10_000;

/// What the thread is asked to do.
pub enum Op {
    /// Add a notification.
    Store(Box<StoreRequest>),
    /// Note what came of one.
    Update(StatusUpdate),
    /// Do what an operator wants.
    Order(Order, Sender<Result<Ordered, NotStored>>),
    /// Add what comes from another outbox, but for what is there already.
    Import(Vec<Parsed>, Sender<Result<Ordered, NotStored>>),
    /// Delete these: other nodes have them.
    Remove(Vec<NotificationId>),
    /// Give the file another name in Redis.
    Rename,
    /// Do something for the mirror, once everything before it is done.
    Mirror(Box<MirrorOp>),
    /// Do what has been asked for, and end.
    Stop,
}

/// A notification that was not delivered.
pub struct Undelivered {
    pub notification: Arc<Notification>,
    /// By what its provider's retry is known.
    pub key: Option<EventKey>,
    /// Why it was not delivered.
    pub why: String,
    /// When its backend wants it again, if it said so.
    pub again: Option<Again>,
    /// The MSG, if it became one.
    pub sent: Option<Sent>,
    /// A session has it in hand still, and will be heard of: [`super::Outbox::on_held_receipt`].
    pub held: bool,
    pub timeline: Timeline,
}

/// A notification to be stored.
pub struct StoreRequest {
    pub notification: Arc<Notification>,
    pub key: Option<EventKey>,
    pub state: State,
    /// How often it has been sent.
    pub tries: u32,
    /// See [`super::store::row::HELD`].
    pub due: i64,
    /// Why it was not delivered.
    pub why: String,
    pub timeline: Timeline,
    /// Learns its number once it is on disk, or why it is not. It must not wait. `None`: it has learned it.
    pub then: Option<OnStored>,
}

/// What is told of a notification that was to be stored.
pub type OnStored = Box<dyn FnOnce(Result<i64, NotStored>) + Send>;

impl StoreRequest {
    /// Tells the result.
    pub fn tell(mut self, result: Result<i64, NotStored>) {
        if let Some(then) = self.then.take() {
            then(result);
        }
    }
}

impl Drop for StoreRequest {
    /// After a panic of the writer, too, every provider must get an answer.
    fn drop(&mut self) {
        if let Some(then) = self.then.take() {
            then(Err(NotStored::Disk));
        }
    }
}

/// What came of a stored notification.
#[derive(Debug)]
pub struct StatusUpdate {
    pub seq: i64,
    pub backend: BackendId,
    pub state: State,
    pub tries: u32,
    pub due: i64,
    pub why: String,
    pub timeline: Timeline,
}

/// What an operator wants of the rows that a filter lets through, so many behind the row `after`.
#[derive(Debug)]
pub struct Order {
    pub what: AdminAction,
    pub filter: Filter,
    pub after: i64,
    /// Who wants it, for the timeline and the log.
    pub by: String,
}

/// What an operator can want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminAction {
    /// Deliver it again, from the first try.
    Retry,
    /// Delete it. Without `pending` nothing is deleted when something pending is among them.
    Drop { pending: bool },
    /// Its provider's retry is another event.
    Forget,
}

/// What an order came to.
#[derive(Debug, Default)]
pub struct Ordered {
    /// Rows changed.
    pub changed: u64,
    /// Rows left alone: a session has them in hand.
    pub in_hand: u64,
    /// Pending rows for which nothing was deleted; [`SPARED_MAX`] or more are not counted further.
    pub spared: u64,
    /// What was to be added and is there already, under the same id.
    pub known: u64,
    /// There was no room for the rest.
    pub full: bool,
    /// Where to go on, if there may be more.
    pub next: Option<i64>,
    /// What was deleted.
    pub dropped: Vec<Row>,
    /// Events that are nobody's any more: their retries must be delivered.
    pub freed: Vec<EventKey>,
    /// Events that are known from now on, their names, and how many milliseconds ago they were stored.
    pub learned: Vec<(EventKey, String, i64)>,
}

/// What bounds the outbox.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub expire_ms: i64,
    pub keep_ms: i64,
    pub max_messages: u64,
    pub max_bytes: u64,
}

/// What the writer is asked to do for the mirror.
pub enum MirrorOp {
    /// There is a connection.
    Connected(StoreConnection),
    /// The connection is of no use any more.
    Disconnect(String),
    /// Put what the file says of these into Redis.
    Put(Vec<NotificationId>),
    /// Other nodes have taken these over: they are not this node's any more.
    Moved(Vec<NotificationId>),
    /// Redis has these of this file, and the file has not.
    Recover(Vec<Parsed>),
    /// Take these over from the file of this name.
    Inherit(String, Vec<(NotificationId, Parsed)>, Sender<Inherited>),
    /// Say how many there are.
    Count(Sender<Option<Counts>>),
    /// Say whether both have the same, now that everything of the file was seen in Redis.
    Conclude(Sender<Option<bool>>),
}

/// What came of taking some over.
#[derive(Clone, Copy, Debug, Default)]
pub struct Inherited {
    pub taken: u64,
    /// There is no room for more.
    pub full: bool,
    /// It went wrong, or their node is back: no more of it now.
    pub stopped: bool,
}

/// What came of holding the lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beat {
    Done,
    /// Another relay has a copy of this file, and this one is to be another file from now on.
    Copy,
}

/// Where Redis and the file stand, at one moment between two changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    pub in_redis: u64,
    pub on_disk: u64,
}
