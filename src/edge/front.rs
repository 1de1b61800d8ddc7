//! The front: accepts for as long as it stands, keeps the cap, and closes in good order.
//!
//! What a connection says is `conn`'s business.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;

use super::channel::Channel;
use super::conn;
use super::episode::Episode;
use super::guests::{Admission, Guest, Guests};
use super::house::House;
use super::poller::{self, Poller};
use super::refusal::Refusal;
use super::{Handler, IDLE_MAX, Limits, Peers, Watcher};
use crate::fds::{FdBudget, FdPermit};
use crate::readiness::{self, Sideline};
use crate::thread::{Crew, JoinOnDrop, SMALL_STACK_BYTES, spawn};
use crate::tls::Identity;

/// What a front takes from the budget for itself: its listener, and the connection it is about to judge. What ends its accept thread is
/// within the descriptors that the relay keeps in reserve.
const OWN_FDS: usize = 2;

/// The first and the longest pause after accept failed for want of descriptors or memory.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// The most threads that wait for connections together: as many as judge at once by default (`http.workers`). Beyond that they
/// would only send each other's requests through the pool.
const POLLERS_MAX: usize = 4;

/// The most descriptors that a front takes for itself.
pub fn own_fds() -> usize {
    OWN_FDS + pollers() * readiness::FDS
}

/// How many threads wait for connections together. Half of the cores are for backends and for what else runs.
pub fn pollers() -> usize {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    (cores / 2).clamp(1, POLLERS_MAX)
}

/// Where peers come in.
#[derive(Debug)]
pub struct Entrance {
    /// Where they connect.
    pub listener: TcpListener,
    /// What they are shown; `None`: nothing is sealed.
    pub tls: Option<Arc<Identity>>,
    /// Who may.
    pub peers: Peers,
}

/// In the clear, for everybody.
impl From<TcpListener> for Entrance {
    fn from(listener: TcpListener) -> Self {
        Self {
            listener,
            tls: None,
            peers: Peers::default(),
        }
    }
}

/// A listener with its connections. Dropping it closes it, cuts whatever is left and waits for every thread.
pub struct Front {
    addr: SocketAddr,
    /// Ends the accept thread.
    stop: Arc<OwnedFd>,
    house: Arc<House>,
    accept: Mutex<Option<JoinOnDrop>>,
    // Before the crew: it sends connections there.
    _pollers: Vec<poller::Running>,
    crew: Arc<Crew>,
    // Given back after the listener is closed.
    _fds: FdPermit,
}

impl Front {
    /// Lets requests from `entrance` through to `handler`; `name` begins the threads' names (`http-conn-17`) and the
    /// limits' in answers (`http.max_body`).
    ///
    /// # Errors
    /// The budget has no two descriptors left (EMFILE), or the system no room for two threads.
    pub fn start(
        name: &'static str,
        entrance: impl Into<Entrance>,
        limits: Limits,
        fds: FdBudget,
        handler: Arc<dyn Handler>,
        watcher: Arc<dyn Watcher>,
    ) -> io::Result<Self> {
        Self::start_with(name, entrance, limits, fds, handler, watcher, IDLE_MAX)
    }

    pub(super) fn start_with(
        name: &'static str,
        entrance: impl Into<Entrance>,
        limits: Limits,
        fds: FdBudget,
        handler: Arc<dyn Handler>,
        watcher: Arc<dyn Watcher>,
        idle_max: Duration,
    ) -> io::Result<Self> {
        let pollers = match handler.is_quick() {
            true => pollers(),
            false => 0,
        };
        let own = OWN_FDS + pollers * readiness::FDS;
        let own = fds.try_take(own).ok_or(Errno::MFILE)?;
        let pollers = (0..pollers).map(|_| Poller::new().map(Arc::new));
        let pollers = pollers.collect::<io::Result<Vec<_>>>()?;
        let Entrance {
            listener,
            tls,
            peers,
        } = entrance.into();
        let addr = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let stop = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let crew = Arc::new(Crew::start(&format!("{name}-reaper"))?);
        let house = Arc::new(House {
            name,
            limits,
            handler,
            watcher,
            guests: Arc::new(Guests::new()),
            idle_max,
            tls,
            peers: RwLock::new(Arc::new(peers)),
            pollers: pollers.clone(),
            no_thread: Mutex::default(),
        });
        let start = |(n, poller): (usize, Arc<Poller>)| {
            poller.start(format!("{name}-poll-{n}"), &house, &crew)
        };
        let pollers = pollers.into_iter().enumerate().map(start);
        let pollers = pollers.collect::<io::Result<_>>()?;
        let porter = Porter {
            listener,
            stop: Arc::clone(&stop),
            house: Arc::clone(&house),
            crew: Arc::clone(&crew),
            fds,
            want: Episode::default(),
            full: Episode::default(),
        };
        let accept = spawn(format!("{name}-accept"), SMALL_STACK_BYTES, || {
            porter.work()
        })?;
        Ok(Self {
            addr,
            stop,
            house,
            accept: Mutex::new(Some(accept)),
            _pollers: pollers,
            crew,
            _fds: own,
        })
    }

