//! A connection to a Redis server: TCP, TLS or a unix socket, with a limit on every wait.
//!
//! The redis crate's own connection is not used, because it takes a read that a signal has interrupted for an
//! error, and then drops the next reply: on Linux a process that was stopped and goes on, as under a debugger or when a virtual
//! machine is moved, finds every read with a time limit interrupted.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs as _};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redis::{ConnectionAddr, RedisError, Value};
use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::replies::Replies;

/// A connection.
pub struct RedisConnection {
    stream: Stream,
    replies: Replies,
}

enum Stream {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, Restarting>>),
    Unix(UnixStream),
}

impl fmt::Debug for RedisConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Connection(…)")
    }
}

impl RedisConnection {
    /// Connects to `address`; `tls` is needed if it wants TLS. No single wait is longer than `within`.
    ///
    /// # Errors
    /// Nobody is there, or its certificate is not trusted.
    pub fn open(
        address: &ConnectionAddr,
        tls: Option<&Arc<ClientConfig>>,
        within: Duration,
    ) -> Result<Self, RedisError> {
        let stream = match address {
            ConnectionAddr::Tcp(host, port) => Stream::Tcp(tcp(host, *port, within)?),
            ConnectionAddr::TcpTls { host, port, .. } => {
                let config = tls.ok_or_else(|| io::Error::other("TLS is not set up"))?;
                let socket = tcp(host, *port, within)?;
                socket.set_read_timeout(Some(within))?;
                socket.set_write_timeout(Some(within))?;
                Stream::Tls(Box::new(handshake(host, config, socket)?))
            }
            ConnectionAddr::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
            other => return Err(io::Error::other(format!("{other} is no address")).into()),
        };
        Ok(Self {
            stream,
            replies: Replies::default(),
        })
    }

    /// How long a read may wait, and a write.
    ///
    /// # Errors
    /// A duration is zero.
    pub fn set_timeouts(&self, read: Duration, write: Duration) -> Result<(), RedisError> {
        let (read, write) = (Some(read), Some(write));
        let tcp = match &self.stream {
            Stream::Tcp(socket) => socket,
            Stream::Tls(stream) => &stream.sock.0,
            Stream::Unix(socket) => {
                socket.set_read_timeout(read)?;
                return Ok(socket.set_write_timeout(write)?);
            }
        };
        tcp.set_read_timeout(read)?;
        Ok(tcp.set_write_timeout(write)?)
    }

    /// The address at the other end, such as `10.0.0.7:6379`; a unix socket has none.
    pub fn peer(&self) -> Option<String> {
        let tcp = match &self.stream {
            Stream::Tcp(socket) => socket,
            Stream::Tls(stream) => &stream.sock.0,
            Stream::Unix(_) => return None,
        };
        Some(tcp.peer_addr().ok()?.to_string())
    }

    /// Sends `bytes`, which are whole commands.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(&mut self, bytes: &[u8]) -> Result<(), RedisError> {
        let stream: &mut dyn Write = match &mut self.stream {
            Stream::Tcp(socket) => socket,
            Stream::Tls(stream) => &mut **stream,
            Stream::Unix(socket) => socket,
        };
        stream.write_all(bytes)?;
        Ok(stream.flush()?)
    }

    /// Reads one reply or message.
    ///
    /// # Errors
    /// The connection is broken, or Redis refuses: the crate gives that as a value.
    pub fn receive(&mut self) -> Result<Value, RedisError> {
        let value = match &mut self.stream {
            Stream::Tcp(socket) => self.replies.next(&mut Restarting(socket)),
            Stream::Tls(stream) => self.replies.next(stream),
            Stream::Unix(socket) => self.replies.next(&mut Restarting(socket)),
        };
        match value? {
            Value::ServerError(error) => Err(error.into()),
            value => Ok(value),
        }
    }
}

/// Reads on when a signal has interrupted a read.
struct Restarting<S = TcpStream>(S);

impl<S: Read> Read for Restarting<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.0.read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }
}

impl<S: Write> Write for Restarting<S> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        loop {
            match self.0.write(buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => return done,
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Tries every address of `host`, `within` in all.
fn tcp(host: &str, port: u16, within: Duration) -> io::Result<TcpStream> {
    let until = Instant::now() + within;
    let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{host:?} has no address"));
    for address in (host, port).to_socket_addrs()? {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(io::ErrorKind::TimedOut.into());
        }
        match TcpStream::connect_timeout(&address, left) {
            Ok(socket) => {
                socket.set_nodelay(true)?;
                return Ok(socket);
            }
            Err(error) => last = error,
        }
    }
    Err(last)
}

fn handshake(
    host: &str,
    config: &Arc<ClientConfig>,
    socket: TcpStream,
) -> io::Result<StreamOwned<ClientConnection, Restarting>> {
    let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
    let mut client = ClientConnection::new(Arc::clone(config), name).map_err(io::Error::other)?;
    let mut socket = Restarting(socket);
    while client.is_handshaking() {
        client.complete_io(&mut socket)?;
    }
    Ok(StreamOwned::new(client, socket))
}

/// TLS as a client. `ca`: certificates in PEM form to trust instead of the system's.
///
/// # Errors
/// There is no certificate to trust.
pub fn tls(ca: Option<&[u8]>) -> Result<Arc<ClientConfig>, String> {
    let certificates = match ca {
        Some(pem) => {
            let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
            all.map_err(|error| format!("no certificate in PEM form: {error}"))?
        }
        None => rustls_native_certs::load_native_certs().certs,
    };
    let mut roots = RootCertStore::empty();
    // Some bundles have certificates that nobody can use any more.
    let (added, _) = roots.add_parsable_certificates(certificates);
    if added == 0 {
        let none = match ca {
            Some(_) => "no certificate in PEM form in it",
            None => "this system lists no authorities: name a file in redis.ca",
        };
        return Err(none.into());
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(rustls::ALL_VERSIONS)
        .map_err(|error| error.to_string())?;
    let config = builder.with_root_certificates(roots).with_no_client_auth();
    Ok(Arc::new(config))
}
