//! The one thread that delivers what is stored: as soon as its backend is there, oldest first, a window at a time.
//!
//! What waits stays on disk; in memory is what is under way. Redeliveries go the way of fresh notifications, and never take
//! more than half of a session's credit, so that fresh ones find room.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use rusqlite::Connection;

use super::clock::Clock;
use super::due::{Due, Then};
use super::inbox::{HeldReceipt, Inbox, News};
use super::lanes::{LANES_MAX, Lane, Lanes};
use super::pace::Pace;
use super::rows::{self, Payload, Row, State};
use super::verdict::{Verdict, backoff};
use super::writer::{Op, Settlement};
use crate::config;
use crate::dispatcher::Dispatcher;
use crate::envelope::{Envelope, Progress, Receipts, Sent};
use crate::metrics::Metrics;
use crate::notification::{BackendId, NotificationId, Receipt, unix_ms};
use crate::session::CREDIT_DEFAULT;
use crate::thread::Courtesy;

/// The most redeliveries under way to one backend, whatever its credit.
const WINDOW_MAX: usize = 128;

/// The most redeliveries under way to all backends together.
const FLIGHTS_MAX: usize = 1024;

/// The most bytes of them in memory; one more may begin while it is not reached.
const FLIGHT_BYTES_MAX: usize = 32 << 20;

/// Settled ones that may wait for the disk, for each backend, before it is sent more.
const UNWRITTEN_MAX: usize = 1024;

/// How many are read for one backend before the next one has its turn.
const BATCH: usize = 32;

/// How often the disk is asked for backends that were left out.
const REFILL_EVERY: Duration = Duration::from_secs(10);

/// The longest wait while the bus is down: nobody says when it is back, and to ask it costs nothing.
const BUS_DOWN_MAX: Duration = Duration::from_secs(5);

/// How long to wait after the disk could not be read.
const AFTER_A_READ_ERROR: Duration = Duration::from_secs(5);

/// The thread's own.
pub struct Drain {
    pub inbox: Arc<Inbox>,
    pub ops: Sender<Op>,
    pub reading: Connection,
    pub dispatcher: Dispatcher,
    pub clock: Clock,
    pub settings: config::Outbox,
    pub pace: Pace,
    /// How long a redelivery may wait for its session to take it.
    pub patience: Duration,
    pub metrics: Arc<Metrics>,
    pub lanes: Lanes,
    pub flights: HashMap<NotificationId, Flight>,
    pub flight_bytes: usize,
    pub paused: bool,
    pub courtesy: Courtesy,
    /// Bits for the jitter.
    pub random: u64,
    /// The backend up to which the disk was asked for those left out.
    pub refilled: (Option<Instant>, String),
}

/// A redelivery under way.
#[derive(Debug)]
pub struct Flight {
    row: Row,
    backend: BackendId,
    progress: Arc<Progress>,
}

impl Drain {
    /// Works until the inbox says stop.
    pub fn run(mut self) {
        self.refill();
        loop {
            let now = Instant::now();
            let wake = match self.has_room() {
                true => self
                    .lanes
                    .next_wake(now)
                    .map(|wake| wake.max(self.pace.wake(now))),
                false => None, // a receipt will come
            };
            let refill = self.next_refill(now);
            let wake = wake.map_or(refill, |wake| wake.min(refill));
            let news = self.inbox.wait(Some(wake));
            let stop = news.stop;
            self.hear(news);
            if stop {
                return;
            }
            let now = Instant::now();
            self.lanes.wake_due(now);
            if now >= self.next_refill(now) {
                self.refill();
            }
            for _ in 0..self.lanes.ready() {
                let most = match self.has_room() {
                    true => self.pace.room(Instant::now()),
                    false => 0,
                };
                if most == 0 {
                    break; // who is ready stays so, and keeps his turn
                }
                if let Some(backend) = self.lanes.take_ready() {
                    self.serve(&backend, most.min(BATCH));
                }
            }
        }
    }

    /// When to look on the disk for whoever is not kept in mind: soon if somebody was left out, and every now and then in any
    /// case, so that nothing that is pending depends on a word that was lost.
    fn next_refill(&self, now: Instant) -> Instant {
        let every = match self.lanes.left_out {
            true => REFILL_EVERY,
            false => self.settings.retry_max.max(REFILL_EVERY),
        };
        self.refilled.0.map_or(now, |last| last + every)
    }

