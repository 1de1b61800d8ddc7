//! The backends' entrance: accepts, counts, and gives each connection a thread.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{RecvFlags, Shutdown, recv, shutdown};

use super::acks::AckReader;
use super::link::Link;
use super::mailbox::{Command, Mailbox, Mailboxes};
use super::outgoing::Outgoing;
use super::serve::{House, Session};
use crate::fds::{FdBudget, FdPermit};
use crate::listener::Listener;
use crate::readiness::{self, Sideline};
use crate::thread::Crew;
use crate::tls::{Alert, Identity, Records};
use crate::wire;

/// A session's stack, in bytes. Measured: the deepest path, the answer to a provider, reaches 7,000, in a debug build 25,000.
const STACK_BYTES: usize = 64 * 1024;

/// The stack of a TLS handshake, in bytes. Measured in a release build: six pages, 24,576.
const HANDSHAKE_STACK_BYTES: usize = 128 * 1024;

/// A session's socket and the bell of its mailbox.
const FDS_PER_SESSION: usize = 2;

/// What is read from a peer that is turned away, in bytes: more than any HELLO has.
const HELLO_BYTES_MAX: usize = 2048;

/// The listener for backends and the sessions behind it.
pub struct Door {
    acceptor: Listener,
    sealed: Option<Listener>,
    sessions: Arc<Sessions>,
    // Given back after the sessions, who hold the readers.
    _permit: FdPermit,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Door")
            .field("sessions", &self.sessions())
            .finish_non_exhaustive()
    }
}

impl Door {
    /// Lets backends in through `listener`, and through `sealed` with TLS. There are so many `readers` of ACKs, one at least.
    ///
    /// # Errors
    /// The system has no room for another thread or descriptor.
    pub fn open(
        listener: TcpListener,
        sealed: Option<(TcpListener, Arc<Identity>)>,
        house: Arc<House>,
        fds: FdBudget,
        readers: usize,
    ) -> io::Result<Self> {
        let mailboxes = Arc::new(Mailboxes::default());
        let readers = readers.max(1);
        let own = fds.try_take(readers * readiness::FDS);
        let own = own.ok_or(Errno::MFILE)?;
        let readers = (0..readers)
            .map(|_| AckReader::new(Arc::clone(&mailboxes), Arc::clone(&house.metrics)))
            .map(|reader| reader.map(Arc::new));
        let readers = readers.collect::<io::Result<_>>()?;
        let sessions = Arc::new(Sessions {
            house,
            readers,
            fds,
            crew: Crew::start("session-reaper")?,
            next: AtomicU64::new(1),
            mailboxes,
        });
        let theirs = Arc::clone(&sessions);
        let acceptor = Listener::start("tcp-accept", listener, move |stream, peer| {
            theirs.let_in(stream, None, peer);
        })?;
        let sealed = sealed.map(|(listener, identity)| {
            let theirs = Arc::clone(&sessions);
            Listener::start("tcp-tls-accept", listener, move |stream, peer| {
                if let Some(records) = identity.records() {
                    theirs.let_in(stream, Some(records), peer);
                }
            })
        });
        Ok(Self {
            acceptor,
            sealed: sealed.transpose()?,
            sessions,
            _permit: own,
        })
    }

    /// Who reads the ACKs, for as long as a thread looks at them: nobody here does.
    pub fn readers(&self) -> impl Iterator<Item = Arc<dyn Sideline>> {
        let readers = self.sessions.readers.iter();
        readers.map(|reader| Arc::clone(reader) as Arc<dyn Sideline>)
    }

    /// Where it listens for TLS, if it does.
    pub fn sealed_addr(&self) -> Option<SocketAddr> {
        self.sealed.as_ref().map(Listener::addr)
    }

    fn close(&self) {
        self.acceptor.close();
        if let Some(sealed) = &self.sealed {
            sealed.close();
        }
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
        self.close();
        self.sessions.mailboxes.command_all(Command::Drain);
    }

    /// Waits until all sessions have ended, or `deadline`; says whether they all have.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        self.sessions.crew.wait_empty(deadline)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.close();
        self.sessions.mailboxes.command_all(Command::Close);
        // The members hold what the crew is part of, so it must not be dropped by the last of them.
        self.sessions.crew.join_all();
    }
}

