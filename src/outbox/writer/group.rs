//! One group of changes within its transaction: what each op does to the rows, and what is to be told of it afterwards.

mod orders;

use std::sync::Arc;

use crossbeam_channel::Sender;
use rusqlite::Transaction;

use crate::notification::{BackendId, Notification, NotificationId};
use crate::outbox::ops::{Limits, Op, Ordered, ROWS_AT_ONCE, StatusUpdate, StoreRequest};
use crate::outbox::store::by_id;
use crate::outbox::store::count_delta::CountDelta;
use crate::outbox::store::error::NotStored;
use crate::outbox::store::exported::{Exported, Parsed};
use crate::outbox::store::row::{HELD, State};
use crate::outbox::store::rows::{self, Change};
use crate::outbox::store::stats::Stats;

/// What a row takes on disk beside its payload, in bytes; measured with short names, rounded up.
const ROW_BYTES: u64 = 1024;

/// What is to be told once the group is on disk.
#[derive(Default)]
pub struct GroupOutcome {
    /// Added, or not.
    pub stored: Vec<(Box<StoreRequest>, Result<i64, NotStored>)>,
    /// Changed.
    pub settled: Vec<StatusUpdate>,
    /// Done for operators.
    pub ordered: Vec<(Sender<Result<Ordered, NotStored>>, Ordered)>,
    /// Backends for which there is something new.
    pub nudged: Vec<BackendId>,
    /// Backends for which an operator wants something now.
    pub retried: Vec<BackendId>,
    /// Nothing more will be asked.
    pub stop: bool,
    pub delta: CountDelta,
}

/// A group within its transaction.
pub struct Group<'a> {
    pub tx: &'a Transaction<'a>,
    /// The outbox's time.
    pub now: i64,
    pub limits: Limits,
    pub stats: &'a Stats,
    /// How many more bytes fit in.
    pub free_bytes: u64,
    pub outcome: &'a mut GroupOutcome,
}

/// How many bytes the limits leave of the file as it is.
pub fn bytes_left(tx: &Transaction<'_>, limits: Limits) -> rusqlite::Result<u64> {
    let number = |name: &str| {
        tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map(|n| u64::try_from(n).unwrap_or(0))
    };
    let used =
        number("page_count")?.saturating_sub(number("freelist_count")?) * number("page_size")?;
    Ok(limits.max_bytes.saturating_sub(used))
}

impl GroupOutcome {
    /// Takes in what was not done, to be told so.
    pub fn give_up(&mut self, group: Vec<Op>) {
        for op in group {
            match op {
                Op::Store(store) => self.stored.push((store, Err(NotStored::Disk))),
                Op::Update(update) => self.settled.push(update),
                Op::Order(_, to) | Op::Import(_, to) => self.ordered.push((to, Ordered::default())),
                // What was not removed is delivered once more.
                Op::Remove(_) => {}
                Op::Rename => {}
                Op::Mirror(_) => {} // they are done apart
                Op::Stop => self.stop = true,
            }
        }
    }
}

