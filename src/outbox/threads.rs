//! The outbox's threads, and the order in which they end.

use std::io;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::inbox::Inbox;
use super::ops::Op;
use super::redelivery::Redelivery;
use super::shared::{MirrorEvent, Worker};
use super::store::file::FileGuard;
use super::writer::Writer;
use crate::heartbeat::{self, Role};
use crate::thread::JoinOnDrop;

/// What to do when a thread of the outbox hangs.
const ADVICE: &str = "look at the disk of outbox.path";

/// SQLite's own calls are deep; measured at under 40 KiB, and a debug build takes more.
const STACK_BYTES: usize = 512 * 1024;

/// Starts the thread that changes the database.
///
/// # Errors
/// The system has no room for it.
pub fn start_writer(mut writer: Writer) -> io::Result<JoinOnDrop> {
    let role = Role::vital("outbox-writer", "nothing can be stored").advice(ADVICE);
    heartbeat::supervise(role, STACK_BYTES, move |pulse| writer.run(pulse))
}

/// Starts the thread that delivers.
///
/// # Errors
/// The system has no room for it.
pub fn start_redelivery(mut redelivery: Redelivery) -> io::Result<JoinOnDrop> {
    let role = Role::vital("redelivery", "what is stored is not delivered").advice(ADVICE);
    heartbeat::supervise(role, STACK_BYTES, move |pulse| redelivery.run(pulse))
}

/// Starts the mirror's thread.
///
/// # Errors
/// The system has no room for it.
pub fn start_mirror(mut worker: Worker) -> io::Result<JoinOnDrop> {
    let role = Role::vital("outbox-mirror", "what is stored is not compared with Redis");
    let role = role.advice("look at the Redis of [redis]").not_vital();
    heartbeat::supervise(role, STACK_BYTES, move |pulse| worker.run(pulse))
}

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
