//! What the latest notifications carried, in bounded memory: shared with whoever still has them, copied by nobody.

use std::collections::{HashSet, VecDeque};
use std::fmt;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::notification::{Notification, NotificationId};

/// The most that are kept, however small: looking for one takes time for each.
const KEPT_MAX: usize = 4096;

/// What one takes beside its bytes.
const OVERHEAD_BYTES: usize = 256;

/// The latest, oldest first.
#[derive(Default)]
pub struct Contents {
    bytes_max: usize,
    kept: Mutex<StoredContents>,
}

#[derive(Default)]
struct StoredContents {
    notifications: VecDeque<Arc<Notification>>,
    bytes: usize,
}

impl fmt::Debug for Contents {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Contents({} bytes)", self.kept.lock().bytes)
    }
}

fn bytes_of(notification: &Notification) -> usize {
    OVERHEAD_BYTES + notification.head.capacity() + notification.body.capacity()
}

impl Contents {
    /// Nothing yet; never more than `bytes_max`.
    pub fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            kept: Mutex::default(),
        }
    }

    /// Keeps `notification`, at the cost of the oldest; not one that alone is too big.
    pub fn keep(&self, notification: &Arc<Notification>) {
        let bytes = bytes_of(notification);
        if bytes > self.bytes_max {
            return;
        }
        let mut forgotten = Vec::new(); // dropped after the lock
        let mut kept = self.kept.lock();
        kept.notifications.push_back(Arc::clone(notification));
        kept.bytes += bytes;
        while kept.bytes > self.bytes_max || kept.notifications.len() > KEPT_MAX {
            let Some(oldest) = kept.notifications.pop_front() else {
                break;
            };
            kept.bytes -= bytes_of(&oldest);
            forgotten.push(oldest);
        }
        drop(kept);
        drop(forgotten);
    }

    /// The notification called `id`, if it is kept.
    pub fn find(&self, id: NotificationId) -> Option<Arc<Notification>> {
        let kept = self.kept.lock();
        let mut newest_first = kept.notifications.iter().rev();
        newest_first.find(|one| one.id == id).map(Arc::clone)
    }

    /// Those that have `text` in their head or body.
    pub fn having(&self, text: &[u8]) -> HashSet<NotificationId> {
        // Looked through after the lock: every provider's answer waits for that.
        let all: Vec<_> = self
            .kept
            .lock()
            .notifications
            .iter()
            .map(Arc::clone)
            .collect();
        let having = all
            .iter()
            .filter(|one| is_in(text, &one.body) || is_in(text, &one.head));
        having.map(|one| one.id).collect()
    }
}

fn is_in(text: &[u8], bytes: &[u8]) -> bool {
    let Some(&first) = text.first() else {
        return true;
    };
    let mut rest = bytes;
    while let Some(at) = rest.iter().position(|&byte| byte == first) {
        rest = &rest[at..];
        if rest.starts_with(text) {
            return true;
        }
        rest = &rest[1..];
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::{BackendId, IdMint};

    #[test]
    fn the_latest_are_kept_within_the_bound() {
        let mint = IdMint::new(0);
        let carrying = |bytes: usize| {
            Arc::new(Notification {
                id: mint.mint(7),
                backend: BackendId::parse("a").expect("an id"),
                route: "r".into(),
                verified: "none".into(),
                event: None,
                event_proven: false,
                at_unix_ms: 7,
                tries: 1,
                head: Vec::new(),
                body: vec![b'x'; bytes],
            })
        };
        let contents = Contents::new(10 * (OVERHEAD_BYTES + 100));
        let all: Vec<_> = (0..11).map(|_| carrying(100)).collect();
        all.iter().for_each(|one| contents.keep(one));
        assert!(contents.find(all[0].id).is_none(), "the oldest is gone");
        assert_eq!(
            contents.find(all[10].id).map(|one| one.body.len()),
            Some(100)
        );
        assert_eq!(contents.kept.lock().bytes, 10 * (OVERHEAD_BYTES + 100));
        assert_eq!(contents.having(b"xxx").len(), 10);
        assert!(contents.having(b"xy").is_empty() && is_in(b"aab", b"aaab") && !is_in(b"ab", b"a"));
        let big = carrying(100_000);
        contents.keep(&big);
        assert!(contents.find(big.id).is_none() && contents.find(all[10].id).is_some());
        let none = Contents::new(0);
        none.keep(&all[0]);
        assert!(none.find(all[0].id).is_none());
    }
}
