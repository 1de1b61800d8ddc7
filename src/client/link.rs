//! A connection to a relay: a thread that reads it, and verbs that write to it.
//!
//! It speaks the protocol and has no opinion: what to do about a MSG or a BYE is for whoever holds the [`RelayConnection`].

use std::io::{self, Write};
use std::net::Shutdown;
use std::time::Duration;

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;
use payrelay::notification::BackendId;
use payrelay::thread::{self, JoinOnDrop};
use payrelay::wire;

use super::connect;
use super::frames::{FrameReadError, FrameReader, RelayFrame, hello};
use super::tls::{Trust, Wire};

/// How long connecting may take, for each address that a name stands for.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long the relay may accept no byte of ours.
const WRITE_DEADLINE: Duration = Duration::from_secs(10);

/// Frames read ahead of whoever handles them; beyond it the socket fills and the relay waits.
const READ_AHEAD: usize = 64;

/// The stack of the reading thread: it holds no buffer there.
const READER_STACK_BYTES: usize = thread::SMALL_STACK_BYTES;

/// A connection to a relay; a thread reads it, the holder writes. Dropping it closes it.
#[derive(Debug)]
pub struct RelayConnection {
    // Dropped before the reader: if that waits for room in it, it gives up.
    heard: Receiver<Result<RelayFrame, FrameReadError>>,
    socket: Mutex<Wire>,
    _reader: JoinOnDrop,
}

impl Drop for RelayConnection {
    fn drop(&mut self) {
        // Wakes a reader that waits for bytes. It fails only on a socket that the other side has closed, which is as well.
        let _ = self.socket.lock().socket().shutdown(Shutdown::Both);
    }
}

impl RelayConnection {
    /// Connects to `place`, `host:port`, trying every address the name stands for; with TLS if there is a `trust`.
    ///
    /// # Errors
    /// The name is unknown, or none of its addresses can be connected to; the last one's error. Or it is not who is believed.
    pub fn connect(place: &str, trust: Option<&Trust>) -> io::Result<Self> {
        let socket = connect(place, CONNECT_DEADLINE)?;
        socket.set_nodelay(true)?;
        let wire = Wire::over(socket, trust, CONNECT_DEADLINE)?;
        wire.socket().set_write_timeout(Some(WRITE_DEADLINE))?;
        let reads = wire.handle()?;
        let (tell, heard) = bounded(READ_AHEAD);
        let reader = thread::spawn("reader", READER_STACK_BYTES, move || read_all(reads, &tell))?;
        Ok(Self {
            heard,
            socket: Mutex::new(wire),
            _reader: reader,
        })
    }

    /// What the relay says, in order; an error is the last.
    pub fn heard(&self) -> &Receiver<Result<RelayFrame, FrameReadError>> {
        &self.heard
    }

    /// Says who is here, and how many MSG may be unacknowledged.
    pub fn hello(&self, id: &BackendId, token: Option<&str>, max: u32) -> io::Result<()> {
        self.send(|out| hello(out, id, token, max))
    }

    /// The notification is taken.
    pub fn ack(&self, id: &str) -> io::Result<()> {
        self.send(|out| wire::line(out, "ACK").arg("id", id).end())
    }

    /// The notification is refused.
    pub fn nack(&self, id: &str, reason: &str) -> io::Result<()> {
        self.send(|out| {
            wire::line(out, "NACK")
                .arg("id", id)
                .arg("reason", reason)
                .end();
        })
    }

    /// The notifications are still being worked on.
    pub fn touch<'a>(&self, ids: impl IntoIterator<Item = &'a str>) -> io::Result<()> {
        self.send(|out| {
            for id in ids {
                wire::line(out, "TOUCH").arg("id", id).end();
            }
        })
    }

    /// From now on this many MSG may be unacknowledged.
    pub fn ready(&self, max: u32) -> io::Result<()> {
        self.send(|out| wire::line(out, "RDY").plain("max", max).end())
    }

    /// Is the relay there?
    pub fn ping(&self) -> io::Result<()> {
        self.send(|out| wire::line(out, "PING").end())
    }

    /// This side is.
    pub fn pong(&self) -> io::Result<()> {
        self.send(|out| wire::line(out, "PONG").end())
    }

    /// No more deliveries, please; the relay closes when what is in flight is acknowledged.
    pub fn bye(&self) -> io::Result<()> {
        self.send(|out| wire::line(out, "BYE").end())
    }

    fn send(&self, write: impl FnOnce(&mut Vec<u8>)) -> io::Result<()> {
        let mut frames = Vec::new();
        write(&mut frames);
        self.socket.lock().write_all(&frames)
    }
}

fn read_all(socket: Wire, tell: &Sender<Result<RelayFrame, FrameReadError>>) {
    let mut frames = FrameReader::new(socket);
    loop {
        let heard = frames.read();
        let last = heard.is_err();
        if tell.send(heard).is_err() || last {
            break;
        }
    }
}
