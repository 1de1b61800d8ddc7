//! A request as it is judged, and what of it waits beside the link while its head is on the way to a worker.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::edge::Responder;
use crate::lock::Mutex;

/// The header with the number of the request. No peer can send it: every incoming `x-payrelay-*` header is dropped.
pub const NUMBER_HEADER: &str = "x-payrelay-request";

/// The header that marks the link's proof; the worker that gets it says so with its value.
pub const PROOF_HEADER: &str = "x-payrelay-proof";

/// The header with the peer's address, of the link's making.
pub const PEER_HEADER: &str = "x-payrelay-peer";

/// Stands in place of a header whose value is not ASCII, and names it; no request from outside can carry it.
pub const NOT_ASCII_HEADER: &str = "x-payrelay-not-ascii";

/// A request's head as it is judged: whole, checked, and without what concerns its last hop only.
#[derive(Clone, Copy)]
pub struct RequestView<'a> {
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
impl fmt::Debug for RequestView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "RequestView({}, {} headers)",
            self.method,
            self.headers.len()
        )
    }
}

/// What is kept of a request while its head is on its way to a worker.
pub struct PendingRequest {
    /// The whole body.
    pub body: Vec<u8>,
    /// The right to answer.
    pub responder: Responder,
}

/// The pending requests by number. Each connection has one at most, so `http.max_connections` bounds them.
#[derive(Default)]
pub struct PendingRequests {
    next: AtomicU64,
    waiting: Mutex<HashMap<u64, PendingRequest>>,
}

impl PendingRequests {
    /// Keeps `request`, and says under which number.
    pub fn put(&self, request: PendingRequest) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.waiting.lock().insert(number, request);
        number
    }

    /// The request of that number, if it was not taken before.
    pub fn take(&self, number: u64) -> Option<PendingRequest> {
        self.waiting.lock().remove(&number)
    }

    /// Drops them all, which answers each 503: their heads were lost.
    pub fn drop_all(&self) {
        let lost = std::mem::take(&mut *self.waiting.lock());
        drop(lost); // outside the lock: it answers
    }
}

impl fmt::Debug for PendingRequests {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PendingRequests({})", self.waiting.lock().len())
    }
}
