//! Which HTTP connections there are, since when each keeps the relay waiting, and which one is closed when there is no room.
//!
//! Nothing here reads or writes a socket. A socket is asked whether it has unread bytes, and is shut down.

use std::collections::HashMap;
use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::Watcher;
use super::channel::Transport;
use super::pending::PendingAnswer;
use crate::fds::{FdBudget, FdPermit};

/// How long a new connection waits for an evicted one to leave, whose thread only has to wake up.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// How long a new connection waits for another to become idle when all are busy.
const GRACE: Duration = Duration::from_millis(5);

/// How many connections are evicted for a new one at most: another part of the relay may take the descriptor that came free.
const EVICTIONS_MAX: u32 = 3;

/// How many of the longest waiting connections are asked whether they have unread bytes. If all have, the relay is behind with
/// its work.
const PASSED_OVER_MAX: usize = 64;

/// The request is whole: the relay owes an answer, and the connection cannot be evicted.
const BUSY: u64 = 0;

/// The connection was told to end.
const GONE: u64 = u64::MAX;

/// Set in a waiting state when a part of the request is here already.
const BEGUN: u64 = 1;

/// One connection.
pub struct Connection {
    /// Unique in its table.
    pub number: u64,
    /// The peer's address.
    pub peer: SocketAddr,
    /// When it was accepted.
    pub since: Instant,
    /// [`BUSY`], [`GONE`], or since when it has been waiting (see [`ConnectionTable::waiting`]).
    state: AtomicU64,
    /// Closed before the permit is given back.
    pub channel: Transport,
    /// The answer to the request that was handed over last.
    pub answer: PendingAnswer,
    /// The table that lists it.
    pub table: Arc<ConnectionTable>,
    _permit: FdPermit,
}

impl Connection {
    /// From `now` on it waits for its next request. Only to be called while it is busy.
    pub fn waits(&self, now: Instant) {
        self.state
            .store(self.table.waiting(now, false), Ordering::SeqCst);
    }

    /// From now on it only waits to be closed, and is the first to be evicted.
    pub fn lingers(&self) {
        self.state.store(BEGUN, Ordering::SeqCst);
    }