    fn has_room(&self) -> bool {
        !self.paused && self.flights.len() < FLIGHTS_MAX && self.flight_bytes < FLIGHT_BYTES_MAX
    }

    // ---- what has come ---------------------------------------------------------------------------------------------

    fn hear(&mut self, news: News) {
        self.paused = news.pause;
        for (id, receipt) in news.receipts {
            self.landed(id, receipt);
            self.courtesy.give_way();
        }
        for held in news.held {
            self.let_go(held);
        }
        for written in news.written {
            let (seq, backend) = (written.seq, &written.backend);
            if let Some(due) = written.due {
                self.look_forward(backend, self.clock.until(due));
            }
            if let Some(lane) = self.lanes.get(backend) {
                lane.out.remove(&seq);
                if written.due.is_some() {
                    lane.ahead.clear();
                }
                // What was not to be read while it was unwritten may be all there is.
                if lane.out.is_empty() && lane.is_unscheduled() {
                    self.lanes.make_ready(backend);
                }
            }
        }
        for backend in &news.stored.some {
            self.look_forward(backend, self.settings.retry_first);
        }
        if news.stored.all {
            self.lanes.left_out = true;
            self.refilled = (None, String::new());
        }
        let everybody = match news.here.all {
            true => self.lanes.names(),
            false => Vec::new(),
        };
        for backend in news.here.some.iter().chain(&everybody) {
            self.arrived(backend);
        }
    }

    /// Something of `backend` can be sent in `wait`, if nothing speaks against it.
    fn look_forward(&mut self, backend: &BackendId, wait: Duration) {
        // While nobody is there, it has its own time.
        if let Some(lane) = self.lanes.open(backend)
            && (lane.step == 0 || lane.is_unscheduled())
        {
            self.lanes.wake_by(backend, Instant::now() + wait);
        }
    }

    fn arrived(&mut self, backend: &BackendId) {
        let known = self.lanes.get(backend).is_some();
        let pending = known || rows::is_pending(&self.reading, backend.as_str()).unwrap_or(true);
        if pending && let Some(lane) = self.lanes.open(backend) {
            lane.step = 0;
            lane.there = true;
            self.lanes.make_ready(backend);
        }
    }

    /// Looks on the disk for backends that are not kept in mind.
    fn refill(&mut self) {
        let now = Instant::now();
        self.refilled.0 = Some(now);
        let room = LANES_MAX.saturating_sub(self.lanes.len());
        let after = std::mem::take(&mut self.refilled.1);
        let names = match rows::backends_pending(&self.reading, &after, room) {
            Ok(names) => names,
            Err(error) => return log::error!("the outbox cannot be read: {error}"),
        };
        self.lanes.left_out = names.len() == room;
        if self.lanes.left_out {
            self.refilled.1 = names.last().cloned().unwrap_or_default();
        }
        for (n, name) in names.iter().enumerate() {
            let Ok(backend) = BackendId::parse(name) else {
                continue;
            };
            let idle = |lane: &mut Lane| lane.flights == 0 && lane.is_unscheduled();
            if self.lanes.get(&backend).is_none_or(idle) {
                self.lanes.open(&backend);
                // One after another: most of them are likely to be away.
                self.lanes
                    .wake_by(&backend, now + Duration::from_millis(n as u64));
            }
        }
    }

    // ---- out -------------------------------------------------------------------------------------------------------

