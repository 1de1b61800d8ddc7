//! The listener for backends: accepts, keeps the limits, and starts a thread for each connection.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use super::context::SessionContext;
use super::link::Link;
use super::mailbox::{Command, Mailbox};
use super::outgoing::Outgoing;
use super::state::Session;
use crate::fds::{FdBudget, FdPermit};
use crate::listener::Listener;
use crate::log_once::LogOnce;
use crate::thread::ThreadGroup;
use crate::tls::{Alert, Identity, Records};
use crate::wire;

/// A session's stack, in bytes. Measured: the deepest path, the answer to a provider, reaches 7,000, in a debug build 25,000.
const STACK_BYTES: usize = 64 * 1024;

/// The stack of a TLS handshake, in bytes. Measured in a release build: six pages, 24,576.
const HANDSHAKE_STACK_BYTES: usize = 128 * 1024;

/// A session's socket and its waker.
const FDS_PER_SESSION: usize = 2;

/// How many connections may be on their way out, their places given to others, beyond `tcp.max_connections`. An end takes less
/// than a millisecond, so this is far more than there are at a time.
const LEAVING_MAX: usize = 64;

static ALL_TAKEN: LogOnce = LogOnce::new();

/// What is read from a peer that is turned away, in bytes: more than any HELLO has.
const HELLO_BYTES_MAX: usize = 2048;

/// The listener for backends and the sessions behind it. Dropping it closes every connection at once and waits for every thread.
pub struct BackendListener {
    plain: Listener,
    tls: Option<Listener>,
    sessions: Arc<Sessions>,
}

impl std::fmt::Debug for BackendListener {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("BackendListener")
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}

impl BackendListener {
    /// Accepts backends on `plain`, and with TLS on `tls`.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn open(
        plain: TcpListener,
        tls: Option<(TcpListener, Arc<Identity>)>,
        context: Arc<SessionContext>,
        fds: FdBudget,
    ) -> io::Result<Self> {
        let sessions = Arc::new(Sessions {
            context,
            fds,
            threads: ThreadGroup::start("session-reaper")?,
            accepted: AtomicU64::new(0),
            mailboxes: Mutex::default(),
        });
        let accepting = Arc::clone(&sessions);
        let plain = Listener::start("tcp-accept", plain, move |stream, peer| {
            accepting.admit(stream, None, peer);
        })?;
        let tls = tls.map(|(listener, identity)| {
            let accepting = Arc::clone(&sessions);
            Listener::start("tcp-tls-accept", listener, move |stream, peer| {
                if let Some(records) = identity.records() {
                    accepting.admit(stream, Some(records), peer);
                }
            })
        });
        Ok(Self {
            plain,
            tls: tls.transpose()?,
            sessions,
        })
    }

    /// The listening address.
    pub fn addr(&self) -> SocketAddr {
        self.plain.addr()
    }

    /// The listening address for TLS, if there is one.
    pub fn tls_addr(&self) -> Option<SocketAddr> {
        self.tls.as_ref().map(Listener::addr)
    }

    /// How many connections there are, with those that have not said HELLO.
    pub fn sessions(&self) -> usize {
        self.sessions.threads.len()
    }

    /// Accepts nothing more, and tells every session to say BYE and to finish what is in flight.
    pub fn drain(&self) {
        self.close();
        self.sessions.command_all(Command::Drain);
    }

    /// Waits until all sessions have ended, or `deadline`; says whether they have.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        self.sessions.threads.wait_empty(deadline)
    }

    fn close(&self) {
        self.plain.close();
        if let Some(tls) = &self.tls {
            tls.close();
        }
    }
}

impl Drop for BackendListener {
    fn drop(&mut self) {
        self.close();
        self.sessions.command_all(Command::Close);
        // The threads hold `Sessions`, so the last of them must not be the one that drops it.
        self.sessions.threads.join_all();
    }
}

struct Sessions {
    context: Arc<SessionContext>,
    fds: FdBudget,
    threads: ThreadGroup,
    /// How many connections were accepted: each one's number, in the order of accept.
    accepted: AtomicU64,
    /// Of all sessions, with those that have not said HELLO, by their numbers.
    mailboxes: Mutex<HashMap<u64, Arc<Mailbox>>>,
}

impl Sessions {
    fn command_all(&self, command: Command) {
        let mailboxes: Vec<_> = self.mailboxes.lock().values().map(Arc::clone).collect();
        for mailbox in mailboxes {
            mailbox.command(command);
        }
    }