impl Group<'_> {
    /// Does what is asked; `yield_now` is called before what nobody waits for.
    pub fn apply(&mut self, op: Op, mut yield_now: impl FnMut()) -> rusqlite::Result<()> {
        match op {
            Op::Store(store) => self.store(store),
            Op::Update(update) => {
                yield_now();
                let done = self.settle(&update);
                self.outcome.settled.push(update);
                done
            }
            Op::Order(order, to) => {
                let mut ordered = Ordered::default();
                let done = self.order(&order, &mut ordered);
                self.outcome.ordered.push((to, ordered));
                done
            }
            Op::Import(some, to) => {
                let mut ordered = Ordered::default();
                let done = self.import(&some, &mut ordered, yield_now);
                self.outcome.ordered.push((to, ordered));
                done
            }
            Op::Remove(ids) => self.remove_all(&ids),
            Op::Rename => by_id::rename_store(self.tx),
            Op::Mirror(_) => Ok(()), // they are done apart
            Op::Stop => {
                self.outcome.stop = true;
                Ok(())
            }
        }
    }

    /// Adds a notification, if it fits in.
    fn store(&mut self, store: Box<StoreRequest>) -> rusqlite::Result<()> {
        let notification = Arc::clone(&store.notification);
        let need = bytes_of(&notification);
        let fits = self.make_room(need);
        if !matches!(fits, Ok(true)) {
            self.outcome.stored.push((store, Err(NotStored::Full)));
            return fits.map(|_| ());
        }
        let turn_ms = match store.state {
            State::Pending => self.now.saturating_add(self.limits.expire_ms),
            State::Done | State::Dead => self.now,
        };
        let new = rows::NewRow {
            notification: &notification,
            key: store.key,
            state: store.state,
            tries: store.tries,
            due: store.due,
            stored_ms: self.now,
            turn_ms,
            why: &store.why,
            steps: &store.timeline.to_text(),
        };
        let added = rows::insert(self.tx, &new, &mut self.outcome.delta);
        if store.state == State::Pending && store.due != HELD {
            self.outcome.nudged.push(notification.backend.clone());
        }
        self.free_bytes = self.free_bytes.saturating_sub(need);
        match added {
            Ok(seq) => {
                self.outcome.stored.push((store, Ok(seq)));
                Ok(())
            }
            Err(error) => {
                let reason = NotStored::of(&error);
                self.outcome.stored.push((store, Err(reason)));
                Err(error)
            }
        }
    }

    /// Whether `need` more bytes and one more row fit in; acknowledged ones are deleted early for that.
    fn make_room(&mut self, need: u64) -> rusqlite::Result<bool> {
        if self.has_room(need) {
            return Ok(true);
        }
        for seq in rows::turned(self.tx, State::Done, i64::MAX, ROWS_AT_ONCE)? {
            remove(self.tx, seq, &mut self.outcome.delta)?;
        }
        self.free_bytes = bytes_left(self.tx, self.limits)?;
        Ok(self.has_room(need))
    }

    fn has_room(&self, need: u64) -> bool {
        let delta = &self.outcome.delta;
        let states = [State::Pending, State::Done, State::Dead];
        let added: i64 = states.into_iter().map(|state| delta.of(state)).sum();
        let kept = self.stats.kept().saturating_add_signed(added);
        kept < self.limits.max_messages && self.free_bytes >= need
    }

    /// Notes what came of one.
    fn settle(&mut self, update: &StatusUpdate) -> rusqlite::Result<()> {
        let Some(standing) = rows::standing(self.tx, update.seq)? else {
            return Ok(()); // dropped by an operator meanwhile
        };
        let (from, to) = (standing.state, update.state);
        let delta = &mut self.outcome.delta;
        match (from, to) {
            (State::Pending, State::Done) if self.limits.keep_ms == 0 => {
                return rows::delete(self.tx, update.seq, &standing, delta);
            }
            // Expired while a session had it: an ACK is still an ACK, all else comes too late.
            (State::Pending, _) | (State::Dead, State::Done) => {}
            (State::Done | State::Dead, _) => return Ok(()),
        }
        let change = Change {
            seq: update.seq,
            id: standing.id,
            state: to,
            tries: update.tries,
            due: update.due,
            turn_ms: match to {
                State::Pending => None,
                State::Done => Some(self.now.saturating_add(self.limits.keep_ms)),
                State::Dead => Some(self.now),
            },
            why: &update.why,
            steps: &update.timeline.to_text(),
        };
        rows::update(self.tx, &change, from, &standing.backend, delta)
    }

    /// Adds what comes from another outbox, as far as it fits in; `yield_now` is called before each.
    fn import(
        &mut self,
        some: &[Parsed],
        ordered: &mut Ordered,
        mut yield_now: impl FnMut(),
    ) -> rusqlite::Result<()> {
        for one in some {
            yield_now();
            self.import_one(one, ordered)?;
            if ordered.full {
                break;
            }
        }
        Ok(())
    }

    fn import_one(&mut self, one: &Parsed, ordered: &mut Ordered) -> rusqlite::Result<()> {
        let notification = &one.notification;
        if by_id::is_known(self.tx, notification.id)? {
            ordered.known += 1;
            return Ok(());
        }
        let need = bytes_of(notification);
        if !self.make_room(need)? {
            ordered.full = true;
            return Ok(());
        }
        Exported::insert(one, self.tx, self.now, &mut self.outcome.delta)?;
        self.free_bytes = self.free_bytes.saturating_sub(need);
        ordered.changed += 1;
        let name = || notification.event.as_deref().unwrap_or_default();
        ordered.learned.extend(
            one.key
                .map(|key| (key, name().to_owned(), one.exported.stored_ago_ms)),
        );
        if one.state == State::Pending {
            self.outcome.retried.push(notification.backend.clone());
        }
        Ok(())
    }

    /// Removes the rows of the notifications called `ids`, as far as they are there.
    fn remove_all(&mut self, ids: &[NotificationId]) -> rusqlite::Result<()> {
        for id in ids {
            if let Some(row) = by_id::row_by_id(self.tx, *id)? {
                remove(self.tx, row.seq, &mut self.outcome.delta)?;
            }
        }
        Ok(())
    }
}

/// What a notification takes on disk.
fn bytes_of(notification: &Notification) -> u64 {
    (notification.head.len() + notification.body.len()) as u64 + ROW_BYTES
}

/// Removes the row `seq`, if it is there.
pub fn remove(tx: &Transaction<'_>, seq: i64, delta: &mut CountDelta) -> rusqlite::Result<()> {
    match rows::standing(tx, seq)? {
        Some(standing) => rows::delete(tx, seq, &standing, delta),
        None => Ok(()),
    }
}
