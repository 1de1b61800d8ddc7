//! The answers that HTTP peers are owed, by number.
//!
//! A request goes to the tiny_http pool through a lane of bytes; the means to answer it stay here meanwhile, under a number
//! that travels with the request. Whoever holds a [`Claim`] can answer from any thread, once. Knows neither sockets nor
//! routes.

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

/// Claims that are on their way to whoever will answer.
#[derive(Default)]
pub struct Claims {
    next: AtomicU64,
    open: Mutex<HashMap<u64, Claim>>,
}

impl Claims {
    /// Keeps `claim` until it is asked for, and says under which number.
    pub fn leave(&self, claim: Claim) -> u64 {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, claim);
        number
    }

    /// The claim with that number; `None` if it was taken already, or taken back.
    pub fn take(&self, number: u64) -> Option<Claim> {
        self.open.lock().remove(&number)
    }
}

impl fmt::Debug for Claims {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Claims({} on their way)", self.open.lock().len())
    }
}
