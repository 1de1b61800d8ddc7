//! The inbox of the redelivery thread: receipts, written changes and arrivals. Adding to it never waits.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use parking_lot::{Condvar, Mutex};

use super::store::unknown::Heard;
use crate::bus::{Arrivals, LateReceipt};
use crate::envelope::{Receipts, Sent};
use crate::notification::{BackendId, NotificationId, Receipt};

/// Names beyond this are not remembered one by one; then every backend is looked at.
const NAMES_MAX: usize = 4096;

/// The most late receipts that wait. One that is dropped costs a redelivery.
const LATE_MAX: usize = 8192;

/// What has come since the redelivery thread last looked.
///
/// Each list is bounded by what is under way: a receipt comes once for each envelope, a written row once for each change.
#[derive(Debug, Default)]
pub struct News {
    /// Of redeliveries.
    pub receipts: Vec<(NotificationId, Receipt)>,
    /// Of what was stored while a session had it in hand.
    pub held: Vec<HeldReceipt>,
    /// Of tries that were given up here and were sent all the same.
    pub late: Vec<LateReceipt>,
    /// Changes that are on disk now.
    pub written: Vec<Written>,
    /// Backends that have come.
    pub here: Names,
    /// Backends for which something was stored.
    pub stored: Names,
    /// Backends for which something is to be tried at once, whether they are connected or not.
    pub retried: Names,
    /// The writer has panicked: what it was told to write may not be on disk.
    pub start_over: bool,
    /// Send nothing more; what is under way may still be told of.
    pub pause: bool,
    /// End.
    pub stop: bool,
}

/// What came of a notification that was stored while a session had it in hand.
#[derive(Debug)]
pub struct HeldReceipt {
    /// Its row.
    pub seq: i64,
    /// What came of it.
    pub receipt: Receipt,
    /// The MSG, if it became one.
    pub sent: Option<Sent>,
}

/// A change that is on disk.
#[derive(Debug)]
pub struct Written {
    pub seq: i64,
    pub backend: BackendId,
    /// When it is to be sent again, in the outbox's time; `None`: never.
    pub due: Option<i64>,
}

/// A few backends, or all of them.
#[derive(Debug, Default)]
pub struct Names {
    pub some: HashSet<BackendId>,
    pub all: bool,
}

impl Names {
    /// Adds `backend`; says whether that is news.
    fn add(&mut self, backend: &BackendId) -> bool {
        if self.all || self.some.contains(backend) {
            return false;
        }
        if self.some.len() < NAMES_MAX {
            return self.some.insert(backend.clone());
        }
        self.all = true;
        self.some.clear();
        true
    }
}

/// The inbox of the redelivery thread.
#[derive(Debug, Default)]
pub struct Inbox {
    news: Mutex<News>,
    arrived: Condvar,
    /// How many notifications are pending: with none, nobody's arrival matters.
    pending: AtomicU64,
    heard: Heard,
    /// How many redeliveries are under way.
    in_flight: AtomicUsize,
}

impl Inbox {
    /// Takes what has come; waits for something until `wake`, or for good.
    pub fn wait(&self, wake: Option<Instant>) -> News {
        let mut news = self.news.lock();
        while news.is_empty() {
            match wake {
                None => self.arrived.wait(&mut news),
                Some(wake) => {
                    if self.arrived.wait_until(&mut news, wake).timed_out() {
                        break;
                    }
                }
            }
        }
        let (pause, stop) = (news.pause, news.stop);
        let taken = std::mem::take(&mut *news);
        (news.pause, news.stop) = (pause, false);
        News {
            pause,
            stop,
            ..taken
        }
    }

    fn tell(&self, add: impl FnOnce(&mut News) -> bool) {
        let mut news = self.news.lock();
        let wake = add(&mut news);
        drop(news);
        if wake {
            self.arrived.notify_one();
        }
    }

    /// A session has told what came of a notification that was stored while it had it.
    pub fn held(&self, receipt: HeldReceipt) {
        self.tell(|news| {
            news.held.push(receipt);
            true
        });
    }

    /// Whether the thread has taken everything that it was told.
    #[cfg(test)]
    pub fn is_taken(&self) -> bool {
        self.news.lock().is_empty()
    }

    /// These changes are on disk; something was stored for these backends, and is to be tried again at once for those.
    pub fn written(&self, written: Vec<Written>, stored: &[BackendId], retried: &[BackendId]) {
        self.tell(|news| {
            let mut wake = !written.is_empty();
            news.written.extend(written);
            for backend in stored {
                wake |= news.stored.add(backend);
            }
            for backend in retried {
                wake |= news.retried.add(backend);
            }
            wake
        });
    }

    /// From now on there are so many pending.
    pub fn set_pending(&self, pending: u64) {
        self.pending.store(pending, Ordering::Relaxed);
    }

    /// The backends that have come since the start.
    pub fn heard(&self) -> &Heard {
        &self.heard
    }

    /// So many redeliveries are under way.
    pub fn set_in_flight(&self, count: usize) {
        self.in_flight.store(count, Ordering::Relaxed);
    }

    /// How many redeliveries were under way when the thread last waited.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Nothing more is to be sent.
    pub fn pause(&self) {
        self.tell(|news| {
            news.pause = true;
            false
        });
    }

    /// What was to be written may be lost: redelivery reads anew what is on disk.
    pub fn start_over(&self) {
        self.tell(|news| {
            news.start_over = true;
            true
        });
    }

    /// The redelivery thread is to end.
    pub fn stop(&self) {
        self.tell(|news| {
            news.stop = true;
            true
        });
    }
}

impl News {
    fn is_empty(&self) -> bool {
        self.receipts.is_empty()
            && self.held.is_empty()
            && self.late.is_empty()
            && self.written.is_empty()
            && self.here.some.is_empty()
            && self.stored.some.is_empty()
            && self.retried.some.is_empty()
            && !self.here.all
            && !self.stored.all
            && !self.retried.all
            && !self.start_over
            && !self.stop
    }
}

impl Receipts for Inbox {
    fn receipt(&self, id: NotificationId, receipt: Receipt) {
        self.tell(|news| {
            news.receipts.push((id, receipt));
            true
        });
    }
}

impl Arrivals for Inbox {
    fn here(&self, backend: &BackendId) {
        self.heard.add(backend);
        // Most arrivals find nothing to be delivered. What is stored a moment later is tried after `retry_first`.
        if self.pending.load(Ordering::Relaxed) > 0 {
            self.tell(|news| news.here.add(backend));
        }
    }

    fn late(&self, late: LateReceipt) {
        if self.pending.load(Ordering::Relaxed) > 0 {
            self.tell(|news| {
                if news.late.len() < LATE_MAX {
                    news.late.push(late);
                }
                true
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_matter_only_while_something_is_pending_and_are_bounded() {
        let inbox = Inbox::default();
        let name = |n: usize| BackendId::parse(&format!("b-{n}")).expect("an id");
        inbox.here(&name(0));
        assert!(inbox.news.lock().is_empty());
        inbox.set_pending(1);
        for n in 0..NAMES_MAX + 10 {
            inbox.here(&name(n));
        }
        let news = inbox.wait(None);
        assert!(news.here.all && news.here.some.is_empty());
        inbox.here(&name(1));
        inbox.here(&name(1));
        let news = inbox.wait(None);
        assert!(!news.here.all && news.here.some.len() == 1);
        assert!(inbox.wait(Some(Instant::now())).is_empty());
    }
}
