//! What this node has sent to others and is owed a word about: by backend, then by id.
//!
//! PUBLISH says how many nodes heard. None: the backend is connected nowhere. One: its receipt decides. More than one,
//! which happens while a backend moves from node to node: an ACK decides, and a refusal only when all have refused.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::Stamp;
use crate::envelope::{self, Reply};
use crate::notification::{BackendId, NotificationId, Receipt, unix_us};

/// The most that may be abroad at once. What nobody answers stays until `tcp.ack_timeout` is over, so at the default
/// `http.max_in_flight` (256 in 4 s) and `tcp.ack_timeout` (60 s) about 4,000 can be; 150 bytes each.
const SENT_MAX: usize = 65_536;

/// How long a node that lost a backend to another one has for its last receipts: a session that was told to leave lingers for
/// 2 s.
const MOVED_GRACE: Duration = Duration::from_secs(3);

/// What was sent and not answered yet.
#[derive(Default)]
pub struct Abroad {
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_backend: HashMap<BackendId, Vec<Sent>>,
    count: usize,
}

struct Sent {
    reply: Reply,
    /// When, as sessions count it.
    at: Stamp,
    /// When nothing will come any more.
    until: Instant,
    /// How many nodes were told; unknown until Redis has said so.
    heard_by: Option<u64>,
    refusals: u64,
    /// The refusal that says most.
    refusal: Option<Receipt>,
}

impl fmt::Debug for Abroad {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Abroad({})", self.len())
    }
}

impl Abroad {
    /// How many are unanswered.
    pub fn len(&self) -> usize {
        self.table.lock().count
    }

    /// Keeps `reply` until something is heard of it, or `until`: then nothing will be. To be called before it is sent.
    ///
    /// # Errors
    /// Too many are abroad; the reply comes back.
    pub fn send(&self, backend: &BackendId, reply: Reply, until: Instant) -> Result<(), Reply> {
        let mut table = self.table.lock();
        if table.count >= SENT_MAX {
            return Err(reply);
        }
        table.count += 1;
        let sent = Sent {
            reply,
            at: unix_us(),
            until,
            heard_by: None,
            refusals: 0,
            refusal: None,
        };
        match table.by_backend.get_mut(backend) {
            Some(list) => list.push(sent),
            None => {
                table.by_backend.insert(backend.clone(), vec![sent]);
            }
        }
        Ok(())
    }

    /// Redis says that `nodes` have heard of `id`.
    pub fn heard_by(&self, backend: &BackendId, id: NotificationId, nodes: u64) {
        let settled = self.table.lock().with(backend, id, |sent| {
            sent.heard_by = Some(nodes);
            sent.verdict()
        });
        settle(settled);
    }

    /// `id` did not get out.
    pub fn failed(&self, backend: &BackendId, id: NotificationId) {
        let settled = self
            .table
            .lock()
            .with(backend, id, |_| Some(Receipt::Unreachable));
        settle(settled);
    }

    /// A node says what became of `id`, and whether it became a MSG there; whether anybody still waited for that.
    pub fn told(
        &self,
        backend: &BackendId,
        id: NotificationId,
        receipt: Receipt,
        msg: Option<envelope::Sent>,
    ) -> bool {
        let mut known = false;
        let settled = self.table.lock().with(backend, id, |sent| {
            known = true;
            if let Some(msg) = msg {
                sent.reply.sent(msg);
            }
            if matches!(receipt, Receipt::Ack | Receipt::Nack(_)) {
                return Some(receipt);
            }
            sent.refusals += 1;
            // That there is no session says least: it may only have moved.
            if sent.refusal.is_none() || receipt != Receipt::Gone {
                sent.refusal = Some(receipt);
            }
            sent.verdict()
        });
        settle(settled);
        known
    }

    /// `backend` has a session that began at `stamp`: what was sent before that went to an older one, and is soon told or
    /// never. What was sent later went to this one, which a node may announce again at any time.
    pub fn moved(&self, backend: &BackendId, stamp: Stamp, now: Instant) {
        if let Some(list) = self.table.lock().by_backend.get_mut(backend) {
            for sent in list.iter_mut().filter(|sent| sent.at < stamp) {
                sent.until = sent.until.min(now + MOVED_GRACE);
            }
        }
    }

    /// This node was deaf for a while: what was told meanwhile is lost.
    pub fn was_deaf(&self, now: Instant) {
        for sent in self.table.lock().by_backend.values_mut().flatten() {
            sent.until = sent.until.min(now + MOVED_GRACE);
        }
    }

    /// Ends what nobody will answer any more.
    pub fn sweep(&self, now: Instant) {
        let mut over = Vec::new();
        {
            let mut table = self.table.lock();
            let over = &mut over;
            table.by_backend.retain(|_, list| {
                over.extend(list.extract_if(.., |sent| sent.until <= now));
                !list.is_empty()
            });
            table.count -= over.len();
        }
        for sent in over {
            sent.reply.settle(Receipt::Gone);
        }
    }
}

impl Sent {
    fn verdict(&self) -> Option<Receipt> {
        let nodes = self.heard_by?;
        if self.refusals < nodes {
            return None;
        }
        Some(self.refusal.clone().unwrap_or(Receipt::Gone))
    }
}

