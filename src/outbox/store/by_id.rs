//! Rows by the ids of their notifications, which are the same in every file and in Redis.

use rusqlite::{Connection, OptionalExtension};

use super::row::{COLUMNS, Row};
use crate::notification::NotificationId;

/// Whether there is a row for the notification called `id`.
pub fn is_known(c: &Connection, id: NotificationId) -> rusqlite::Result<bool> {
    c.prepare_cached("SELECT 1 FROM notification WHERE id = ?1")?
        .exists([id.to_bytes()])
}

/// The row of the notification called `id`.
pub fn row_by_id(c: &Connection, id: NotificationId) -> rusqlite::Result<Option<Row>> {
    c.prepare_cached(&format!(
        "SELECT {COLUMNS} FROM notification n WHERE n.id = ?1"
    ))?
    .query_row([id.to_bytes()], Row::read)
    .optional()
}

/// Number and id of the rows behind the row `after` that are pending or dead, oldest first, `limit` at most.
pub fn kept_ids(
    c: &Connection,
    after: i64,
    limit: usize,
) -> rusqlite::Result<Vec<(i64, NotificationId)>> {
    c.prepare_cached(
        "SELECT seq, id FROM notification WHERE seq > ?1 AND state <> 1 ORDER BY seq LIMIT ?2",
    )?
    .query_map([after, limit as i64], |row| {
        Ok((row.get(0)?, NotificationId::from_bytes(row.get(1)?)))
    })?
    .collect()
}

/// By what this database is known to other nodes.
pub fn store_id(c: &Connection) -> rusqlite::Result<String> {
    c.query_row("SELECT store_id FROM total", [], |row| row.get(0))
}

/// Makes it another database for other nodes.
pub fn rename_store(c: &Connection) -> rusqlite::Result<()> {
    c.execute("UPDATE total SET store_id = lower(hex(randomblob(16)))", [])?;
    Ok(())
}

/// The event of the notification called `id` is not known any more; `steps` has that as the last one.
pub fn forget_event(c: &Connection, id: NotificationId, steps: &str) -> rusqlite::Result<()> {
    c.prepare_cached("UPDATE notification SET event_key = NULL, steps = ?2 WHERE id = ?1")?
        .execute((id.to_bytes(), steps))?;
    Ok(())
}
