//! The answers that HTTP peers are owed, by number.
//!
//! A request goes to the tiny_http pool through a lane of bytes; the means to answer it stay here meanwhile, under a number
//! that travels with the request. Whoever holds a [`Claim`] can answer from any thread, once. Knows neither sockets nor
//! routes.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a claim is kept for whoever will answer. Longer than any `delivery.ack_deadline`, so its peer has long been told.
const KEPT_MAX: Duration = Duration::from_secs(120);

/// What a peer is answered. Date, Content-Length and Connection are added on the way out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reply {
    /// The status, 200 to 599.
    pub status: u16,
    /// Header lines, CRLF after each; none of Content-Length, Connection, Date.
    pub head: Vec<u8>,
    /// The body; to a HEAD too, where it is left out on the way.
    pub body: Vec<u8>,
}

/// The means to answer one request. It must not wait. Dropping it unused leaves the peer to its own deadline, unless what
/// is in it says better.
pub type Claim = Box<dyn FnOnce(Reply) + Send>;

/// Claims that are on their way to whoever will answer.
#[derive(Default)]
pub struct Claims {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, (Instant, Claim)>>,
}

impl Claims {
    /// Keeps `claim` until it is asked for, and says under which number.
    pub fn leave(&self, claim: Claim) -> u64 {
        self.leave_at(Instant::now(), claim)
    }

    fn leave_at(&self, now: Instant, claim: Claim) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        open.insert(number, (now, claim));
        // One whose request was lost on the way would keep its connection and its place for ever.
        let oldest = open.first_entry();
        let lost = oldest.filter(|entry| now.saturating_duration_since(entry.get().0) > KEPT_MAX);
        let lost = lost.map(|entry| entry.remove());
        drop(open);
        drop(lost); // outside the lock: it may answer
        number
    }

    /// The claim with that number; `None` if it was taken already, or taken back.
    pub fn take(&self, number: u64) -> Option<Claim> {
        self.open.lock().remove(&number).map(|(_, claim)| claim)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claims({} on their way)", self.open.lock().len())
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn claim(held: &Arc<()>) -> Claim {
        let held = Arc::clone(held);
        Box::new(move |_| drop(held))
    }

    #[test]
    fn a_claim_is_taken_once() {
        let claims = Claims::default();
        let held = Arc::new(());
        let (one, two) = (claims.leave(claim(&held)), claims.leave(claim(&held)));
        assert_ne!(one, two);
        assert!(claims.take(one).is_some() && claims.take(one).is_none());
        assert_eq!(Arc::strong_count(&held), 2);
    }

    #[test]
    fn a_claim_that_nobody_asks_for_is_not_kept_for_ever() {
        let claims = Claims::default();
        let (held, now) = (Arc::new(()), Instant::now());
        let lost = claims.leave_at(now, claim(&held));
        claims.leave_at(now + KEPT_MAX, claim(&held));
        assert_eq!(Arc::strong_count(&held), 3);
        let late = now + KEPT_MAX + Duration::from_millis(1);
        claims.leave_at(late, claim(&held));
        assert_eq!(Arc::strong_count(&held), 3);
        assert!(claims.take(lost).is_none());
    }
}
