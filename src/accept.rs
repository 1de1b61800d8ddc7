//! A listener's thread: accepts until it is told to stop, whatever the system says meanwhile.
//!
//! What is done with a connection is the caller's; it must not wait.

use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};

use crate::thread::{self, JoinOnDrop};

/// How long to wait after an accept that failed for want of descriptors or memory, in milliseconds.
const PAUSE_MS: u32 = 50;

/// The accepting thread. Dropping it, or [`Acceptor::close`], closes the listener.
#[derive(Debug)]
pub struct Acceptor {
    addr: SocketAddr,
    stop: Arc<OwnedFd>,
    thread: Mutex<Option<JoinOnDrop>>,
}

impl Acceptor {
    /// Starts a thread called `name` that hands each connection to `take`. On Linux a connection inherits its options
    /// (no delay, keep-alive, user timeout) from `listener`, so they are set there, once.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_is_handed_on_and_after_the_close_nobody_is_let_in() -> io::Result<()> {
        let (hand, handed) = crossbeam_channel::bounded(64);
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let acceptor = Acceptor::start("accept", listener, move |stream, peer| {
            let _ = hand.send((stream, peer));
        })?;
        let crowd: Vec<_> = (0..50)
            .map(|_| TcpStream::connect(acceptor.addr()))
            .collect::<io::Result<_>>()?;
        for client in &crowd {
            let came = handed.recv_timeout(Duration::from_secs(20));
            assert_eq!(came.ok().map(|(_, peer)| peer), Some(client.local_addr()?));
        }
        acceptor.close();
        assert!(TcpStream::connect(acceptor.addr()).is_err());
        assert!(handed.recv().is_err(), "the thread has ended");
        acceptor.close(); // twice is once
        Ok(())
    }
}
