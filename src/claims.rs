//! What of an HTTP request does not go through tiny_http: its body, and the means to answer it, by number. And the counter,
//! where a request need not go through it at all.
//!
//! A request's head goes to the tiny_http pool through a lane; the rest stays here meanwhile, under a number that travels
//! with the head. So a body is copied once on its way, and whoever has a [`Claim`] can answer from any thread, once. Knows
//! neither sockets nor routes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// How long a claim is kept for whoever will answer. Longer than any `delivery.ack_deadline`, so its peer has long been told.
const KEPT_MAX: Duration = Duration::from_secs(120);

/// Stands in place of a header whose value is not ASCII, and names it; no request from outside can carry it.
pub const NOT_ASCII_HEADER: &str = "x-payrelay-not-ascii";

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

/// What is kept of a request while its head is on its way.
pub struct Kept {
    /// The whole body.
    pub body: Vec<u8>,
    /// The means to answer.
    pub claim: Claim,
}

/// A request's head as it may be judged: whole, checked, and without what concerns its last hop only.
#[derive(Clone, Copy)]
pub struct Asked<'a> {
    /// The method, as sent.
    pub method: &'a str,
    /// The target in origin form: `/path?query`.
    pub target: &'a str,
    /// The headers in the order sent, names as sent, values trimmed.
    pub headers: &'a [(&'a str, &'a str)],
    /// Who sent it, as far as that is known.
    pub peer: Option<IpAddr>,
}

/// Shows neither target nor headers: there may be a provider's secrets in them.
impl fmt::Debug for Asked<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Asked({}, {} headers)", self.method, self.headers.len())
    }
}

/// Where a request is served by whoever brings it, while a place is free.
pub trait Counter: Send + Sync {
    /// Serves `asked` on the caller's thread, without waiting for a backend; or gives `kept` back, if no place is free: then
    /// it goes to the workers.
    fn serve(&self, asked: &Asked<'_>, kept: Kept) -> Result<(), Kept>;
}

/// There is no counter: everything goes to the workers.
impl Counter for () {
    fn serve(&self, _asked: &Asked<'_>, kept: Kept) -> Result<(), Kept> {
        Err(kept)
    }
}

/// What is kept of the requests whose heads are on their way to the workers.
#[derive(Default)]
pub struct Claims {
    next: AtomicU64,
    open: Mutex<BTreeMap<u64, (Instant, Kept)>>,
}

impl Claims {
    /// Keeps `kept` until it is asked for, and says under which number.
    pub fn leave(&self, kept: Kept) -> u64 {
        self.leave_at(Instant::now(), kept)
    }

    fn leave_at(&self, now: Instant, kept: Kept) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut open = self.open.lock();
        open.insert(number, (now, kept));
        // One whose request was lost on the way would keep its connection and its place for ever.
        let oldest = open.first_entry();
        let lost = oldest.filter(|entry| now.saturating_duration_since(entry.get().0) > KEPT_MAX);
        let lost = lost.map(|entry| entry.remove());
        drop(open);
        drop(lost); // outside the lock: it may answer
        number
    }

    /// What is kept under that number; `None` if it was taken already, or taken back.
    pub fn take(&self, number: u64) -> Option<Kept> {
        self.open.lock().remove(&number).map(|(_, kept)| kept)
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

    fn kept(held: &Arc<()>) -> Kept {
        let held = Arc::clone(held);
        Kept {
            body: Vec::new(),
            claim: Box::new(move |_| drop(held)),
        }
    }

    #[test]
    fn a_claim_is_taken_once() {
        let claims = Claims::default();
        let held = Arc::new(());
        let now = Instant::now();
        let (one, two) = (
            claims.leave_at(now, kept(&held)),
            claims.leave_at(now, kept(&held)),
        );
        assert_ne!(one, two);
        assert!(claims.take(one).is_some() && claims.take(one).is_none());
        assert_eq!(Arc::strong_count(&held), 2);
    }

    #[test]
    fn a_claim_that_nobody_asks_for_is_not_kept_for_ever() {
        let claims = Claims::default();
        let (held, now) = (Arc::new(()), Instant::now());
        let lost = claims.leave_at(now, kept(&held));
        claims.leave_at(now + KEPT_MAX, kept(&held));
        assert_eq!(Arc::strong_count(&held), 3);
        let late = now + KEPT_MAX + Duration::from_millis(1);
        claims.leave_at(late, kept(&held));
        assert_eq!(Arc::strong_count(&held), 3);
        assert!(claims.take(lost).is_none());
    }
}
