//! A listener's thread: accepts until it is told to stop, whatever the system says meanwhile.
//!
//! What is done with a connection is the caller's; it must not wait.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::net::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use crate::thread::{self, JoinOnDrop};

/// Connections that may wait in the kernel to be accepted. A restart brings thousands at once.
const BACKLOG: i32 = 4096;

/// How long to wait after an accept that failed for want of descriptors or memory, in milliseconds.
const PAUSE_MS: u32 = 50;

/// Opens a listener on `addr` (port 0: the system chooses).
///
/// # Errors
/// The address is in use, not ours, or not to be had.
pub fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?; // a restart must not wait for TIME_WAIT
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The accepting thread. Dropping it, or [`Acceptor::close`], closes the listener.
#[derive(Debug)]
pub struct Acceptor {
    addr: SocketAddr,
    stop: Arc<OwnedFd>,
    thread: Mutex<Option<JoinOnDrop>>,
}

impl Acceptor {
    /// Starts a thread called `name` that hands each connection to `take`. Accepted sockets have no delay and send
    /// keep-alive probes.
    ///
    /// # Errors
    /// The system has no room for another thread or descriptor.
    pub fn start(
        name: &str,
        listener: TcpListener,
        take: impl FnMut(TcpStream, SocketAddr) + Send + 'static,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let addr = listener.local_addr()?;
        let stop = Arc::new(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?);
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(name, thread::SMALL_STACK_BYTES, move || {
            accept_until(&stopped, &listener, take);
        })?;
        Ok(Self {
            addr,
            stop,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Where it listens, the port that the system chose included.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the listener and waits for the thread. Connections accepted before live on.
    pub fn close(&self) {
        // Fails only when the count would overflow, and then it is rung anyway.
        let _ = rustix::io::write(&*self.stop, &1u64.to_ne_bytes());
        drop(self.thread.lock().take());
    }
}

impl Drop for Acceptor {
    fn drop(&mut self) {
        self.close();
    }
}

fn accept_until(
    stopped: &OwnedFd,
    listener: &TcpListener,
    mut take: impl FnMut(TcpStream, SocketAddr),
) {
    let mut failing = false;
    loop {
        let mut both = [
            PollFd::new(listener, PollFlags::IN),
            PollFd::new(stopped, PollFlags::IN),
        ];
        // Interrupted: look again.
        let _ = poll(&mut both, None);
        if !both[1].revents().is_empty() {
            return;
        }
        match listener.accept() {
            Ok((stream, peer)) => {
                failing = false;
                prepare(&stream);
                take(stream, peer);
            }
            Err(error) if is_passing(&error) => {}
            Err(error) => {
                if !failing {
                    log::warn!("cannot accept: {error}; trying again until it works");
                }
                failing = true;
                // Out of descriptors or memory: the connection stays in the backlog, so looking at once would spin.
                let pause = Timespec {
                    tv_sec: 0,
                    tv_nsec: Duration::from_millis(PAUSE_MS.into()).as_nanos() as _,
                };
                let mut stop = [PollFd::new(stopped, PollFlags::IN)];
                let _ = poll(&mut stop, Some(&pause));
            }
        }
    }
}

/// Whether the error is about that one connection, or nothing at all.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::WouldBlock | ErrorKind::Interrupted | ErrorKind::ConnectionAborted
    )
}

fn prepare(stream: &TcpStream) {
    let socket = stream.as_fd();
    // A socket that refuses an option is broken already; the first read says so.
    let _ = stream.set_nodelay(true);
    let _ = sockopt::set_socket_keepalive(socket, true);
    let _ = sockopt::set_tcp_keepidle(socket, Duration::from_secs(60));
    let _ = sockopt::set_tcp_keepintvl(socket, Duration::from_secs(15));
    let _ = sockopt::set_tcp_keepcnt(socket, 4);
    // A peer that vanished without a word is given up after this, even with bytes under way to it.
    let _ = sockopt::set_tcp_user_timeout(socket, 120_000);
}
