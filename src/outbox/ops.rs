//! What the writer is asked to do, and what bounds it.

use std::sync::Arc;

use crossbeam_channel::Sender;

use super::error::NotStored;
use super::filter::Filter;
use super::rows::State;
use crate::notification::{BackendId, EventKey, Notification};
use crate::timeline::Timeline;

/// How many rows one round of housekeeping, or one order of an operator, changes.
pub const ROWS_AT_ONCE: usize = 256;

/// What the thread is asked to do.
pub enum Op {
    /// Add a notification.
    Store(Box<Store>),
    /// Note what came of one.
    Update(StatusUpdate),
    /// Do what an operator wants.
    Order(Order, Sender<Result<Ordered, NotStored>>),
    /// Do what has been asked for, and end.
    Stop,
}

/// A notification to be stored.
pub struct Store {
    pub notification: Arc<Notification>,
    pub key: Option<EventKey>,
    pub state: State,
    /// How often it has been sent.
    pub tries: u32,
    /// See [`super::rows::HELD`].
    pub due: i64,
    /// Why it was not delivered.
    pub why: String,
    pub timeline: Timeline,
    /// Learns its number once it is on disk, or why it is not. It must not wait.
    pub then: Box<dyn FnOnce(Result<i64, NotStored>) + Send>,
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
    pub what: What,
    pub filter: Filter,
    pub after: i64,
}

/// What an operator can want.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Deliver it again, from the first try.
    Retry,
    /// Delete it.
    Drop,
}

/// What an order came to.
#[derive(Debug, Default)]
pub struct Ordered {
    /// Rows changed.
    pub changed: u64,
    /// Rows left alone: a session has them in hand.
    pub in_hand: u64,
    /// Where to go on, if there may be more.
    pub next: Option<i64>,
    /// Events that are nobody's any more: their retries must be delivered.
    pub freed: Vec<EventKey>,
}

/// What bounds the outbox.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    pub expire_ms: i64,
    pub keep_ms: i64,
    pub max_messages: u64,
    pub max_bytes: u64,
}
