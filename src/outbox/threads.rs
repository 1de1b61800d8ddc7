//! The outbox's threads, and the order in which they end.

use std::fmt;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::file::FileGuard;
use super::inbox::Inbox;
use super::ops::Op;
use super::shared::MirrorEvent;
use crate::thread::JoinOnDrop;

/// The threads of the writer and of the redelivery. Dropping this notes what has been told so far, ends both and gives up the file; what anybody
/// wants to store after that is refused.
pub struct OutboxThreads {
    pub(super) inbox: Arc<Inbox>,
    pub(super) ops: Sender<Op>,
    /// Tells the mirror's thread to end.
    pub(super) mirror_events: Option<Sender<MirrorEvent>>,
    pub(super) mirror: Option<JoinOnDrop>,
    pub(super) redelivery: Option<JoinOnDrop>,
    pub(super) writer: Option<JoinOnDrop>,
    // Last: until here no other relay may have the file.
    pub(super) _guard: Arc<FileGuard>,
}

impl Drop for OutboxThreads {
    fn drop(&mut self) {
        // The redelivery thread first: it still has things to be written.
        self.inbox.stop();
        self.redelivery.take();
        if let Some(events) = self.mirror_events.take() {
            let _ = events.send(MirrorEvent::Stop); // it fails when the thread has ended already
        }
        self.mirror.take();
        let _ = self.ops.send(Op::Stop); // it fails when the writer has ended already
        self.writer.take();
    }
}

impl fmt::Debug for OutboxThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OutboxThreads").finish_non_exhaustive()
    }
}
