//! Which rows somebody asks for, as the command line and the admin API put it.

use rusqlite::Connection;
use rusqlite::types::Value;

use super::conditions::Conditions;
use super::row::{COLUMNS, Row, State};
use crate::notification::NotificationId;

/// Which rows somebody asks for. All that is `Some` must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// These; empty: any.
    pub ids: Vec<NotificationId>,
    pub backend: Option<String>,
    pub state: Option<State>,
    pub route: Option<String>,
    pub event: Option<String>,
    /// Taken at this time or later, in Unix milliseconds.
    pub since_unix_ms: Option<u64>,
}

impl Filter {
    /// The rows that it lets through behind the row `after`, oldest first, `limit` at most.
    pub fn rows(&self, c: &Connection, after: i64, limit: usize) -> rusqlite::Result<Vec<Row>> {
        let (wanted, values) = self.condition(after, limit);
        let sql =
            format!("SELECT {COLUMNS} FROM notification n WHERE {wanted} ORDER BY n.seq LIMIT ?");
        c.prepare(&sql)?
            .query_map(rusqlite::params_from_iter(values), Row::read)?
            .collect()
    }

    /// How many pending rows it lets through behind the row `after`, as far as `limit`.
    pub fn count_pending(&self, c: &Connection, after: i64, limit: usize) -> rusqlite::Result<u64> {
        if self.state.is_some_and(|state| state != State::Pending) {
            return Ok(0);
        }
        let pending = Self {
            state: Some(State::Pending),
            ..self.clone()
        };
        let (wanted, values) = pending.condition(after, limit);
        let sql =
            format!("SELECT count(*) FROM (SELECT 1 FROM notification n WHERE {wanted} LIMIT ?)");
        let params = rusqlite::params_from_iter(values);
        c.query_row(&sql, params, |row| row.get::<_, i64>(0))
            .map(i64::unsigned_abs)
    }

    /// What must hold, as SQL, and its values with the limit behind them.
    fn condition(&self, after: i64, limit: usize) -> (String, Vec<Value>) {
        let mut all = Conditions::new("n.seq > ?", [Value::Integer(after)]);
        if !self.ids.is_empty() {
            let marks = vec!["?"; self.ids.len()].join(",");
            let ids = self.ids.iter().map(|id| Value::Blob(id.to_bytes().into()));
            all.and(format!("n.id IN ({marks})"), ids);
        }
        all.and_text("n.backend", self.backend.as_ref());
        all.and_text("n.route", self.route.as_ref());
        all.and_text("n.event", self.event.as_ref());
        all.and_state(self.state);
        if let Some(since) = self.since_unix_ms {
            let since = i64::try_from(since).unwrap_or(i64::MAX);
            all.and("n.at_ms >= ?".to_owned(), [Value::Integer(since)]);
        }
        all.with_limit(limit)
    }
}
