//! Which rows somebody asks for, as the command line and the admin API put it.

use rusqlite::Connection;
use rusqlite::types::Value;

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
        let mut wanted = vec!["n.seq > ?".to_owned()];
        let mut values = vec![Value::Integer(after)];
        if !self.ids.is_empty() {
            let marks = vec!["?"; self.ids.len()].join(",");
            wanted.push(format!("n.id IN ({marks})"));
            values.extend(self.ids.iter().map(|id| Value::Blob(id.to_bytes().into())));
        }
        for (column, text) in [
            ("n.backend = ?", &self.backend),
            ("n.route = ?", &self.route),
            ("n.event = ?", &self.event),
        ] {
            if let Some(text) = text {
                wanted.push(column.to_owned());
                values.push(Value::Text(text.clone()));
            }
        }
        if let Some(state) = self.state {
            // With the +, no index: they are wanted in their order, and few enough of them.
            wanted.push("+n.state = ?".to_owned());
            values.push(Value::Integer(state as i64));
        }
        if let Some(since) = self.since_unix_ms {
            wanted.push("n.at_ms >= ?".to_owned());
            values.push(Value::Integer(i64::try_from(since).unwrap_or(i64::MAX)));
        }
        values.push(Value::Integer(limit as i64));
        (wanted.join(" AND "), values)
    }
}
