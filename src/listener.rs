//! The accept loop of every listener (HTTP, admin, backends): one thread that accepts until the listener is closed.
//!
//! What happens with a connection is the caller's decision. An error of `accept` never ends the loop.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use rustix::io::Errno;
use rustix::net::Shutdown;

use crate::log_once::LogOnce;
use crate::thread::{self, JoinOnDrop};

/// The pause after `accept` failed because the system is short of descriptors or memory. It doubles with each failure.
const PAUSE_FIRST: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_secs(1);

/// A listening socket and its accepting thread. [`Listener::close`], or dropping it, closes the socket and joins the thread.
#[derive(Debug)]
pub struct Listener {
    addr: SocketAddr,
    closing: Arc<Closing>,
    running: Mutex<Option<Running>>,
}

/// The fields are dropped in this order: the thread has ended when the socket is closed.
#[derive(Debug)]
struct Running {
    thread: JoinOnDrop,
    socket: Arc<TcpListener>,
}

/// Whether the listener is being closed; ends the thread's pause.
#[derive(Debug, Default)]
struct Closing {
    begun: Mutex<bool>,
    changed: Condvar,
}

impl Listener {
    /// Starts a thread called `name` that passes each connection to `on_connection`, which must not block: the next
    /// connection waits for it. On Linux a connection inherits its socket options (no delay, keep-alive, user timeout) from
    /// `socket`, so the caller sets them once, there.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(
        name: &str,
        socket: TcpListener,
        on_connection: impl FnMut(TcpStream, SocketAddr) + Send + 'static,
    ) -> io::Result<Self> {
        socket.set_nonblocking(false)?;
        let addr = socket.local_addr()?;
        let socket = Arc::new(socket);
        let closing = Arc::new(Closing::default());
        let accept = Accept {
            name: name.to_owned(),
            socket: Arc::clone(&socket),
            closing: Arc::clone(&closing),
        };
        let thread = thread::spawn(name, thread::SMALL_STACK_BYTES, move || {
            accept.run(on_connection);
        })?;
        Ok(Self {
            addr,
            closing,
            running: Mutex::new(Some(Running { thread, socket })),
        })
    }

    /// The listening address, with the port that the system chose if the configuration said 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the listening socket and waits for the thread. Accepted connections stay open. A second call does nothing.
    pub fn close(&self) {
        let Some(Running { thread, socket }) = self.running.lock().take() else {
            return;
        };
        self.closing.begin();
        // Linux: ends a blocked accept, and refuses new connections from now on. Fails only if that has happened already.
        let _ = rustix::net::shutdown(&socket, Shutdown::Both);
        drop(thread);
        drop(socket);
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

impl Closing {
    fn begin(&self) {
        *self.begun.lock() = true;
        self.changed.notify_all();
    }

    fn has_begun(&self) -> bool {
        *self.begun.lock()
    }

    /// Returns after `pause`, or as soon as the closing begins.
    fn wait(&self, pause: Duration) {
        let mut begun = self.begun.lock();
        if !*begun {
            self.changed.wait_for(&mut begun, pause);
        }
    }
}

struct Accept {
    name: String,
    socket: Arc<TcpListener>,
    closing: Arc<Closing>,
}

impl Accept {
    fn run(self, mut on_connection: impl FnMut(TcpStream, SocketAddr)) {
        let failures = LogOnce::default();
        let mut pause = PAUSE_FIRST;
        loop {
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    pause = PAUSE_FIRST;
                    on_connection(stream, peer);
                }
                Err(_) if self.closing.has_begun() => return,
                Err(error) if concerns_one_peer(&error) => {}
                Err(error) => {
                    let name = &self.name;
                    failures.error(format_args!(
                        "{name}: cannot accept connections: {error}; trying again"
                    ));
                    // The connection stays in the backlog, so accept would fail again at once, in a tight loop.
                    self.closing.wait(pause);
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

/// Whether accept failed because of the one connection that it was about to return. The next one may be fine.
fn concerns_one_peer(error: &io::Error) -> bool {
    // accept(2): Linux passes pending network errors of the new connection on as errors of accept.
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

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn loopback() -> io::Result<TcpListener> {
        TcpListener::bind(("127.0.0.1", 0))
    }

    #[test]
    fn each_connection_is_passed_on_and_after_close_none_is_accepted() -> io::Result<()> {
        let (pass, passed) = crossbeam_channel::bounded(64);
        let listener = Listener::start("accept", loopback()?, move |stream, peer| {
            let _ = pass.send((stream, peer));
        })?;
        let clients: Vec<_> = (0..50)
            .map(|_| TcpStream::connect(listener.addr()))
            .collect::<io::Result<_>>()?;
        for client in &clients {
            let came = passed.recv_timeout(Duration::from_secs(20));
            assert_eq!(came.ok().map(|(_, peer)| peer), Some(client.local_addr()?));
        }
        listener.close();
        assert!(TcpStream::connect(listener.addr()).is_err());
        assert!(passed.recv().is_err(), "the thread has ended");
        TcpListener::bind(listener.addr())?; // the port is free
        listener.close();
        Ok(())
    }

    #[test]
    fn errors_of_one_connection_are_told_from_errors_of_the_system() {
        let of_one_peer = |errno: Errno| concerns_one_peer(&io::Error::from(errno));
        assert!(of_one_peer(Errno::CONNABORTED) && of_one_peer(Errno::INTR));
        assert!(!of_one_peer(Errno::MFILE) && !of_one_peer(Errno::NOBUFS));
    }

    #[test]
    fn closing_ends_the_pause_after_a_failure() {
        let closing = Closing::default();
        let began = Instant::now();
        closing.begin();
        closing.wait(Duration::from_secs(3600));
        assert!(closing.has_begun() && began.elapsed() < Duration::from_secs(3600));
    }
}
