//! Whether a new connection is let in, and which other one is evicted for it when there is no room.

use std::net::{Shutdown, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::channel::Transport;
use super::pending::PendingAnswer;
use super::state::{ConnectionState, SeenState};
use super::table::{Connection, ConnectionGuard, ConnectionTable, List};
use crate::fds::{FdBudget, FdPermit};

/// How long a new connection waits for an evicted one to leave, whose thread only has to wake up.
const LEAVE_MAX: Duration = Duration::from_secs(1);

/// How many connections are evicted for a new one at most: another part of the relay may take the descriptor that came free.
const EVICTIONS_MAX: u32 = 3;

/// How many of the longest waiting connections are asked whether they have unread bytes. If all have, the relay is behind with
/// its work.
const PASSED_OVER_MAX: usize = 64;

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
            state: ConnectionState::waiting(self.since_epoch(since)),
            channel,
            answer: PendingAnswer::default(),
            table: Arc::clone(self),
            _permit: permit,
        });
        list.next += 1;
        list.connections.insert(number, Arc::clone(&connection));
        ConnectionGuard(Some(connection))
    }

    /// Ends the connection that has waited longest. Those with unread bytes are passed over: at the limit a new connection would
    /// otherwise replace one whose request is there already, and would be replaced by the next.
    fn evict_longest_waiting(&self) -> Evicted {
        let (mut passed, mut count) = ((SeenState::default(), 0), 0);
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
    fn longest_waiting(
        &self,
        passed: (SeenState, u64),
    ) -> Option<((SeenState, u64), Arc<Connection>)> {
        let list = self.list.lock();
        let waiting = list.connections.values().filter_map(|connection| {
            let key = (connection.state.seen(), connection.number);
            (key.0.is_waiting() && key > passed).then_some((key, connection))
        });
        let (key, connection) = waiting.min_by_key(|(key, _)| *key)?;
        Some((key, Arc::clone(connection)))
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
}

#[cfg(test)]
mod tests;
