//! What the log says of stored notifications that are not delivered: one line a backend and cause in ten seconds, with a count.

use log::Level;

use super::store::row::Row;
use crate::log_once::LogOncePer;
use crate::notification::{Notification, NotificationId};

/// The lines of one outbox.
#[derive(Debug, Default)]
pub struct OutboxLog {
    dead: LogOncePer<Cause>,
    tried: LogOncePer<Cause>,
}

/// A backend, and why it did not get something.
type Cause = (Box<str>, Box<str>);

impl OutboxLog {
    /// One was given up as soon as it came.
    pub fn dead_on_arrival(&self, notification: &Notification, why: &str) {
        let Notification {
            id, backend, route, ..
        } = notification;
        self.dead(*id, backend.as_str(), route, why);
    }

    /// `row` is given up.
    pub fn row_is_dead(&self, row: &Row, why: &str) {
        self.dead(row.id, &row.backend, &row.route, why);
    }

    fn dead(&self, id: NotificationId, backend: &str, route: &str, why: &str) {
        let line = format_args!("{id} for {backend} by {route} is a dead letter: {why}");
        self.dead.log(Level::Warn, &cause(backend, why), line);
    }

    /// The backend was sent `row` for the `tries`th time and has not acknowledged it; it will be sent again.
    pub fn tried(&self, row: &Row, tries: u32, why: &str) {
        let Row {
            id, backend, route, ..
        } = row;
        let line =
            format_args!("{id} for {backend} by {route}: {why} (try {tries}); it is sent again");
        self.tried.log(Level::Info, &cause(backend, why), line);
    }
}

fn cause(backend: &str, why: &str) -> Cause {
    (backend.into(), why.into())
}
