//! Lanes: kept connections to the tiny_http pool, on a private unix socket.
//!
//! tiny_http strands connections that come in a burst and stops accepting for ever after one error, so lanes are opened
//! one at a time, each proven by a request before the next, and then reused: after the start it need not accept under
//! pressure. The heads of requests follow each other down a lane; nothing comes back up. The body and the means to answer are
//! left under a number that travels with the head, and whoever takes them pays the answer straight to the peer. So a lane is
//! never held by a large body or by a request that waits for a backend, and a few lanes are enough. Nothing here knows a
//! route.

mod head;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::net::Shutdown;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::bounded;
use parking_lot::Mutex;
use tempfile::TempDir;

pub use self::head::write as write_head;
use super::refusal::Refusal;
use super::socket::send_until;
use super::{Handler, Request, Ticket};
use crate::claims::{Asked, Claims, Counter, Kept, Reply};
use crate::fds::{FdBudget, FdPermit};

/// The header that carries the number of the request's claim. No peer can send it: every incoming `x-payrelay-*` header is
/// dropped.
pub const CLAIM_HEADER: &str = "x-payrelay-claim";

/// The header that marks a lane's proof; an HTTP worker answers a request that carries it with 204, whatever else it says.
pub const PROBE_HEADER: &str = "x-payrelay-lane";

/// Our end, and tiny_http's two (it duplicates its own).
const FDS_PER_LANE: usize = 3;

/// For lanes that are being replaced: tiny_http keeps one descriptor of a lost one until its worker lets go.
const FDS_SPARE: usize = 8;

/// How long the proof of a lane may take at the start.
const PROOF_DEADLINE: Duration = Duration::from_secs(5);

/// How long the proof of a replacement may take. Short: a provider may be waiting meanwhile.
const REPLACEMENT_DEADLINE: Duration = Duration::from_millis(500);

/// How long the pool may take to read a head. It reads without waiting for anything, so this is a sign of its end.
const SEND_DEADLINE: Duration = Duration::from_secs(5);

/// Room for the head of a usual request, in bytes.
const HEAD_BYTES_USUAL: usize = 512;

/// Why there are no lanes.
#[derive(Debug)]
pub enum LanesError {
    /// The private directory or the socket in it could not be made.
    Bed(io::Error),
    /// tiny_http did not take the listener; its words.
    Server(String),
    /// The budget has too few file descriptors for so many lanes.
    Descriptors {
        /// How many lanes there were to be.
        lanes: usize,
        /// How many descriptors that takes.
        needed: usize,
        /// How many are free.
        free: usize,
    },
    /// A lane could not be connected.
    Connect(io::Error),
    /// A lane was connected, but its proof was not answered with 204 in time: are the HTTP workers running?
    Unproven,
}

impl fmt::Display for LanesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bed(error) => {
                write!(
                    f,
                    "no private socket for the HTTP pool could be made in the temporary directory: {error}; \
                     set TMPDIR to a directory that this user may write to"
                )
            }
            Self::Server(words) => write!(f, "the HTTP pool did not start: {words}"),
            Self::Descriptors {
                lanes,
                needed,
                free,
            } => write!(
                f,
                "{lanes} lanes to the HTTP pool take {needed} file descriptors, and only {free} are left; \
                 raise the limit (LimitNOFILE, ulimit -n)"
            ),
            Self::Connect(error) => write!(f, "the HTTP pool could not be reached: {error}"),
            Self::Unproven => write!(f, "the HTTP pool did not answer its first request"),
        }
    }
}

impl std::error::Error for LanesError {}

/// The private directory with the socket in it. Keep it until the server and the lanes are gone: tiny_http ends its accept
/// thread by connecting to the socket once more. Dropping it removes the directory.
#[derive(Debug)]
pub struct LaneBed {
    path: PathBuf,
    _directory: TempDir,
}

impl LaneBed {
    /// Makes the socket and the server that listens on it. Start the HTTP workers on that, then [`LaneBed::open`].
    ///
    /// # Errors
    /// [`LanesError::Bed`] and [`LanesError::Server`].
    pub fn bind() -> Result<(Self, tiny_http::Server), LanesError> {
        let directory = tempfile::Builder::new()
            .prefix("payrelay-")
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(LanesError::Bed)?;
        let path = directory.path().join("lanes");
        let listener = UnixListener::bind(&path).map_err(LanesError::Bed)?;
        let server = tiny_http::Server::from_listener(listener, None)
            .map_err(|error| LanesError::Server(error.to_string()))?;
        let bed = Self {
            path,
            _directory: directory,
        };
        Ok((bed, server))
    }

    /// Opens `count` lanes, one at a time, each proven before the next. The workers take `claims` from where the lanes leave
    /// them; at most `in_flight_max` requests may be owed an answer at once. What `counter` has a place for goes down no lane.
    ///
    /// # Errors
    /// [`LanesError::Descriptors`], [`LanesError::Connect`] and [`LanesError::Unproven`].
    pub fn open(
        &self,
        count: usize,
        in_flight_max: usize,
        claims: Arc<Claims>,
        counter: Arc<dyn Counter>,
        fds: &FdBudget,
    ) -> Result<Lanes, LanesError> {
        let needed = count * FDS_PER_LANE + FDS_SPARE;
        let permit = fds.try_take(needed).ok_or(LanesError::Descriptors {
            lanes: count,
            needed,
            free: fds.free(),
        })?;
        let mut lanes = Lanes {
            lanes: Vec::with_capacity(count),
            next: AtomicUsize::new(0),
            in_flight: Arc::new(AtomicUsize::new(0)),
            in_flight_max,
            claims,
            counter,
            path: self.path.clone(),
            _permit: permit,
        };
        for _ in 0..count {
            let stream = lanes.open_one(PROOF_DEADLINE)?;
            lanes.lanes.push(Mutex::new(Some(stream)));
        }
        Ok(lanes)
    }
}

