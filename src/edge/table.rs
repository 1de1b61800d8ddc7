//! Which HTTP connections there are.
//!
//! Nothing here reads or writes a socket. A socket is asked whether it has unread bytes, and is shut down.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Watcher;
use super::channel::Transport;
use super::pending::PendingAnswer;
use super::state::{ConnectionState, SeenState};
use crate::fds::FdPermit;

/// How long a new connection waits for another to become idle when all are busy.
pub(super) const GRACE: Duration = Duration::from_millis(5);

/// One connection.
pub struct Connection {
    /// Unique in its table.
    pub number: u64,
    /// The peer's address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub since: Instant,
    /// Its times are counted from the table's epoch.
    pub(super) state: ConnectionState,
    /// Closed before the permit is given back.
    pub channel: Transport,
    /// The answer to the request that was handed over last.
    pub answer: PendingAnswer,
    /// The table that lists it.
    pub table: Arc<ConnectionTable>,
    pub(super) _permit: FdPermit,
}

impl Connection {
    /// From `now` on it waits for its next request. Only to be called while it is busy.
    pub fn waits(&self, now: Instant) {
        self.state.waits(self.table.since_epoch(now));
    }

    /// From now on it only waits to be closed, and is the first to be evicted.
    pub fn lingers(&self) {
        self.state.lingers();
    }

    /// A part of its request is here.
    pub fn has_begun(&self) {
        self.state.has_begun();
    }

    /// Its request is whole. `false`: it was evicted before.
    pub fn is_whole(&self) -> bool {
        self.state.is_whole()
    }

    /// Whether it was evicted.
    pub fn is_gone(&self) -> bool {
        self.state.is_gone()
    }

    /// Whether it has sent something that its thread has not read yet. A connection that only waits to be closed has not.
    pub(super) fn is_unread(&self, seen: SeenState) -> bool {
        !seen.is_lingering() && self.channel.has_unread()
    }

    /// Whether no part of its first request was received yet.
    fn is_new(&self) -> bool {
        self.state.waits_since(self.table.since_epoch(self.since))
    }

    /// Ends it if it is idle with no part of a request received.
    fn end_if_idle(&self) {
        let seen = self.state.seen();
        if seen.is_idle() {
            // Read only: a request that arrives this very moment can still be answered.
            self.end(seen, Shutdown::Read);
        }
    }

    /// Tells its thread to end it, if its state is still `seen`.
    pub(super) fn end(&self, seen: SeenState, how: Shutdown) -> bool {
        let told = self.state.end(seen);
        if told {
            self.channel.shutdown(how);
        }
        told
    }
}

/// All connections of one listener.
pub struct ConnectionTable {
    /// The listener's name, under which its limits stand in the configuration.
    pub name: &'static str,
    /// Is told of every refusal.
    pub watcher: Arc<dyn Watcher>,
    /// What waiting times are counted from.
    epoch: Instant,
    /// [`GRACE`], but in tests.
    pub(super) grace: Duration,
    pub(super) list: Mutex<List>,
    pub(super) changed: Condvar,
    closing: AtomicBool,
    /// A new connection wants to hear of every connection that becomes idle.
    pub(super) wanted: AtomicBool,
}

/// What is locked.
#[derive(Default)]
pub(super) struct List {
    pub(super) connections: HashMap<u64, Arc<Connection>>,
    /// Those, and the ending ones whose descriptor may still be open.
    pub(super) present: usize,
    pub(super) next: u64,
    pub(super) departures: u64,
    /// How many times a new connection was told that another became idle.
    pub(super) told: u64,
}

/// A connection's entry in the table, removed when dropped.
pub struct ConnectionGuard(pub(super) Option<Arc<Connection>>);

impl ConnectionGuard {
    /// The connection; `None` only while the guard is being dropped.
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        self.0.as_ref()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let Some(connection) = self.0.take() else {
            return;
        };
        let table = Arc::clone(&connection.table);
        let listed = table.list.lock().connections.remove(&connection.number);
        // Outside the lock, for it closes the socket; before the departure is told, which promises the descriptor.
        drop((listed, connection));
        let mut list = table.list.lock();
        list.present -= 1;
        list.departures += 1;
        drop(list);
        table.changed.notify_all();
    }
}

impl ConnectionTable {
    /// An empty table of the listener called `name`.
    pub fn new(name: &'static str, watcher: Arc<dyn Watcher>) -> Self {
        Self {
            name,
            watcher,
            epoch: Instant::now(),
            grace: GRACE,
            list: Mutex::default(),
            changed: Condvar::new(),
            closing: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
        }
    }

    /// How long after the epoch `at` is.
    pub(super) fn since_epoch(&self, at: Instant) -> Duration {
        at.saturating_duration_since(self.epoch)
    }

    /// To be called after [`Connection::waits`]: a new connection may be looking for an idle one, and [`Self::end_idle`] ends only
    /// those that it finds idle.
    pub fn has_begun_to_wait(&self, connection: &Connection) {
        if self.is_closing() {
            connection.end_if_idle();
        }
        if self.wanted.load(Ordering::SeqCst) {
            self.list.lock().told += 1;
            self.changed.notify_all();
        }
    }

    /// Waits until there is no connection, or `deadline`; says whether there is none.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        let mut list = self.list.lock();
        while list.present > 0 {
            if self.changed.wait_until(&mut list, deadline).timed_out() {
                break;
            }
        }
        list.present == 0
    }

    /// How many connections there are.
    pub fn present(&self) -> usize {
        self.list.lock().present
    }

    /// Whether the listener is closing.
    pub fn is_closing(&self) -> bool {
        self.closing.load(Ordering::SeqCst)
    }

    /// From now on no connection waits for another's room.
    pub fn begin_closing(&self) {
        self.closing.store(true, Ordering::SeqCst);
        // Under the lock, so that a thread that has just looked at the flag does not sleep through the change.
        drop(self.list.lock());
        self.changed.notify_all();
    }

    /// Ends the connections that wait for their next request, with no part of it received.
    pub fn end_kept(&self) {
        for connection in self.all() {
            if !connection.is_new() {
                connection.end_if_idle();
            }
        }
    }

    /// Ends those too that wait for their first request.
    pub fn end_idle(&self) {
        for connection in self.all() {
            connection.end_if_idle();
        }
    }

    /// Cuts every connection.
    pub fn cut_all(&self) {
        for connection in self.all() {
            connection.answer.abandon();
            connection.channel.shutdown(Shutdown::Both);
        }
    }

    fn all(&self) -> Vec<Arc<Connection>> {
        self.list.lock().connections.values().cloned().collect()
    }
}
