//! What the subcommands that talk to a relay share: connections, TLS, HTTP, and the protocol of backends.
//!
//! It knows no arguments and no configuration, and prints nothing.

pub mod frames;
pub mod http;
pub mod link;
pub mod tls;
pub mod url;

use std::io;
use std::net::{TcpStream, ToSocketAddrs};
use std::time::Duration;

/// Connects to `place`, `host:port`, trying every address that the name stands for; each may take `within`.
///
/// # Errors
/// The name is unknown, or none of its addresses can be connected to; the last one's error.
pub fn connect(place: &str, within: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in place.to_socket_addrs()? {
        match TcpStream::connect_timeout(&address, within) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(last)
}