    /// Whether one more may be admitted. If all places are taken, the oldest connection without a good HELLO is told to go.
    fn has_room(&self) -> bool {
        let there = self.threads.len();
        let most = self.context.tcp.max_connections;
        if there < most {
            return true;
        }
        let has_room = there < most + LEAVING_MAX && self.context.newcomers.displace();
        ALL_TAKEN.warn(format_args!(
            "all of tcp.max_connections = {most} are taken: {}; raise it, or look who connects",
            match has_room {
                true => "the oldest connection without a HELLO is closed",
                false => "a new connection is refused",
            }
        ));
        has_room
    }

    fn admit(self: &Arc<Self>, stream: TcpStream, records: Option<Records>, peer: SocketAddr) {
        let is_tls = records.is_some();
        if !self.has_room() {
            return self.refuse(&stream, is_tls, "tcp.max_connections is reached");
        }
        let Some(permit) = self.fds.try_take(FDS_PER_SESSION) else {
            return self.refuse(&stream, is_tls, "out of file descriptors");
        };
        let socket = Arc::new(OwnedFd::from(stream));
        let link = Link::new(Arc::clone(&socket), records, Instant::now());
        let outgoing = Outgoing::new(link, self.context.tcp.ack_timeout);
        let mailbox = Mailbox::new(self.context.tcp.queue, outgoing).map(Arc::new);
        let (Ok(()), Ok(mailbox)) = (rustix::io::ioctl_fionbio(&socket, true), mailbox) else {
            return self.refuse(&socket, is_tls, "out of file descriptors");
        };
        let number = self.accepted.fetch_add(1, Ordering::Relaxed) + 1;
        self.mailboxes.lock().insert(number, Arc::clone(&mailbox));
        self.context.newcomers.add(number, &mailbox);
        let enlisted = Enlisted {
            number,
            sessions: Arc::clone(self),
            _permit: permit,
        };
        // On the heap: on the stack it would make the difference of a page.
        let session = Box::new(Session::new(
            number,
            Arc::clone(&socket),
            peer,
            mailbox,
            Arc::clone(&self.context),
        ));
        let name = format!("session-{number}");
        let spawned = if is_tls {
            let sessions = Arc::clone(self);
            let handshake = move || sessions.handshake(session, enlisted);
            self.threads.spawn(name, HANDSHAKE_STACK_BYTES, handshake)
        } else {
            let serve = move || {
                let _enlisted = enlisted;
                session.run();
            };
            self.threads.spawn(name, STACK_BYTES, serve)
        };
        if spawned.is_err() {
            self.refuse(&socket, is_tls, "out of threads");
        }
    }

    /// Does the TLS handshake, and passes the session to a thread of its own: a handshake goes four pages deeper than
    /// anything after it, and a stack keeps every page that it once used.
    fn handshake(&self, mut session: Box<Session>, enlisted: Enlisted) {
        if !session.shake_hands() {
            return;
        }
        let number = enlisted.number;
        let serve = move || {
            let _enlisted = enlisted;
            session.run();
        };
        let name = format!("session-{number}");
        if self.threads.spawn(name, STACK_BYTES, serve).is_err() {
            // The connection was closed with the session.
            self.context.metrics.session_refused("limit");
            log::warn!("session-{number} ends: out of threads");
        }
    }

    /// Tells a peer that there is no room. One write into an empty socket buffer does not wait.
    fn refuse(&self, socket: impl AsFd, is_tls: bool, words: &str) {
        self.context.metrics.session_refused("limit");
        let mut out = Vec::new();
        if is_tls {
            // Without a handshake there is no key for an ERR.
            out.extend_from_slice(&Alert::InternalError.record());
        } else {
            wire::line(&mut out, "ERR")
                .arg("code", "limit")
                .plain("fatal", 1)
                .arg("msg", words)
                .end();
        }
        // The peer reads it or not; nothing else can be done.
        let _ = rustix::io::write(&socket, &out);
        let _ = shutdown(&socket, Shutdown::Write);
        // An unread HELLO would turn the close into a reset, which can destroy the ERR on its way.
        let mut hello = [0; HELLO_BYTES_MAX];
        let _ = recv(&socket, &mut hello[..], RecvFlags::DONTWAIT);
    }
}

/// Takes a session off the list when its thread ends, on a panic too.
struct Enlisted {
    number: u64,
    sessions: Arc<Sessions>,
    // Given back last, after the list has dropped the last owner of the descriptors.
    _permit: FdPermit,
}

impl Drop for Enlisted {
    fn drop(&mut self) {
        self.sessions.context.newcomers.remove(self.number);
        let mailbox = self.sessions.mailboxes.lock().remove(&self.number);
        // Without the lock: the last owner of a mailbox closes its descriptors.
        drop(mailbox);
    }
}
