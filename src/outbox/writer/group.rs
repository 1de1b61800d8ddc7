//! One group of changes within its transaction: what each op does to the rows, and what is to be told of it afterwards.

mod orders;

use std::sync::Arc;

use crossbeam_channel::Sender;
use rusqlite::Transaction;

use crate::notification::{BackendId, NotificationId};
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

/// What a group is written by.
#[derive(Clone, Copy)]
pub struct Bounds<'a> {
    /// The outbox's time.
    pub now: i64,
    pub limits: Limits,
    pub stats: &'a Stats,
}

/// How much more fits in.
pub struct FreeSpace {
    bytes: u64,
}

impl FreeSpace {
    /// What the limits leave of the file as it is.
    pub fn of(tx: &Transaction<'_>, limits: Limits) -> rusqlite::Result<Self> {
        let number = |name: &str| {
            tx.pragma_query_value(None, name, |row| row.get::<_, i64>(0))
                .map(|n| u64::try_from(n).unwrap_or(0))
        };
        let used =
            number("page_count")?.saturating_sub(number("freelist_count")?) * number("page_size")?;
        Ok(Self {
            bytes: limits.max_bytes.saturating_sub(used),
        })
    }
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

    /// Does what is asked; `yield_now` is called before what nobody waits for.
    pub fn apply(
        &mut self,
        tx: &Transaction<'_>,
        op: Op,
        bounds: Bounds<'_>,
        room: &mut FreeSpace,
        mut yield_now: impl FnMut(),
    ) -> rusqlite::Result<()> {
        let Bounds { now, limits, .. } = bounds;
        match op {
            Op::Store(store) => self.store(tx, store, bounds, room),
            Op::Update(update) => {
                yield_now();
                self.settle(tx, update, now, limits)
            }
            Op::Order(order, to) => self.order(tx, &order, to, now, limits),
            Op::Import(some, to) => self.import(tx, &some, to, bounds, room, yield_now),
            Op::Remove(ids) => remove_all(tx, &ids, &mut self.delta),
            Op::Rename => by_id::rename_store(tx),
            Op::Mirror(_) => Ok(()), // they are done apart
            Op::Stop => {
                self.stop = true;
                Ok(())
            }
        }
    }

    /// Adds a notification, if it fits in.
    fn store(
        &mut self,
        tx: &Transaction<'_>,
        store: Box<StoreRequest>,
        bounds: Bounds<'_>,
        room: &mut FreeSpace,
    ) -> rusqlite::Result<()> {
        let Bounds { now, limits, stats } = bounds;
        let notification = Arc::clone(&store.notification);
        let need = (notification.head.len() + notification.body.len()) as u64 + ROW_BYTES;
        let fits = self.make_room(tx, need, limits, room, stats);
        if !matches!(fits, Ok(true)) {
            self.stored.push((store, Err(NotStored::Full)));
            return fits.map(|_| ());
        }
        let turn_ms = match store.state {
            State::Pending => now.saturating_add(limits.expire_ms),
            State::Done | State::Dead => now,
        };
        let new = rows::NewRow {
            notification: &notification,
            key: store.key,
            state: store.state,
            tries: store.tries,
            due: store.due,
            stored_ms: now,
            turn_ms,
            why: &store.why,
            steps: &store.timeline.to_text(),
        };
        let added = rows::insert(tx, &new, &mut self.delta);
        if store.state == State::Pending && store.due != HELD {
            self.nudged.push(notification.backend.clone());
        }
        room.bytes = room.bytes.saturating_sub(need);
        match added {
            Ok(seq) => {
                self.stored.push((store, Ok(seq)));
                Ok(())
            }
            Err(error) => {
                self.stored.push((store, Err(NotStored::of(&error))));
                Err(error)
            }
        }
    }