    /// From now on one of the threads that wait for connections looks at `sideline` too, and of several each at its share.
    ///
    /// # Errors
    /// There is no such thread, since the handler takes its time (unsupported); or the system has no memory for one more.
    pub fn look_after(&self, sideline: Arc<dyn Sideline>) -> io::Result<()> {
        let pollers = &self.house.pollers;
        let next = pollers.iter().min_by_key(|poller| poller.sidelines());
        let next = next.ok_or(io::ErrorKind::Unsupported)?;
        next.look_after(sideline)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.house.guests.present()
    }

    /// From now on these may come: the next request of who is connected is judged by it too.
    pub fn set_peers(&self, peers: Peers) {
        *self.house.peers.write() = Arc::new(peers);
    }

    /// Lets nobody in any more: the port is closed, idle connections too; what is on its way to becoming a whole request
    /// is answered 503 `draining`, and requests under way finish. Does not wait for any of them.
    pub fn close(&self) {
        self.house.guests.begin_closing();
        // Not by a shutdown of the listener: a service manager that opened it keeps it for the next process. The write fails only
        // when the count would overflow, and then the thread has been woken already.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        let accept = self.accept.lock().take();
        drop(accept);
        self.house.guests.wake_idle();
    }

    /// Waits until the last connection has been closed and its thread has ended, or `deadline` has come; says whether all have.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        self.house.guests.wait_empty(deadline) && self.crew.wait_empty(deadline)
    }
}

impl fmt::Debug for Front {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Front({} on {}, {} connections)",
            self.house.name,
            self.addr,
            self.connections()
        )
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        self.close();
        self.house.guests.cut_all();
        // The crew is dropped with the other fields, and waits for its members.
    }
}

/// The accept thread.
struct Porter {
    listener: TcpListener,
    stop: Arc<OwnedFd>,
    house: Arc<House>,
    crew: Arc<Crew>,
    fds: FdBudget,
    /// Accept fails for want of something.
    want: Episode,
    /// Connections are turned away.
    full: Episode,
}

impl Porter {
    fn work(mut self) {
        let mut pause = PAUSE_FIRST;
        loop {
            let mut both = [
                PollFd::new(&self.listener, PollFlags::IN),
                PollFd::new(&self.stop, PollFlags::IN),
            ];
            // Interrupted: accept finds nothing.
            let _ = poll(&mut both, None);
            if self.house.guests.is_closing() {
                return;
            }
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    pause = PAUSE_FIRST;
                    self.receive(stream, peer);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) if concerns_one_peer(&error) => {}
                Err(error) => {
                    if self.want.begins() {
                        log::error!(
                            "{}: cannot accept connections: {error}; trying on",
                            self.house.name
                        );
                    }
                    // Not at once again: the connection is still waiting, and accept would fail in a tight loop.
                    self.house.guests.wait_change(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn receive(&mut self, stream: TcpStream, peer: SocketAddr) {
        let house = &self.house;
        let evicted = |guest: &Guest| {
            house.watcher.refused("evicted");
            log::debug!("{}: evicted {} to make room", house.name, guest.peer);
        };
        let most = house.limits.max_connections;
        let records = match &house.tls {
            None => None,
            Some(tls) => match tls.records() {
                None => return,
                some => some,
            },
        };
        let channel = Channel::new(stream, records);
        match house.guests.admit(channel, peer, most, &self.fds, evicted) {
            Admission::Seated(seat) => conn::receive(seat, house, &self.crew),
            Admission::Full(channel) => {
                if self.full.begins() {
                    log::warn!(
                        "{}: {} connections, all at work; turning others away",
                        house.name,
                        house.guests.present()
                    );
                }
                house.turn_away(&channel, Refusal::Full(most));
            }
        }
    }
}

/// Whether accept failed because of the one connection it was about to return; the next may be fine.
fn concerns_one_peer(error: &io::Error) -> bool {
    // accept(2): Linux passes pending network errors of the new connection on as its own.
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::HOSTUNREACH
                | Errno::NOPROTOOPT
                | Errno::OPNOTSUPP
                | Errno::NONET
        )
    )
}
