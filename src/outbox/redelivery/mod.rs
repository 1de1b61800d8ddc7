//! The one thread that delivers what is stored: as soon as its backend is there, oldest first, a window at a time.
//!
//! What waits stays on disk; in memory is what is under way. Redeliveries go the way of fresh notifications, and never take
//! more than half of a session's credit, so that fresh ones find room.

mod batch;
mod late;
mod next_state;
mod queues;
pub mod rate_limiter;
mod refill;
mod turn;

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rusqlite::Connection;

use self::next_state::{NextState, backoff};
use self::queues::BackendQueues;
use self::rate_limiter::RateLimiter;
use crate::bus::LateReceipt;
use crate::config;
use crate::dispatcher::Dispatcher;
use crate::envelope::{Progress, Sent};
use crate::heartbeat::Pulse;
use crate::metrics::Metrics;
use crate::notification::{BackendId, NotificationId, Receipt, unix_ms};
use crate::outbox::inbox::{HeldReceipt, Inbox, News};
use crate::outbox::ops::{Op, StatusUpdate};
use crate::outbox::outbox_log::OutboxLog;
use crate::outbox::store::clock::Clock;
use crate::outbox::store::row::{Row, State};
use crate::outbox::store::rows;
use crate::outbox::store::stats::Stats;
use crate::outbox::store::unknown::UnknownWatch;
use crate::thread::CooperativeYield;

/// The most redeliveries under way to all backends together.
const FLIGHTS_MAX: usize = 1024;

/// The most bytes of them in memory; one more may begin while it is not reached.
const FLIGHT_BYTES_MAX: usize = 32 << 20;

/// How many are read for one backend before the next one has its turn.
const BATCH: usize = 32;

/// The longest wait while the bus is down: nobody says when it is back, and to ask it costs nothing.
const BUS_DOWN_MAX: Duration = Duration::from_secs(5);

/// How long to wait after the disk could not be read.
pub(super) const AFTER_A_READ_ERROR: Duration = Duration::from_secs(5);

/// The thread's own.
pub struct Redelivery {
    pub inbox: Arc<Inbox>,
    pub ops: Sender<Op>,
    pub reading: Connection,
    pub dispatcher: Dispatcher,
    pub clock: Clock,
    pub settings: config::OutboxConfig,
    pub limiter: RateLimiter,
    /// How long a redelivery may wait for its session to take it.
    pub patience: Duration,
    pub metrics: Arc<Metrics>,
    pub queues: BackendQueues,
    pub flights: HashMap<NotificationId, Flight>,
    pub flight_bytes: usize,
    pub paused: bool,
    pub yielding: CooperativeYield,
    /// What it has been told last, as far as it is not done.
    pub news: News,
    /// Receipts whose rows could not be read: until then they wait.
    pub unread: (Option<Instant>, Vec<HeldReceipt>),
    /// The backend up to which the disk was asked for those left out.
    pub refilled: (Option<Instant>, String),
    pub unknown: UnknownWatch,
    pub stats: Arc<Stats>,
    pub told: Arc<OutboxLog>,
}

/// A redelivery under way.
#[derive(Debug)]
pub struct Flight {
    pub(super) row: Row,
    backend: BackendId,
    pub(super) progress: Arc<Progress>,
    /// What became of an earlier offer of this same try, which was given up and was sent all the same.
    pub(super) late: Option<LateReceipt>,
}

impl Redelivery {
    /// Works until the inbox says stop. It can be called again after a panic.
    pub fn run(&mut self, pulse: &Pulse) {
        self.start_over();
        loop {
            self.hear(); // the first time: what a panic has left
            if self.news.stop {
                return;
            }
            let now = Instant::now();
            self.queues.wake_due(now);
            if now >= self.next_refill(now) {
                self.refill();
            }
            let look = self.look_for_unknown(now);
            self.serve_ready(pulse);
            let now = Instant::now();
            let wake = match self.has_room() {
                true => self
                    .queues
                    .next_wake(now)
                    .map(|wake| wake.max(self.limiter.wake(now))),
                false => None, // a receipt will come
            };
            let refill = self.next_refill(now);
            let wake = [wake, self.unread.0, Some(refill), look]
                .into_iter()
                .flatten()
                .min();
            self.inbox.set_in_flight(self.flights.len());
            pulse.idle();
            self.news = self.inbox.wait(wake);
            pulse.busy();
        }
    }

    /// One turn for each backend that is ready, as far as there is room.
    fn serve_ready(&mut self, pulse: &Pulse) {
        for _ in 0..self.queues.ready() {
            let most = match self.has_room() {
                true => self.limiter.room(Instant::now()),
                false => 0,
            };
            if most == 0 {
                break; // who is ready stays so, and keeps his turn
            }
            if let Some(backend) = self.queues.take_ready() {
                pulse.busy();
                self.serve(&backend, most.min(BATCH));
            }
        }
    }

    /// Reads anew what is to be delivered. What is under way is forgotten, and may be sent a second time.
    fn start_over(&mut self) {
        self.queues = BackendQueues::default();
        self.flights.clear();
        self.flight_bytes = 0;
        self.refilled = (None, String::new());
        self.refill();
    }

    fn has_room(&self) -> bool {
        !self.paused && self.flights.len() < FLIGHTS_MAX && self.flight_bytes < FLIGHT_BYTES_MAX
    }