impl Table {
    /// Lets `judge` see the one called `id`; takes it out if that gives a receipt.
    fn with(
        &mut self,
        backend: &BackendId,
        id: NotificationId,
        judge: impl FnOnce(&mut Sent) -> Option<Receipt>,
    ) -> Option<(Reply, Receipt)> {
        let list = self.by_backend.get_mut(backend)?;
        let at = list.iter().position(|sent| sent.reply.id() == id)?;
        let receipt = judge(&mut list[at])?;
        // In the order sent: the oldest is answered first as a rule, and lists are short.
        let sent = list.remove(at);
        if list.is_empty() {
            self.by_backend.remove(backend);
        }
        self.count -= 1;
        Some((sent.reply, receipt))
    }
}

/// Outside the lock: it answers a provider.
fn settle(settled: Option<(Reply, Receipt)>) {
    if let Some((reply, receipt)) = settled {
        reply.settle(receipt);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::envelope::Receipts;
    use crate::notification::{IdMint, Nack};

    #[derive(Default)]
    struct Ledger(Mutex<Vec<Receipt>>);

    impl Receipts for Ledger {
        fn receipt(&self, _id: NotificationId, receipt: Receipt) {
            self.0.lock().push(receipt);
        }
    }

    struct Desk {
        abroad: Abroad,
        ledger: Arc<Ledger>,
        to: BackendId,
        mint: IdMint,
        now: Instant,
    }

    impl Desk {
        fn new() -> Self {
            Self {
                abroad: Abroad::default(),
                ledger: Arc::default(),
                to: BackendId::parse("a").expect("an id"),
                mint: IdMint::new(0),
                now: Instant::now(),
            }
        }

        fn send(&self) -> NotificationId {
            let id = self.mint.mint(0);
            let reply = Reply::new(id, Arc::clone(&self.ledger) as Arc<dyn Receipts>);
            let until = self.now + Duration::from_secs(60);
            let sent = self.abroad.send(&self.to, reply, until);
            assert!(sent.is_ok());
            id
        }

        fn receipts(&self) -> Vec<Receipt> {
            std::mem::take(&mut *self.ledger.0.lock())
        }
    }

    #[test]
    fn heard_by_nobody_is_gone_and_heard_by_one_waits_for_that_one() {
        let desk = Desk::new();
        desk.abroad.heard_by(&desk.to, desk.send(), 0);
        assert_eq!(desk.receipts(), [Receipt::Gone]);
        let id = desk.send();
        desk.abroad.heard_by(&desk.to, id, 1);
        assert_eq!(desk.receipts(), []);
        assert!(desk.abroad.told(&desk.to, id, Receipt::Busy, None));
        assert!(
            !desk.abroad.told(&desk.to, id, Receipt::Ack, None),
            "too late"
        );
        assert_eq!(
            (desk.receipts(), desk.abroad.len()),
            (vec![Receipt::Busy], 0)
        );
    }

    #[test]
    fn a_receipt_may_be_faster_than_the_count() {
        let desk = Desk::new();
        let id = desk.send();
        assert!(desk.abroad.told(&desk.to, id, Receipt::Gone, None));
        assert_eq!(desk.receipts(), [], "there may be another node");
        desk.abroad.heard_by(&desk.to, id, 1);
        assert_eq!(desk.receipts(), [Receipt::Gone]);
        let id = desk.send();
        assert!(desk.abroad.told(&desk.to, id, Receipt::Ack, None));
        desk.abroad.heard_by(&desk.to, id, 1);
        assert_eq!(desk.receipts(), [Receipt::Ack]);
    }

    #[test]
    fn while_a_backend_moves_only_the_last_refusal_decides_and_any_ack_does() {
        let desk = Desk::new();
        let id = desk.send();
        desk.abroad.heard_by(&desk.to, id, 2);
        assert!(desk.abroad.told(&desk.to, id, Receipt::Busy, None));
        assert_eq!(desk.receipts(), []);
        assert!(desk.abroad.told(&desk.to, id, Receipt::Gone, None));
        assert_eq!(desk.receipts(), [Receipt::Busy], "it says more");
        let id = desk.send();
        desk.abroad.heard_by(&desk.to, id, 2);
        assert!(desk.abroad.told(&desk.to, id, Receipt::Gone, None));
        assert!(
            desk.abroad
                .told(&desk.to, id, Receipt::Nack(Nack::default()), None)
        );
        assert_eq!(desk.receipts(), [Receipt::Nack(Nack::default())]);
    }

    #[test]
    fn what_nobody_answers_ends_and_earlier_when_the_backend_has_moved() {
        let desk = Desk::new();
        let after = |s| desk.now + Duration::from_secs(s);
        let (first, second) = (desk.send(), desk.send());
        desk.abroad.heard_by(&desk.to, first, 1);
        desk.abroad.failed(&desk.to, second);
        assert_eq!(desk.receipts(), [Receipt::Unreachable]);
        desk.abroad.sweep(after(59));
        assert_eq!(desk.receipts(), []);
        // A session that was there before is announced again: it may still answer.
        desk.abroad.moved(&desk.to, 1, after(1));
        desk.abroad.sweep(after(59));
        assert_eq!(desk.receipts(), []);
        desk.abroad.moved(&desk.to, Stamp::MAX, after(10));
        desk.abroad.sweep(after(12));
        assert_eq!(desk.receipts(), []);
        desk.abroad.sweep(after(13));
        assert_eq!(
            (desk.receipts(), desk.abroad.len()),
            (vec![Receipt::Gone], 0)
        );
    }
}