    /// Sends `backend` what it may have now, `most` at most.
    fn serve(&mut self, backend: &BackendId, most: usize) {
        let credit = self.dispatcher.credit(backend);
        let Some(lane) = self.lanes.get(backend) else {
            return;
        };
        let window = match credit {
            // Nobody was there the last time, or nobody is known to be, or no credit is given: one goes ahead.
            _ if lane.step > 0 => 1,
            Some(0) => 1,
            None if !lane.there => 1,
            _ => credit.unwrap_or(CREDIT_DEFAULT).div_ceil(2).min(WINDOW_MAX),
        };
        if credit == Some(0) {
            // Nobody tells when it is given.
            let soon = Instant::now() + self.settings.retry_first;
            self.lanes.wake_by(backend, soon);
        }
        let Some(lane) = self.lanes.get(backend) else {
            return;
        };
        // What is under way is out. Were it not, it would be read again and sent twice.
        debug_assert!(lane.out.len() >= lane.flights, "under way and not out");
        let unwritten = lane.out.len().saturating_sub(lane.flights);
        let room = match unwritten < UNWRITTEN_MAX {
            true => window.saturating_sub(lane.flights).min(most),
            false => 0, // what is written will wake it
        };
        if room == 0 {
            return;
        }
        let now_ms = self.clock.now_ms();
        let bytes = FLIGHT_BYTES_MAX.saturating_sub(self.flight_bytes);
        let most = room.min(FLIGHTS_MAX.saturating_sub(self.flights.len()));
        let found = rows::at_once(&self.reading, |reading| {
            Due::read(reading, lane, backend, now_ms, most, bytes)
        });
        let found = match found {
            Ok(found) => found,
            Err(error) => return self.cannot_read(backend, &error),
        };
        for (row, payload) in found.rows {
            self.send(backend, row, payload);
            self.courtesy.give_way();
        }
        match found.then {
            Then::More => {
                let full = self
                    .lanes
                    .get(backend)
                    .is_some_and(|lane| lane.flights >= window || lane.step > 0);
                if !full {
                    self.lanes.make_ready(backend);
                }
            }
            Then::At(due) => {
                let wait = self.clock.until(due);
                self.lanes.wake_by(backend, Instant::now() + wait);
            }
            Then::Never => {
                self.lanes.set_wake(backend, None);
                self.lanes.close_dormant(backend);
            }
        }
    }

    fn cannot_read(&mut self, backend: &BackendId, error: &rusqlite::Error) {
        log::error!("the outbox cannot be read: {error}");
        if let Some(lane) = self.lanes.get(backend) {
            lane.ahead.clear();
        }
        self.lanes
            .set_wake(backend, Some(Instant::now() + AFTER_A_READ_ERROR));
    }

    fn send(&mut self, backend: &BackendId, row: Row, payload: Option<Payload>) {
        let notification = payload.and_then(|payload| row.notification(payload));
        let Some(lane) = self.lanes.get(backend) else {
            return;
        };
        let is_new = lane.out.insert(row.seq);
        debug_assert!(is_new, "sent, and not out");
        let Some(notification) = notification else {
            let dead = Verdict {
                state: State::Dead,
                due: 0,
                what: "dead",
                why: "damaged on disk: it is not what was stored".into(),
            };
            return self.settle(backend.clone(), row, dead, None);
        };
        lane.flights += 1;
        self.flight_bytes += row.bytes as usize;
        let progress = Arc::new(Progress::default());
        let flight = Flight {
            row,
            backend: backend.clone(),
            progress: Arc::clone(&progress),
        };
        self.flights.insert(notification.id, flight);
        let now = Instant::now();
        self.pace.take(now);
        let deadline = now + self.patience;
        let receipts = Arc::clone(&self.inbox) as Arc<dyn Receipts>;
        let envelope = Envelope::new(Arc::new(notification), deadline, receipts).tracked(progress);
        self.dispatcher.take(Box::new(envelope));
    }

    // ---- back ------------------------------------------------------------------------------------------------------

    fn landed(&mut self, id: NotificationId, receipt: Receipt) {
        let Some(flight) = self.flights.remove(&id) else {
            return;
        };
        let Flight {
            row,
            backend,
            progress,
        } = flight;
        self.flight_bytes -= row.bytes as usize;
        self.metrics.outbox_tried(&receipt);
        let sent = progress.sent();
        if let Some(lane) = self.lanes.get(&backend) {
            debug_assert!(lane.flights > 0, "landed and never under way");
            lane.flights = lane.flights.saturating_sub(1);
            if sent.is_none() {
                lane.out.remove(&row.seq); // it stands as it stood
            }
        }
        let gone = receipt == Receipt::Gone;
        // Other nodes do not tell of every MSG, but what was answered was sent.
        let answered = matches!(receipt, Receipt::Ack | Receipt::Nack(_));
        if sent.is_some() || answered {
            if let Some(lane) = self.lanes.get(&backend) {
                lane.out.insert(row.seq);
                if !gone {
                    lane.step = 0;
                    lane.there = true;
                }
            }
            let verdict = self.judge(&receipt, row.tries + 1);
            self.settle(backend.clone(), row, verdict, sent);
        }
        if gone || (sent.is_none() && !answered) {
            let now = Instant::now();
            let (first, mut max) = (self.settings.retry_first, self.settings.retry_max);
            if receipt == Receipt::Unreachable {
                max = max.min(BUS_DOWN_MAX);
            }
            let random = self.next_random();
            if let Some(lane) = self.lanes.get(&backend) {
                lane.ahead = VecDeque::new(); // what has come back comes before them
            }
            self.lanes
                .away(&backend, now, |step| backoff(first, max, step, random));
        } else {
            self.lanes.make_ready(&backend);
        }
    }

