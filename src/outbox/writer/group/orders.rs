//! What an operator orders, within its group: retry, drop, forget.

use crossbeam_channel::Sender;
use rusqlite::Transaction;

use super::{GroupOutcome, remove};
use crate::notification::{BackendId, unix_ms};
use crate::outbox::ops::{AdminAction, Limits, Order, Ordered, ROWS_AT_ONCE, SPARED_MAX};
use crate::outbox::store::by_id;
use crate::outbox::store::error::NotStored;
use crate::outbox::store::row::{HELD, Row, State};
use crate::outbox::store::rows::{self, Change};

impl GroupOutcome {
    /// Does what an operator wants.
    pub(super) fn order(
        &mut self,
        tx: &Transaction<'_>,
        order: &Order,
        to: Sender<Result<Ordered, NotStored>>,
        now: i64,
        limits: Limits,
    ) -> rusqlite::Result<()> {
        let mut ordered = Ordered::default();
        let done = self.try_order(tx, order, &mut ordered, now, limits);
        self.ordered.push((to, ordered));
        done
    }

    fn try_order(
        &mut self,
        tx: &Transaction<'_>,
        order: &Order,
        ordered: &mut Ordered,
        now: i64,
        limits: Limits,
    ) -> rusqlite::Result<()> {
        if order.what == (AdminAction::Drop { pending: false }) {
            // Of all that follow, so that the first page is not gone when a later one has pending ones.
            ordered.spared = order.filter.count_pending(tx, order.after, SPARED_MAX)?;
            if ordered.spared > 0 {
                return Ok(());
            }
        }
        let found = order.filter.rows(tx, order.after, ROWS_AT_ONCE)?;
        if found.len() == ROWS_AT_ONCE {
            ordered.next = found.last().map(|row| row.seq);
        }
        for row in found {
            let is_in_hand = row.state == State::Pending && row.due == HELD;
            match order.what {
                // Also of what a session has in hand: it is delivered all the same.
                AdminAction::Forget => self.forget(tx, row, &order.by, ordered)?,
                _ if is_in_hand => ordered.in_hand += 1,
                AdminAction::Drop { .. } => self.drop_row(tx, row, &order.by, ordered)?,
                AdminAction::Retry => {
                    let expires = now.saturating_add(limits.expire_ms);
                    self.retry(tx, row, &order.by, expires)?;
                    ordered.changed += 1;
                }
            }
        }
        Ok(())
    }

    /// Its provider's retry is another event from now on.
    fn forget(
        &mut self,
        tx: &Transaction<'_>,
        row: Row,
        by: &str,
        ordered: &mut Ordered,
    ) -> rusqlite::Result<()> {
        if let Some(key) = row.key {
            let mut timeline = row.timeline;
            timeline.add(unix_ms(), "forgotten", &format!("by {by}"));
            by_id::forget_event(tx, row.id, &timeline.to_text())?;
            self.delta.touched(row.id, row.state);
            ordered.freed.push(key);
            ordered.changed += 1;
        }
        Ok(())
    }

    fn drop_row(
        &mut self,
        tx: &Transaction<'_>,
        row: Row,
        by: &str,
        ordered: &mut Ordered,
    ) -> rusqlite::Result<()> {
        remove(tx, row.seq, &mut self.delta)?;
        let (id, backend, state) = (row.id, &row.backend, row.state.as_str());
        log::warn!("{id} for {backend} ({state}) was dropped by {by}");
        ordered.freed.extend(row.key);
        ordered.dropped.push(row);
        ordered.changed += 1;
        Ok(())
    }

    /// Makes it pending, due now, until `expires` in the outbox's time.
    fn retry(
        &mut self,
        tx: &Transaction<'_>,
        row: Row,
        by: &str,
        expires: i64,
    ) -> rusqlite::Result<()> {
        let mut timeline = row.timeline;
        timeline.add(unix_ms(), "retried", &format!("by {by}"));
        let change = Change {
            seq: row.seq,
            id: row.id,
            state: State::Pending,
            tries: row.tries,
            due: 0,
            turn_ms: Some(expires),
            why: &row.why,
            steps: &timeline.to_text(),
        };
        rows::update(tx, &change, row.state, &row.backend, &mut self.delta)?;
        self.retried.extend(BackendId::parse(&row.backend).ok());
        log::info!("{} for {} is retried by {by}", row.id, row.backend);
        Ok(())
    }
}
