//! What the subscriber of a link is asked to look at.

use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;

use crate::bus::types::{Ready, Topic};

/// Topics that the subscriber is to look at.
#[derive(Default)]
pub struct Requests {
    inner: Mutex<Inner>,
    some: AtomicBool,
}

#[derive(Default)]
struct Inner {
    /// The subscriber has a connection. Without one it looks at everything once it has.
    open: bool,
    /// Each comes from a session or a listener that came or went, and waits for one round trip.
    list: Vec<(Topic, Option<Ready>)>,
}

impl Requests {
    /// Adds `topic`; `false`: there is no connection, and `ready` was dropped.
    pub fn add(&self, topic: Topic, ready: Option<Ready>) -> bool {
        let mut inner = self.inner.lock();
        if inner.open {
            inner.list.push((topic, ready));
            self.some.store(true, Ordering::Release);
        }
        inner.open
    }

    /// The subscriber has a connection.
    pub fn open(&self) {
        self.inner.lock().open = true;
    }

    /// Takes what was added.
    pub fn take(&self) -> Vec<(Topic, Option<Ready>)> {
        if !self.some.swap(false, Ordering::Acquire) {
            return Vec::new();
        }
        std::mem::take(&mut self.inner.lock().list)
    }

    /// The connection is lost: nobody is kept waiting for it.
    pub fn close(&self) {
        let left = {
            let mut inner = self.inner.lock();
            inner.open = false;
            std::mem::take(&mut inner.list)
        };
        for ready in left.into_iter().filter_map(|(_, ready)| ready) {
            ready();
        }
    }
}
