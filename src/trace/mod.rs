//! What became of the latest notifications, in memory: a bounded ring that forgets the oldest.
//!
//! Every notification passes here once, when its provider is answered, so one is short and costs one lock. What was
//! stored has a fuller history on disk. Beside the ring: what the latest of them carried (`contents`), and how the last
//! hour went (`hour`).

mod contents;
mod hour;

use std::borrow::Cow;
use std::collections::{BTreeMap, HashSet, VecDeque};
use std::sync::Arc;

use parking_lot::Mutex;

use self::contents::Contents;
use self::hour::Hour;
pub use self::hour::{ACK_MS, MINUTES, Minute};
use crate::envelope::Sent;
use crate::notification::{BackendId, Notification, NotificationId, Outcome};
use crate::timeline::Timeline;

/// How many are remembered; some 130 bytes each, or 220 with an event.
const RECORDS_MAX: usize = 16_384;

/// How many are looked at with the lock held: providers' answers wait for it.
const LOOKED_AT_ONCE: usize = 512;

/// What a record says was verified by nobody.
const UNVERIFIED: &str = "none";

/// What became of one notification.
#[derive(Clone, Debug)]
pub struct Record {
    pub id: NotificationId,
    pub backend: BackendId,
    pub route: Arc<str>,
    pub verified: Cow<'static, str>,
    pub event: Option<Box<str>>,
    /// When it was taken, in Unix milliseconds.
    pub at_unix_ms: u64,
    /// The MSG, if it became one.
    pub sent: Option<Sent>,
    /// What was concluded, and when, in Unix milliseconds; `None`: its provider waits.
    pub concluded: Option<(Outcome, u64)>,
    /// More about the conclusion.
    pub why: Option<Box<str>>,
}

impl Record {
    /// The beginning of a record.
    pub fn of(notification: &Notification) -> Self {
        Self {
            id: notification.id,
            backend: notification.backend.clone(),
            route: Arc::clone(&notification.route),
            verified: notification.verified.clone(),
            event: notification.event.clone(),
            at_unix_ms: notification.at_unix_ms,
            sent: None,
            concluded: None,
            why: None,
        }
    }

    /// The steps up to the conclusion, which is not among them.
    pub fn beginning(&self) -> Timeline {
        let mut timeline = Timeline::default();
        timeline.add(
            self.at_unix_ms,
            "received",
            &format!("route={}", self.route),
        );
        if self.verified != UNVERIFIED {
            timeline.add(self.at_unix_ms, "verified", &self.verified);
        }
        if let Some(sent) = self.sent {
            let detail = format!("try=1 session={}", sent.session);
            timeline.add(sent.at_unix_ms, "sent", &detail);
        }
        timeline
    }

    /// All steps.
    pub fn timeline(&self) -> Timeline {
        let mut timeline = self.beginning();
        if let Some((outcome, at)) = self.concluded {
            let why = self.why.as_deref().unwrap_or_default();
            match outcome {
                Outcome::Delivered => timeline.add(at, "acked", ""),
                Outcome::Refused => timeline.add(at, "nacked", why),
                Outcome::Stored
                | Outcome::Duplicate
                | Outcome::Offline
                | Outcome::TimedOut
                | Outcome::Busy
                | Outcome::Unreachable
                | Outcome::Draining => {}
            }
            let told = if outcome.is_ok() { "ok" } else { "fail" };
            let detail = match (outcome, why) {
                (Outcome::Refused, _) | (_, "") => format!("{told} ({})", outcome.as_str()),
                (outcome, why) => format!("{told} ({}): {why}", outcome.as_str()),
            };
            timeline.add(at, "answered", &detail);
        }
        timeline
    }

    /// Whether this is what somebody means by `key`: an id, or an event.
    pub fn is(&self, key: &str) -> bool {
        self.event.as_deref() == Some(key) || NotificationId::parse(key) == Some(self.id)
    }
}

/// A record as it is kept: 96 bytes instead of 160, of thousands of which most have nothing in `more`.
#[derive(Debug)]
struct StoredTrace {
    id: NotificationId,
    backend: BackendId,
    route: Arc<str>,
    at_unix_ms: u64,
    /// 0: it did not become a MSG.
    sent_at_unix_ms: u64,
    session: u64,
    concluded_at_unix_ms: u64,
    outcome: Option<Outcome>,
    more: Option<Box<More>>,
}

#[derive(Debug)]
struct More {
    verified: Cow<'static, str>,
    event: Option<Box<str>>,
    why: Option<Box<str>>,
}

impl StoredTrace {
    fn of(record: Record) -> Self {
        let more = More {
            verified: record.verified,
            event: record.event,
            why: record.why,
        };
        let plain = more.verified == UNVERIFIED && more.event.is_none() && more.why.is_none();
        Self {
            id: record.id,
            backend: record.backend,
            route: record.route,
            at_unix_ms: record.at_unix_ms,
            sent_at_unix_ms: record.sent.map_or(0, |sent| sent.at_unix_ms),
            session: record.sent.map_or(0, |sent| sent.session),
            concluded_at_unix_ms: record.concluded.map_or(0, |(_, at)| at),
            outcome: record.concluded.map(|(outcome, _)| outcome),
            more: (!plain).then(|| Box::new(more)),
        }
    }

