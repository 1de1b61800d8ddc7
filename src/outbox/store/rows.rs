//! The statements that read and change the rows of the database.
//!
//! No thread, no clock and no policy here: what is to be done is decided elsewhere. Every change of state is noted in
//! [`CountDelta`](super::count_delta::CountDelta), which are written with the same transaction.

use std::collections::VecDeque;

use rusqlite::{Connection, OptionalExtension, Row as SqlRow, params};

use super::count_delta::CountDelta;
use super::row::{COLUMNS, HELD, Payload, Row, State};
use crate::notification::{EventKey, Notification, NotificationId, digest_of};

/// What is added to a notification when it is stored.
#[derive(Debug)]
pub struct NewRow<'a> {
    pub notification: &'a Notification,
    pub key: Option<EventKey>,
    pub state: State,
    pub tries: u32,
    pub due: i64,
    pub stored_ms: i64,
    pub turn_ms: i64,
    pub why: &'a str,
    pub steps: &'a str,
}

/// Adds a row; says its number.
pub fn insert(c: &Connection, new: &NewRow<'_>, delta: &mut CountDelta) -> rusqlite::Result<i64> {
    let n = new.notification;
    let at_ms = i64::try_from(n.at_unix_ms).unwrap_or(i64::MAX);
    let bytes = n.head.len() + n.body.len();
    c.prepare_cached(
        "INSERT INTO notification (id, backend, route, verified, event, event_key, at_ms, state, tries, due, stored_ms, \
         turn_ms, bytes, why, steps) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15)",
    )?
    .execute(params![
        n.id.to_bytes(),
        n.backend.as_str(),
        &*n.route,
        &*n.verified,
        n.event.as_deref(),
        new.key.as_ref().map(EventKey::bytes),
        at_ms,
        new.state as i64,
        new.tries,
        new.due,
        new.stored_ms,
        new.turn_ms,
        bytes as i64,
        new.why,
        new.steps,
    ])?;
    let seq = c.last_insert_rowid();
    let sum = digest_of(&[
        &n.id.to_bytes(),
        n.backend.as_str().as_bytes(),
        n.route.as_bytes(),
        n.verified.as_bytes(),
        n.event.as_deref().unwrap_or_default().as_bytes(),
        &(at_ms as u64).to_be_bytes(),
        &n.head,
        &n.body,
    ]);
    c.prepare_cached("INSERT INTO payload (seq, head, body, digest) VALUES (?1,?2,?3,?4)")?
        .execute(params![seq, n.head, n.body, sum])?;
    delta.moved(n.id, n.backend.as_str(), None, Some(new.state));
    Ok(seq)
}

/// Does what `read` does in one transaction: as of one moment, and with the file's lock taken once.
pub fn at_once<T>(
    c: &Connection,
    read: impl FnOnce(&Connection) -> rusqlite::Result<T>,
) -> rusqlite::Result<T> {
    c.prepare_cached("BEGIN")?.execute([])?;
    let done = read(c);
    let ended = c.prepare_cached("COMMIT")?.execute([]);
    let done = done?;
    ended.map(|_| done)
}

/// The row called `seq`.
pub fn row(c: &Connection, seq: i64) -> rusqlite::Result<Option<Row>> {
    c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM notification n WHERE n.seq = ?1"
    ))?
    .query_row([seq], Row::read)
    .optional()
}

/// What the row carries; `None` if it is not as it was stored.
pub fn payload(c: &Connection, row: &Row) -> rusqlite::Result<Option<Payload>> {
    let read = |sql: &SqlRow<'_>| {
        let payload = Payload {
            head: sql.get(0)?,
            body: sql.get(1)?,
        };
        Ok((payload, sql.get::<_, [u8; 16]>(2)?))
    };
    let found = c
        .prepare_cached("SELECT head, body, digest FROM payload WHERE seq = ?1")?
        .query_row([row.seq], read)
        .optional()?;
    Ok(found
        .filter(|(payload, sum)| row.digest(payload) == *sum)
        .map(|(payload, _)| payload))
}

/// The first pending notification that is not as it was stored, in words.
pub fn first_damaged(c: &Connection) -> rusqlite::Result<Option<String>> {
    let mut rows = c.prepare(&format!(
        "SELECT {COLUMNS} FROM notification n NOT INDEXED WHERE n.state = 0"
    ))?;
    for row in rows.query_map([], Row::read)? {
        let row = row?;
        if payload(c, &row)?.is_none() {
            return Ok(Some(format!("the content of {} has changed", row.id)));
        }
    }
    Ok(None)
}

