//! What of an HTTP request does not go through tiny_http: its body, and the means to answer it, by number.
//!
//! A request's head goes to the tiny_http pool through a lane; the rest stays here meanwhile, under a number that travels
//! with the head. So a body is copied once on its way, and whoever has a [`Claim`] can answer from any thread, once. Knows
//! neither sockets nor routes.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

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

/// What is kept of the requests whose heads are on their way to the workers.
#[derive(Default)]
pub struct Claims {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Kept>>,
}

impl Claims {
    /// Keeps `body` and `claim` until they are asked for, and says under which number.
    pub fn leave(&self, body: Vec<u8>, claim: Claim) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, Kept { body, claim });
        number
    }

    /// What is kept under that number; `None` if it was taken already, or taken back.
    pub fn take(&self, number: u64) -> Option<Kept> {
        self.open.lock().remove(&number)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claims({} on their way)", self.open.lock().len())
    }
}
