//! The link to the tiny_http pool: one kept connection on a private unix socket.
//!
//! tiny_http leaves connections of a burst unserved and stops accepting for ever after one error. So it accepts only the link,
//! which is opened at start and proven by a request. The heads of requests follow each other down the link, nothing comes back: the
//! body and the right to answer wait beside it under a number that travels with the head. The link is written by whichever
//! connection thread finds it idle, for all heads that have gathered meanwhile: one write, many heads.

use std::fmt;
use std::fs::Permissions;
use std::io::{self, Write};
use std::net::Shutdown;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;
use tempfile::TempDir;

use super::head;
use super::request::{PROOF_HEADER, PendingRequest, PendingRequests};
use crate::edge::HttpRequest;
use crate::fds::{FdBudget, FdPermit};
use crate::lock::Mutex;

/// The link's end here, tiny_http's two (it duplicates its own) and its listener, and a link that is being replaced.
pub const LINK_FDS: usize = 8;

/// How long the proof of the link may take.
pub const PROOF_MAX: Duration = Duration::from_secs(5);

/// Why there is no link.
#[derive(Debug)]
pub enum WorkerLinkError {
    /// The private directory or the socket in it could not be made.
    Socket(io::Error),
    /// tiny_http did not take the listener; its words.
    Server(String),
    /// The budget has too few file descriptors.
    Descriptors {
        /// How many are free.
        free: usize,
    },
    /// The link could not be connected.
    Connect(io::Error),
    /// The link was connected, but its proof did not arrive at a worker in time: are the HTTP workers running?
    Unproven,
}

impl fmt::Display for WorkerLinkError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Socket(error) => write!(
                f,
                "no private socket for the HTTP pool could be made in the temporary directory: {error}; \
                 set TMPDIR to a shorter path that this user may write to (a socket's path has 107 bytes at most)"
            ),
            Self::Server(words) => write!(f, "the HTTP pool did not start: {words}"),
            Self::Descriptors { free } => write!(
                f,
                "the link to the HTTP pool takes {LINK_FDS} file descriptors, and only {free} are left; \
                 raise the limit (LimitNOFILE, ulimit -n)"
            ),
            Self::Connect(error) => write!(f, "the HTTP pool could not be reached: {error}"),
            Self::Unproven => write!(f, "the HTTP pool did not answer its first request"),
        }
    }
}

impl std::error::Error for WorkerLinkError {}

/// What the names of private directories begin with.
const PREFIX: &str = "payrelay-";

/// The socket in it.
const SOCKET: &str = "http";

/// The longest time from the making of the directory to a socket that listens.
const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// The private directory with the socket that tiny_http listens on. Keep it until the server is gone: tiny_http ends its accept
/// thread by connecting to the socket once more. Dropping it removes the directory.
#[derive(Debug)]
pub struct WorkerSocket {
    path: PathBuf,
    _directory: TempDir,
}

