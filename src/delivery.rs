//! Who waits for which notification until when, and what it comes to.
//!
//! The wait stands before anything is sent, and whoever takes it out of the table answers: an ACK, a refusal, the
//! deadline. So each provider is answered exactly once. What the answer looks like is not known here.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};

use crate::bus::Forward;
use crate::metrics::Metrics;
use crate::notification::{BackendId, Nack, Notification, NotificationId, Outcome, Receipt};
use crate::parcel::{Parcel, Receipts};
use crate::session::{NotSent, Registry};
use crate::thread::{self, JoinOnDrop};

#[cfg(test)]
mod tests;

/// How many deadlines of concluded waits may be kept, beyond as many as there are waits, before they are cleared out.
const DUE_SPARE: usize = 64;

/// Tells the provider; called once, by whichever thread learns the outcome. It must not wait.
pub type Answer = Box<dyn FnOnce(Outcome) + Send>;

/// Hands notifications to backends and concludes what came of it.
pub struct Delivery {
    waits: Arc<Waits>,
    registry: Arc<Registry>,
    bus: Arc<dyn Forward>,
    ack_deadline: Duration,
    in_flight_max: usize,
    _stop: Sender<()>, // dropped first: it ends the timer
    _timer: JoinOnDrop,
}

impl fmt::Debug for Delivery {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Delivery")
            .field("waiting", &self.waits.len())
            .finish_non_exhaustive()
    }
}

impl Delivery {
    /// Starts the deadline timer. `in_flight_max` is what may wait for all backends together; one may have as much of it
    /// as is still free, so that a silent one gets half at most, the next a quarter, and the others always find room.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(
        registry: Arc<Registry>,
        bus: Arc<dyn Forward>,
        ack_deadline: Duration,
        in_flight_max: usize,
        metrics: Arc<Metrics>,
    ) -> io::Result<Self> {
        let waits = Arc::new(Waits {
            table: Mutex::default(),
            emptied: Condvar::new(),
            draining: AtomicBool::new(false),
            metrics,
        });
        let (stop, stopped) = bounded(0);
        let theirs = Arc::clone(&waits);
        let timer = thread::spawn("deadlines", thread::SMALL_STACK_BYTES, move || {
            theirs.keep_deadlines(&stopped, ack_deadline);
        })?;
        Ok(Self {
            waits,
            registry,
            bus,
            ack_deadline,
            in_flight_max,
            _stop: stop,
            _timer: timer,
        })
    }

    /// Hands `notification` to its backend, wherever that is; `answer` learns what came of it, in this call or later.
    pub fn deliver(&self, notification: Notification, answer: Answer) {
        if self.waits.draining.load(Ordering::Relaxed) {
            return answer(Outcome::Draining);
        }
        let deadline = Instant::now() + self.ack_deadline;
        let notification = Arc::new(notification);
        // Wait first, then send: the ACK may be here before the send returns.
        let wait = Wait {
            backend: notification.backend.clone(),
            answer,
        };
        if let Err(wait) = self
            .waits
            .add(notification.id, wait, deadline, self.in_flight_max)
        {
            return (wait.answer)(Outcome::Busy);
        }
        let receipts = Arc::clone(&self.waits) as Arc<dyn Receipts>;
        let parcel = Box::new(Parcel::new(notification, deadline, receipts));
        match self.registry.send(parcel) {
            Ok(()) => {}
            Err(NotSent::Full(parcel)) => parcel.settle(Receipt::Busy),
            Err(NotSent::Absent(parcel)) => self.bus.forward(parcel),
        }
    }

    /// How many providers wait.
    pub fn in_flight(&self) -> usize {
        self.waits.len()
    }

    /// From now on nothing new is handed over, and what no session has taken yet is concluded as draining.
    pub fn begin_drain(&self) {
        self.waits.draining.store(true, Ordering::Relaxed);
    }

    /// Concludes all that is left as draining, and says how many that was.
    pub fn give_up(&self) -> usize {
        let left = self.waits.take_all();
        let count = left.len();
        for wait in left {
            self.waits.conclude(wait, Outcome::Draining);
        }
        count
    }

    /// Waits until no provider waits any more, or `deadline`; says whether none does.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        let mut table = self.waits.table.lock();
        while !table.waits.is_empty() {
            let late = self.waits.emptied.wait_until(&mut table, deadline);
            if late.timed_out() {
                break;
            }
        }
        table.waits.is_empty()
    }
}

struct Wait {
    backend: BackendId,
    answer: Answer,
}

/// The waits of this node. A receipt or the deadline takes one out; nobody else can.
struct Waits {
    table: Mutex<Table>,
    emptied: Condvar,
    draining: AtomicBool,
    metrics: Arc<Metrics>,
}

