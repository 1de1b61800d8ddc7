//! What is asked of the outbox and changes nothing: counts, metrics, rows, exports.

use std::time::Duration;

use super::Outbox;
use super::ops::ROWS_AT_ONCE;
use super::store::error::AskError;
use super::store::exported::Exported;
use super::store::filter::Filter;
use super::store::newest::{self, Found, LOOKED_AT_MAX, Search};
use super::store::row::{Payload, Row};
use super::store::rows;
use super::store::unknown::UnknownBackends;
use crate::metrics::OutboxReadings;
use crate::notification::{EventKey, NotificationId};

/// The most backends that have a metric of their own.
const BACKENDS_SHOWN: usize = 50;

impl Outbox {
    /// How many are to be delivered.
    pub fn pending(&self) -> u64 {
        self.stats.pending()
    }

    /// How many there are: pending, done, dead.
    pub fn counts(&self) -> [u64; 3] {
        let stats = &self.stats;
        [stats.pending(), stats.done(), stats.dead()]
    }

    /// The backends for which something is pending and of which this node has not heard since its start.
    pub fn unknown_backends(&self) -> UnknownBackends {
        self.stats.unknown()
    }

    /// Backend, pending and dead of the `limit` backends that have most of both.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn busiest(&self, limit: usize) -> Result<Vec<(String, u64, u64)>, AskError> {
        Ok(rows::busiest(&self.reading.lock(), limit)?)
    }

    /// What the metrics show: all of it as of one moment on disk.
    pub fn readings(&self) -> OutboxReadings {
        let read = rows::at_once(&self.reading.lock(), |c| {
            let oldest = rows::oldest_pending(c)?;
            Ok((rows::totals(c)?, oldest, rows::busiest(c, BACKENDS_SHOWN)?))
        });
        let (totals, oldest, backends) =
            read.unwrap_or_else(|_| (self.stats.totals(), None, Vec::new()));
        let [pending, done, dead] = totals;
        let age = oldest.map_or(0, |stored| (self.clock.now_ms() - stored).max(0));
        OutboxReadings {
            pending,
            done,
            dead,
            oldest: Duration::from_millis(age.unsigned_abs()),
            backends,
            disk_free_bytes: self.stats.disk_free_bytes(),
            log_bytes: self.stats.log_bytes(),
            unknown_backends: self.stats.unknown().pending,
            shared: self
                .shared
                .as_ref()
                .map(|shared| shared.readings(pending + dead)),
        }
    }

    /// Rows behind the row `after`, oldest first, `limit` at most.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, filter: &Filter, after: i64, limit: usize) -> Result<Vec<Row>, AskError> {
        Ok(filter.rows(&self.reading.lock(), after, limit)?)
    }

    /// The notification called `id`, and what it carries, unless that was damaged on disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn show(&self, id: NotificationId) -> Result<Option<(Row, Option<Payload>)>, AskError> {
        let filter = Filter {
            ids: vec![id],
            ..Filter::default()
        };
        let reading = self.reading.lock();
        let Some(row) = filter.rows(&reading, 0, 1)?.pop() else {
            return Ok(None);
        };
        let payload = rows::payload(&reading, &row)?;
        Ok(Some((row, payload)))
    }

    /// Looks through what is stored, newest first, until `limit` are found or [`LOOKED_AT_MAX`] were looked at.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn newest(&self, search: &Search, limit: usize) -> Result<Found, AskError> {
        Ok(newest::newest(
            &self.reading.lock(),
            search,
            limit,
            LOOKED_AT_MAX,
        )?)
    }

    /// Everything about the rows behind the row `after`, oldest first: as many as take `bytes` together, one at least; and where
    /// to go on, if there are more.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn export(
        &self,
        after: i64,
        bytes: usize,
    ) -> Result<(Vec<Exported>, Option<i64>), AskError> {
        let reading = self.reading.lock();
        let now_ms = self.clock.now_ms();
        let rows = Filter::default().rows(&reading, after, ROWS_AT_ONCE)?;
        let (mut exported, mut size, mut next) = (Vec::new(), 0, None);
        for row in &rows {
            let one = Exported::of(row, rows::payload(&reading, row)?, now_ms);
            if size > 0 && size + one.bytes() > bytes {
                return Ok((exported, next));
            }
            size += one.bytes();
            next = Some(row.seq);
            exported.push(one);
        }
        Ok((exported, next.filter(|_| rows.len() == ROWS_AT_ONCE)))
    }

    /// Tells `take` the events stored within `window` and how long ago that was, the oldest first; of the latest `limit`
    /// notifications only.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn keys(
        &self,
        window: Duration,
        limit: usize,
        mut take: impl FnMut(EventKey, &str, Duration),
    ) -> Result<(), AskError> {
        let now = self.clock.now_ms();
        let since = now.saturating_sub(i64::try_from(window.as_millis()).unwrap_or(i64::MAX));
        let age = |stored: i64| Duration::from_millis((now - stored).max(0).unsigned_abs());
        let take = |key, name: &str, stored| take(key, name, age(stored));
        Ok(rows::keys(&self.reading.lock(), since, limit, take)?)
    }
}