/// The lanes, as the handler of the public front.
pub struct Lanes {
    /// `None`: lost, to be replaced by whoever comes next.
    lanes: Vec<Mutex<Option<UnixStream>>>,
    /// Where the next request looks first.
    next: AtomicUsize,
    in_flight: Arc<AtomicUsize>,
    in_flight_max: usize,
    claims: Arc<Claims>,
    counter: Arc<dyn Counter>,
    path: PathBuf,
    // Given back after the lanes are closed.
    _permit: FdPermit,
}

/// A request's place among those in flight, given up when dropped.
struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Lanes {
    /// How many requests are owed an answer.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn take_place(&self) -> Option<Place> {
        let place = Place(Arc::clone(&self.in_flight));
        let before = self.in_flight.fetch_add(1, Ordering::Relaxed);
        (before < self.in_flight_max).then_some(place)
    }

    fn open_one(&self, deadline: Duration) -> Result<UnixStream, LanesError> {
        let stream = UnixStream::connect(&self.path).map_err(LanesError::Connect)?;
        // Nothing is to come back. If tiny_http should say something all the same, it fails there and fills no buffer here.
        stream
            .shutdown(Shutdown::Read)
            .map_err(LanesError::Connect)?;
        let (answer, answered) = bounded(1);
        let claim = move |reply: Reply| {
            let _ = answer.try_send(reply.status); // nobody waits for it after the deadline
        };
        let number = self.claims.leave(Kept {
            body: Vec::new(),
            claim: Box::new(claim),
        });
        let probe = format!(
            "GET / HTTP/1.1\r\nHost: lane\r\n{PROBE_HEADER}: probe\r\n{CLAIM_HEADER}: {number}\r\n\r\n"
        );
        let until = Instant::now() + deadline;
        let proven = send_until(&stream, probe.as_bytes(), &[], until)
            && answered.recv_deadline(until) == Ok(204);
        drop(self.claims.take(number));
        proven.then_some(stream).ok_or(LanesError::Unproven)
    }

    /// Sends a head down a lane; says whether it went.
    fn send(&self, head: &[u8]) -> bool {
        let first = self.next.fetch_add(1, Ordering::Relaxed);
        let places = (0..self.lanes.len()).map(|at| &self.lanes[(first + at) % self.lanes.len()]);
        // One that nobody is sending down, or else the first's turn.
        let free = places.clone().find_map(Mutex::try_lock);
        let Some(mut lane) = free.or_else(|| places.map(Mutex::lock).next()) else {
            return false;
        };
        let stream = match lane.take() {
            Some(stream) => stream,
            None => match self.open_one(REPLACEMENT_DEADLINE) {
                Ok(stream) => stream,
                Err(error) => {
                    log::error!("http: no new lane to the HTTP pool: {error}");
                    return false;
                }
            },
        };
        // The lock is held over the send: it is what keeps requests whole on this one lane. The other end always reads.
        let sent = send_until(&stream, head, &[], Instant::now() + SEND_DEADLINE);
        if sent {
            *lane = Some(stream);
        } else {
            log::warn!("http: a lane to the HTTP pool is lost; the next request replaces it");
        }
        sent
    }
}

impl Handler for Lanes {
    fn is_quick(&self) -> bool {
        // The counter waits for nobody. When no place is free there, a head goes down a lane, which the pool reads at once. Only
        // if the pool were at its end would REPLACEMENT_DEADLINE and SEND_DEADLINE be waited for.
        true
    }

    fn handle(&self, request: &Request<'_>, ticket: Ticket) {
        let Some(place) = self.take_place() else {
            return ticket.refuse(Refusal::Busy(self.in_flight_max));
        };
        let claim = move |reply: Reply| {
            // Given up first: whoever has read the answer may ask again, and must find the place free.
            drop(place);
            ticket.pay(&reply);
        };
        let kept = Kept {
            body: request.body.to_vec(),
            claim: Box::new(claim),
        };
        let headers: Vec<_> = head::kept(request.headers).collect();
        let asked = Asked {
            method: request.method,
            target: request.target,
            headers: &headers,
            peer: Some(request.peer.ip()),
        };
        // Measured: through the pool, two more threads must be scheduled before the request is looked at.
        let Err(kept) = self.counter.serve(&asked, kept) else {
            return;
        };
        let number = self.claims.leave(kept);
        let mut head = Vec::with_capacity(HEAD_BYTES_USUAL);
        write_head(&mut head, request, number);
        if !self.send(&head) {
            // Dropped unpaid: that tells the peer. Unless a worker has it already after all.
            drop(self.claims.take(number));
        }
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Lanes({}, {} requests in flight)",
            self.lanes.len(),
            self.in_flight()
        )
    }
}
