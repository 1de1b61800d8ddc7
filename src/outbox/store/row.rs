//! One row of the database: what is known of a stored notification, and what it carries.

use rusqlite::Row as SqlRow;

use crate::notification::{BackendId, EventKey, Notification, NotificationId, digest_of};
use crate::timeline::Timeline;

/// The `due` of what a session has in hand: it is not to be sent before that session has told what came of it.
pub const HELD: i64 = i64::MAX;

/// Where a notification stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To be delivered.
    Pending = 0,
    /// Acknowledged; deleted after `outbox.keep`.
    Done = 1,
    /// Given up: an operator's to retry or to drop.
    Dead = 2,
}

impl State {
    /// The word in the command line, the admin API and the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Done => "done",
            Self::Dead => "dead",
        }
    }

    /// Reads the word back.
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Pending, Self::Done, Self::Dead]
            .into_iter()
            .find(|state| state.as_str() == word)
    }

    /// By its number in the database.
    pub fn of(number: i64) -> Self {
        match number {
            0 => Self::Pending,
            1 => Self::Done,
            _ => Self::Dead,
        }
    }
}

/// What is known of a notification beside what it carries.
#[derive(Clone, Debug)]
pub struct Row {
    pub seq: i64,
    pub id: NotificationId,
    pub backend: String,
    pub route: String,
    pub verified: String,
    pub event: Option<String>,
    pub key: Option<EventKey>,
    pub at_unix_ms: u64,
    pub state: State,
    pub tries: u32,
    pub due: i64,
    pub stored_ms: i64,
    pub turn_ms: i64,
    pub bytes: u64,
    /// Why it was not delivered, the last time.
    pub why: String,
    pub timeline: Timeline,
}

/// The columns that [`Row::read`] reads, of the table called n.
pub const COLUMNS: &str = "n.seq, n.id, n.backend, n.route, n.verified, n.event, n.event_key, n.at_ms, n.state, n.tries, \
                       n.due, n.stored_ms, n.turn_ms, n.bytes, n.why, n.steps";

impl Row {
    /// Reads [`COLUMNS`].
    pub fn read(row: &SqlRow<'_>) -> rusqlite::Result<Self> {
        let key: Option<[u8; 16]> = row.get(6)?;
        Ok(Self {
            seq: row.get(0)?,
            id: NotificationId::from_bytes(row.get(1)?),
            backend: row.get(2)?,
            route: row.get(3)?,
            verified: row.get(4)?,
            event: row.get(5)?,
            key: key.map(EventKey::from_bytes),
            at_unix_ms: row.get::<_, i64>(7)?.try_into().unwrap_or(0),
            state: State::of(row.get(8)?),
            tries: row.get(9)?,
            due: row.get(10)?,
            stored_ms: row.get(11)?,
            turn_ms: row.get(12)?,
            bytes: row.get::<_, i64>(13)?.try_into().unwrap_or(0),
            why: row.get(14)?,
            timeline: Timeline::from_text(row.get_ref(15)?.as_str()?),
        })
    }

    /// The notification with what it carries, to be sent as its next try. `None`: its backend's id is none.
    pub fn notification(&self, payload: Payload) -> Option<Notification> {
        Some(Notification {
            id: self.id,
            backend: BackendId::parse(&self.backend).ok()?,
            route: self.route.as_str().into(),
            verified: self.verified.clone().into(),
            event: self.event.as_deref().map(Into::into),
            event_proven: false,
            at_unix_ms: self.at_unix_ms,
            tries: self.tries.saturating_add(1),
            head: payload.head,
            body: payload.body,
        })
    }

    /// The check sum over what a backend is sent of it: what a disk has changed must not be delivered as a payment.
    pub fn digest(&self, payload: &Payload) -> [u8; 16] {
        digest_of(&[
            &self.id.to_bytes(),
            self.backend.as_bytes(),
            self.route.as_bytes(),
            self.verified.as_bytes(),
            self.event.as_deref().unwrap_or_default().as_bytes(),
            &self.at_unix_ms.to_be_bytes(),
            &payload.head,
            &payload.body,
        ])
    }
}

/// What a notification carries.
#[derive(Debug)]
pub struct Payload {
    pub head: Vec<u8>,
    pub body: Vec<u8>,
}