impl WorkerSocket {
    /// Makes the socket and the server that listens on it.
    ///
    /// # Errors
    /// [`LinkError::Socket`] and [`LinkError::Server`].
    pub fn bind() -> Result<(Self, tiny_http::Server), WorkerLinkError> {
        remove_leftovers();
        let directory = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir()
            .map_err(WorkerLinkError::Socket)?;
        let path = directory.path().join(SOCKET);
        let listener = UnixListener::bind(&path).map_err(WorkerLinkError::Socket)?;
        let server = tiny_http::Server::from_listener(listener, None)
            .map_err(|error| WorkerLinkError::Server(error.to_string()))?;
        let socket = Self {
            path,
            _directory: directory,
        };
        Ok((socket, server))
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Removes the directories of relays that were killed. Such a directory has nothing in it but a socket on which no process listens,
/// and belongs to this user; it is not young, because the socket of a relay that starts does not listen at once.
fn remove_leftovers() {
    let directories = std::fs::read_dir(std::env::temp_dir());
    for directory in directories.into_iter().flatten().flatten() {
        let path = directory.path();
        let is_named_so = directory
            .file_name()
            .as_encoded_bytes()
            .starts_with(PREFIX.as_bytes());
        if is_named_so && is_leftover(&path) {
            let removed =
                std::fs::remove_file(path.join(SOCKET)).and_then(|()| std::fs::remove_dir(&path));
            if removed.is_ok() {
                log::info!(
                    "{} was left by a relay that was killed; removed",
                    path.display()
                );
            }
        }
    }
}

fn is_leftover(path: &Path) -> bool {
    let own = || {
        let metadata = path.symlink_metadata().ok()?;
        let age = metadata.modified().ok()?.elapsed().ok()?;
        let is_own = metadata.is_dir() && metadata.uid() == rustix::process::geteuid().as_raw();
        let entries = std::fs::read_dir(path).ok()?.count();
        Some(is_own && metadata.mode() & 0o777 == 0o700 && entries == 1 && age > STARTS_WITHIN)
    };
    own() == Some(true)
        && UnixStream::connect(path.join(SOCKET))
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
}

/// The link.
pub struct WorkerLink {
    queue: Mutex<Queue>,
    pending: Arc<PendingRequests>,
    path: PathBuf,
    proven: Receiver<()>,
    // Given back after the link is closed.
    _permit: FdPermit,
}

/// What waits to be written to the link.
struct Queue {
    /// Heads of requests, one behind the other.
    heads: Vec<u8>,
    /// `None`: a thread is writing, and will write what gathers meanwhile.
    idle: Option<UnixStream>,
}

impl WorkerLink {
    /// Connects to the server at `path`, whose workers take requests from `pending`, and waits until `proven` says, within `most`,
    /// that a worker got what was sent.
    ///
    /// # Errors
    /// [`WorkerLinkError::Descriptors`], [`WorkerLinkError::Connect`] and [`WorkerLinkError::Unproven`].
    pub fn open_within(
        most: Duration,
        path: &Path,
        pending: Arc<PendingRequests>,
        proven: Receiver<()>,
        fds: &FdBudget,
    ) -> Result<Self, WorkerLinkError> {
        let permit = fds
            .try_take(LINK_FDS)
            .ok_or(WorkerLinkError::Descriptors { free: fds.free() })?;
        let stream = connect(path, &proven, most)?;
        Ok(Self {
            queue: Mutex::new(Queue {
                heads: Vec::new(),
                idle: Some(stream),
            }),
            pending,
            path: path.to_owned(),
            proven,
            _permit: permit,
        })
    }

    /// Sends the request to the workers, with its body and the right to answer.
    pub fn send(&self, request: &HttpRequest<'_>, pending: PendingRequest) {
        let number = self.pending.put(pending);
        let mut queue = self.queue.lock();
        head::write(&mut queue.heads, request, number);
        let Some(mut stream) = queue.idle.take() else {
            return; // the thread that writes takes it along
        };
        while !queue.heads.is_empty() {
            let heads = std::mem::take(&mut queue.heads);
            drop(queue);
            // The other end reads without waiting for anything, so this does not block for long.
            if let Err(error) = stream.write_all(&heads) {
                stream = self.replace(stream, &error);
            }
            queue = self.queue.lock();
        }
        queue.idle = Some(stream);
    }

    /// A new link in place of a broken one. Requests whose heads may be lost are answered 503, so that their providers try again.
    #[cold]
    fn replace(&self, broken: UnixStream, error: &io::Error) -> UnixStream {
        log::error!("the link to the HTTP workers broke: {error}; connecting anew");
        self.pending.drop_all();
        match connect(&self.path, &self.proven, PROOF_MAX) {
            Ok(stream) => stream,
            Err(error) => {
                log::error!("{error}; requests are answered 503 until it can");
                broken
            }
        }
    }
}

impl fmt::Debug for WorkerLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "WorkerLink({:?})", self.pending)
    }
}

/// Connects to the server at `path`, and waits until a worker has got the proof.
fn connect(
    path: &Path,
    proven: &Receiver<()>,
    most: Duration,
) -> Result<UnixStream, WorkerLinkError> {
    while proven.try_recv().is_ok() {} // of a link that broke meanwhile
    let mut stream = UnixStream::connect(path).map_err(WorkerLinkError::Connect)?;
    // Nothing is to come back. If tiny_http should say something all the same, it fails there and fills no buffer here.
    stream
        .shutdown(Shutdown::Read)
        .map_err(WorkerLinkError::Connect)?;
    let proof = format!("GET / HTTP/1.1\r\nHost: link\r\n{PROOF_HEADER}: 1\r\n\r\n");
    stream
        .write_all(proof.as_bytes())
        .map_err(WorkerLinkError::Connect)?;
    proven
        .recv_timeout(most)
        .map_err(|_| WorkerLinkError::Unproven)?;
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;

    impl WorkerLink {
        /// Breaks the link.
        pub fn cut(&self) {
            if let Some(stream) = &self.queue.lock().idle {
                stream.shutdown(Shutdown::Both).expect("a link");
            }
        }
    }
}
