//! The table of waits, as plain data behind one lock of [`Waits`](super::waits::Waits).

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Instant;

use crate::answer::Answer;
use crate::bus::EventLease;
use crate::envelope::Progress;
use crate::notification::{BackendId, EventKey, Notification, NotificationId, Receipt};
use crate::outbox::HeldReceipt;
use crate::trace::Record;

/// How many deadlines of concluded waits may be kept, beyond as many as there are waits, before they are cleared out.
pub const DUE_SPARE: usize = 64;

/// One provider's wait.
pub struct Wait {
    pub notification: Arc<Notification>,
    pub key: Option<EventKey>,
    /// What the other nodes said of its event.
    pub claim: Option<EventLease>,
    pub progress: Arc<Progress>,
    pub answer: Answer,
}

impl Wait {
    /// For `notification`, whose event is known by `key`.
    pub fn new(notification: Notification, key: Option<EventKey>, answer: Answer) -> Self {
        Self {
            notification: Arc::new(notification),
            key,
            claim: None,
            progress: Arc::default(),
            answer,
        }
    }

    /// What its envelope shares with it.
    pub fn shared(&self) -> (NotificationId, Arc<Notification>, Arc<Progress>) {
        (
            self.notification.id,
            Arc::clone(&self.notification),
            Arc::clone(&self.progress),
        )
    }

    /// What is to be remembered of it.
    pub fn record(&self) -> Record {
        Record {
            sent: self.progress.sent(),
            ..Record::of(&self.notification)
        }
    }
}

/// What was stored while a session had it in hand.
pub struct Held {
    pub progress: Arc<Progress>,
    /// Its row, once it is on disk.
    pub seq: Option<i64>,
    /// What the session has told, if it was faster than the disk.
    pub receipt: Option<Receipt>,
}

/// How much of each is kept.
#[cfg(test)]
pub struct Sizes {
    pub waits: usize,
    pub by_backend: usize,
    pub due: usize,
}

/// The waits, and what belongs to them.
#[derive(Default)]
pub struct Table {
    pub waits: HashMap<NotificationId, Wait>,
    pub by_backend: HashMap<BackendId, usize>,
    /// In the order they fall due, since all wait equally long. Those concluded earlier are cleared now and
    /// then.
    pub due: VecDeque<(Instant, NotificationId)>,
    /// Taken out to be stored and not answered yet.
    pub storing: usize,
    /// No more than all sessions have in flight.
    pub held: HashMap<NotificationId, Held>,
}

impl Table {
    /// Takes `wait` in until `deadline`; gives it back if there is no room: the last places are for other backends.
    pub fn add(
        &mut self,
        wait: Wait,
        deadline: Instant,
        in_flight_max: usize,
    ) -> Result<(), Box<Wait>> {
        let free = in_flight_max.saturating_sub(self.waits.len());
        let backend = &wait.notification.backend;
        let count = self.by_backend.get(backend).copied().unwrap_or(0);
        if count >= free {
            return Err(Box::new(wait));
        }
        self.by_backend.insert(backend.clone(), count + 1);
        self.clear_concluded();
        self.due.push_back((deadline, wait.notification.id));
        self.waits.insert(wait.notification.id, wait);
        Ok(())
    }

    /// All waits that nobody took before.
    pub fn take_all(&mut self) -> Vec<Wait> {
        self.by_backend.clear();
        self.due.clear();
        self.waits.drain().map(|(_, wait)| wait).collect()
    }

    /// The wait for `id`, if nobody took it before.
    pub fn take(&mut self, id: NotificationId) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        if let Some(count) = self.by_backend.get_mut(&wait.notification.backend) {
            *count -= 1;
            if *count == 0 {
                self.by_backend.remove(&wait.notification.backend);
            }
        }
        Some(wait)
    }

    /// Whether nobody waits.
    pub fn is_empty(&self) -> bool {
        self.waits.is_empty() && self.storing == 0
    }

    /// Takes out a wait whose deadline has come by `now`; without one, tells the next deadline.
    pub fn take_late(&mut self, now: Instant) -> Result<Box<Wait>, Option<Instant>> {
        loop {
            self.clear_concluded();
            match self.due.front().copied() {
                Some((deadline, id)) if deadline <= now => {
                    if let Some(wait) = self.take(id) {
                        return Ok(Box::new(wait));
                    }
                }
                next => return Err(next.map(|(deadline, _)| deadline)),
            }
        }
    }

    /// Clears out the deadlines of those that were concluded before.
    pub fn clear_concluded(&mut self) {
        while let Some((_, id)) = self.due.front() {
            if self.waits.contains_key(id) {
                break;
            }
            self.due.pop_front();
        }
        // Behind a wait that lasts, the concluded ones would pile up until its deadline.
        if self.due.len() > 2 * self.waits.len() + DUE_SPARE {
            let waits = &self.waits;
            self.due.retain(|(_, id)| waits.contains_key(id));
        }
    }

    /// From now on whatever a session tells of `wait` is kept for the outbox.
    pub fn hold(&mut self, wait: &Wait) {
        let held = Held {
            progress: Arc::clone(&wait.progress),
            seq: None,
            receipt: None,
        };
        self.held.insert(wait.notification.id, held);
    }

    /// What is held as `id` lies in row `seq`; `None`: nowhere. Gives back its receipt, if that was faster than the disk.
    pub fn stored(&mut self, id: NotificationId, seq: Option<i64>) -> Option<HeldReceipt> {
        let held = self.held.get_mut(&id)?;
        if seq.is_some() && held.receipt.is_none() {
            held.seq = seq;
            return None;
        }
        let held = self.held.remove(&id)?;
        Some(HeldReceipt {
            seq: seq?,
            receipt: held.receipt?,
            sent: held.progress.sent(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::IdMint;

    fn table(id: NotificationId, receipt: Option<Receipt>) -> Table {
        let mut table = Table::default();
        let held = Held {
            progress: Arc::default(),
            seq: None,
            receipt,
        };
        table.held.insert(id, held);
        table
    }

    #[test]
    fn an_ack_that_is_faster_than_the_disk_is_kept_for_its_row() {
        let id = IdMint::new(0).mint(0);
        let mut table = table(id, Some(Receipt::Ack));
        let told = table.stored(id, Some(7)).expect("the receipt");
        assert_eq!((told.seq, told.receipt), (7, Receipt::Ack));
        assert!(table.held.is_empty(), "it is told once");
    }

    #[test]
    fn the_row_is_kept_for_an_ack_that_comes_later() {
        let id = IdMint::new(0).mint(0);
        let mut table = table(id, None);
        assert!(table.stored(id, Some(7)).is_none());
        assert_eq!(table.held[&id].seq, Some(7));
    }

    #[test]
    fn nothing_is_kept_of_what_is_nowhere() {
        let id = IdMint::new(0).mint(0);
        for receipt in [None, Some(Receipt::Ack)] {
            let mut table = table(id, receipt);
            assert!(table.stored(id, None).is_none());
            assert!(table.held.is_empty());
        }
    }
}
