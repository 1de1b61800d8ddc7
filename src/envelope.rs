//! A notification on its way to a session, together with the one who waits to hear what became of it.
//!
//! An envelope cannot be lost in silence: whoever drops it tells its sender [`Receipt::Gone`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use crate::notification::{Notification, NotificationId, Receipt, unix_ms};

/// Where receipts go: the delivery that waits on this node, or the bus on its way to another.
pub trait Receipts: Send + Sync {
    /// Tells what became of `id`. Called once for each envelope.
    fn receipt(&self, id: NotificationId, receipt: Receipt);
}

/// Whether an envelope became a MSG: known to its sender while it is on its way, and after.
///
/// A notification that no backend was sent has not been tried, however often it was offered.
#[derive(Debug, Default)]
pub struct Progress {
    at_unix_ms: AtomicU64,
    session: AtomicU64,
}

/// That a MSG was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// When, in Unix milliseconds.
    pub at_unix_ms: u64,
    /// On which session of its node.
    pub session: u64,
}

impl Sent {
    /// A MSG of `session`, written now.
    pub fn now(session: u64) -> Self {
        Self {
            at_unix_ms: unix_ms(),
            session,
        }
    }
}

impl Progress {
    /// The MSG, if it was written.
    pub fn sent(&self) -> Option<Sent> {
        let at_unix_ms = self.at_unix_ms.load(Ordering::Acquire);
        (at_unix_ms > 0).then(|| Sent {
            at_unix_ms,
            session: self.session.load(Ordering::Relaxed),
        })
    }
}

/// A notification to hand over, and the reply owed for it.
#[derive(Debug)]
pub struct Envelope {
    /// What to hand over.
    pub notification: Arc<Notification>,
    /// When its sender stops waiting: not worth handing over after that.
    pub deadline: Instant,
    /// Whom to tell.
    pub reply: Reply,
}

impl Envelope {
    /// Packs `notification` for a sender who waits until `deadline`.
    pub fn new(
        notification: Arc<Notification>,
        deadline: Instant,
        receipts: Arc<dyn Receipts>,
    ) -> Self {
        let reply = Reply::new(notification.id, receipts);
        Self {
            notification,
            deadline,
            reply,
        }
    }

    /// Lets its sender see through `progress` whether it became a MSG.
    pub fn tracked(mut self, progress: Arc<Progress>) -> Self {
        self.reply.progress = Some(progress);
        self
    }

    /// Ends the envelope with `receipt`.
    pub fn settle(self, receipt: Receipt) {
        self.reply.settle(receipt);
    }
}

/// The reply owed for an envelope: kept while a session has the notification in flight, without holding its body.
pub struct Reply {
    id: NotificationId,
    receipts: Option<Arc<dyn Receipts>>,
    progress: Option<Arc<Progress>>,
}

impl Reply {
    /// The reply owed to `receipts` for whatever is called `id`.
    pub fn new(id: NotificationId, receipts: Arc<dyn Receipts>) -> Self {
        Self {
            id,
            receipts: Some(receipts),
            progress: None,
        }
    }

    /// Which notification it is about.
    pub fn id(&self) -> NotificationId {
        self.id
    }

    /// Notes that it became a MSG.
    pub fn sent(&self, sent: Sent) {
        if let Some(progress) = &self.progress {
            progress.session.store(sent.session, Ordering::Relaxed);
            progress
                .at_unix_ms
                .store(sent.at_unix_ms, Ordering::Release);
        }
    }

    /// Tells the sender what became of it.
    pub fn settle(mut self, receipt: Receipt) {
        if let Some(receipts) = self.receipts.take() {
            receipts.receipt(self.id, receipt);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(receipts) = self.receipts.take() {
            receipts.receipt(self.id, Receipt::Gone);
        }
    }
}

impl fmt::Debug for Reply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reply({})", self.id)
    }
}
