//! What the changes of one transaction add to the stored counts, so that no reader has to count rows.

use std::collections::HashMap;

use rusqlite::{Connection, params};

use super::clock::Moment;
use super::row::State;
use crate::notification::NotificationId;

/// What the changes of a transaction come to.
#[derive(Debug, Default)]
pub struct CountDelta {
    /// Pending and dead, more or less.
    backends: HashMap<String, (i64, i64)>,
    /// Pending, done and dead, more or less.
    states: [i64; 3],
    /// What has another state now; `None`: it is not there any more.
    changed: Vec<(NotificationId, Option<State>)>,
}

impl CountDelta {
    /// A row of `backend` has another state; `None`: it is not there.
    pub fn moved(
        &mut self,
        id: NotificationId,
        backend: &str,
        from: Option<State>,
        to: Option<State>,
    ) {
        if from == to {
            return;
        }
        // What was done is done wherever it was.
        if (from, to) != (Some(State::Done), None) {
            self.changed.push((id, to));
        }
        let delta = match self.backends.get_mut(backend) {
            Some(delta) => delta,
            None => self.backends.entry(backend.to_owned()).or_default(),
        };
        for (state, by) in [(from, -1), (to, 1)] {
            match state {
                None => continue,
                Some(State::Pending) => delta.0 += by,
                Some(State::Dead) => delta.1 += by,
                Some(State::Done) => {}
            }
            if let Some(state) = state {
                self.states[state as usize] += by;
            }
        }
    }

    /// Something else of a row has changed, which is in `state` still.
    pub fn touched(&mut self, id: NotificationId, state: State) {
        self.changed.push((id, Some(state)));
    }

    /// How much more, or less, there is in `state`.
    pub fn of(&self, state: State) -> i64 {
        self.states[state as usize]
    }

    /// What has another state now, in the order in which it was changed; `None`: it is not there any more.
    pub fn changed(&self) -> &[(NotificationId, Option<State>)] {
        &self.changed
    }

    /// Adds it to the counts in the database.
    pub fn write(&self, c: &Connection, now: Moment) -> rusqlite::Result<()> {
        for (name, (pending, dead)) in &self.backends {
            if (*pending, *dead) == (0, 0) {
                continue;
            }
            c.prepare_cached(
                "INSERT INTO backend VALUES (?1,?2,?3) ON CONFLICT (name) DO UPDATE \
                 SET pending = pending + excluded.pending, dead = dead + excluded.dead",
            )?
            .execute(params![name, pending, dead])?;
            if *pending < 0 || *dead < 0 {
                c.prepare_cached(
                    "DELETE FROM backend WHERE name = ?1 AND pending <= 0 AND dead <= 0",
                )?
                .execute([name])?;
            }
        }
        let [pending, done, dead] = self.states;
        c.prepare_cached(
            "UPDATE total SET pending = pending + ?1, done = done + ?2, dead = dead + ?3, clock_ms = max(clock_ms, ?4), \
             wall_ms = ?5, boot_ms = ?6",
        )?
        .execute(params![
            pending,
            done,
            dead,
            now.clock_ms,
            now.wall_ms,
            now.boot_ms
        ])?;
        Ok(())
    }
}
