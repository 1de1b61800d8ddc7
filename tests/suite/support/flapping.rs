//! What providers and backends need while nodes die under them: where a node is just now, and a session that may end in the middle
//! of a frame.

use std::collections::VecDeque;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::{Frame, RawHttp, Relay, pause};

/// The addresses of a node that is up.
#[derive(Clone, Copy)]
pub struct NodeAddresses {
    pub http: SocketAddr,
    pub tcp: SocketAddr,
}

impl NodeAddresses {
    pub fn of(relay: &Relay) -> Self {
        Self {
            http: relay.ready().http,
            tcp: relay.ready().tcp,
        }
    }
}

/// Where a node is just now; `None` while it is down.
#[derive(Default)]
pub struct NodeLocator {
    addresses: Mutex<Option<NodeAddresses>>,
    changed: Condvar,
}

impl NodeLocator {
    pub fn set(&self, addresses: Option<NodeAddresses>) {
        *self.addresses.lock() = addresses;
        self.changed.notify_all();
    }

    /// Waits until the node is up; `None` once `over` is set, which is read every 50 ms.
    pub fn wait(&self, over: &AtomicBool) -> Option<NodeAddresses> {
        let mut addresses = self.addresses.lock();
        while addresses.is_none() && !over.load(Ordering::SeqCst) {
            self.changed
                .wait_for(&mut addresses, Duration::from_millis(50));
        }
        addresses.filter(|_| !over.load(Ordering::SeqCst))
    }

    /// Lets a provider post until `over` is set, wherever the node is by then: `post` posts once, and gives `None` if it had no
    /// answer, for which there is another connection.
    pub fn keep_posting(
        &self,
        over: &AtomicBool,
        mut post: impl FnMut(&mut RawHttp) -> Option<()>,
    ) {
        while let Some(addresses) = self.wait(over) {
            let Some(mut connection) = RawHttp::try_connect(addresses.http) else {
                pause();
                continue;
            };
            while !over.load(Ordering::SeqCst) && post(&mut connection).is_some() {}
        }
    }
}

/// A backend's connection to a relay that may die in the middle of a frame. `T` is what the test knows of an ACK.
pub struct FlappingSession<T> {
    stream: TcpStream,
    buffer: Vec<u8>,
    /// What is in the buffer was sent after that.
    pub reading_since: Instant,
    looked: Instant,
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
            looked: Instant::now(),
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
                // What comes now may have been there since the last look.
                self.reading_since = std::mem::replace(&mut self.looked, Instant::now());
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
