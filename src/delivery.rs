//! Who waits for which notification until when, and what it comes to.
//!
//! The wait stands before anything is sent, and whoever takes it out of the table answers: an ACK, a refusal, the
//! deadline. So each provider is answered exactly once. What was not delivered is stored before it is answered, if there is
//! an outbox. What the answer looks like is not known here.

mod conclusion;
mod dedupe;
mod lease_queues;
mod report;
mod table;
#[cfg(test)]
mod tests;
mod waits;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, bounded};

use self::conclusion::Conclusion;
pub use self::dedupe::EVENTS_MAX;
use self::dedupe::{Dedupe, Entered, Joined};
use self::lease_queues::{LeaseQueues, QueueEntry};
use self::table::Wait;
use self::waits::Waits;
use crate::answer::Answer;
use crate::bus::{DedupeStore, EventLease};
use crate::dispatcher::Dispatcher;
use crate::envelope::{Envelope, Receipts};
use crate::heartbeat::{self, Role};
use crate::metrics::Metrics;
use crate::notification::{EventKey, Notification, NotificationId, Outcome};
use crate::outbox::Outbox;
use crate::thread::{JoinOnDrop, SMALL_STACK_BYTES};
use crate::trace::{Record, Trace};

/// What deliveries are made with.
pub struct DeliveryOptions {
    pub dispatcher: Dispatcher,
    /// How long a provider waits for an ACK.
    pub ack_deadline: Duration,
    /// What may wait for all backends together; one may have as much of it as is still free, so that a silent one gets half
    /// at most, the next a quarter, and the others always find room.
    pub in_flight_max: usize,
    /// Where the undelivered go; `None`: their providers are told fail.
    pub outbox: Option<Arc<Outbox>>,
    /// How long a settled event is known.
    pub dedupe_window: Duration,
    /// What the nodes know together of events, if there are several.
    pub dedupe_store: Option<Arc<dyn DedupeStore>>,
    pub trace: Arc<Trace>,
    pub metrics: Arc<Metrics>,
}

/// Hands notifications to backends and concludes what came of it.
pub struct Delivery {
    waits: Arc<Waits>,
    leases: Arc<LeaseQueues>,
    ack_deadline: Duration,
    in_flight_max: usize,
    _stop: Sender<()>, // dropped first: it ends the timer
    _timer: JoinOnDrop,
}

