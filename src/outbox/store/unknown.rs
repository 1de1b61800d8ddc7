//! Notifications that are pending for a backend of which this node has not heard since its start: as a rule a typo in a notify_url.
//!
//! They are stored and answered ok like all others, so nothing else would show the typo before `outbox.expire`. A node hears of every
//! backend that connects to it or to another node, and asks the others at its own start.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rusqlite::{Connection, OptionalExtension};

use crate::config::nearest;
use crate::notification::{BackendId, NotificationId};

/// As many as `tcp.backends` may have. Beyond it none counts as unknown.
const HEARD_MAX: usize = 100_000;

/// After a start backends have so long to come back before one counts as unknown.
const GRACE: Duration = Duration::from_secs(20);

/// How often to look. One that is unknown at two looks in a row is reported.
const LOOK_EVERY: Duration = Duration::from_secs(5);

/// How often the log says it again of one.
const SAID_EVERY: Duration = Duration::from_secs(3600);

/// The most that are reported by name, those with most pending first.
const NAMED_MAX: usize = 50;

/// Among more names than these none is looked for that is alike.
const COMPARED_MAX: usize = 10_000;

/// The backends of which this node has heard since its start.
#[derive(Debug, Default)]
pub struct Heard(Mutex<HashSet<BackendId>>);

impl Heard {
    /// `backend` is here, or on another node.
    pub fn add(&self, backend: &BackendId) {
        let mut names = self.0.lock();
        if !names.contains(backend) && names.len() < HEARD_MAX {
            names.insert(backend.clone());
        }
    }

    /// Whether nothing was heard of the backend called `name`.
    fn lacks(&self, name: &str) -> bool {
        let names = self.0.lock();
        names.len() < HEARD_MAX && BackendId::parse(name).is_ok_and(|id| !names.contains(&id))
    }

    /// One whose name is like `name`. `game-2` is none that `game-1` is a slip for: they are numbered.
    fn like(&self, name: &str) -> Option<String> {
        let names = self.0.lock();
        if names.len() > COMPARED_MAX {
            return None;
        }
        let letters = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
        let own = letters(name);
        let others = names.iter().map(BackendId::as_str);
        let others: Vec<&str> = others.filter(|other| letters(other) != own).collect();
        nearest(name, &others).map(str::to_owned)
    }
}

/// A backend of which this node has not heard since its start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UnknownBackend {
    /// As the notifications name it.
    pub id: String,
    /// How many are pending for it.
    pub pending: u64,
    /// One that this node has heard of and that may be meant.
    pub like: Option<String>,
}

/// Those that there are just now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UnknownBackends {
    /// How many are pending for all of them.
    pub pending: u64,
    /// Those with most pending.
    pub some: Vec<UnknownBackend>,
}

/// Looks for them now and then.
#[derive(Debug)]
pub struct UnknownWatch {
    since: Instant,
    looked: Option<Instant>,
    /// By name: when the log said it; `None`: not yet, it was unknown at one look only.
    noticed: HashMap<String, Option<Instant>>,
}

impl UnknownWatch {
    /// For a node that starts now.
    pub fn new(now: Instant) -> Self {
        Self {
            since: now,
            looked: None,
            noticed: HashMap::new(),
        }
    }

    /// When to look next, as long as something is pending or was reported.
    pub fn next_look(&self, pending: u64) -> Option<Instant> {
        let due = || self.looked.map_or(self.since + GRACE, |at| at + LOOK_EVERY);
        (pending > 0 || !self.noticed.is_empty()).then(due)
    }

    /// Looks at the outbox; says in the log what is new.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn look(
        &mut self,
        reading: &Connection,
        heard: &Heard,
        now: Instant,
    ) -> rusqlite::Result<UnknownBackends> {
        self.looked = Some(now);
        let mut all: Vec<(String, u64)> = Vec::new();
        each_pending(reading, |name, pending| {
            if heard.lacks(name) {
                all.push((name.to_owned(), pending));
            }
        })?;
        all.sort_by(|(a, most), (b, more)| more.cmp(most).then_with(|| a.cmp(b)));
        let before = std::mem::take(&mut self.noticed);
        let mut found = UnknownBackends::default();
        for (id, pending) in all {
            let Some(&said) = before.get(&id) else {
                if self.noticed.len() < HEARD_MAX {
                    self.noticed.insert(id, None);
                }
                continue;
            };
            found.pending += pending;
            let mut said = said;
            if found.some.len() < NAMED_MAX {
                let like = heard.like(&id);
                let one = UnknownBackend { id, pending, like };
                if said.is_none_or(|at| at + SAID_EVERY <= now) {
                    let example = first_pending(reading, &one.id)?;
                    one.say(example, now - self.since);
                    said = Some(now);
                }
                self.noticed.insert(one.id.clone(), said);
                found.some.push(one);
            } else {
                self.noticed.insert(id, said);
            }
        }
        Ok(found)
    }
}

