//! Notifications that this node has published for other nodes and has no receipt for: by backend, then by id.
//!
//! PUBLISH returns how many nodes received the message. 0: the backend is connected to no node. 1: that node's receipt
//! decides. More than one, which happens while a backend moves from node to node: an ACK decides, and a refusal only when
//! all nodes have refused.

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::types::Stamp;
use crate::envelope::{self, Reply};
use crate::notification::{BackendId, NotificationId, Receipt, unix_us};

/// The most entries. One without a receipt stays until `tcp.ack_timeout` is over, so at the default `http.max_in_flight`
/// (256 in 4 s) and `tcp.ack_timeout` (60 s) there can be about 4,000; 150 bytes each.
const ENTRIES_MAX: usize = 65_536;

/// How long a receipt may be on its way that this node may have missed.
const MISSED_GRACE: Duration = Duration::from_secs(3);

/// How much longer than its last session a node has for the receipts of a backend that has moved to another node.
const MOVED_GRACE: Duration = Duration::from_secs(1);

/// What was published and has no receipt yet.
pub struct RemotePending {
    table: Mutex<Table>,
    /// How long a session that was taken over may still acknowledge.
    takeover_grace: Duration,
}

#[derive(Default)]
struct Table {
    by_backend: HashMap<BackendId, Vec<Entry>>,
    count: usize,
}

struct Entry {
    reply: Reply,
    /// Which try it is; `None`: data, which is not tried again.
    tries: Option<u32>,
    /// When it was published, as sessions count it.
    at: Stamp,
    /// No receipt comes after this.
    until: Instant,
    /// How many nodes received it.
    nodes: Nodes,
    refusals: u64,
    /// The refusal that says most.
    refusal: Option<Receipt>,
}

/// What Redis has said of the nodes that received a message.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Nodes {
    /// Nothing yet.
    Unknown,
    /// So many, on a server that proved to be the primary.
    Counted(u64),
    /// At least one, on a server that may not be the primary: there may be others elsewhere.
    Unproven,
}

impl fmt::Debug for RemotePending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemotePending({})", self.len())
    }
}

impl RemotePending {
    /// Nothing is published. A session that is taken over may acknowledge for `takeover_grace`, on every node.
    pub fn new(takeover_grace: Duration) -> Self {
        Self {
            table: Mutex::default(),
            takeover_grace,
        }
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.table.lock().count
    }

    /// Keeps `reply` until its receipt comes, or `until`. To be called before the message is published. `tries`: which try
    /// of a notification it is.
    ///
    /// # Errors
    /// There are too many entries; the reply comes back.
    pub fn register(
        &self,
        backend: &BackendId,
        reply: Reply,
        tries: Option<u32>,
        until: Instant,
    ) -> Result<(), Reply> {
        let mut table = self.table.lock();
        if table.count >= ENTRIES_MAX {
            return Err(reply);
        }
        table.count += 1;
        let entry = Entry {
            reply,
            tries,
            at: unix_us(),
            until,
            nodes: Nodes::Unknown,
            refusals: 0,
            refusal: None,
        };
        match table.by_backend.get_mut(backend) {
            Some(list) => list.push(entry),
            None => {
                table.by_backend.insert(backend.clone(), vec![entry]);
            }
        }
        Ok(())
    }

    /// `nodes` nodes have received `id`, on a server that proved to be the primary.
    pub fn counted(&self, backend: &BackendId, id: NotificationId, nodes: u64) {
        let settled = self.table.lock().with(backend, id, |entry| {
            entry.nodes = Nodes::Counted(nodes);
            entry.verdict()
        });
        settle(settled);
    }

    /// At least one node has received `id`, on a server that did not prove to be the primary: a receipt still counts, and
    /// without one the backend is unreachable, not offline.
    pub fn unproven(&self, backend: &BackendId, id: NotificationId, now: Instant) {
        let settled = self.table.lock().with(backend, id, |entry| {
            entry.nodes = Nodes::Unproven;
            entry.until = entry.until.min(now + MISSED_GRACE);
            None
        });
        settle(settled);
    }

    /// Ends `id` with `receipt`: it was not published, or nothing is known of that.
    pub fn fail(&self, backend: &BackendId, id: NotificationId, receipt: Receipt) {
        let settled = self.table.lock().with(backend, id, |_| Some(receipt));
        settle(settled);
    }

