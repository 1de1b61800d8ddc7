//! Receipts of what is not under way: of redeliveries that were given up here, because the bus was broken, and were sent to their
//! backend all the same; and of what was stored while a session still had the MSG in hand.

use std::time::Instant;

use super::next_state::NextState;
use super::{AFTER_A_READ_ERROR, Flight, Redelivery};
use crate::bus::LateReceipt;
use crate::envelope::Sent;
use crate::notification::{BackendId, Receipt};
use crate::outbox::inbox::HeldReceipt;
use crate::outbox::store::by_id;
use crate::outbox::store::row::{Row, State};
use crate::outbox::store::rows;

impl Flight {
    /// What `receipt` means together with what was told late of an earlier offer of the same try: if this offer came to
    /// nothing, the other one did not.
    pub(super) fn outcome(&self, receipt: Receipt) -> (Receipt, Option<Sent>) {
        match (self.progress.sent(), &self.late) {
            (None, Some(late)) if receipt != Receipt::Ack => {
                (late.receipt.clone(), Some(late.sent))
            }
            (sent, _) => (receipt, sent),
        }
    }
}

impl Redelivery {
    /// A backend was sent what had been given up here: the bus was broken in between. It counts as a try, as if its receipt had
    /// come in time; otherwise it would be sent for ever as the same try.
    pub(super) fn on_late_receipt(&mut self, late: LateReceipt) {
        if let Some(flight) = self.flights.get_mut(&late.id) {
            if flight.row.tries + 1 == late.tries {
                flight.late = Some(late);
            }
            return;
        }
        let row = match by_id::row_by_id(&self.reading, late.id) {
            Ok(Some(row)) if row.backend == late.backend.as_str() => row,
            Ok(_) => return, // it was not stored, or an operator dropped it; or another backend told this
            Err(error) => return log::error!("the outbox cannot be read: {error}"),
        };
        // What was first offered as try 1 is stored with the tries that were known then: none.
        let is_uncounted = row.tries + 1 == late.tries;
        let is_acked = late.receipt == Receipt::Ack;
        if row.state != State::Pending || !(is_uncounted || is_acked) {
            return;
        }
        if let Some(queue) = self.queues.open(&late.backend)
            && !queue.in_flight_rows.insert(row.seq)
        {
            return; // its next state is on its way to the disk
        }
        if is_acked {
            self.metrics.late_ack();
        }
        let next = self.judge(&late.receipt, late.tries);
        let tries = late.tries.saturating_sub(1);
        self.settle(late.backend, Row { tries, ..row }, next, Some(late.sent));
    }

    /// Deals with those that have come, and with those whose row could not be read, when it is time to try again. None is let go
    /// before: nothing else would say that its notification may be sent again.
    pub(super) fn take_held_receipts(&mut self) {
        if self.unread.0.is_some_and(|when| when <= Instant::now()) {
            self.news.held.append(&mut self.unread.1);
            self.unread.0 = None;
        }
        while let Some(held) = self.news.held.pop() {
            self.on_held_receipt(held);
        }
    }

    fn put_back(&mut self, held: HeldReceipt, error: &rusqlite::Error) {
        log::error!("the outbox cannot be read: {error}");
        self.unread.1.push(held);
        let again = || Instant::now() + AFTER_A_READ_ERROR;
        self.unread.0.get_or_insert_with(again);
    }

    /// A session has told of what was stored while it had it.
    fn on_held_receipt(&mut self, held: HeldReceipt) {
        let row = match rows::row(&self.reading, held.seq) {
            Ok(Some(row)) => row,
            Ok(None) => return, // dropped by an operator
            Err(error) => return self.put_back(held, &error),
        };
        let Ok(backend) = BackendId::parse(&row.backend) else {
            return;
        };
        let next = match held.receipt {
            // It never got as far as the backend.
            Receipt::Gone | Receipt::Busy | Receipt::Expired | Receipt::Unreachable
                if held.sent.is_none() =>
            {
                NextState {
                    state: State::Pending,
                    due: 0,
                    what: "returned",
                    why: row.why.clone(),
                }
            }
            // The session died, and with it the wait for it.
            Receipt::Gone => NextState {
                due: 0,
                ..self.judge(&Receipt::Gone, 1)
            },
            receipt => self.judge(&receipt, 1),
        };
        if next.state == State::Done {
            self.metrics.late_ack();
        }
        // Its first try was counted, and noted, when it was stored, if there was one by then.
        let sent = held.sent.filter(|_| row.tries == 0);
        let tries = match held.sent {
            Some(_) => row.tries.saturating_sub(1),
            None => row.tries,
        };
        // As in `on_receipt`: it may be read as due before the word comes that it is written, and would be sent, and
        // forgotten at that word, and sent again.
        if let Some(queue) = self.queues.open(&backend) {
            queue.in_flight_rows.insert(held.seq);
        }
        self.settle(backend, Row { tries, ..row }, next, sent);
    }
}
