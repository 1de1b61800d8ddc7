//! Receipts of redeliveries that were given up here, because the bus was broken, and were sent to their backend all the same.

use super::redelivery::{Flight, Redelivery};
use super::rows::{self, Row, State};
use crate::bus::LateReceipt;
use crate::envelope::Sent;
use crate::notification::Receipt;

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
        let row = match rows::row_of(&self.reading, late.backend.as_str(), late.id) {
            Ok(Some(row)) => row,
            Ok(None) => return, // it was not stored, or an operator dropped it
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
}
