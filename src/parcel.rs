//! A notification on its way to a session, together with the one who waits to hear what became of it.
//!
//! A parcel cannot be lost in silence: whoever drops it tells its sender [`Receipt::Gone`].

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use crate::notification::{Notification, NotificationId, Receipt};

/// Where receipts go: the delivery that waits on this node, or the bus on its way to another.
pub trait Receipts: Send + Sync {
    /// Tells what became of `id`. Called once for each parcel.
    fn receipt(&self, id: NotificationId, receipt: Receipt);
}

/// A notification to hand over, and the reply owed for it.
#[derive(Debug)]
pub struct Parcel {
    /// What to hand over.
    pub notification: Arc<Notification>,
    /// When its sender stops waiting: not worth handing over after that.
    pub deadline: Instant,
    /// Whom to tell.
    pub reply: Reply,
}

impl Parcel {
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

    /// Ends the parcel with `receipt`.
    pub fn settle(self, receipt: Receipt) {
        self.reply.settle(receipt);
    }
}

/// The reply owed for a parcel: kept while a session has the notification in flight, without holding its body.
pub struct Reply {
    id: NotificationId,
    receipts: Option<Arc<dyn Receipts>>,
}

impl Reply {
    /// The reply owed to `receipts` for whatever is called `id`.
    pub fn new(id: NotificationId, receipts: Arc<dyn Receipts>) -> Self {
        Self {
            id,
            receipts: Some(receipts),
        }
    }

    /// Which notification it is about.
    pub fn id(&self) -> NotificationId {
        self.id
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
