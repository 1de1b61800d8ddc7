//! What providers and backends need while nodes die under them: where a node is just now, and a session that may end in the middle
//! of a frame.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Frame, Relay};

/// Where a node is.
#[derive(Clone, Copy)]
pub struct Place {
    pub http: SocketAddr,
    pub tcp: SocketAddr,
}

impl Place {
    pub fn of(relay: &Relay) -> Self {
        Self {
            http: relay.ready().http,
            tcp: relay.ready().tcp,
        }
    }
}

/// Where a node is just now; `None` while it is down.
#[derive(Default)]
pub struct Signpost {
    place: Mutex<Option<Place>>,
    changed: Condvar,
}

impl Signpost {
    pub fn set(&self, place: Option<Place>) {
        *self.place.lock() = place;
        self.changed.notify_all();
    }

    /// The relay, once there is one; looks up every now and then to see whether all is over.
    pub fn wait(&self, over: &AtomicBool) -> Option<Place> {
        let mut place = self.place.lock();
        while place.is_none() && !over.load(Ordering::SeqCst) {
            self.changed.wait_for(&mut place, Duration::from_millis(50));
        }
        *place
    }
}

/// A backend's connection to a relay that may die in the middle of a frame. `T` is what the test knows of an ACK.
pub struct FlappingSession<T> {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What is in the buffer was sent after that.
    pub reading_since: Instant,
    /// Acknowledged, and no PONG yet that shows that the relay has read so far. Each has a PING behind it.
    pub unsure: VecDeque<T>,
}

/// What came of a look at the connection.
pub enum Next {
    Frame(Frame),
    Nothing,
    Over,
}

impl<T> FlappingSession<T> {
    /// `None`: the node is not there.
    pub fn open(to: SocketAddr, id: &str) -> Option<Self> {
        let stream = TcpStream::connect(to).ok()?;
        stream.set_nodelay(true).ok()?;
        stream
            .set_read_timeout(Some(Duration::from_millis(50)))
            .ok()?;
        let mut session = Self {
            stream,
            buffer: Vec::new(),
            reading_since: Instant::now(),
            unsure: VecDeque::new(),
        };
        session.say(&format!("HELLO 1 id={id} max=16\n"));
        Some(session)
    }

    /// Whether it arrives is found out by reading.
    pub fn say(&mut self, words: &str) {
        let _ = self.stream.write_all(words.as_bytes());
    }

    /// Waits 50 ms at most.
    pub fn next(&mut self) -> Next {
        loop {
            match Frame::parse(&self.buffer) {
                Ok(Some((frame, taken))) => {
                    self.buffer.drain(..taken);
                    return Next::Frame(frame);
                }
                Ok(None) => {}
                Err(problem) => panic!("the relay broke the protocol: {problem}"),
            }
            if self.buffer.is_empty() {
                self.reading_since = Instant::now();
            }
            let mut chunk = [0; 16 * 1024];
            match self.stream.read(&mut chunk) {
                Ok(0) => return Next::Over,
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) =>
                {
                    return Next::Nothing;
                }
                Err(_) => return Next::Over,
            }
        }
    }
}
