//! Stored notifications on their way to another file or machine: one JSON object each, with the times as spans from now, so
//! that the clock of where they are read does not matter.

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE_64;
use rusqlite::Connection;
use serde::{Deserialize, Serialize};

use super::count_delta::CountDelta;
use super::row::{HELD, Payload, Row, State};
use super::rows;
use crate::escape::{hex, unhex};
use crate::notification::{BackendId, EventKey, Notification, NotificationId};

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
    pub(in crate::outbox) fn insert(
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
    pub(in crate::outbox) fn with_payload(
        self,
        head: Vec<u8>,
        body: Vec<u8>,
    ) -> Result<Parsed, BadImport> {
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
    pub(in crate::outbox) exported: Exported,
    pub(in crate::outbox) notification: Notification,
    pub(in crate::outbox) state: State,
    pub(in crate::outbox) key: Option<EventKey>,
}

impl Parsed {
    /// Its id.
    pub(in crate::outbox) fn id(&self) -> NotificationId {
        self.notification.id
    }
}
