//! The writer's housekeeping: what expires, and what has been done for long enough.

use rusqlite::TransactionBehavior;

use super::Writer;
use super::group::remove;
use crate::notification::unix_ms;
use crate::outbox::ops::ROWS_AT_ONCE;
use crate::outbox::store::count_delta::CountDelta;
use crate::outbox::store::row::State;
use crate::outbox::store::rows::{self, Change};

impl Writer {
    /// Lets expired ones die and deletes what has been done for long enough. Writes only if there is something.
    pub(super) fn sweep(&mut self) {
        if self.stats.is_ailing() || self.check_files().is_err() {
            return; // who stores next says so
        }
        if let Err(error) = self.try_sweep() {
            self.failed
                .error(format_args!("the outbox cannot be cleared up: {error}"));
        }
        if let Err(fault) = self.watch.committed() {
            self.distrust(&fault);
        }
    }

    fn try_sweep(&mut self) -> rusqlite::Result<()> {
        let now = self.clock.now_ms();
        let done = match self.stats.done() {
            0 => Vec::new(),
            _ => rows::turned(&self.connection, State::Done, now, ROWS_AT_ONCE)?,
        };
        let expired = match self.stats.pending() {
            0 => Vec::new(),
            _ => rows::turned(&self.connection, State::Pending, now, ROWS_AT_ONCE)?,
        };
        if done.is_empty() && expired.is_empty() {
            return Ok(());
        }
        let mut delta = CountDelta::default();
        let tx = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)?;
        for seq in done {
            remove(&tx, seq, &mut delta)?;
        }
        let mut dead = 0;
        for seq in expired {
            let Some(row) = rows::row(&tx, seq)? else {
                continue;
            };
            let why = format!("expired (outbox.expire); before that: {}", row.why);
            let mut timeline = row.timeline.clone();
            timeline.add(unix_ms(), "dead", &why);
            let change = Change {
                seq,
                id: row.id,
                state: State::Dead,
                tries: row.tries,
                due: 0,
                turn_ms: Some(now),
                why: &why,
                steps: &timeline.to_text(),
            };
            rows::update(&tx, &change, row.state, &row.backend, &mut delta)?;
            self.told.row_is_dead(&row, &why);
            dead += 1;
        }
        delta.write(&tx, self.clock.moment())?;
        tx.commit()?;
        self.metrics.outbox_died("expired", dead);
        self.stats.moved(&delta);
        self.inbox.set_pending(self.stats.pending());
        if let Some(mirror) = &mut self.mirror {
            mirror.follow(&self.connection, delta.changed());
        }
        Ok(())
    }
}