    /// A session has told of what was stored while it had it.
    fn let_go(&mut self, held: HeldReceipt) {
        let row = match rows::row(&self.reading, held.seq) {
            Ok(Some(row)) => row,
            Ok(None) => return, // dropped by an operator
            Err(error) => return log::error!("the outbox cannot be read: {error}"),
        };
        let Ok(backend) = BackendId::parse(&row.backend) else {
            return;
        };
        let verdict = match held.receipt {
            // It never got as far as the backend.
            Receipt::Gone | Receipt::Busy | Receipt::Expired | Receipt::Unreachable
                if held.sent.is_none() =>
            {
                Verdict {
                    state: State::Pending,
                    due: 0,
                    what: "returned",
                    why: row.why.clone(),
                }
            }
            // The session died, and with it the wait for it.
            Receipt::Gone => Verdict {
                due: 0,
                ..self.judge(&Receipt::Gone, 1)
            },
            receipt => self.judge(&receipt, 1),
        };
        if verdict.state == State::Done {
            self.metrics.late_ack();
        }
        // Its first try was counted, and noted, when it was stored, if there was one by then.
        let sent = held.sent.filter(|_| row.tries == 0);
        let tries = match held.sent {
            Some(_) => row.tries.saturating_sub(1),
            None => row.tries,
        };
        // As for what has landed: it may be read as due before the word comes that it is written, and would be sent, and
        // forgotten at that word, and sent again.
        if let Some(lane) = self.lanes.open(&backend) {
            lane.out.insert(held.seq);
        }
        self.settle(backend, Row { tries, ..row }, verdict, sent);
    }

    fn judge(&mut self, receipt: &Receipt, tries: u32) -> Verdict {
        let random = self.next_random();
        Verdict::of(receipt, tries, self.clock.now_ms(), &self.settings, random)
    }

    /// Has the writer note what came of a try.
    fn settle(&mut self, backend: BackendId, row: Row, verdict: Verdict, sent: Option<Sent>) {
        let mut timeline = row.timeline;
        let tries = match verdict.what {
            "dead" | "returned" => row.tries,
            _ => row.tries.saturating_add(1),
        };
        if let Some(sent) = sent {
            let detail = format!("try={tries} session={}", sent.session);
            timeline.add(sent.at_unix_ms, "sent", &detail);
        }
        timeline.add(unix_ms(), verdict.what, &verdict.why);
        if verdict.state == State::Dead {
            if verdict.what != "dead" {
                timeline.add(unix_ms(), "dead", &verdict.why);
            }
            self.metrics.outbox_died("given-up", 1);
            log::warn!("{} for {backend} is a dead letter: {}", row.id, verdict.why);
        } else {
            log::debug!("{} for {backend}: {} (try {tries})", row.id, verdict.what);
        }
        let settlement = Settlement {
            seq: row.seq,
            backend,
            state: verdict.state,
            tries,
            due: verdict.due,
            why: verdict.why,
            timeline,
        };
        // Waits for the writer if need be. It fails only when the writer is gone; then the disk has the last word.
        let _ = self.ops.send(Op::Settle(settlement));
    }

    fn next_random(&mut self) -> u64 {
        // xorshift64: to keep backends apart, nothing more.
        let mut x = self.random;
        x ^= x << 13;
        x ^= x >> 7;
        x ^= x << 17;
        self.random = x;
        x
    }
}
