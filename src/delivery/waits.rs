//! The waits of this node: who waits for which notification, and what is done when the waiting is over.
//!
//! A receipt or the deadline takes a wait out of the table; nobody else can. What becomes of the notification after that
//! (answered, or stored and then answered) is the taker's to see to.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;

use super::conclusion::Conclusion;
use super::dedupe::{Dedupe, Joined};
use super::report::Reporter;
#[cfg(test)]
use super::table::Sizes;
use super::table::{Table, Wait};
use crate::bus::{DedupeStore, EventLease};
use crate::envelope::Receipts;
use crate::heartbeat::Pulse;
use crate::lock::{Condvar, Mutex};
use crate::metrics::Metrics;
use crate::notification::{NotificationId, Outcome, Receipt};
use crate::outbox::{HeldReceipt, Outbox, Undelivered};
use crate::trace::{Record, Trace};

/// All of them.
pub struct Waits {
    me: Weak<Self>,
    table: Mutex<Table>,
    emptied: Condvar,
    draining: AtomicBool,
    outbox: Option<Arc<Outbox>>,
    pub dedupe: Dedupe,
    dedupe_store: Option<Arc<dyn DedupeStore>>,
    dedupe_window: Duration,
    reporter: Reporter,
    metrics: Arc<Metrics>,
}