#[derive(Default)]
struct Table {
    waits: HashMap<NotificationId, Wait>,
    by_backend: HashMap<BackendId, usize>,
    /// In the order they fall due, since all wait equally long. Those concluded earlier are cleared now and
    /// then.
    due: VecDeque<(Instant, NotificationId)>,
}

impl Table {
    fn take(&mut self, id: NotificationId) -> Option<Wait> {
        let wait = self.waits.remove(&id)?;
        if let Some(count) = self.by_backend.get_mut(&wait.backend) {
            *count -= 1;
            if *count == 0 {
                self.by_backend.remove(&wait.backend);
            }
        }
        Some(wait)
    }

    fn clear_concluded(&mut self) {
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
}

impl Waits {
    fn len(&self) -> usize {
        self.table.lock().waits.len()
    }

    fn add(
        &self,
        id: NotificationId,
        wait: Wait,
        deadline: Instant,
        in_flight_max: usize,
    ) -> Result<(), Wait> {
        let mut table = self.table.lock();
        let free = in_flight_max.saturating_sub(table.waits.len());
        let count = table.by_backend.get(&wait.backend).copied().unwrap_or(0);
        if count >= free {
            return Err(wait);
        }
        table.by_backend.insert(wait.backend.clone(), count + 1);
        table.clear_concluded();
        table.due.push_back((deadline, id));
        table.waits.insert(id, wait);
        drop(table);
        self.metrics.in_flight_add();
        Ok(())
    }

    fn conclude(&self, wait: Wait, outcome: Outcome) {
        self.metrics.in_flight_sub();
        (wait.answer)(outcome);
    }

    /// The timer's loop; ends when `stopped` closes.
    fn keep_deadlines(&self, stopped: &Receiver<()>, ack_deadline: Duration) {
        loop {
            let (late, next) = self.take_late(Instant::now());
            for wait in late {
                self.conclude(wait, Outcome::TimedOut);
            }
            // Nobody needs to wake this thread for a new wait: it cannot fall due before `ack_deadline` from now.
            let wake = next.unwrap_or_else(|| Instant::now() + ack_deadline);
            match stopped.recv_deadline(wake) {
                Err(error) if error.is_timeout() => {}
                Ok(()) | Err(_) => return,
            }
        }
    }

    fn take_late(&self, now: Instant) -> (Vec<Wait>, Option<Instant>) {
        let mut table = self.table.lock();
        let mut late = Vec::new();
        loop {
            table.clear_concluded();
            match table.due.front().copied() {
                Some((deadline, id)) if deadline <= now => late.extend(table.take(id)),
                next => {
                    self.tell_if_empty(&table);
                    return (late, next.map(|(deadline, _)| deadline));
                }
            }
        }
    }

    fn take_all(&self) -> Vec<Wait> {
        let mut table = self.table.lock();
        table.by_backend.clear();
        table.due.clear();
        table.waits.drain().map(|(_, wait)| wait).collect()
    }

    fn tell_if_empty(&self, table: &Table) {
        if table.waits.is_empty() && self.draining.load(Ordering::Relaxed) {
            self.emptied.notify_all();
        }
    }

    fn outcome_of(&self, receipt: &Receipt) -> Outcome {
        match receipt {
            Receipt::Ack => Outcome::Delivered,
            Receipt::Nack(_) => Outcome::Refused,
            Receipt::Busy => Outcome::Busy,
            Receipt::Expired => Outcome::TimedOut,
            Receipt::Gone if self.draining.load(Ordering::Relaxed) => Outcome::Draining,
            Receipt::Gone => Outcome::Offline,
            Receipt::Unreachable => Outcome::Unreachable,
        }
    }
}

impl Receipts for Waits {
    fn receipt(&self, id: NotificationId, receipt: Receipt) {
        let wait = {
            let mut table = self.table.lock();
            let wait = table.take(id);
            self.tell_if_empty(&table);
            wait
        };
        match wait {
            Some(wait) => {
                self.metrics.receipt(&receipt);
                let outcome = self.outcome_of(&receipt);
                if let Receipt::Nack(nack) = &receipt {
                    log_nack(id, &wait.backend, nack);
                }
                self.conclude(wait, outcome);
            }
            // The deadline was first. An ACK all the same means that the provider's retry will be a duplicate.
            None if receipt == Receipt::Ack => {
                self.metrics.late_ack();
                log::debug!("{id}: late ACK");
            }
            None => {}
        }
    }
}

#[cold]
fn log_nack(id: NotificationId, backend: &BackendId, nack: &Nack) {
    let reason = nack.reason.as_deref().unwrap_or("no reason given");
    log::info!("{id} refused by {backend}: {reason}");
}