    fn hear(&mut self) {
        self.paused = self.news.pause;
        if std::mem::take(&mut self.news.start_over) {
            self.start_over();
        }
        for (id, receipt) in std::mem::take(&mut self.news.receipts) {
            self.on_receipt(id, receipt);
            self.yielding.yield_now();
        }
        self.take_held_receipts();
        let news = std::mem::take(&mut self.news);
        (self.news.pause, self.news.stop) = (news.pause, news.stop);
        for late in news.late {
            self.on_late_receipt(late);
        }
        for written in news.written {
            let (seq, backend) = (written.seq, &written.backend);
            if let Some(due) = written.due {
                self.schedule(backend, self.clock.until(due));
            }
            if let Some(queue) = self.queues.get(backend) {
                queue.in_flight_rows.remove(&seq);
                if written.due.is_some() {
                    queue.ahead.clear();
                }
                // What was not to be read while it was unwritten may be all there is.
                if queue.in_flight_rows.is_empty() && queue.is_unscheduled() {
                    self.queues.make_ready(backend);
                }
            }
        }
        for backend in &news.stored.some {
            self.schedule(backend, self.settings.retry_first);
        }
        if news.stored.all {
            self.queues.left_out = true;
            self.refilled = (None, String::new());
        }
        let all_retried = match news.retried.all {
            true => self.queues.names(),
            false => Vec::new(),
        };
        for backend in news.retried.some.iter().chain(&all_retried) {
            // Nobody has said that it is connected: if none is known to be, one is sent ahead.
            if self.queues.open(backend).is_some() {
                self.queues.make_ready(backend);
            }
        }
        let everybody = match news.here.all {
            true => self.queues.names(),
            false => Vec::new(),
        };
        for backend in news.here.some.iter().chain(&everybody) {
            self.arrived(backend);
        }
    }

    /// Something of `backend` can be sent in `wait`, if nothing speaks against it.
    fn schedule(&mut self, backend: &BackendId, wait: Duration) {
        // While nobody is there, it has its own time.
        if let Some(queue) = self.queues.open(backend)
            && (queue.failures == 0 || queue.is_unscheduled())
        {
            self.queues.wake_by(backend, Instant::now() + wait);
        }
    }

    fn arrived(&mut self, backend: &BackendId) {
        let known = self.queues.get(backend).is_some();
        let pending = known || rows::is_pending(&self.reading, backend.as_str()).unwrap_or(true);
        if pending && let Some(queue) = self.queues.open(backend) {
            queue.came = queue.probe.is_some();
            queue.failures = 0;
            queue.connected = true;
            self.queues.make_ready(backend);
        }
    }

    fn on_receipt(&mut self, id: NotificationId, receipt: Receipt) {
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        self.flight_bytes -= flight.row.bytes as usize;
        self.metrics.outbox_tried(&receipt);
        let (receipt, sent) = flight.outcome(receipt);
        let (row, backend) = (flight.row, flight.backend);
        let mut came = false;
        if let Some(queue) = self.queues.get(&backend) {
            debug_assert!(queue.flights > 0, "on_receipt and never under way");
            queue.flights = queue.flights.saturating_sub(1);
            if queue.probe.is_some_and(|probe| probe == id) {
                queue.probe = None;
                came = std::mem::take(&mut queue.came);
            }
            if sent.is_none() {
                queue.in_flight_rows.remove(&row.seq); // it stands as it stood
            }
        }
        let gone = receipt == Receipt::Gone;
        // Other nodes do not tell of every MSG, but what was answered was sent.
        let answered = matches!(receipt, Receipt::Ack | Receipt::Nack(_));
        if sent.is_some() || answered {
            if let Some(queue) = self.queues.get(&backend) {
                queue.in_flight_rows.insert(row.seq);
                if !gone {
                    queue.failures = 0;
                    queue.connected = true;
                }
            }
            let next = self.judge(&receipt, row.tries + 1);
            self.settle(backend.clone(), row, next, sent);
        }
        if gone || (sent.is_none() && !answered) {
            let now = Instant::now();
            let (first, mut max) = (self.settings.retry_first, self.settings.retry_max);
            if receipt == Receipt::Unreachable {
                max = max.min(BUS_DOWN_MAX);
            }
            let random = fastrand::u64(..);
            if let Some(queue) = self.queues.get(&backend) {
                queue.ahead = VecDeque::new(); // what has come back comes before them
            }
            match came {
                true => self.arrived(&backend),
                false => self.queues.away(&backend, now, |failures| {
                    backoff(first, max, failures, random)
                }),
            }
        } else {
            self.queues.make_ready(&backend);
        }
    }

    pub(super) fn judge(&mut self, receipt: &Receipt, tries: u32) -> NextState {
        let random = fastrand::u64(..);
        NextState::of(receipt, tries, self.clock.now_ms(), &self.settings, random)
    }

    /// Has the writer note what came of a try.
    pub(super) fn settle(
        &mut self,
        backend: BackendId,
        row: Row,
        next: NextState,
        sent: Option<Sent>,
    ) {
        let mut timeline = row.timeline.clone();
        let tries = match next.what {
            "dead" | "returned" => row.tries,
            _ => row.tries.saturating_add(1),
        };
        if let Some(sent) = sent {
            let detail = format!("try={tries} session={}", sent.session);
            timeline.add(sent.at_unix_ms, "sent", &detail);
        }
        timeline.add(unix_ms(), next.what, &next.why);
        if next.state == State::Dead {
            if next.what != "dead" {
                timeline.add(unix_ms(), "dead", &next.why);
            }
            self.metrics.outbox_died("given-up", 1);
            self.told.row_is_dead(&row, &next.why);
        } else if next.state == State::Pending {
            self.told.tried(&row, tries, &next.why);
        } else {
            log::debug!("{} for {backend}: {} (try {tries})", row.id, next.what);
        }
        let update = StatusUpdate {
            seq: row.seq,
            backend,
            state: next.state,
            tries,
            due: next.due,
            why: next.why,
            timeline,
        };
        // Waits for the writer if need be. It fails only when the writer is gone; then the disk has the last word.
        let _ = self.ops.send(Op::Update(update));
    }
}
