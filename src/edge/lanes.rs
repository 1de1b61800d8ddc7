//! Lanes: kept connections to the tiny_http pool, on a private unix socket.
//!
//! tiny_http strands connections that come in a burst and stops accepting for ever after one error, so lanes are opened
//! one at a time, each proven by a request before the next, and then reused: after the start it need not accept under
//! pressure. One request is in a lane at a time. Nothing here reads a body or knows a route.

mod lane;
#[cfg(test)]
mod tests;

use std::fmt;
use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use tempfile::TempDir;

use lane::{Lane, Lost};

use super::episode::Episode;
use super::refusal::Refusal;
use super::{Handler, Reply, Request, Watcher};
use crate::fds::{FdBudget, FdPermit};

/// The header that marks a lane's proof; an HTTP worker answers a request that carries it with 204, whatever else it says.
/// No peer can send it: every incoming `x-payrelay-*` header is dropped.
pub const PROBE_HEADER: &str = "x-payrelay-lane";

/// Our end, and tiny_http's two (it duplicates its own).
const FDS_PER_LANE: usize = 3;

/// For lanes that are being replaced: tiny_http keeps one descriptor of a lost one until its worker lets go.
const FDS_SPARE: usize = 8;

/// How long the proof of a lane may take at the start.
const PROOF_DEADLINE: Duration = Duration::from_secs(5);

/// How long the proof of a replacement may take. Short: a provider may be waiting meanwhile.
const REPLACEMENT_DEADLINE: Duration = Duration::from_millis(500);

/// How long after a replacement failed the next is tried. If every worker hangs, each try leaves a request in their queue.
const REPLACEMENT_PAUSE: Duration = Duration::from_secs(1);

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
                    "no private socket for the HTTP pool could be made in the temporary directory: {error}"
                )
            }
            Self::Server(words) => write!(f, "the HTTP pool did not start: {words}"),
            Self::Descriptors {
                lanes,
                needed,
                free,
            } => write!(
                f,
                "http.max_in_flight = {lanes} takes {needed} file descriptors, and only {free} are left; \
                 lower it or raise the limit (ulimit -n)"
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

    /// Opens `count` lanes, one at a time, each proven before the next. `answer_deadline` is how long the pool may take for
    /// one answer: longer than any wait behind it, so that those end first. `watcher` is told of `busy` and `timeout`.
    ///
    /// # Errors
    /// [`LanesError::Descriptors`], [`LanesError::Connect`] and [`LanesError::Unproven`].
    pub fn open(
        &self,
        count: usize,
        answer_deadline: Duration,
        fds: &FdBudget,
        watcher: Arc<dyn Watcher>,
    ) -> Result<Lanes, LanesError> {
        let needed = count * FDS_PER_LANE + FDS_SPARE;
        let permit = fds.try_take(needed).ok_or(LanesError::Descriptors {
            lanes: count,
            needed,
            free: fds.free(),
        })?;
        let lanes = Lanes {
            shelf: Mutex::new(Shelf {
                free: Vec::with_capacity(count),
                ..Shelf::default()
            }),
            count,
            path: self.path.clone(),
            answer_deadline,
            watcher,
            _permit: permit,
        };
        for _ in 0..count {
            let lane = lanes.open_one(PROOF_DEADLINE)?;
            lanes.shelf.lock().free.push(lane);
        }
        Ok(lanes)
    }
}

/// The lanes, as the handler of the public front.
pub struct Lanes {
    // Closed before the permit goes back.
    shelf: Mutex<Shelf>,
    count: usize,
    path: PathBuf,
    answer_deadline: Duration,
    watcher: Arc<dyn Watcher>,
    _permit: FdPermit,
}

#[derive(Default)]
struct Shelf {
    /// Last in, first out: the one used last has its buffers in the cache, and its thread may still be awake.
    free: Vec<Lane>,
    busy: usize,
    /// Lost, and not yet replaced.
    missing: usize,
    /// Somebody is opening one: never two at a time.
    opening: bool,
    /// After a failure: when to try again.
    again_at: Option<Instant>,
    losses: Episode,
}

impl Lanes {
    /// How many lanes have a request in them.
    pub fn busy(&self) -> usize {
        self.shelf.lock().busy
    }

    fn open_one(&self, deadline: Duration) -> Result<Lane, LanesError> {
        let stream = UnixStream::connect(&self.path).map_err(LanesError::Connect)?;
        stream
            .set_read_timeout(Some(self.answer_deadline))
            .map_err(LanesError::Connect)?;
        let mut lane = Lane::new(stream);
        lane.prove(Instant::now() + deadline)
            .then_some(lane)
            .ok_or(LanesError::Unproven)
    }

    /// A free lane, or a replacement for a lost one.
    fn take(&self) -> Option<Lane> {
        {
            let mut shelf = self.shelf.lock();
            if let Some(lane) = shelf.free.pop() {
                shelf.busy += 1;
                return Some(lane);
            }
        }
        let lane = self.replace()?;
        self.shelf.lock().busy += 1;
        Some(lane)
    }

    fn give_back(&self, lane: Lane) {
        let mut shelf = self.shelf.lock();
        shelf.busy -= 1;
        shelf.free.push(lane);
    }

    /// Gives a lane up, and tries to replace one at once.
    fn lose(&self, lane: Lane, why: Lost) {
        drop(lane); // closed first: tiny_http lets its descriptors go
        let is_news = {
            let mut shelf = self.shelf.lock();
            shelf.busy -= 1;
            shelf.missing += 1;
            shelf.losses.begins()
        };
        if is_news {
            log::warn!("http: a lane to the HTTP pool is lost ({why}); replacing it");
        }
        if let Some(lane) = self.replace() {
            self.shelf.lock().free.push(lane);
        }
    }

    /// Opens a lane for a missing one, unless none is missing or somebody else is at it.
    fn replace(&self) -> Option<Lane> {
        {
            let mut shelf = self.shelf.lock();
            let is_too_soon = shelf.again_at.is_some_and(|at| Instant::now() < at);
            if shelf.missing == 0 || shelf.opening || is_too_soon {
                return None;
            }
            shelf.opening = true;
        }
        let opened = self.open_one(REPLACEMENT_DEADLINE);
        let mut shelf = self.shelf.lock();
        shelf.opening = false;
        match opened {
            Ok(_) => {
                shelf.missing -= 1;
                shelf.again_at = None;
            }
            Err(_) => shelf.again_at = Some(Instant::now() + REPLACEMENT_PAUSE),
        }
        drop(shelf);
        opened
            .inspect_err(|error| log::error!("http: no new lane to the HTTP pool: {error}"))
            .ok()
    }

    fn refuse(&self, refusal: Refusal) -> Reply {
        self.watcher.refused(refusal.word());
        refusal.reply("http")
    }
}

impl Handler for Lanes {
    fn handle(&self, request: &Request<'_>) -> Reply {
        let Some(mut lane) = self.take() else {
            return self.refuse(Refusal::Busy(self.count));
        };
        match lane.exchange(request, self.answer_deadline) {
            Ok(reply) => {
                self.give_back(lane);
                reply
            }
            Err(why) => {
                self.lose(lane, why);
                self.refuse(Refusal::Unanswered)
            }
        }
    }
}

impl fmt::Debug for Lanes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shelf = self.shelf.lock();
        write!(
            f,
            "Lanes({} free, {} busy, {} missing)",
            shelf.free.len(),
            shelf.busy,
            shelf.missing
        )
    }
}
