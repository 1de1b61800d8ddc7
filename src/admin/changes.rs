//! What operators have dropped and had forgotten lately. Beside the log nothing else knows of it, and a trace must tell.

use std::collections::VecDeque;

use parking_lot::Mutex;

use super::api::{TraceStep, Traced};
use crate::notification::{NotificationId, unix_ms};
use crate::outbox::Row;
use crate::trace::Record;

/// How many changes are remembered; a dropped notification takes about 1 KiB, what it carried is not kept.
const CHANGES_MAX: usize = 1024;

/// The latest changes, the oldest first.
#[derive(Debug, Default)]
pub struct Changes(Mutex<VecDeque<Change>>);

/// Something that an operator did.
#[derive(Debug)]
struct Change {
    at_unix_ms: u64,
    by: String,
    what: What,
}

#[derive(Debug)]
enum What {
    Dropped(Box<Row>),
    /// The event of this name.
    Forgotten(String),
}

impl Change {
    fn step(&self) -> TraceStep {
        let what = match self.what {
            What::Dropped(_) => "dropped",
            What::Forgotten(_) => "forgotten",
        };
        TraceStep {
            at: self.at_unix_ms,
            what: what.to_owned(),
            detail: format!("by {}", self.by),
        }
    }
}

impl Changes {
    /// `by` has dropped these.
    pub fn dropped(&self, rows: Vec<Row>, by: &str) {
        self.add(by, rows.into_iter().map(|row| What::Dropped(Box::new(row))));
    }

    /// `by` has had the event of this name forgotten.
    pub fn forgotten(&self, event: String, by: &str) {
        self.add(by, std::iter::once(What::Forgotten(event)));
    }

    fn add(&self, by: &str, added: impl Iterator<Item = What>) {
        let mut changes = self.0.lock();
        for what in added {
            if changes.len() == CHANGES_MAX {
                changes.pop_front();
            }
            changes.push_back(Change {
                at_unix_ms: unix_ms(),
                by: by.to_owned(),
                what,
            });
        }
    }

    /// The dropped ones that somebody means by `key`, an id or an event; `told` is what is known of the answers.
    pub fn find_dropped(&self, key: &str, told: &[Record]) -> Vec<Traced> {
        let id = NotificationId::parse(key);
        let changes = self.0.lock();
        let found = changes.iter().filter_map(|change| match &change.what {
            What::Dropped(row) if id == Some(row.id) || row.event.as_deref() == Some(key) => {
                let answered = told.iter().find(|record| record.id == row.id);
                let mut traced = Traced::of_row(row, answered);
                traced.seq = None;
                traced.state = "dropped".into();
                traced.timeline.push(change.step());
                Some(traced)
            }
            What::Dropped(_) | What::Forgotten(_) => None,
        });
        found.collect()
    }

    /// Adds to what is in no outbox that its event was forgotten since.
    pub fn add_forgotten(&self, traced: &mut Traced) {
        let changes = self.0.lock();
        let steps = changes.iter().filter(|change| match &change.what {
            What::Forgotten(event) => {
                traced.event.as_ref() == Some(event) && change.at_unix_ms >= traced.at
            }
            What::Dropped(_) => false,
        });
        let steps: Vec<TraceStep> = steps.map(Change::step).collect();
        traced.timeline.extend(steps);
    }
}
