//! What an operator orders, within its group: retry, drop, forget.

use super::{Group, remove};
use crate::notification::{BackendId, unix_ms};
use crate::outbox::ops::{AdminAction, Order, Ordered, ROWS_AT_ONCE, SPARED_MAX};
use crate::outbox::store::by_id;
use crate::outbox::store::row::{HELD, Row, State};
use crate::outbox::store::rows::{self, Change};

impl Group<'_> {
    /// Does what an operator wants.
    pub(super) fn order(&mut self, order: &Order, ordered: &mut Ordered) -> rusqlite::Result<()> {
        if order.what == (AdminAction::Drop { pending: false }) {
            // Of all that follow, so that the first page is not gone when a later one has pending ones.
            ordered.spared = order
                .filter
                .count_pending(self.tx, order.after, SPARED_MAX)?;
            if ordered.spared > 0 {
                return Ok(());
            }
        }
        let found = order.filter.rows(self.tx, order.after, ROWS_AT_ONCE)?;
        if found.len() == ROWS_AT_ONCE {
            ordered.next = found.last().map(|row| row.seq);
        }
        for row in found {
            let is_in_hand = row.state == State::Pending && row.due == HELD;
            match order.what {
                // Also of what a session has in hand: it is delivered all the same.
                AdminAction::Forget => self.forget(row, &order.by, ordered)?,
                _ if is_in_hand => ordered.in_hand += 1,
                AdminAction::Drop { .. } => self.drop_row(row, &order.by, ordered)?,
                AdminAction::Retry => self.retry(row, &order.by, ordered)?,
            }
        }
        Ok(())
    }

    /// Its provider's retry is another event from now on.
    fn forget(&mut self, row: Row, by: &str, ordered: &mut Ordered) -> rusqlite::Result<()> {
        if let Some(key) = row.key {
            let mut timeline = row.timeline;
            timeline.add(unix_ms(), "forgotten", &format!("by {by}"));
            by_id::forget_event(self.tx, row.id, &timeline.to_text())?;
            self.outcome.delta.touched(row.id, row.state);
            ordered.freed.push(key);
            ordered.changed += 1;
        }
        Ok(())
    }

    fn drop_row(&mut self, row: Row, by: &str, ordered: &mut Ordered) -> rusqlite::Result<()> {
        remove(self.tx, row.seq, &mut self.outcome.delta)?;
        let (id, backend, state) = (row.id, &row.backend, row.state.as_str());
        log::warn!("{id} for {backend} ({state}) was dropped by {by}");
        ordered.freed.extend(row.key);
        ordered.dropped.push(row);
        ordered.changed += 1;
        Ok(())
    }

    /// Makes it pending, due now, with all its time before it.
    fn retry(&mut self, row: Row, by: &str, ordered: &mut Ordered) -> rusqlite::Result<()> {
        let mut timeline = row.timeline;
        timeline.add(unix_ms(), "retried", &format!("by {by}"));
        let change = Change {
            seq: row.seq,
            id: row.id,
            state: State::Pending,
            tries: row.tries,
            due: 0,
            turn_ms: Some(self.now.saturating_add(self.limits.expire_ms)),
            why: &row.why,
            steps: &timeline.to_text(),
        };
        rows::update(
            self.tx,
            &change,
            row.state,
            &row.backend,
            &mut self.outcome.delta,
        )?;
        self.outcome
            .retried
            .extend(BackendId::parse(&row.backend).ok());
        log::info!("{} for {} is retried by {by}", row.id, row.backend);
        ordered.changed += 1;
        Ok(())
    }
}
