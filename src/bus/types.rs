//! The values that the bus and its callers hand to each other.

use std::fmt;

use super::channel::Channel;
use crate::envelope::Sent;
use crate::notification::{BackendId, NotificationId, Receipt};

/// The largest message that the bus carries besides its head line, in bytes: the largest body that can be configured
/// (64 MiB), and the headers forwarded with it.
pub const DATA_BYTES_MAX: usize = (64 << 20) + (64 << 10);

/// Hears on how many nodes somebody listened, or that the bus is down.
pub type OnEmitted = Box<dyn FnOnce(Result<u64, Unreachable>) + Send>;

/// Called once, when what was asked for stands. Must not wait.
pub type Ready = Box<dyn FnOnce() + Send>;

/// Whether other nodes reach a topic on this one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// They do; a callback was dropped without being called.
    Settled,
    /// They do not, and cannot be on_emitted: the bus is down. They will once it is back. A callback was dropped.
    Down,
    /// Not yet; the callback will be called.
    Soon,
}

/// The bus is down, or too much waits for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unreachable;

impl fmt::Display for Unreachable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bus to the other nodes is down")
    }
}

impl std::error::Error for Unreachable {}

/// What a node can be subscribed to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Topic {
    /// What is for this backend.
    Backend(BackendId),
    /// The events of this channel.
    Event(Channel),
}

/// Data from one backend to another.
#[derive(Debug)]
pub struct Data {
    /// Who sent it.
    pub from: BackendId,
    /// Whom it is for.
    pub to: BackendId,
    /// What was sent, byte for byte.
    pub bytes: Vec<u8>,
}

/// Where in the history of all nodes a session began: a larger stamp is the newer session.
///
/// A hybrid clock: Unix microseconds, but always beyond every stamp this node has seen or heard of. So a node whose clock
/// lags behind does not lose its new sessions to older ones elsewhere. Microseconds, because thousands of backends come back
/// in the same second: in milliseconds each would push this clock a step ahead of the other nodes'.
pub type Stamp = u64;

/// What became of a try that this node had given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LateReceipt {
    /// The notification.
    pub id: NotificationId,
    /// The backend that was sent it.
    pub backend: BackendId,
    /// Which try it was, from 1.
    pub tries: u32,
    /// What became of it.
    pub receipt: Receipt,
    /// The MSG that the backend was sent.
    pub sent: Sent,
}

/// Learns whose an event is. It must not wait.
pub type OnLease = Box<dyn FnOnce(EventLease) + Send>;

/// Whose an event is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EventLease {
    /// This node's, from now on.
    Mine,
    /// It was delivered or stored by another node.
    Kept,
    /// Another node has it under way.
    Taken,
    /// The others cannot be asked. A second delivery is better than none.
    Unknown,
}