impl Delivery {
    /// Starts the deadline timer.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(options: DeliveryOptions) -> io::Result<Self> {
        let DeliveryOptions {
            dispatcher,
            ack_deadline,
            in_flight_max,
            outbox,
            dedupe_window,
            dedupe_store,
            trace,
            metrics,
        } = options;
        let dedupe = Dedupe::new(dedupe_window);
        let waits = Waits::new(outbox, dedupe, dedupe_store, dedupe_window, trace, metrics);
        let (stop, stopped) = bounded(0);
        let theirs = Arc::clone(&waits);
        let role = Role::vital(
            "deadlines",
            "what is not acknowledged is not answered in time",
        );
        let timer = heartbeat::supervise(role, SMALL_STACK_BYTES, move |pulse| {
            theirs.keep_deadlines(pulse, &stopped, ack_deadline);
        })?;
        Ok(Self {
            waits,
            leases: LeaseQueues::new(dispatcher),
            ack_deadline,
            in_flight_max,
            _stop: stop,
            _timer: timer,
        })
    }

    /// Hands `notification` to its backend, wherever that is; `answer` is sent when the outcome is known, in this call or later.
    pub fn deliver(&self, notification: Notification, answer: Answer) {
        let key = EventKey::of(&notification);
        let Some(answer) = self.let_first_through(key.as_ref(), &notification, answer) else {
            return;
        };
        let wait = Wait::new(notification, key, answer);
        if self.waits.is_draining() {
            return self.waits.conclude(wait, Conclusion::of(Outcome::Draining));
        }
        let deadline = Instant::now() + self.ack_deadline;
        let (id, notification, progress) = wait.shared();
        // Wait first, then send: the ACK may be here before the send returns.
        if let Err(wait) = self.waits.add(wait, deadline, self.in_flight_max) {
            return self.waits.conclude(*wait, Conclusion::of(Outcome::Busy));
        }
        let receipts = Arc::clone(&self.waits) as Arc<dyn Receipts>;
        let envelope = Box::new(Envelope::new(notification, deadline, receipts).tracked(progress));
        match (self.waits.dedupe_store(), key) {
            (Some(dedupe_store), Some(key)) => {
                let (waits, place) = (Arc::clone(&self.waits), self.leases.hold(envelope));
                dedupe_store.claim(
                    &key,
                    Box::new(move |claim| claimed(&waits, id, claim, place)),
                );
            }
            (None, _) | (_, None) => self.leases.dispatch(envelope),
        }
    }

    /// Puts `notification`, which is for no backend, into the dead letters and answers ok once it lies there; without an outbox the
    /// answer is fail. `why` is for the operator.
    pub fn set_aside(&self, notification: Notification, answer: Answer, why: &str) {
        let wait = Wait::new(notification, None, answer);
        self.waits.conclude(wait, Conclusion::never(why));
    }

    /// The means to answer, if this is the first request for its event. All others are answered, or will be.
    fn let_first_through(
        &self,
        key: Option<&EventKey>,
        notification: &Notification,
        answer: Answer,
    ) -> Option<Answer> {
        let Some(key) = key else { return Some(answer) };
        let request = Joined {
            record: Record::of(notification),
            answer,
        };
        match self.waits.dedupe.enter(key, request) {
            Entered::First(request) => return Some(request.answer),
            Entered::Waits => self.waits.one_joined(),
            Entered::Settled(request) => {
                let why = "delivered or stored before";
                self.waits.answer_joined(request, Outcome::Duplicate, why);
            }
            Entered::Crowded(request) => {
                let why = "too many retries wait for this event";
                self.waits.answer_joined(request, Outcome::Busy, why);
            }
        }
        None
    }

    /// An event called `name` that was settled `age` ago, before this run.
    pub fn remember(&self, key: EventKey, name: &str, age: Duration) {
        self.waits.dedupe.remember(key, name, age);
    }

    /// An event that was settled is not any more: its retries are delivered.
    pub fn forget(&self, key: &EventKey) {
        self.waits.dedupe.forget(key);
        if let Some(dedupe_store) = self.waits.dedupe_store() {
            dedupe_store.free(key);
        }
    }

    /// The events called `name`, as far as this node knows them settled, are not any more; gives their keys.
    pub fn forget_named(&self, name: &str) -> Vec<EventKey> {
        let keys = self.waits.dedupe.forget_named(name);
        if let Some(dedupe_store) = self.waits.dedupe_store() {
            keys.iter().for_each(|key| dedupe_store.free(key));
        }
        keys
    }

    /// What is under way of the notification or the event that somebody means by `key`.
    pub fn under_way(&self, key: &str) -> Vec<Record> {
        self.waits.find(key)
    }

    /// Some of what is under way, `limit` at most.
    pub fn some_under_way(&self, limit: usize) -> Vec<Record> {
        self.waits.some(limit)
    }

    /// How many providers wait.
    pub fn in_flight(&self) -> usize {
        self.waits.len()
    }

    /// From now on nothing new is handed over, and what no session has taken yet is concluded as draining.
    pub fn begin_drain(&self) {
        self.waits.begin_drain();
    }

    /// Concludes all that is left as draining, and says how many that was.
    pub fn give_up(&self) -> usize {
        self.waits.give_up()
    }

    /// Waits until no provider waits any more, or `deadline`; says whether none does.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        self.waits.wait_empty(deadline)
    }
}

/// The other nodes have said whose the event of `id` is, whose envelope waits at `place`.
fn claimed(waits: &Arc<Waits>, id: NotificationId, claim: EventLease, place: QueueEntry) {
    match claim {
        // Its wait may be over by now, and then whoever ended it has stored it: it would come twice.
        EventLease::Mine | EventLease::Unknown if waits.claimed(id, claim) => place.go(),
        EventLease::Mine | EventLease::Unknown => {}
        EventLease::Kept => waits.conclude_here(id, Outcome::Duplicate, "known to another node"),
        EventLease::Taken => {
            waits.conclude_here(id, Outcome::Busy, "another node has it under way")
        }
    }
}