    /// A node says what became of try `tries` of `id`, and whether it became a MSG there; whether this node was waiting for
    /// that.
    pub fn on_receipt(
        &self,
        backend: &BackendId,
        id: NotificationId,
        tries: Option<u32>,
        receipt: Receipt,
        msg: Option<envelope::Sent>,
    ) -> bool {
        let mut known = false;
        let settled = self.table.lock().with(backend, id, |entry| {
            let is_ack = receipt == Receipt::Ack;
            if !is_ack && tries.is_some() && entry.tries.is_some() && tries != entry.tries {
                return None; // of an earlier try, which may say nothing of this one
            }
            known = true;
            if let Some(msg) = msg {
                entry.reply.sent(msg);
            }
            if matches!(receipt, Receipt::Ack | Receipt::Nack(_)) {
                return Some(receipt);
            }
            entry.refusals += 1;
            // That there is no session says least: it may only have moved.
            if entry.refusal.is_none() || receipt != Receipt::Gone {
                entry.refusal = Some(receipt);
            }
            entry.verdict()
        });
        settle(settled);
        known
    }

    /// `backend` has a session that began at `stamp`: what was published before that went to an older session, whose receipt
    /// comes soon or never. What was published later went to this one, which a node may announce again at any time.
    pub fn moved(&self, backend: &BackendId, stamp: Stamp, now: Instant) {
        let until = now + self.takeover_grace + MOVED_GRACE;
        if let Some(list) = self.table.lock().by_backend.get_mut(backend) {
            for entry in list.iter_mut().filter(|entry| entry.at < stamp) {
                entry.until = entry.until.min(until);
            }
        }
    }

    /// This node has received nothing for a while of the backends for which `concerned` holds: their receipts may be lost.
    pub fn may_have_missed(&self, concerned: impl Fn(&BackendId) -> bool, now: Instant) {
        let mut table = self.table.lock();
        let lists = table.by_backend.iter_mut();
        for (_, list) in lists.filter(|(backend, _)| concerned(backend)) {
            for entry in list {
                entry.until = entry.until.min(now + MISSED_GRACE);
            }
        }
    }

    /// Ends the entries for which no receipt will come any more.
    pub fn sweep(&self, now: Instant) {
        let mut over = Vec::new();
        {
            let mut table = self.table.lock();
            let over = &mut over;
            table.by_backend.retain(|_, list| {
                over.extend(list.extract_if(.., |entry| entry.until <= now));
                !list.is_empty()
            });
            table.count -= over.len();
        }
        for entry in over {
            entry.end_without_receipt();
        }
    }
}

impl Entry {
    fn verdict(&self) -> Option<Receipt> {
        let Nodes::Counted(nodes) = self.nodes else {
            return None;
        };
        if self.refusals < nodes {
            return None;
        }
        Some(self.refusal.clone().unwrap_or(Receipt::Gone))
    }

    fn end_without_receipt(self) {
        let received = matches!(self.nodes, Nodes::Unproven | Nodes::Counted(1..));
        if received && self.refusals == 0 {
            // A node had it, and has died or cannot be heard. The backend may have been sent it, so this counts as a try:
            // otherwise a notification that always ends like this would be sent for ever.
            self.reply.sent(envelope::Sent {
                at_unix_ms: self.at / 1000,
                session: 0,
            });
        }
        self.reply.settle(match self.nodes {
            Nodes::Unproven => Receipt::Unreachable,
            Nodes::Unknown | Nodes::Counted(_) => Receipt::Gone,
        });
    }
}

impl Table {
    /// Lets `judge` see the entry called `id`; takes it out if that gives a receipt.
    fn with(
        &mut self,
        backend: &BackendId,
        id: NotificationId,
        judge: impl FnOnce(&mut Entry) -> Option<Receipt>,
    ) -> Option<(Reply, Receipt)> {
        let list = self.by_backend.get_mut(backend)?;
        let at = list.iter().position(|entry| entry.reply.id() == id)?;
        let receipt = judge(&mut list[at])?;
        // In the order published: the oldest is answered first as a rule, and lists are short.
        let entry = list.remove(at);
        if list.is_empty() {
            self.by_backend.remove(backend);
        }
        self.count -= 1;
        Some((entry.reply, receipt))
    }
}

/// Outside the lock: it answers a provider.
fn settle(settled: Option<(Reply, Receipt)>) {
    if let Some((reply, receipt)) = settled {
        reply.settle(receipt);
    }
}
