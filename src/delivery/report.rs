//! What is remembered and logged of waits that have ended.

use std::sync::Arc;

use log::Level;

use super::table::Wait;
use crate::log_once::LogOncePer;
use crate::notification::{BackendId, Notification, Outcome, unix_ms};
use crate::trace::{Record, Trace};

/// Tells the trace, and the log what was not delivered.
pub struct Reporter {
    /// By backend, outcome and reason.
    undelivered: LogOncePer<(BackendId, Outcome, Box<str>)>,
    trace: Arc<Trace>,
}

impl Reporter {
    /// Tells `trace`.
    pub fn new(trace: Arc<Trace>) -> Self {
        Self {
            undelivered: LogOncePer::default(),
            trace,
        }
    }

    /// `wait` has ended with `outcome`.
    #[inline(never)]
    pub fn note(&self, wait: &Wait, outcome: Outcome, why: Option<Box<str>>) {
        if !matches!(outcome, Outcome::Delivered | Outcome::Duplicate) {
            self.log_undelivered(wait, outcome, why.as_deref());
        }
        let mut record = wait.record();
        record.concluded = Some((outcome, unix_ms()));
        record.why = why;
        // What is stored is on disk.
        let carried = (outcome != Outcome::Stored).then_some(&wait.notification);
        self.trace.add(record, carried);
    }

    /// One line a backend and cause in ten seconds.
    #[cold]
    fn log_undelivered(&self, wait: &Wait, outcome: Outcome, why: Option<&str>) {
        let Notification {
            id, backend, route, ..
        } = &*wait.notification;
        let told = match outcome {
            Outcome::Stored => "ok",
            _ => "to send again",
        };
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        let line = format_args!(
            "{id} for {backend} by {route}: {}{why}; its provider is told {told}",
            outcome.as_str()
        );
        let cause = (backend.clone(), outcome, why.as_str().into());
        self.undelivered.log(Level::Info, &cause, line);
    }

    /// The request of `record`, which had joined another one, has ended with `outcome`.
    pub fn note_joined(&self, mut record: Record, outcome: Outcome, why: &str) {
        record.concluded = Some((outcome, unix_ms()));
        record.why = Some(why.into());
        self.trace.add(record, None);
    }
}
