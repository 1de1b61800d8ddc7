//! What the mirror's thread asks of the writer, and what comes of it.

use crossbeam_channel::Sender;

use crate::bus::StoreConnection;
use crate::notification::NotificationId;
use crate::outbox::transfer::Parsed;

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
