//! The backends' entrance: accepts, counts, and gives each connection a thread.

use std::collections::HashMap;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use super::mailbox::{Command, Mailbox};
use super::outgoing::Outgoing;
use super::serve::{House, Session};
use crate::accept::Acceptor;
use crate::fds::{FdBudget, FdPermit};
use crate::thread::Crew;
use crate::wire;

/// A session's stack, in bytes. Measured over 200 sessions with traffic: the deepest path, a token's check, reaches 11,000.
const STACK_BYTES: usize = 64 * 1024;

/// A session's socket and the bell of its mailbox.
const FDS_PER_SESSION: usize = 2;

/// What is read from a peer that is turned away, in bytes: more than any HELLO has.
const HELLO_BYTES_MAX: usize = 2048;

/// The listener for backends and the sessions behind it.
pub struct Door {
    acceptor: Acceptor,
    sessions: Arc<Sessions>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}

impl Door {
    /// Lets backends in through `listener`.
    ///
    /// # Errors
    /// The system has no room for another thread or descriptor.
    pub fn open(listener: TcpListener, house: Arc<House>, fds: FdBudget) -> io::Result<Self> {
        let sessions = Arc::new(Sessions {
            house,
            fds,
            crew: Crew::start("session-reaper")?,
            next: AtomicU64::new(1),
            mailboxes: Mutex::default(),
        });
        let theirs = Arc::clone(&sessions);
        let acceptor = Acceptor::start("tcp-accept", listener, move |stream, peer| {
            theirs.let_in(stream, peer);
        })?;
        Ok(Self { acceptor, sessions })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.acceptor.addr()
    }

    /// How many connections there are, those that have not said HELLO included.
    pub fn sessions(&self) -> usize {
        self.sessions.crew.len()
    }

    /// Lets nobody in any more, and tells every session to say BYE and finish what is in flight.
    pub fn drain(&self) {
        self.acceptor.close();
        self.sessions.command_all(Command::Drain);
    }

    /// Waits until all sessions have ended, or `deadline`; says whether they all have.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        self.sessions.crew.wait_empty(deadline)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.acceptor.close();
        self.sessions.command_all(Command::Close);
        // The members hold what the crew is part of, so it must not be dropped by the last of them.
        self.sessions.crew.join_all();
    }
}

struct Sessions {
    house: Arc<House>,
    fds: FdBudget,
    crew: Crew,
    next: AtomicU64,
    /// Of every session, those that have not said HELLO included.
    mailboxes: Mutex<HashMap<u64, Arc<Mailbox>>>,
}

impl Sessions {
    fn let_in(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        let max = self.house.tcp.max_connections;
        if self.crew.len() >= max {
            return self.refuse(&stream, "tcp.max_connections is reached");
        }
        let Some(permit) = self.fds.try_take(FDS_PER_SESSION) else {
            return self.refuse(&stream, "out of file descriptors");
        };
        let socket = Arc::new(OwnedFd::from(stream));
        let outgoing = Outgoing::new(
            Arc::clone(&socket),
            self.house.tcp.ack_timeout,
            Instant::now(),
        );
        let mailbox = Mailbox::new(self.house.tcp.queue, outgoing).map(Arc::new);
        let (Ok(()), Ok(mailbox)) = (rustix::io::ioctl_fionbio(&socket, true), mailbox) else {
            return self.refuse(&socket, "out of file descriptors");
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.mailboxes.lock().insert(number, Arc::clone(&mailbox));
        let sessions = Arc::clone(self);
        let theirs = Arc::clone(&socket);
        let spawned = self
            .crew
            .spawn(format!("session-{number}"), STACK_BYTES, move || {
                let _enrolled = Enrolled {
                    number,
                    sessions: Arc::clone(&sessions),
                    _permit: permit,
                };
                let house = Arc::clone(&sessions.house);
                Session::new(number, theirs, peer, mailbox, house).run();
            });
        if spawned.is_err() {
            self.mailboxes.lock().remove(&number);
            self.refuse(&socket, "out of threads");
        }
    }

    /// Tells a peer that there is no room. One write into an empty socket buffer does not wait.
    fn refuse(&self, socket: impl AsFd, words: &str) {
        self.house.metrics.session_refused("limit");
        let mut out = Vec::new();
        wire::line(&mut out, "ERR")
            .arg("code", "limit")
            .plain("fatal", 1)
            .arg("msg", words)
            .end();
        // The peer learns it or not; there is nothing else to be done for it.
        let _ = rustix::io::write(&socket, &out);
        let _ = shutdown(&socket, Shutdown::Write);
        // A HELLO that nobody reads would turn the close into a reset, which can destroy the ERR on its way.
        let mut hello = [0; HELLO_BYTES_MAX];
        let _ = recv(&socket, &mut hello[..], RecvFlags::DONTWAIT);
    }

    fn command_all(&self, command: Command) {
        let mailboxes: Vec<_> = self.mailboxes.lock().values().cloned().collect();
        for mailbox in mailboxes {
            mailbox.command(command);
        }
    }
}

/// Takes a session off the list when its thread ends, on a panic too.
struct Enrolled {
    number: u64,
    sessions: Arc<Sessions>,
    // Given back last: by then the list held the descriptors' last owner.
    _permit: FdPermit,
}

impl Drop for Enrolled {
    fn drop(&mut self) {
        // The lock goes first: with the last hold on a mailbox its descriptors are closed.
        let mailbox = self.sessions.mailboxes.lock().remove(&self.number);
        drop(mailbox);
    }
}
