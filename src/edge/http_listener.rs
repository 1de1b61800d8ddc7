//! A listener for HTTP: accepts, keeps the connection limit, starts each connection's thread, and closes in good order.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::RwLock;
use rustix::io::Errno;

use super::admission::Admission;
use super::channel::Transport;
use super::context::EdgeContext;
use super::refusal::Refusal;
use super::serve::{self, serve};
use super::table::{Connection, ConnectionGuard, ConnectionTable};
use super::{Handler, ListenerLimits, Peers, Watcher};
use crate::fds::{FdBudget, FdPermit};
use crate::listener::Listener;
use crate::log_once::LogOnce;
use crate::thread::ThreadGroup;
use crate::tls::Identity;

/// What a listener takes from the budget for itself: its socket, what wakes its accept thread, and the connection that it is about to
/// judge.
pub const OWN_FDS: usize = 3;

/// How long a closing listener waits for the first request of a connection that it had accepted: a few round trips, TLS included.
/// A load balancer that connects in advance prolongs the closing by no more than this.
const FIRST_REQUEST_MAX: Duration = Duration::from_secs(1);

/// Where peers connect.
#[derive(Debug)]
pub struct BoundListener {
    /// The socket.
    pub listener: TcpListener,
    /// The certificate; `None`: connections are not encrypted.
    pub tls: Option<Arc<Identity>>,
    /// Which peers may connect.
    pub peers: Peers,
}

/// Not encrypted, for every peer.
impl From<TcpListener> for BoundListener {
    fn from(listener: TcpListener) -> Self {
        Self {
            listener,
            tls: None,
            peers: Peers::default(),
        }
    }
}

/// A listener with its connections. Dropping it closes it, cuts the connections that are left and waits for every thread.
pub struct HttpListener {
    accept: Listener,
    context: Arc<EdgeContext>,
    threads: Arc<ThreadGroup>,
    // Given back after the listener is closed.
    _fds: FdPermit,
}

impl HttpListener {
    /// Lets requests from `entrance` through to `handler`; `name` begins the threads' names (`http-conn-17`) and the
    /// limits' in answers (`http.max_body`).
    ///
    /// # Errors
    /// The budget has too few descriptors left (EMFILE), or the system no room for two threads.
    pub fn start(
        name: &'static str,
        entrance: impl Into<BoundListener>,
        limits: ListenerLimits,
        fds: FdBudget,
        handler: Arc<dyn Handler>,
        watcher: Arc<dyn Watcher>,
    ) -> io::Result<Self> {
        let own = fds.try_take(OWN_FDS).ok_or(Errno::MFILE)?;
        let BoundListener {
            listener,
            tls,
            peers,
        } = entrance.into();
        let threads = Arc::new(ThreadGroup::start(&format!("{name}-reaper"))?);
        let context = Arc::new(EdgeContext {
            limits,
            handler,
            table: Arc::new(ConnectionTable::new(name, watcher)),
            tls,
            peers: RwLock::new(Arc::new(peers)),
        });
        let mut admitter = Admitter {
            context: Arc::clone(&context),
            threads: Arc::clone(&threads),
            fds,
            full: LogOnce::default(),
            no_thread: LogOnce::default(),
        };
        let accept = Listener::start(&format!("{name}-accept"), listener, move |stream, peer| {
            admitter.admit(stream, peer);
        })?;
        Ok(Self {
            accept,
            context,
            threads,
            _fds: own,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.accept.addr()
    }

    /// How many connections there are.
    pub fn connections(&self) -> usize {
        self.context.table.present()
    }

    /// From now on these peers may connect: the next request of a connection is judged by it too.
    pub fn set_peers(&self, peers: Peers) {
        *self.context.peers.write() = Arc::new(peers);
    }

    /// Accepts no more: the port is closed, kept connections without a request too; a request that is not whole is answered 503
    /// `draining`, and whole requests are answered. Does not wait for any of them.
    pub fn close(&self) {
        self.context.table.begin_closing();
        self.accept.close();
        self.context.table.end_kept();
    }

    /// To be called after [`Self::close`]. Waits until the last connection has been closed and its thread has ended, or `deadline` has
    /// come; says whether all have. A connection whose first request has not begun is given [`FIRST_REQUEST_MAX`] for it: its peer
    /// was told by the accept that somebody is here, and gets an answer.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        let table = &self.context.table;
        if !table.wait_empty(deadline.min(Instant::now() + FIRST_REQUEST_MAX)) {
            table.end_idle();
        }
        table.wait_empty(deadline) && self.threads.wait_empty(deadline)
    }
}

impl fmt::Debug for HttpListener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "HttpListener({} on {}, {} connections)",
            self.context.table.name,
            self.addr(),
            self.connections()
        )
    }
}

impl Drop for HttpListener {
    fn drop(&mut self) {
        self.close();
        self.context.table.cut_all();
        // The threads are joined when the group is dropped with the other fields.
    }
}

/// The work of the accept thread.
struct Admitter {
    context: Arc<EdgeContext>,
    threads: Arc<ThreadGroup>,
    fds: FdBudget,
    /// Connections are refused for want of room.
    full: LogOnce,
    /// Threads are not to be had.
    no_thread: LogOnce,
}

impl Admitter {
    fn admit(&mut self, stream: TcpStream, peer: SocketAddr) {
        let context = &self.context;
        let table = &context.table;
        let records = match &context.tls {
            None => None,
            Some(tls) => match tls.records() {
                None => return,
                some => some,
            },
        };
        let evicted = |connection: &Connection| {
            table.watcher.refused("evicted");
            log::debug!("{}: evicted {} to make room", table.name, connection.peer);
        };
        let most = context.limits.max_connections;
        let channel = Transport::new(stream, records);
        match table.admit(channel, peer, most, &self.fds, evicted) {
            Admission::Admitted(guard) => self.start(guard),
            Admission::Full(channel) => {
                self.full.warn(format_args!(
                    "{name}: {} connections, all with a request at work, or no file descriptor is left; others are refused: raise \
                     {name}.max_connections = {most} or the limit of open files",
                    table.present(),
                    name = table.name,
                ));
                context.refuse_at_once(&channel, Refusal::Full(most));
            }
        }
    }

    /// Starts the connection's thread.
    fn start(&mut self, guard: ConnectionGuard) {
        let Some(connection) = guard.connection().map(Arc::clone) else {
            return;
        };
        let context = Arc::clone(&self.context);
        let name = format!("{}-conn-{}", context.table.name, connection.number);
        let started = self
            .threads
            .spawn(name, serve::STACK_BYTES, move || serve(&guard, &context));
        if let Err(error) = started {
            let (name, peer) = (self.context.table.name, connection.peer);
            self.no_thread
                .error(format_args!("{name}: no thread for {peer}: {error}"));
            self.context
                .refuse_at_once(&connection.channel, Refusal::NoResources);
        }
    }
}
