//! The way back of a receipt, to the node that sent what it is about.

use std::sync::Arc;

use super::link;
use super::publisher::{Post, Then};
use crate::bus::frames;
use crate::metrics::BusMetrics;
use crate::notification::{BackendId, NotificationId, Receipt};
use crate::parcel::{Progress, Receipts};

/// The way back to the node that a notification came from.
pub struct Back {
    /// Whether it became a MSG here: its origin counts tries by that.
    pub progress: Option<Arc<Progress>>,
    pub channel: String,
    pub to: BackendId,
    pub post: Arc<Post>,
    pub metrics: BusMetrics,
}

impl Receipts for Back {
    fn receipt(&self, id: NotificationId, receipt: Receipt) {
        let bytes = link::publish(&[&self.channel], |out| {
            let sent = self.progress.as_ref().and_then(|progress| progress.sent());
            frames::told(out, id, &self.to, &receipt, sent);
        });
        // Lost, it costs the provider a retry, or this backend a redelivery; never an answer that is not true.
        if self.post.send(bytes, Then::Nothing).is_err() {
            self.metrics.receipt_lost();
        }
    }
}
