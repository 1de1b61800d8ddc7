//! The ports that the configuration asks for, opened before anything else is.

use std::net::{SocketAddr, TcpListener};

use super::StartError;
use crate::config::Config;
use crate::edge::{adopt, listen};
use crate::systemd::Sockets;

/// Open ports; nobody is let in yet.
pub struct Ports {
    pub tcp: TcpListener,
    pub tcp_tls: Option<TcpListener>,
    pub http: TcpListener,
    pub admin: TcpListener,
}

impl Ports {
    /// Opens them, or takes those of `sockets` that have their addresses.
    ///
    /// # Errors
    /// A port that is not to be had, or one of `sockets` that no listener takes.
    pub fn open(config: &Config, mut sockets: Sockets) -> Result<Self, StartError> {
        let mut open = |key, addr| open(key, addr, &mut sockets);
        let tls = config.tcp.tls.as_ref();
        let ports = Self {
            tcp: open("tcp.listen", config.tcp.listen)?,
            tcp_tls: tls
                .map(|tls| open("tcp.tls.listen", tls.listen))
                .transpose()?,
            http: open("http.listen", config.http.listen)?,
            admin: open("admin.listen", config.admin.listen)?,
        };
        match sockets.left().next() {
            Some(addr) => Err(StartError::NoListener(addr)),
            None => Ok(ports),
        }
    }
}

fn open(
    key: &'static str,
    addr: SocketAddr,
    sockets: &mut Sockets,
) -> Result<TcpListener, StartError> {
    let listener = match sockets.take(addr) {
        Some(listener) => adopt(listener),
        None => listen(addr),
    };
    listener.map_err(|error| StartError::Listen(key, addr, error))
}