struct Sessions {
    house: Arc<House>,
    /// Each for its share of the sessions, by their numbers.
    readers: Vec<Arc<AckReader>>,
    fds: FdBudget,
    crew: Crew,
    next: AtomicU64,
    mailboxes: Arc<Mailboxes>,
}

impl Sessions {
    fn let_in(self: &Arc<Self>, stream: TcpStream, records: Option<Records>, peer: SocketAddr) {
        let max = self.house.tcp.max_connections;
        let sealed = records.is_some();
        if self.crew.len() >= max {
            return self.refuse(&stream, sealed, "tcp.max_connections is reached");
        }
        let Some(permit) = self.fds.try_take(FDS_PER_SESSION) else {
            return self.refuse(&stream, sealed, "out of file descriptors");
        };
        let socket = Arc::new(OwnedFd::from(stream));
        let now = Instant::now();
        let link = Link::new(Arc::clone(&socket), records, now);
        let outgoing = Outgoing::new(link, self.house.tcp.ack_timeout);
        let mailbox = Mailbox::new(self.house.tcp.queue, outgoing).map(Arc::new);
        let (Ok(()), Ok(mailbox)) = (rustix::io::ioctl_fionbio(&socket, true), mailbox) else {
            return self.refuse(&socket, sealed, "out of file descriptors");
        };
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.mailboxes.insert(number, Arc::clone(&mailbox));
        let enrolled = Enrolled {
            number,
            sessions: Arc::clone(self),
            _permit: permit,
        };
        let house = Arc::clone(&self.house);
        // On the heap: on the stack it would make the difference of a page.
        let session = Box::new(Session::new(
            number,
            Arc::clone(&socket),
            peer,
            mailbox,
            house,
            Arc::clone(&self.readers[number as usize % self.readers.len()]),
        ));
        let name = format!("session-{number}");
        let spawned = if sealed {
            let theirs = Arc::clone(self);
            let greet = move || theirs.greet(session, enrolled);
            self.crew.spawn(name, HANDSHAKE_STACK_BYTES, greet)
        } else {
            let serve = move || {
                let _enrolled = enrolled;
                session.run();
            };
            self.crew.spawn(name, STACK_BYTES, serve)
        };
        if spawned.is_err() {
            self.refuse(&socket, sealed, "out of threads");
        }
    }

    /// Shakes hands, and hands the session to a thread of its own. Not on that: a handshake goes four pages deeper than
    /// anything after it, and a stack keeps for ever the pages it ever used.
    fn greet(&self, mut session: Box<Session>, enrolled: Enrolled) {
        if !session.shake_hands() {
            return;
        }
        let number = enrolled.number;
        let serve = move || {
            let _enrolled = enrolled;
            session.run();
        };
        let spawned = self
            .crew
            .spawn(format!("session-{number}"), STACK_BYTES, serve);
        if spawned.is_err() {
            // The connection went with the session.
            self.house.metrics.session_refused("limit");
            log::warn!("session-{number} ends: out of threads");
        }
    }

    /// Tells a peer that there is no room. One write into an empty socket buffer does not wait.
    fn refuse(&self, socket: impl AsFd, sealed: bool, words: &str) {
        self.house.metrics.session_refused("limit");
        let mut out = Vec::new();
        if sealed {
            // Nothing is agreed with it yet that an ERR could be sealed with.
            out.extend_from_slice(&Alert::InternalError.record());
        } else {
            wire::line(&mut out, "ERR")
                .arg("code", "limit")
                .plain("fatal", 1)
                .arg("msg", words)
                .end();
        }
        // The peer learns it or not; there is nothing else to be done for it.
        let _ = rustix::io::write(&socket, &out);
        let _ = shutdown(&socket, Shutdown::Write);
        // A HELLO that nobody reads would turn the close into a reset, which can destroy the ERR on its way.
        let mut hello = [0; HELLO_BYTES_MAX];
        let _ = recv(&socket, &mut hello[..], RecvFlags::DONTWAIT);
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
        self.sessions.mailboxes.remove(self.number);
    }
}