impl Waits {
    /// None yet.
    pub fn new(
        outbox: Option<Arc<Outbox>>,
        dedupe: Dedupe,
        dedupe_store: Option<Arc<dyn DedupeStore>>,
        dedupe_window: Duration,
        trace: Arc<Trace>,
        metrics: Arc<Metrics>,
    ) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            me: me.clone(),
            table: Mutex::default(),
            emptied: Condvar::new(),
            draining: AtomicBool::new(false),
            outbox,
            dedupe,
            dedupe_store,
            dedupe_window,
            reporter: Reporter::new(trace),
            metrics,
        })
    }

    /// How much is kept.
    #[cfg(test)]
    pub fn sizes(&self) -> Sizes {
        let table = self.table.lock();
        Sizes {
            waits: table.waits.len(),
            by_backend: table.by_backend.len(),
            due: table.due.len(),
        }
    }

    /// What the nodes know together of events, if there are several.
    pub fn dedupe_store(&self) -> Option<&Arc<dyn DedupeStore>> {
        self.dedupe_store.as_ref()
    }

    /// How many providers wait.
    pub fn len(&self) -> usize {
        let table = self.table.lock();
        table.waits.len() + table.storing
    }

    /// What is under way of what somebody means by `key`.
    pub fn find(&self, key: &str) -> Vec<Record> {
        let table = self.table.lock();
        let records = table.waits.values().map(Wait::record);
        records.filter(|record| record.is(key)).collect()
    }

    /// What is under way, `limit` at most.
    pub fn some(&self, limit: usize) -> Vec<Record> {
        let table = self.table.lock();
        table.waits.values().take(limit).map(Wait::record).collect()
    }

    /// Takes `wait` in until `deadline`; gives it back if there is no room.
    pub fn add(
        &self,
        wait: Wait,
        deadline: Instant,
        in_flight_max: usize,
    ) -> Result<(), Box<Wait>> {
        self.table.lock().add(wait, deadline, in_flight_max)?;
        self.metrics.in_flight_add();
        Ok(())
    }

    /// The other nodes have said whose the event of `id` is; whether somebody waits for it still.
    pub fn claimed(&self, id: NotificationId, claim: EventLease) -> bool {
        let mut table = self.table.lock();
        match table.waits.get_mut(&id) {
            Some(wait) => {
                wait.claim = Some(claim);
                true
            }
            None => false,
        }
    }

    // ---- the end of a wait -----------------------------------------------------------------------------------------

    /// Ends `wait`, which is in nobody else's hands: answers, or stores and then answers.
    pub fn conclude(&self, wait: Wait, conclusion: Conclusion) {
        match &self.outbox {
            Some(outbox) if !conclusion.outcome.is_ok() => self.store(outbox, wait, conclusion),
            Some(_) | None => {
                let why = conclusion.nack.and_then(|nack| nack.reason);
                self.answer(wait, conclusion.outcome, why);
            }
        }
    }

    /// Ends the wait for `id` with `outcome`, whatever there is to store things in: it is somebody else's.
    pub fn conclude_here(&self, id: NotificationId, outcome: Outcome, why: &str) {
        let wait = self.table.lock().take(id);
        if let Some(wait) = wait {
            self.metrics.in_flight_sub();
            self.answer(wait, outcome, Some(why.into()));
        }
        self.tell_if_empty(&self.table.lock());
    }

    #[inline(never)] // its stack is not needed beneath an ACK, which is answered on a session's small one
    fn store(&self, outbox: &Outbox, wait: Wait, conclusion: Conclusion) {
        let why = conclusion.why();
        let (outcome, held) = (conclusion.outcome, conclusion.held);
        let undelivered = Undelivered {
            notification: Arc::clone(&wait.notification),
            key: wait.key,
            why: why.clone(),
            again: conclusion.nack.map(|nack| nack.again),
            sent: wait.progress.sent(),
            held,
            timeline: wait.record().beginning(),
        };
        self.table.lock().storing += 1;
        let me = self.me.clone();
        outbox.store(undelivered, move |stored| {
            let Some(waits) = me.upgrade() else {
                return wait.answer.send(outcome); // nobody is left to say more
            };
            let id = wait.notification.id;
            if held {
                waits.held_is(id, stored.ok());
            }
            let concluded = match stored {
                Ok(_) => Outcome::Stored,
                Err(_) => outcome,
            };
            waits.answer(wait, concluded, Some(why.into()));
            waits.storing_ended();
        });
    }

    fn storing_ended(&self) {
        let mut table = self.table.lock();
        table.storing -= 1;
        self.tell_if_empty(&table);
    }

    /// What is held as `id` lies in row `seq`; `None`: nowhere.
    fn held_is(&self, id: NotificationId, seq: Option<i64>) {
        let told = self.table.lock().stored(id, seq);
        if let (Some(told), Some(outbox)) = (told, &self.outbox) {
            outbox.on_held_receipt(told);
        }
    }

    /// In parts that are not inlined: what each needs on the stack, a session's small one as a rule, is not needed while
    /// the provider is answered.
    fn answer(&self, wait: Wait, outcome: Outcome, why: Option<Box<str>>) {
        let id = wait.notification.id;
        // Before anybody is answered: who has read ok and asks again must be recognised.
        let joined = self.leave_event(&wait, outcome);
        self.reporter.note(&wait, outcome, why);
        wait.answer.send(outcome);
        if !joined.is_empty() {
            self.answer_all_joined(joined, id, outcome);
        }
    }

    /// The event is settled, or free again. Gives back who waited with its first request.
    #[inline(never)]
    fn leave_event(&self, wait: &Wait, outcome: Outcome) -> Vec<Joined> {
        let (Some(key), Some(name)) = (&wait.key, &wait.notification.event) else {
            return Vec::new();
        };
        let settled = outcome.is_ok();
        if let Some(dedupe_store) = &self.dedupe_store {
            match (settled, wait.claim) {
                (true, Some(EventLease::Mine | EventLease::Unknown) | None) => {
                    dedupe_store.keep(key, self.dedupe_window);
                }
                (false, Some(EventLease::Mine)) => dedupe_store.free(key),
                (true | false, _) => {}
            }
        }
        self.dedupe.leave(key, settled.then_some(name))
    }

    #[inline(never)]
    fn answer_all_joined(&self, joined: Vec<Joined>, id: NotificationId, outcome: Outcome) {
        let outcome = match outcome.is_ok() {
            true => Outcome::Duplicate,
            false => outcome,
        };
        for request in joined {
            self.metrics.in_flight_sub();
            self.answer_joined(request, outcome, &format!("joined {id}"));
        }
    }

    /// A request waits for the end of another one.
    pub fn one_joined(&self) {
        self.metrics.in_flight_add();
    }

    /// Answers a request for an event that another request is about.
    pub fn answer_joined(&self, request: Joined, outcome: Outcome, why: &str) {
        self.reporter.note_joined(request.record, outcome, why);
        request.answer.send(outcome);
    }

    // ---- the clock -------------------------------------------------------------------------------------------------

    /// The timer's loop; ends when `stopped` closes.
    pub fn keep_deadlines(&self, pulse: &Pulse, stopped: &Receiver<()>, ack_deadline: Duration) {
        loop {
            pulse.busy();
            let next = match self.take_late(Instant::now()) {
                // One at a time: a panic in what follows would take along the others that had been taken.
                Ok(wait) => {
                    self.conclude_held(*wait, Outcome::TimedOut);
                    continue;
                }
                Err(next) => next,
            };
            pulse.idle();
            // Nobody needs to wake this thread for a new wait: it cannot fall due before `ack_deadline` from now.
            let wake = next.unwrap_or_else(|| Instant::now() + ack_deadline);
            match stopped.recv_deadline(wake) {
                Err(error) if error.is_timeout() => {}
                Ok(()) | Err(_) => return,
            }
        }
    }

    /// Takes out a wait whose deadline has come; without one, tells the next deadline.
    fn take_late(&self, now: Instant) -> Result<Box<Wait>, Option<Instant>> {
        let mut table = self.table.lock();
        let late = table.take_late(now);
        match &late {
            Ok(wait) => self.set_aside(&mut table, wait),
            Err(_) => self.tell_if_empty(&table),
        }
        late
    }

    /// `wait` is taken out while its envelope is out. In one go with the taking: its receipt may come the moment after.
    fn set_aside(&self, table: &mut Table, wait: &Wait) {
        if self.outbox.is_some() {
            table.hold(wait);
            table.storing += 1;
        }
    }

    /// Ends a wait that was set aside.
    fn conclude_held(&self, wait: Wait, outcome: Outcome) {
        self.metrics.in_flight_sub();
        self.conclude(wait, Conclusion::held(outcome));
        if self.outbox.is_some() {
            self.storing_ended(); // it counts for itself by now
        }
    }

    // ---- the drain -------------------------------------------------------------------------------------------------

    /// Whether nothing new is handed over.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Relaxed)
    }

    /// From now on nothing new is handed over.
    pub fn begin_drain(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Concludes all that is left as draining, and says how many that was.
    pub fn give_up(&self) -> usize {
        let mut table = self.table.lock();
        let left = table.take_all();
        for wait in &left {
            self.set_aside(&mut table, wait);
        }
        drop(table);
        let count = left.len();
        for wait in left {
            self.conclude_held(wait, Outcome::Draining);
        }
        count
    }

    /// Waits until no provider waits any more, or `deadline`; says whether none does.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        let mut table = self.table.lock();
        while !table.is_empty() {
            let (again, is_late) = self.emptied.wait_until(table, deadline);
            table = again;
            if is_late {
                break;
            }
        }
        table.is_empty()
    }

    fn tell_if_empty(&self, table: &Table) {
        if table.is_empty() && self.is_draining() {
            self.emptied.notify_all();
        }
    }

    /// Nobody waits for what this receipt is about.
    fn late(&self, table: &mut Table, id: NotificationId, receipt: Receipt) -> Option<HeldReceipt> {
        let Some(held) = table.held.get_mut(&id) else {
            // An ACK all the same means that the provider's retry will be a duplicate.
            if receipt == Receipt::Ack {
                self.metrics.late_ack();
                log::debug!("{id}: late ACK");
            }
            return None;
        };
        let Some(seq) = held.seq else {
            held.receipt = Some(receipt);
            return None;
        };
        let sent = held.progress.sent();
        table.held.remove(&id);
        Some(HeldReceipt { seq, receipt, sent })
    }
}

impl Receipts for Waits {
    fn receipt(&self, id: NotificationId, receipt: Receipt) {
        let mut table = self.table.lock();
        let Some(wait) = table.take(id) else {
            let late = self.late(&mut table, id, receipt);
            drop(table);
            if let (Some(late), Some(outbox)) = (late, &self.outbox) {
                outbox.on_held_receipt(late);
            }
            return;
        };
        // Until it is stored, so that a drain does not find nobody waiting in between.
        let to_store = self.outbox.is_some() && receipt != Receipt::Ack;
        table.storing += usize::from(to_store);
        self.tell_if_empty(&table);
        drop(table);
        self.metrics.in_flight_sub();
        self.metrics.receipt(&receipt);
        let conclusion = Conclusion::of_receipt(receipt, self.is_draining());
        self.conclude(wait, conclusion);
        if to_store {
            self.storing_ended();
        }
    }
}
