//! The stored notifications from the newest back, as a person looks through them.

use rusqlite::types::Value;
use rusqlite::{Connection, OptionalExtension, params};

use super::conditions::Conditions;
use super::row::{COLUMNS, Row, State};
use crate::notification::NotificationId;

/// How many rows are looked at for one answer: a search that finds little must not read a whole disk at once.
pub const LOOKED_AT_MAX: usize = 20_000;

/// What somebody looks for. All that is `Some` must hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Search {
    /// The id, the backend, or a part of the event.
    pub text: Option<String>,
    /// The text may be a part of headers or body, too.
    pub in_contents: bool,
    pub backend: Option<String>,
    pub route: Option<String>,
    pub state: Option<State>,
    /// Only notifications older than this one.
    pub before: Option<NotificationId>,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    /// Newest first.
    pub rows: Vec<Row>,
    /// Every row that is not older than this one has been looked at; `None`: every row there is.
    pub looked_to: Option<NotificationId>,
}

/// Looks through what is stored, newest first, until `limit` are found or `looked_at_max` were looked at.
pub fn newest(
    c: &Connection,
    search: &Search,
    limit: usize,
    looked_at_max: usize,
) -> rusqlite::Result<Found> {
    // Ids sort by time, and the ids' own index has them in order. Beyond every id: all of them.
    let before = search
        .before
        .map_or(vec![0xFF; 17], |id| id.to_bytes().into());
    let end: Option<[u8; 16]> = c
        .prepare_cached(
            "SELECT id FROM notification WHERE id < ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2",
        )?
        .query_row(params![before, looked_at_max as i64 - 1], |row| row.get(0))
        .optional()?;
    let from: Vec<u8> = end.map_or(Vec::new(), Into::into);
    let (wanted, values) = search.condition(before, from, limit);
    let sql =
        format!("SELECT {COLUMNS} FROM notification n WHERE {wanted} ORDER BY n.id DESC LIMIT ?");
    let rows: Vec<Row> = c
        .prepare(&sql)?
        .query_map(rusqlite::params_from_iter(values), Row::read)?
        .collect::<rusqlite::Result<_>>()?;
    let looked_to = match rows.last() {
        Some(last) if rows.len() == limit => Some(last.id),
        _ => end.map(NotificationId::from_bytes),
    };
    Ok(Found { rows, looked_to })
}

impl Search {
    /// What must hold, as SQL, of the ids of `from` up to `before`, and its values with the limit behind them.
    fn condition(&self, before: Vec<u8>, from: Vec<u8>, limit: usize) -> (String, Vec<Value>) {
        let range = [Value::Blob(before), Value::Blob(from)];
        let mut all = Conditions::new("n.id < ? AND n.id >= ?", range);
        all.and_text("n.backend", self.backend.as_ref());
        all.and_text("n.route", self.route.as_ref());
        all.and_state(self.state);
        if let Some(text) = &self.text {
            let mut any = vec!["n.backend = ?", "instr(n.event, ?) > 0"];
            let mut values = vec![Value::Text(text.clone()), Value::Text(text.clone())];
            if let Some(id) = NotificationId::parse(text) {
                any.push("n.id = ?");
                values.push(Value::Blob(id.to_bytes().into()));
            }
            if self.in_contents {
                any.push(
                    "EXISTS (SELECT 1 FROM payload p WHERE p.seq = n.seq AND (instr(p.body, ?) > 0 OR instr(p.head, ?) > 0))",
                );
                let bytes = Value::Blob(text.as_bytes().to_vec());
                values.extend([bytes.clone(), bytes]);
            }
            all.and(format!("({})", any.join(" OR ")), values);
        }
        all.with_limit(limit)
    }
}

#[cfg(test)]
mod tests {
    use super::super::count_delta::CountDelta;
    use super::super::rows::{self, NewRow};
    use super::*;
    use crate::notification::{BackendId, IdMint, Notification};

    fn stored(count: u64) -> (Connection, Vec<NotificationId>) {
        let c = Connection::open_in_memory().expect("a database");
        c.execute_batch(include_str!("schema.sql"))
            .expect("its tables");
        let mint = IdMint::new(0);
        let mut sums = CountDelta::default();
        let ids = (0..count).map(|n| {
            let notification = Notification {
                id: mint.mint(1000 + n),
                backend: BackendId::parse(if n % 2 == 0 { "even" } else { "odd" }).expect("an id"),
                route: "r".into(),
                verified: "none".into(),
                event: Some(format!("order-{n}").into()),
                event_proven: false,
                at_unix_ms: 1000 + n,
                tries: 1,
                head: b"POST / HTTP/1.1\r\n".to_vec(),
                body: [b"\xff\0 no=".as_slice(), n.to_string().as_bytes(), b";"].concat(),
            };
            let new = NewRow {
                notification: &notification,
                key: None,
                state: if n % 10 == 0 {
                    State::Dead
                } else {
                    State::Pending
                },
                tries: 0,
                due: 0,
                stored_ms: 0,
                turn_ms: 0,
                why: "",
                steps: "",
            };
            rows::insert(&c, &new, &mut sums).expect("a row");
            notification.id
        });
        let ids = ids.collect();
        (c, ids)
    }

    #[test]
    fn pages_lead_to_the_oldest_and_each_is_found_once() {
        let (c, ids) = stored(100);
        let mut search = Search::default();
        let mut all = Vec::new();
        loop {
            let found = newest(&c, &search, 7, 1000).expect("rows");
            all.extend(found.rows.iter().map(|row| row.id));
            search.before = found.looked_to;
            if found.looked_to.is_none() {
                break;
            }
        }
        assert!(all.iter().eq(ids.iter().rev()));
    }

    #[test]
    fn a_search_finds_what_is_meant_and_says_how_far_it_looked() {
        let (c, ids) = stored(100);
        let find = |search: Search| newest(&c, &search, 50, 40).expect("rows");
        let of = |text: &str| Search {
            text: Some(text.into()),
            ..Search::default()
        };
        let number = |found: &Found| found.rows.len();
        assert_eq!(number(&find(of("order-99"))), 1);
        assert_eq!(number(&find(of(&ids[98].to_string()))), 1);
        assert_eq!(number(&find(of("odd"))), 20);
        assert_eq!(
            number(&find(of("no=99;"))),
            0,
            "bodies only if they may be looked at"
        );
        let body = Search {
            in_contents: true,
            ..of("no=99;")
        };
        assert_eq!(number(&find(body)), 1);
        let dead = Search {
            state: Some(State::Dead),
            backend: Some("even".into()),
            ..Search::default()
        };
        assert_eq!(number(&find(dead.clone())), 4);
        // 40 were looked at, and there are more.
        let early = find(of("order-3"));
        assert_eq!((number(&early), early.looked_to), (0, Some(ids[60])));
        let further = Search {
            before: early.looked_to,
            ..of("order-3")
        };
        assert_eq!(number(&find(further)), 10, "order-30 to order-39");
    }
}