/// How many are held.
pub fn held(c: &Connection) -> rusqlite::Result<i64> {
    // Not a parameter: only of a literal does SQLite know that the index covers it.
    c.prepare_cached(&format!(
        "SELECT count(*) FROM notification INDEXED BY held WHERE state = 0 AND due = {HELD}"
    ))?
    .query_row([], |row| row.get(0))
}

/// Lets go of what is held.
pub fn release_held(c: &Connection) -> rusqlite::Result<()> {
    // Looked at first, since an UPDATE of nothing would write all the same.
    if held(c)? > 0 {
        c.execute(
            &format!(
                "UPDATE notification INDEXED BY held SET due = 0 WHERE state = 0 AND due = {HELD}"
            ),
            [],
        )?;
    }
    Ok(())
}

/// The numbers of the pending rows of `backend` that may be sent at `now` and that `take` takes, those first that are to be
/// sent first; `limit` at most.
pub fn due(
    c: &Connection,
    backend: &str,
    now: i64,
    limit: usize,
    take: impl Fn(i64) -> bool,
) -> rusqlite::Result<VecDeque<i64>> {
    // Without a LIMIT: SQLite compiles a statement anew for each other value of one.
    c.prepare_cached(
        "SELECT seq FROM notification INDEXED BY pending WHERE state = 0 AND backend = ?1 AND due <= ?2 \
         ORDER BY due, seq",
    )?
    .query_map(params![backend, now], |row| row.get(0))?
    .filter(|seq| seq.as_ref().map_or(true, |&seq| take(seq)))
    .take(limit)
    .collect()
}

/// When the next pending row of `backend` after `now` may be sent.
pub fn next_due(c: &Connection, backend: &str, now: i64) -> rusqlite::Result<Option<i64>> {
    c.prepare_cached(
        "SELECT min(due) FROM notification INDEXED BY pending WHERE state = 0 AND backend = ?1 AND due > ?2 AND due < ?3",
    )?
    .query_row(params![backend, now, HELD], |row| row.get(0))
}

/// Backends with something pending whose names come after `after`.
pub fn backends_pending(
    c: &Connection,
    after: &str,
    limit: usize,
) -> rusqlite::Result<Vec<String>> {
    c.prepare_cached(
        "SELECT name FROM backend WHERE pending > 0 AND name > ?1 ORDER BY name LIMIT ?2",
    )?
    .query_map(params![after, limit as i64], |row| row.get(0))?
    .collect()
}

/// Whether anything of `backend` is pending.
pub fn is_pending(c: &Connection, backend: &str) -> rusqlite::Result<bool> {
    let pending: Option<i64> = c
        .prepare_cached("SELECT pending FROM backend WHERE name = ?1")?
        .query_row([backend], |row| row.get(0))
        .optional()?;
    Ok(pending.unwrap_or(0) > 0)
}

/// Name, pending and dead of the `limit` backends that have most of both.
pub fn busiest(c: &Connection, limit: usize) -> rusqlite::Result<Vec<(String, u64, u64)>> {
    c.prepare_cached(
        "SELECT name, pending, dead FROM backend ORDER BY pending + dead DESC, name LIMIT ?1",
    )?
    .query_map([limit as i64], |row| {
        let count = |at| Ok::<u64, rusqlite::Error>(row.get::<_, i64>(at)?.max(0) as u64);
        Ok((row.get(0)?, count(1)?, count(2)?))
    })?
    .collect()
}

/// When what has been pending longest was stored.
pub fn oldest_pending(c: &Connection) -> rusqlite::Result<Option<i64>> {
    c.prepare_cached(
        "SELECT stored_ms FROM notification INDEXED BY turn WHERE state = 0 ORDER BY turn_ms LIMIT 1",
    )?
    .query_row([], |row| row.get(0))
    .optional()
}

/// How many pending ones expire until `ms`.
pub fn pending_until(c: &Connection, ms: i64) -> rusqlite::Result<u64> {
    c.query_row(
        "SELECT count(*) FROM notification INDEXED BY turn WHERE state = 0 AND turn_ms <= ?1",
        [ms],
        |row| Ok(row.get::<_, i64>(0)?.max(0) as u64),
    )
}

