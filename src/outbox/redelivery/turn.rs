//! A backend's turn: how many it may have now, and when it has its next one.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::batch::{Batch, Next};
use super::next_state::NextState;
use super::{AFTER_A_READ_ERROR, FLIGHT_BYTES_MAX, FLIGHTS_MAX, Flight, Redelivery};
use crate::envelope::{Envelope, Progress, Receipts};
use crate::notification::BackendId;
use crate::outbox::store::row::{Payload, Row, State};
use crate::outbox::store::rows;
use crate::session::CREDIT_DEFAULT;

/// The most redeliveries under way to one backend, whatever its credit.
const WINDOW_MAX: usize = 128;

/// Settled ones that may wait for the disk, for each backend, before it is sent more.
const UNWRITTEN_MAX: usize = 1024;

/// How often to look whether a session has written the one that was sent ahead, once the backend has come.
const PROBE_LOOK: Duration = Duration::from_millis(100);

impl Redelivery {
    /// Sends `backend` what it may have now, `most` at most.
    pub(super) fn serve(&mut self, backend: &BackendId, most: usize) {
        if self.waits_for_probe(backend) {
            return;
        }
        let credit = self.dispatcher.credit(backend);
        let Some(queue) = self.queues.get(backend) else {
            return;
        };
        let is_probe = queue.failures > 0 || (credit.is_none() && !queue.connected);
        let window = match credit {
            // Nobody was there the last time, or nobody is known to be, or no credit is given: one goes ahead.
            _ if is_probe => 1,
            Some(0) => 1,
            _ => credit.unwrap_or(CREDIT_DEFAULT).div_ceil(2).min(WINDOW_MAX),
        };
        if credit == Some(0) {
            // Nobody tells when it is given.
            let soon = Instant::now() + self.settings.retry_first;
            self.queues.wake_by(backend, soon);
        }
        let Some(batch) = self.read_batch(backend, window, most) else {
            return;
        };
        let probe = batch.rows.first().filter(|_| is_probe);
        let probe = probe.map(|(row, _)| row.id);
        for (row, payload) in batch.rows {
            self.send(backend, row, payload);
            self.yielding.yield_now();
        }
        // Not if it was damaged: then it has not gone anywhere.
        let probe = probe.filter(|id| self.flights.contains_key(id));
        if let Some(queue) = self.queues.get(backend) {
            queue.probe = probe;
        }
        self.plan_next(backend, batch.then, window);
    }

    /// Whether one was sent ahead to `backend`, and whether somebody takes it is not known yet.
    fn waits_for_probe(&mut self, backend: &BackendId) -> bool {
        let Some(queue) = self.queues.get(backend) else {
            return false;
        };
        if let Some(probe) = queue.probe {
            let flight = self.flights.get(&probe);
            if !queue.came {
                return true; // its receipt will wake it
            }
            if flight.is_none_or(|flight| flight.progress.sent().is_none()) {
                // On its way to the new session, or back.
                self.queues.wake_by(backend, Instant::now() + PROBE_LOOK);
                return true;
            }
            (queue.probe, queue.came) = (None, false);
        }
        false
    }

    /// Reads what is to be sent now, with at most `window` under way to `backend`; `None`: there is no room, or the disk cannot be
    /// read.
    fn read_batch(&mut self, backend: &BackendId, window: usize, most: usize) -> Option<Batch> {
        let queue = self.queues.get(backend)?;
        // What is under way is out. Were it not, it would be read again and sent twice.
        debug_assert!(
            queue.in_flight_rows.len() >= queue.flights,
            "under way and not out"
        );
        let unwritten = queue.in_flight_rows.len().saturating_sub(queue.flights);
        let room = match unwritten < UNWRITTEN_MAX {
            true => window.saturating_sub(queue.flights).min(most),
            false => 0, // what is written will wake it
        };
        if room == 0 {
            return None;
        }
        let now_ms = self.clock.now_ms();
        let bytes = FLIGHT_BYTES_MAX.saturating_sub(self.flight_bytes);
        let most = room.min(FLIGHTS_MAX.saturating_sub(self.flights.len()));
        let found = rows::at_once(&self.reading, |reading| {
            Batch::read(reading, queue, backend, now_ms, most, bytes)
        });
        found
            .map_err(|error| self.cannot_read(backend, &error))
            .ok()
    }

    /// Says when `backend` has its next turn, given what there is beyond the batch that was sent.
    fn plan_next(&mut self, backend: &BackendId, next: Next, window: usize) {
        match next {
            Next::More => {
                let full = self
                    .queues
                    .get(backend)
                    .is_some_and(|queue| queue.flights >= window || queue.failures > 0);
                if !full {
                    self.queues.make_ready(backend);
                }
            }
            Next::At(due) => {
                let wait = self.clock.until(due);
                self.queues.wake_by(backend, Instant::now() + wait);
            }
            Next::Never => {
                self.queues.set_wake(backend, None);
                self.queues.close_dormant(backend);
            }
        }
    }

    fn cannot_read(&mut self, backend: &BackendId, error: &rusqlite::Error) {
        log::error!("the outbox cannot be read: {error}");
        if let Some(queue) = self.queues.get(backend) {
            queue.ahead.clear();
        }
        self.queues
            .set_wake(backend, Some(Instant::now() + AFTER_A_READ_ERROR));
    }

    fn send(&mut self, backend: &BackendId, row: Row, payload: Option<Payload>) {
        let notification = payload.and_then(|payload| row.notification(payload));
        let Some(queue) = self.queues.get(backend) else {
            return;
        };
        let is_new = queue.in_flight_rows.insert(row.seq);
        debug_assert!(is_new, "sent, and not out");
        let Some(notification) = notification else {
            let dead = NextState {
                state: State::Dead,
                due: 0,
                what: "dead",
                why: "damaged on disk: it is not what was stored".into(),
            };
            return self.settle(backend.clone(), row, dead, None);
        };
        queue.flights += 1;
        self.flight_bytes += row.bytes as usize;
        let progress = Arc::new(Progress::default());
        let flight = Flight {
            row,
            backend: backend.clone(),
            progress: Arc::clone(&progress),
            late: None,
        };
        self.flights.insert(notification.id, flight);
        let now = Instant::now();
        self.limiter.take(now);
        let deadline = now + self.patience;
        let receipts = Arc::clone(&self.inbox) as Arc<dyn Receipts>;
        let envelope = Envelope::new(Arc::new(notification), deadline, receipts).tracked(progress);
        self.dispatcher.take(Box::new(envelope));
    }
}