    /// Whether `need` more bytes and one more row fit in; acknowledged ones are deleted early for that.
    fn make_room(
        &mut self,
        tx: &Transaction<'_>,
        need: u64,
        limits: Limits,
        room: &mut FreeSpace,
        stats: &Stats,
    ) -> rusqlite::Result<bool> {
        let kept = |delta: &CountDelta| {
            let sum: i64 = [State::Pending, State::Done, State::Dead]
                .into_iter()
                .map(|state| delta.of(state))
                .sum();
            stats.kept().saturating_add_signed(sum)
        };
        if kept(&self.delta) < limits.max_messages && room.bytes >= need {
            return Ok(true);
        }
        for seq in rows::turned(tx, State::Done, i64::MAX, ROWS_AT_ONCE)? {
            remove(tx, seq, &mut self.delta)?;
        }
        *room = FreeSpace::of(tx, limits)?;
        Ok(kept(&self.delta) < limits.max_messages && room.bytes >= need)
    }

    /// Notes what came of one.
    fn settle(
        &mut self,
        tx: &Transaction<'_>,
        update: StatusUpdate,
        now: i64,
        limits: Limits,
    ) -> rusqlite::Result<()> {
        let done = self.try_settle(tx, &update, now, limits);
        self.settled.push(update);
        done
    }

    fn try_settle(
        &mut self,
        tx: &Transaction<'_>,
        update: &StatusUpdate,
        now: i64,
        limits: Limits,
    ) -> rusqlite::Result<()> {
        let Some(standing) = rows::standing(tx, update.seq)? else {
            return Ok(()); // dropped by an operator meanwhile
        };
        let (from, to) = (standing.state, update.state);
        match (from, to) {
            (State::Pending, State::Done) if limits.keep_ms == 0 => {
                return rows::delete(tx, update.seq, &standing, &mut self.delta);
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
                State::Done => Some(now.saturating_add(limits.keep_ms)),
                State::Dead => Some(now),
            },
            why: &update.why,
            steps: &update.timeline.to_text(),
        };
        rows::update(tx, &change, from, &standing.backend, &mut self.delta)
    }

    /// Adds what comes from another outbox; `yield_now` is called before each.
    fn import(
        &mut self,
        tx: &Transaction<'_>,
        some: &[Parsed],
        to: Sender<Result<Ordered, NotStored>>,
        bounds: Bounds<'_>,
        room: &mut FreeSpace,
        mut yield_now: impl FnMut(),
    ) -> rusqlite::Result<()> {
        let mut ordered = Ordered::default();
        let mut done = Ok(());
        for one in some {
            yield_now();
            done = self.import_one(tx, one, &mut ordered, bounds, room);
            if done.is_err() || ordered.full {
                break;
            }
        }
        self.ordered.push((to, ordered));
        done
    }

    fn import_one(
        &mut self,
        tx: &Transaction<'_>,
        one: &Parsed,
        ordered: &mut Ordered,
        bounds: Bounds<'_>,
        room: &mut FreeSpace,
    ) -> rusqlite::Result<()> {
        let notification = &one.notification;
        if by_id::is_known(tx, notification.id)? {
            ordered.known += 1;
            return Ok(());
        }
        let need = (notification.head.len() + notification.body.len()) as u64 + ROW_BYTES;
        if !self.make_room(tx, need, bounds.limits, room, bounds.stats)? {
            ordered.full = true;
            return Ok(());
        }
        Exported::insert(one, tx, bounds.now, &mut self.delta)?;
        room.bytes = room.bytes.saturating_sub(need);
        ordered.changed += 1;
        let name = || notification.event.as_deref().unwrap_or_default();
        ordered.learned.extend(
            one.key
                .map(|key| (key, name().to_owned(), one.exported.stored_ago_ms)),
        );
        if one.state == State::Pending {
            self.retried.push(notification.backend.clone());
        }
        Ok(())
    }
}

/// Removes the rows of the notifications called `ids`, as far as they are there.
pub fn remove_all(
    tx: &Transaction<'_>,
    ids: &[NotificationId],
    delta: &mut CountDelta,
) -> rusqlite::Result<()> {
    for id in ids {
        if let Some(row) = by_id::row_by_id(tx, *id)? {
            remove(tx, row.seq, delta)?;
        }
    }
    Ok(())
}

/// Removes the row `seq`, if it is there.
pub fn remove(tx: &Transaction<'_>, seq: i64, delta: &mut CountDelta) -> rusqlite::Result<()> {
    match rows::standing(tx, seq)? {
        Some(standing) => rows::delete(tx, seq, &standing, delta),
        None => Ok(()),
    }
}