    fn record(&self) -> Record {
        let more = self.more.as_deref();
        Record {
            id: self.id,
            backend: self.backend.clone(),
            route: Arc::clone(&self.route),
            verified: more.map_or(UNVERIFIED.into(), |more| more.verified.clone()),
            event: more.and_then(|more| more.event.clone()),
            at_unix_ms: self.at_unix_ms,
            sent: (self.sent_at_unix_ms > 0).then_some(Sent {
                at_unix_ms: self.sent_at_unix_ms,
                session: self.session,
            }),
            concluded: self
                .outcome
                .map(|outcome| (outcome, self.concluded_at_unix_ms)),
            why: more.and_then(|more| more.why.clone()),
        }
    }

    fn event(&self) -> Option<&str> {
        self.more.as_ref()?.event.as_deref()
    }
}

/// The ring, and what belongs to it.
#[derive(Debug, Default)]
pub struct Trace {
    ring: Mutex<Ring>,
    contents: Contents,
}

#[derive(Debug, Default)]
struct Ring {
    records: VecDeque<StoredTrace>,
    /// How many were ever added.
    added: u64,
    hour: Hour,
}

impl Trace {
    /// A trace that keeps what the latest notifications carried, `contents_bytes_max` at most.
    pub fn new(contents_bytes_max: usize) -> Self {
        Self {
            ring: Mutex::default(),
            contents: Contents::new(contents_bytes_max),
        }
    }

    /// Remembers `record`, at the cost of the oldest; `carried`: what it is about, if that is not kept elsewhere.
    pub fn add(&self, record: Record, carried: Option<&Arc<Notification>>) {
        if let Some(carried) = carried {
            self.contents.keep(carried);
        }
        let concluded = record.concluded;
        let sent_at = record.sent.map(|sent| sent.at_unix_ms);
        let record = StoredTrace::of(record);
        let mut ring = self.ring.lock();
        let forgotten = match ring.records.len() < RECORDS_MAX {
            true => None,
            false => ring.records.pop_front(),
        };
        ring.records.push_back(record);
        ring.added += 1;
        if let Some((outcome, at)) = concluded {
            ring.hour.count(outcome, at, sent_at);
        }
        drop(ring);
        drop(forgotten);
    }

    /// How many were ever added: another number than before means that there is something new.
    pub fn added(&self) -> u64 {
        self.ring.lock().added
    }

    /// The records that somebody means by `key`, newest first, `limit` at most.
    pub fn find(&self, key: &str, limit: usize) -> Vec<Record> {
        let id = NotificationId::parse(key);
        let mut found = Vec::new();
        self.look(|record| {
            let meant = record.event() == Some(key) || (id.is_some() && id == Some(record.id));
            if meant {
                found.push(record.record());
            }
            found.len() < limit
        });
        found
    }

    /// The newest records that `wanted` lets through, by their ids, newest first: `limit` at most.
    pub fn newest(&self, limit: usize, mut wanted: impl FnMut(&Record) -> bool) -> Vec<Record> {
        // By id, because they are added in the order in which they ended, not in which they came.
        let mut best = BTreeMap::new();
        self.look(|kept| {
            let full = best.len() >= limit;
            let too_old = full
                && best
                    .first_key_value()
                    .is_none_or(|(least, _)| kept.id <= *least);
            if !too_old {
                let record = kept.record();
                if wanted(&record) {
                    best.insert(record.id, record);
                    if full {
                        best.pop_first();
                    }
                }
            }
            true
        });
        best.into_values().rev().collect()
    }

    /// What the notification called `id` carried, if that is still kept.
    pub fn carried(&self, id: NotificationId) -> Option<Arc<Notification>> {
        self.contents.find(id)
    }

    /// Those whose head or body has `text` in it, of those that are kept.
    pub fn carrying(&self, text: &[u8]) -> HashSet<NotificationId> {
        self.contents.having(text)
    }

    /// The latest minutes in which something ended, oldest first; [`MINUTES`] at most.
    pub fn minutes(&self, now_unix_ms: u64) -> Vec<Minute> {
        self.ring.lock().hour.minutes(now_unix_ms)
    }

    /// Shows every record to `go_on`, newest first, until it says no. The lock is let go of now and then; what is added
    /// meanwhile is not shown.
    fn look(&self, mut go_on: impl FnMut(&StoredTrace) -> bool) {
        let mut before = u64::MAX;
        loop {
            let ring = self.ring.lock();
            let first = ring.added - ring.records.len() as u64;
            let last = before.min(ring.added);
            let from = last.saturating_sub(LOOKED_AT_ONCE as u64).max(first);
            for at in (from..last).rev() {
                let Some(record) = ring.records.get((at - first) as usize) else {
                    return;
                };
                if !go_on(record) {
                    return;
                }
            }
            if from <= first {
                return;
            }
            before = from;
        }
    }
}

#[cfg(test)]
mod tests;
