//! The accept loop of every listener (HTTP, admin, backends): one thread that accepts until the listener is closed.
//!
//! What happens with a connection is the caller's decision. An error of `accept` never ends the loop.

use std::io;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

use crate::heartbeat::{self, Pulse, Role};
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
    thread: Mutex<Option<JoinOnDrop>>,
}

/// Wakes the accept thread for the last time: an eventfd, readable from [`Closing::begin`] on.
#[derive(Debug)]
struct Closing(OwnedFd);

impl Listener {
    /// Starts a thread called `name` that passes each connection to `on_connection`, which must not block: the next
    /// connection waits for it. On Linux a connection inherits its socket options (no delay, keep-alive, user timeout) from
    /// `socket`, so the caller sets them once, there.
    ///
    /// # Errors
    /// The system has no room for another thread or descriptor.
    pub fn start(
        name: &str,
        socket: TcpListener,
        mut on_connection: impl FnMut(TcpStream, SocketAddr) + Send + 'static,
    ) -> io::Result<Self> {
        // Another process may accept from it too (a service manager that gave it to the process before this one): then a
        // connection can be gone between poll and accept.
        socket.set_nonblocking(true)?;
        let addr = socket.local_addr()?;
        let closing = Arc::new(Closing::new()?);
        let accept = Accept {
            name: name.to_owned(),
            socket,
            closing: Arc::clone(&closing),
        };
        let role = Role::vital(name, "no new connection is accepted");
        let thread = heartbeat::supervise(role, thread::SMALL_STACK_BYTES, move |pulse| {
            accept.run(pulse, &mut on_connection);
        })?;
        Ok(Self {
            addr,
            closing,
            thread: Mutex::new(Some(thread)),
        })
    }

    /// The listening address, with the port that the system chose if the configuration said 0.
    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Closes the listening socket and waits for the thread. Accepted connections stay open. A second call does nothing.
    ///
    /// The socket is not shut down: if a service manager holds it too, it goes on listening for the next process.
    pub fn close(&self) {
        self.closing.begin();
        drop(self.thread.lock().take());
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.close();
    }
}

impl Closing {
    fn new() -> io::Result<Self> {
        let flags = EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC;
        Ok(Self(eventfd(0, flags)?))
    }

    fn begin(&self) {
        // Fails only if the count would overflow, and then it is readable already.
        let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
    }

    /// Waits until `socket` has a connection; `false`: the closing has begun.
    fn wait_for(&self, socket: &TcpListener) -> bool {
        let mut both = [
            PollFd::new(&self.0, PollFlags::IN),
            PollFd::new(socket, PollFlags::IN),
        ];
        // Interrupted, or out of memory: accept says what is there.
        let _ = poll(&mut both, None);
        both[0].revents().is_empty()
    }

    /// Waits for `pause`; `false`: the closing has begun.
    fn pause(&self, pause: Duration) -> bool {
        let mut one = [PollFd::new(&self.0, PollFlags::IN)];
        let pause = Timespec {
            tv_sec: pause.as_secs() as _,
            tv_nsec: pause.subsec_nanos() as _,
        };
        let _ = poll(&mut one, Some(&pause));
        one[0].revents().is_empty()
    }
}

struct Accept {
    name: String,
    socket: TcpListener,
    closing: Arc<Closing>,
}

impl Accept {
    fn run(&self, pulse: &Pulse, on_connection: &mut impl FnMut(TcpStream, SocketAddr)) {
        let failures = LogOnce::new();
        let mut pause = PAUSE_FIRST;
        loop {
            pulse.idle();
            if !self.closing.wait_for(&self.socket) {
                return;
            }
            pulse.busy();
            match self.socket.accept() {
                Ok((stream, peer)) => {
                    pause = PAUSE_FIRST;
                    on_connection(stream, peer);
                }
                Err(error) if concerns_one_peer(&error) => {}
                Err(error) => {
                    let name = &self.name;
                    failures.error(format_args!(
                        "{name}: cannot accept connections: {error}; trying again"
                    ));
                    // The connection stays in the backlog, so accept would fail again at once, in a tight loop.
                    if !self.closing.pause(pause) {
                        return;
                    }
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }
}

/// Whether accept failed because of the one connection that it was about to return, or because that is gone. The next one may be
/// fine.
fn concerns_one_peer(error: &io::Error) -> bool {
    // accept(2): Linux passes pending network errors of the new connection on as errors of accept.
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(
            Errno::AGAIN
                | Errno::CONNABORTED
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
    fn closing_ends_the_pause_after_a_failure() -> io::Result<()> {
        let closing = Closing::new()?;
        let began = Instant::now();
        closing.begin();
        assert!(!closing.pause(Duration::from_secs(3600)));
        assert!(began.elapsed() < Duration::from_secs(3600));
        Ok(())
    }

    #[test]
    fn a_socket_that_another_process_holds_too_goes_on_listening() -> io::Result<()> {
        let theirs = loopback()?;
        let listener = Listener::start("accept", theirs.try_clone()?, |_, _| {})?;
        listener.close();
        let _client = TcpStream::connect(listener.addr())?;
        theirs.set_nonblocking(false)?;
        theirs.accept()?;
        Ok(())
    }
}