/// Keys and names of the events of what was stored after `since`, in the order it was stored; of the latest `limit` rows only.
pub fn keys(
    c: &Connection,
    since: i64,
    limit: usize,
    mut take: impl FnMut(EventKey, &str, i64),
) -> rusqlite::Result<()> {
    let mut rows = c.prepare(
        "SELECT event_key, stored_ms, event FROM notification INDEXED BY event WHERE event_key IS NOT NULL \
         AND seq > (SELECT coalesce(max(seq), 0) FROM notification) - ?1 ORDER BY seq",
    )?;
    let mut rows = rows.query([limit as i64])?;
    while let Some(row) = rows.next()? {
        let stored_ms = row.get(1)?;
        if let Some(key) = row.get::<_, Option<[u8; 16]>>(0)?
            && stored_ms > since
        {
            let name: Option<String> = row.get(2)?;
            take(
                EventKey::from_bytes(key),
                name.as_deref().unwrap_or_default(),
                stored_ms,
            );
        }
    }
    Ok(())
}

/// How many there are in each state.
pub fn totals(c: &Connection) -> rusqlite::Result<[u64; 3]> {
    c.query_row("SELECT pending, done, dead FROM total", [], |row| {
        let count = |at| Ok::<u64, rusqlite::Error>(row.get::<_, i64>(at)?.max(0) as u64);
        Ok([count(0)?, count(1)?, count(2)?])
    })
}

/// Gives the row `seq`, if it is there, another state and what goes with it.
#[derive(Debug)]
pub struct Change<'a> {
    pub seq: i64,
    pub id: NotificationId,
    pub state: State,
    pub tries: u32,
    pub due: i64,
    /// `None`: as it is.
    pub turn_ms: Option<i64>,
    pub why: &'a str,
    pub steps: &'a str,
}

/// Writes `change`, given the state and the backend that the row has.
pub fn update(
    c: &Connection,
    change: &Change<'_>,
    from: State,
    backend: &str,
    delta: &mut CountDelta,
) -> rusqlite::Result<()> {
    c.prepare_cached(
        "UPDATE notification SET state = ?2, tries = ?3, due = ?4, turn_ms = coalesce(?5, turn_ms), why = ?6, steps = ?7 \
         WHERE seq = ?1",
    )?
    .execute(params![
        change.seq,
        change.state as i64,
        change.tries,
        change.due,
        change.turn_ms,
        change.why,
        change.steps
    ])?;
    delta.moved(change.id, backend, Some(from), Some(change.state));
    Ok(())
}

/// Removes the row `seq`.
pub fn delete(
    c: &Connection,
    seq: i64,
    standing: &RowStatus,
    delta: &mut CountDelta,
) -> rusqlite::Result<()> {
    c.prepare_cached("DELETE FROM payload WHERE seq = ?1")?
        .execute([seq])?;
    c.prepare_cached("DELETE FROM notification WHERE seq = ?1")?
        .execute([seq])?;
    delta.moved(standing.id, &standing.backend, Some(standing.state), None);
    Ok(())
}

/// Where a row stands.
#[derive(Clone, Debug)]
pub struct RowStatus {
    pub id: NotificationId,
    pub state: State,
    pub backend: String,
}

/// Where the row `seq` stands.
pub fn standing(c: &Connection, seq: i64) -> rusqlite::Result<Option<RowStatus>> {
    c.prepare_cached("SELECT id, state, backend FROM notification WHERE seq = ?1")?
        .query_row([seq], |row| {
            Ok(RowStatus {
                id: NotificationId::from_bytes(row.get(0)?),
                state: State::of(row.get(1)?),
                backend: row.get(2)?,
            })
        })
        .optional()
}

/// Rows in `state` whose turn has come, those first whose turn came first; what a session has in hand is left out.
pub fn turned(c: &Connection, state: State, now: i64, limit: usize) -> rusqlite::Result<Vec<i64>> {
    c.prepare_cached(
        "SELECT seq FROM notification INDEXED BY turn WHERE state = ?1 AND turn_ms <= ?2 AND due <> ?3 \
         ORDER BY turn_ms LIMIT ?4",
    )?
    .query_map(params![state as i64, now, HELD, limit as i64], |row| {
        row.get(0)
    })?
    .collect()
}
