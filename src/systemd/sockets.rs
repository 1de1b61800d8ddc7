//! Listening sockets that the service manager opened before this process began, and keeps open when it ends.
//!
//! Such a socket is matched with a listener of relay.toml by its address: that file alone says where the relay listens, and its
//! rules about addresses that strangers reach hold for these sockets too.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};

use listenfd::ListenFd;

/// Sockets that were handed over and that no listener has taken yet.
#[derive(Debug, Default)]
pub struct Sockets(Vec<(SocketAddr, TcpListener)>);

/// A socket that was handed over and cannot be used. Its number counts from 0, in the order of the socket unit.
#[derive(Debug)]
pub enum BadSocket {
    /// It is no TCP socket.
    NotTcp(usize, io::Error),
    /// It does not listen: `Accept=yes` in the socket unit, or a unit of another kind.
    NotListening(usize),
}

impl fmt::Display for BadSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotTcp(n, error) => write!(
                f,
                "socket {n} of the service manager is not a TCP socket ({error}); \
                 the socket unit may have ListenStream=ADDRESS:PORT only"
            ),
            Self::NotListening(n) => write!(
                f,
                "socket {n} of the service manager does not listen; remove Accept=yes from the socket unit"
            ),
        }
    }
}

impl std::error::Error for BadSocket {}

impl Sockets {
    /// Takes the sockets that the environment announces (`LISTEN_FDS`), and removes the announcement. They are closed on exec.
    /// Call it once, before another thread starts.
    ///
    /// # Errors
    /// One of them is not a listening TCP socket.
    pub fn take_from_environment() -> Result<Self, BadSocket> {
        let mut handed_over = ListenFd::from_env();
        let mut sockets = Vec::new();
        for n in 0..handed_over.len() {
            let listener = handed_over.take_tcp_listener(n);
            let Some(listener) = listener.map_err(|error| BadSocket::NotTcp(n, error))? else {
                continue; // `take` gives each of them once
            };
            let listens = rustix::net::sockopt::socket_acceptconn(&listener);
            if !listens.is_ok_and(|listens| listens) {
                return Err(BadSocket::NotListening(n));
            }
            let addr = listener.local_addr();
            sockets.push((addr.map_err(|error| BadSocket::NotTcp(n, error))?, listener));
        }
        Ok(Self(sockets))
    }

    /// The socket that listens on `addr`, if one was handed over.
    pub fn take(&mut self, addr: SocketAddr) -> Option<TcpListener> {
        let at = self.0.iter().position(|(at, _)| *at == addr)?;
        Some(self.0.swap_remove(at).1)
    }

    /// Where the sockets listen that nobody has taken.
    pub fn left(&self) -> impl Iterator<Item = SocketAddr> {
        self.0.iter().map(|(addr, _)| *addr)
    }
}