impl UnknownBackend {
    fn say(&self, example: Option<(NotificationId, String)>, uptime: Duration) {
        let Self { id, pending, .. } = self;
        let example = example.map_or_else(String::new, |(one, route)| {
            format!(" (the first: {one} by {route})")
        });
        let like = self.like.as_deref();
        let like = like.map_or_else(String::new, |like| format!(" {like} is known."));
        log::warn!(
            "{id} has {pending} pending{example}, and no backend of this name has connected since this node started {} s ago: is the id in \
             the provider's address (notify_url) right?{like} What was meant for another: payrelay outbox list --backend {id}",
            uptime.as_secs()
        );
    }
}

/// Tells `each` every backend with something pending, and how much.
fn each_pending(c: &Connection, mut each: impl FnMut(&str, u64)) -> rusqlite::Result<()> {
    let mut statement =
        c.prepare_cached("SELECT name, pending FROM backend WHERE pending > 0 ORDER BY name")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let pending: i64 = row.get(1)?;
        each(row.get_ref(0)?.as_str()?, pending.max(0).unsigned_abs());
    }
    Ok(())
}

/// Id and route of one that is pending for `backend`: of those due first.
fn first_pending(
    c: &Connection,
    backend: &str,
) -> rusqlite::Result<Option<(NotificationId, String)>> {
    c.prepare_cached(
        "SELECT id, route FROM notification WHERE state = 0 AND backend = ?1 ORDER BY due LIMIT 1",
    )?
    .query_row([backend], |row| {
        Ok((NotificationId::from_bytes(row.get(0)?), row.get(1)?))
    })
    .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An outbox with `pending` for `gmae-01`.
    fn with_pending(pending: i64) -> Connection {
        let c = Connection::open_in_memory().expect("a database");
        c.execute_batch(include_str!("schema.sql"))
            .expect("its tables");
        c.execute("INSERT INTO backend VALUES ('gmae-01', ?1, 0)", [pending])
            .expect("a row");
        c
    }

    #[test]
    fn a_typo_is_said_within_a_minute_and_again_once_an_hour() {
        let (outbox, heard) = (with_pending(1), Heard::default());
        let start = Instant::now();
        let mut watch = UnknownWatch::new(start);
        let mut said: Vec<Duration> = Vec::new();
        // Three hours of looks, and the first.
        for _ in 0..3 * 720 {
            let now = watch.next_look(1).expect("something is pending");
            let found = watch.look(&outbox, &heard, now).expect("it can be read");
            if let Some(Some(at)) = watch.noticed.get("gmae-01") {
                assert_eq!(found.pending, 1);
                if said.last() != Some(&(*at - start)) {
                    said.push(*at - start);
                }
            }
        }
        assert_eq!(said.len(), 3, "{said:?}");
        assert!(said[0] <= Duration::from_secs(60), "{said:?}");
        for two in said.windows(2) {
            let hour = Duration::from_secs(3600);
            assert!(two[1] - two[0] >= hour, "{said:?}");
            assert!(two[1] - two[0] <= hour + LOOK_EVERY, "{said:?}");
        }
    }

    #[test]
    fn a_slip_finds_the_name_that_was_meant_and_numbers_are_no_slips() {
        let heard = Heard::default();
        for name in ["game-01", "game-02", "till-7"] {
            heard.add(&BackendId::parse(name).expect("an id"));
        }
        assert_eq!(heard.like("gmae-01").as_deref(), Some("game-01"));
        assert_eq!(heard.like("Game-02").as_deref(), Some("game-02"));
        assert_eq!(heard.like("game-03"), None);
        assert_eq!(heard.like("shop"), None);
        assert!(heard.lacks("game-03") && !heard.lacks("till-7"));
    }
}
