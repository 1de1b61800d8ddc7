//! Stored notifications on their way to another file or machine: one JSON object each, with the times as spans from now, so
//! that the clock of where they are read does not matter. And a new database made of such.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE_64;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::Outbox;
use super::clock::Moment;
use super::count_delta::CountDelta;
use super::error::{AskError, OpenCause, OpenError};
use super::file;
use super::filter::Filter;
use super::ops::ROWS_AT_ONCE;
use super::paths;
use super::rows::{self, HELD, Payload, Row, State};
use crate::escape::{hex, unhex};
use crate::notification::{BackendId, EventKey, Notification, NotificationId, unix_ms};

/// The version of the form below. Members may be added to it; what is removed or changes its meaning makes the next one.
pub const FORMAT: u32 = 1;

/// One stored notification.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Exported {
    /// [`FORMAT`]
    pub format: u32,
    pub id: String,
    pub backend: String,
    pub route: String,
    pub verified: String,
    pub event: Option<String>,
    /// 32 hexadecimal digits: by what its provider's retry is known.
    pub event_key: Option<String>,
    /// When it was taken, in Unix milliseconds.
    pub at: u64,
    /// `pending`, `done` or `dead`
    pub state: String,
    pub tries: u32,
    pub stored_ago_ms: i64,
    /// Not to be sent before; 0: at once.
    pub due_in_ms: i64,
    /// Pending: when it expires; done: when it is deleted; dead: when it died.
    pub turn_in_ms: i64,
    pub why: String,
    /// The timeline, one line a step: Unix milliseconds, a word, more of it.
    pub steps: String,
    /// Request line and headers that are forwarded, in base 64; `None`: damaged on disk.
    pub head: Option<String>,
    /// The body, in base 64; `None`: damaged on disk.
    pub body: Option<String>,
}

/// Why a notification cannot be taken over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadImport {
    /// Its [`Exported::format`].
    Format(u32),
    /// The member that does not hold what it should.
    Member(&'static str),
    /// It was damaged where it came from.
    Damaged,
}

impl std::fmt::Display for BadImport {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Format(format) => write!(
                f,
                "format {format} is not known here (only {FORMAT}); a later payrelay wrote it, use that one"
            ),
            Self::Member(name) => write!(f, "{name} does not hold what it should"),
            Self::Damaged => f.write_str("its content was damaged on disk where it came from"),
        }
    }
}

impl std::error::Error for BadImport {}

impl Outbox {
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
}

impl Exported {
    /// What stands in `row`, at `now_ms` of the outbox's time.
    pub fn of(row: &Row, payload: Option<Payload>, now_ms: i64) -> Self {
        let (head, body) = match payload {
            None => (None, None),
            Some(payload) => (
                Some(BASE_64.encode(payload.head)),
                Some(BASE_64.encode(payload.body)),
            ),
        };
        Self {
            format: FORMAT,
            id: row.id.to_string(),
            backend: row.backend.clone(),
            route: row.route.clone(),
            verified: row.verified.clone(),
            event: row.event.clone(),
            event_key: row.key.as_ref().map(|key| hex(key.bytes())),
            at: row.at_unix_ms,
            state: row.state.as_str().to_owned(),
            tries: row.tries,
            stored_ago_ms: now_ms.saturating_sub(row.stored_ms),
            due_in_ms: match row.due {
                HELD => 0, // no session of another relay has it in hand
                due => due.saturating_sub(now_ms).max(0),
            },
            turn_in_ms: row.turn_ms.saturating_sub(now_ms),
            why: row.why.clone(),
            steps: row.timeline.to_text(),
            head,
            body,
        }
    }

    /// How much of a request or an answer it takes, about.
    pub fn bytes(&self) -> usize {
        let carried = |text: &Option<String>| text.as_ref().map_or(0, String::len);
        carried(&self.head) + carried(&self.body) + self.steps.len() + self.why.len() + 512
    }

    /// Adds it to a database, at `now_ms` of its time.
    ///
    /// # Errors
    /// [`rows::insert`]'s.
    pub(super) fn insert(
        parsed: &Parsed,
        c: &Connection,
        now_ms: i64,
        delta: &mut CountDelta,
    ) -> rusqlite::Result<i64> {
        let one = &parsed.exported;
        let due_ms = match one.due_in_ms {
            ..=0 => 0,
            wait => now_ms.saturating_add(wait),
        };
        let new = rows::NewRow {
            notification: &parsed.notification,
            key: parsed.key,
            state: parsed.state,
            tries: one.tries,
            due: due_ms,
            stored_ms: now_ms.saturating_sub(one.stored_ago_ms),
            turn_ms: now_ms.saturating_add(one.turn_in_ms),
            why: &one.why,
            steps: &one.steps,
        };
        rows::insert(c, &new, delta)
    }

