//! A relay that the test speaks by hand, for what the real one never does to a client: it is slow, or sends no frame.

use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};

use super::{DEADLINE, eventually};

/// Listens for one client at a time.
pub struct ScriptedRelay {
    listener: TcpListener,
}

/// The relay's end of a connection.
pub struct ScriptedSession {
    stream: BufReader<TcpStream>,
}

impl ScriptedRelay {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("an option");
        Self { listener }
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
        self.stream.get_mut().write_all(bytes).expect("written");
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
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return,
                Err(error) => panic!("the client does not close: {error}"),
            }
        }
    }
}
