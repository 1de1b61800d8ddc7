//! A relay that the test speaks by hand, for what the real one never does to a client: it is slow, or sends no frame.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

use super::{Authority, DEADLINE, Via, eventually};

/// Listens for one client at a time.
pub struct ScriptedRelay {
    listener: TcpListener,
    /// With TLS.
    tls: Option<Arc<ServerConfig>>,
}

trait ReadWrite: Read + Write {}

impl<T: Read + Write> ReadWrite for T {}

/// The relay's end of a connection.
pub struct ScriptedSession {
    stream: BufReader<Box<dyn ReadWrite>>,
}

impl ScriptedRelay {
    pub fn start(via: Via) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("an option");
        let tls = match via {
            Via::Clear => None,
            Via::Tls => Some(Authority::get().server()),
        };
        Self { listener, tls }
    }

    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr().expect("an address")
    }

    /// Waits for a client and its HELLO.
    pub fn accept(&self) -> ScriptedSession {
        let mut accepted = None;
        eventually("a client connects", || {
            accepted = self.listener.accept().ok();
            accepted.is_some()
        });
        let (stream, _) = accepted.expect("a connection");
        stream.set_nonblocking(false).expect("an option");
        stream.set_nodelay(true).expect("an option");
        stream.set_read_timeout(Some(DEADLINE)).expect("an option");
        stream.set_write_timeout(Some(DEADLINE)).expect("an option");
        let stream: Box<dyn ReadWrite> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let tls = ServerConnection::new(Arc::clone(config)).expect("a server");
                Box::new(StreamOwned::new(tls, stream))
            }
        };
        let mut session = ScriptedSession {
            stream: BufReader::new(stream),
        };
        let hello = session.line();
        assert!(hello.starts_with("HELLO 1 "), "{hello:?}");
        session
    }
}

impl ScriptedSession {
    /// The next line of the client, without its LF.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        assert!(line.ends_with('\n'), "the client has closed: {line:?}");
        line.trim_end().to_owned()
    }

    pub fn send(&mut self, bytes: &[u8]) {
        let stream = self.stream.get_mut();
        stream.write_all(bytes).expect("written");
        stream.flush().expect("written");
    }

    /// Sends `bytes` again and again until the client closes, but not more than `most` times; how often it was taken.
    pub fn send_until_closed(&mut self, bytes: &[u8], most: usize) -> usize {
        (0..most)
            .take_while(|_| self.stream.get_mut().write_all(bytes).is_ok())
            .count()
    }

    /// Waits until the client closes, whatever it still says.
    pub fn expect_closed(&mut self) {
        let mut rest = [0; 1024];
        loop {
            match self.stream.read(&mut rest) {
                Ok(0) => return,
                Ok(_) => {}
                // The last two: TLS wants its own end before the connection's, and answers what it reads.
                Err(error) => match error.kind() {
                    ErrorKind::ConnectionReset
                    | ErrorKind::UnexpectedEof
                    | ErrorKind::BrokenPipe => return,
                    _ => panic!("the client does not close: {error}"),
                },
            }
        }
    }
}