    /// A part of its request is here.
    pub fn has_begun(&self) {
        let seen = self.state.load(Ordering::SeqCst);
        if !matches!(seen, BUSY | GONE) && seen & BEGUN == 0 {
            // Fails only if it was evicted meanwhile, which its thread will notice.
            let _ =
                self.state
                    .compare_exchange(seen, seen | BEGUN, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Its request is whole. `false`: it was evicted before.
    pub fn is_whole(&self) -> bool {
        let seen = self.state.load(Ordering::SeqCst);
        seen != GONE
            && self
                .state
                .compare_exchange(seen, BUSY, Ordering::SeqCst, Ordering::SeqCst)
                .is_ok()
    }

    /// Whether it was evicted.
    pub fn is_gone(&self) -> bool {
        self.state.load(Ordering::SeqCst) == GONE
    }

    /// Whether it has sent something that its thread has not read yet. A connection that only waits to be closed has not.
    fn is_unread(&self, seen: u64) -> bool {
        seen != BEGUN && self.channel.has_unread()
    }

    /// Whether no part of its first request was received yet.
    fn is_new(&self) -> bool {
        self.state.load(Ordering::SeqCst) == self.table.waiting(self.since, false)
    }

    /// Ends it if it is idle with no part of a request received.
    fn end_if_idle(&self) {
        let seen = self.state.load(Ordering::SeqCst);
        if !matches!(seen, BUSY | GONE) && seen & BEGUN == 0 {
            // Read only: a request that arrives this very moment can still be answered.
            self.end(seen, Shutdown::Read);
        }
    }

    /// Tells its thread to end it, if its state is still `seen`.
    fn end(&self, seen: u64, how: Shutdown) -> bool {
        let told = self
            .state
            .compare_exchange(seen, GONE, Ordering::SeqCst, Ordering::SeqCst)
            .is_ok();
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
    grace: Duration,
    list: Mutex<List>,
    changed: Condvar,
    closing: AtomicBool,
    /// A new connection wants to hear of every connection that becomes idle.
    wanted: AtomicBool,
}

#[derive(Default)]
struct List {
    connections: HashMap<u64, Arc<Connection>>,
    /// Those, and the ending ones whose descriptor may still be open.
    present: usize,
    next: u64,
    departures: u64,
    /// How many times a new connection was told that another became idle.
    told: u64,
}

/// A connection's entry in the table, removed when dropped.
pub struct ConnectionGuard {
    table: Arc<ConnectionTable>,
    connection: Option<Arc<Connection>>,
    number: u64,
}

impl ConnectionGuard {
    /// The connection; `None` only while the guard is being dropped.
    pub fn connection(&self) -> Option<&Arc<Connection>> {
        self.connection.as_ref()
    }
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        let listed = self.table.list.lock().connections.remove(&self.number);
        // Outside the lock, for it closes the socket; before the departure is told, which promises the descriptor.
        drop((listed, self.connection.take()));
        let mut list = self.table.list.lock();
        list.present -= 1;
        list.departures += 1;
        drop(list);
        self.table.changed.notify_all();
    }
}

/// What came of looking for a connection to evict.
enum Evicted {
    /// It was told to end.
    Told(Arc<Connection>),
    /// None yet: all that wait have sent something that the relay has not read.
    Unread,
    /// None waits.
    None,
}

/// What came of a new connection.
pub enum Admission {
    /// It is in the table.
    Admitted(ConnectionGuard),
    /// There is no room, and no connection to evict.
    Full(Transport),
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

    /// The state of a connection that waits since `now`: the longer, the smaller.
    fn waiting(&self, now: Instant, begun: bool) -> u64 {
        let micros = now.saturating_duration_since(self.epoch).as_micros() as u64;
        // + 1, so that it never equals BUSY.
        ((micros + 1) << 1) | u64::from(begun)
    }

    /// Adds the connection over `channel`; evicts the one that has waited longest if need be, and tells `evicted` of each.
    pub fn admit(
        self: &Arc<Self>,
        channel: Transport,
        peer: SocketAddr,
        most: usize,
        fds: &FdBudget,
        evicted: impl Fn(&Connection),
    ) -> Admission {
        let mut permit = self.take_room(most, fds);
        if permit.is_none() {
            // Set first: a connection that becomes idle after we have looked will tell us.
            self.wanted.store(true, Ordering::SeqCst);
            permit = self.make_room(most, fds, evicted);
            self.wanted.store(false, Ordering::SeqCst);
        }
        match permit {
            Some(permit) => Admission::Admitted(self.add(channel, peer, permit)),
            None => Admission::Full(channel),
        }
    }

    /// Counts one more connection, if there is room.
    fn take_room(&self, most: usize, fds: &FdBudget) -> Option<FdPermit> {
        let mut list = self.list.lock();
        if list.present >= most {
            return None;
        }
        let permit = fds.try_take(1)?;
        list.present += 1;
        Some(permit)
    }

    /// Takes the room of a connection that ends by itself or is evicted. If all are busy it waits for the grace.
    fn make_room(
        &self,
        most: usize,
        fds: &FdBudget,
        evicted: impl Fn(&Connection),
    ) -> Option<FdPermit> {
        let now = Instant::now();
        let mut evictions = 0;
        loop {
            let (departures, told) = {
                let list = self.list.lock();
                (list.departures, list.told)
            };
            if let Some(permit) = self.take_room(most, fds) {
                return Some(permit);
            }
            if evictions == EVICTIONS_MAX {
                return None;
            }
            let is_changed = |list: &List| list.departures != departures || list.told != told;
            let has_room = match self.evict_longest_waiting() {
                Evicted::Told(connection) => {
                    evictions += 1;
                    evicted(&connection);
                    drop(connection); // or this thread would keep its descriptor
                    self.wait_until(now + LEAVE_MAX, |list| list.departures != departures)
                }
                Evicted::Unread => {
                    // Their threads read in a moment, if the relay is not hopelessly behind.
                    self.wait_until(Instant::now() + self.grace, is_changed);
                    now.elapsed() < LEAVE_MAX && !self.is_closing()
                }
                Evicted::None => {
                    // A connection that is ending only has to close its socket.
                    let most = if self.is_one_ending() {
                        LEAVE_MAX
                    } else {
                        self.grace
                    };
                    self.wait_until(now + most, is_changed)
                }
            };
            if !has_room {
                return None;
            }
        }
    }

    fn is_one_ending(&self) -> bool {
        let list = self.list.lock();
        list.present > list.connections.len()
    }

    fn add(
        self: &Arc<Self>,
        channel: Transport,
        peer: SocketAddr,
        permit: FdPermit,
    ) -> ConnectionGuard {
        let since = Instant::now();
        let mut list = self.list.lock();
        let number = list.next;
        let connection = Arc::new(Connection {
            number,
            peer,
            since,
            state: AtomicU64::new(self.waiting(since, false)),
            channel,
            answer: PendingAnswer::default(),
            table: Arc::clone(self),
            _permit: permit,
        });
        list.next += 1;
        list.connections.insert(number, Arc::clone(&connection));
        ConnectionGuard {
            table: Arc::clone(self),
            connection: Some(connection),
            number,
        }
    }

    /// Ends the connection that has waited longest. Those with unread bytes are passed over: at the limit a new connection would
    /// otherwise replace one whose request is there already, and would be replaced by the next.
    fn evict_longest_waiting(&self) -> Evicted {
        let (mut passed, mut count) = ((0, 0), 0);
        while count < PASSED_OVER_MAX {
            let Some(((seen, number), connection)) = self.longest_waiting(passed) else {
                break;
            };
            if connection.is_unread(seen) {
                (passed, count) = ((seen, number), count + 1);
                continue;
            }
            // Otherwise its request became whole this very moment, or the first part came: look again.
            if connection.end(seen, Shutdown::Both) {
                return Evicted::Told(connection);
            }
        }
        match count {
            0 => Evicted::None,
            _ => Evicted::Unread,
        }
    }

    /// The connection that has waited longest of those behind `passed` in the order of states and numbers.
    fn longest_waiting(&self, passed: (u64, u64)) -> Option<((u64, u64), Arc<Connection>)> {
        let list = self.list.lock();
        let waiting = list.connections.values().filter_map(|connection| {
            let key = (connection.state.load(Ordering::SeqCst), connection.number);
            (!matches!(key.0, BUSY | GONE) && key > passed).then_some((key, connection))
        });
        let (key, connection) = waiting.min_by_key(|(key, _)| *key)?;
        Some((key, Arc::clone(connection)))
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

    /// Waits until `holds`; `false`: it does not by `deadline`, or the listener closes.
    fn wait_until(&self, deadline: Instant, holds: impl Fn(&List) -> bool) -> bool {
        let mut list = self.list.lock();
        while !holds(&list) {
            if self.is_closing() || self.changed.wait_until(&mut list, deadline).timed_out() {
                return holds(&list);
            }
        }
        true
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

#[cfg(test)]
mod tests;