    /// Reads what it says.
    ///
    /// # Errors
    /// It is of another format, or a member is not what it should be.
    pub fn parse(self) -> Result<Parsed, BadImport> {
        if self.format != FORMAT {
            return Err(BadImport::Format(self.format));
        }
        let (Some(head), Some(body)) = (&self.head, &self.body) else {
            return Err(BadImport::Damaged);
        };
        let bytes = |text: &str, name| BASE_64.decode(text).map_err(|_| BadImport::Member(name));
        let (head, body) = (bytes(head, "head")?, bytes(body, "body")?);
        self.with_payload(head, body)
    }

    /// The same, with what it carries beside it.
    ///
    /// # Errors
    /// A member is not what it should be.
    pub(super) fn with_payload(self, head: Vec<u8>, body: Vec<u8>) -> Result<Parsed, BadImport> {
        let key = match &self.event_key {
            None => None,
            Some(digits) => Some(
                unhex(digits)
                    .and_then(|key| key.try_into().ok())
                    .ok_or(BadImport::Member("event_key"))?,
            ),
        };
        let notification = Notification {
            id: NotificationId::parse(&self.id).ok_or(BadImport::Member("id"))?,
            backend: BackendId::parse(&self.backend).map_err(|_| BadImport::Member("backend"))?,
            route: self.route.as_str().into(),
            verified: self.verified.clone().into(),
            event: self.event.as_deref().map(Into::into),
            event_proven: false,
            at_unix_ms: self.at,
            tries: self.tries,
            head,
            body,
        };
        Ok(Parsed {
            state: State::parse(&self.state).ok_or(BadImport::Member("state"))?,
            key: key.map(EventKey::from_bytes),
            notification,
            exported: self,
        })
    }
}

/// A notification that can be taken over.
pub struct Parsed {
    pub(super) exported: Exported,
    pub(super) notification: Notification,
    pub(super) state: State,
    pub(super) key: Option<EventKey>,
}

impl Parsed {
    /// Its id.
    pub(super) fn id(&self) -> NotificationId {
        self.notification.id
    }
}

/// A new database, which a relay can be started on once it is finished.
pub struct DatabaseCopy {
    connection: Connection,
    path: PathBuf,
    part: PathBuf,
    now_ms: i64,
}

impl DatabaseCopy {
    /// Begins a database at `path`, which must not be there; it appears there when it is finished.
    ///
    /// # Errors
    /// There is something, or the directory cannot be used.
    pub fn begin(path: &Path) -> Result<Self, OpenError> {
        let fail = |cause| OpenError {
            path: path.to_owned(),
            cause,
        };
        if path.symlink_metadata().is_ok() {
            let exists = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(fail(OpenCause::Directory(exists)));
        }
        let part = paths::beside(path, ".part");
        let connection = file::create(&part).map_err(fail)?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            part,
            now_ms: i64::try_from(unix_ms()).unwrap_or(i64::MAX),
        })
    }

    /// Adds some notifications.
    ///
    /// # Errors
    /// SQLite's: the disk is full, most likely.
    pub fn add(&mut self, some: &[Parsed]) -> rusqlite::Result<()> {
        let tx = self.connection.transaction()?;
        let mut delta = CountDelta::default();
        for one in some {
            Exported::insert(one, &tx, self.now_ms, &mut delta)?;
        }
        let now = Moment {
            clock_ms: self.now_ms,
            ..Moment::default()
        };
        delta.write(&tx, now)?;
        tx.commit()
    }

    /// Gives it up.
    pub fn discard(self) {
        drop(self.connection);
        for ending in ["", "-wal"] {
            let _ = fs::remove_file(paths::beside(&self.part, ending)); // the log is there no more, as a rule
        }
    }

    /// Ends it: it is whole, synced, and at its place.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn finish(self) -> Result<(), OpenError> {
        let fail = |cause| OpenError {
            path: self.path.clone(),
            cause,
        };
        let closed = self.connection.close().map_err(|(_, error)| error);
        closed.map_err(|error| fail(OpenCause::Sqlite(error)))?;
        file::publish(&self.part, &self.path).map_err(|error| fail(OpenCause::Directory(error)))
    }
}
