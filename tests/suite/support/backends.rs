//! Many backends in few threads: each acknowledges at once what it gets, or refuses what says so, and keeps a history.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{DEADLINE, Frame, pause, shares};

/// A body with this in it is refused.
pub const REFUSE: &str = "do=nack";

/// How long a thread may not notice that it shall stop.
const LOOK_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// The backends, serving.
pub struct Backends {
    state: Arc<BackendsState>,
    threads: Vec<JoinHandle<Vec<ReceivedMessage>>>,
    size: usize,
}

#[derive(Default)]
struct BackendsState {
    stop: AtomicBool,
    serving: AtomicUsize,
    ended: AtomicUsize,
}

/// One notification as a backend got it.
#[derive(Clone, Debug)]
pub struct ReceivedMessage {
    pub backend: String,
    pub id: String,
    pub body: Vec<u8>,
    /// It was acknowledged, not refused. The reply was written before this was noted.
    pub acked: bool,
}

struct BackendConnection {
    name: String,
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Backends {
    /// Connects each backend, an id and the address of its node, and sends HELLO; waits for no OK.
    pub fn start(addresses: Vec<(String, SocketAddr)>, threads: usize) -> Self {
        let state = Arc::new(BackendsState::default());
        let size = addresses.len();
        let threads = shares(addresses, threads).into_iter().map(|share| {
            let state = Arc::clone(&state);
            thread::spawn(move || serve(share, &state))
        });
        Self {
            threads: threads.collect(),
            state,
            size,
        }
    }

    /// Waits until every backend was told OK, `within` at most.
    pub fn wait_serving(&self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let serving = self.state.serving.load(Ordering::SeqCst);
            if serving == self.size {
                return;
            }
            assert!(
                Instant::now() < deadline && !self.threads.iter().any(JoinHandle::is_finished),
                "{serving} of {} backends were told OK within {within:?}",
                self.size
            );
            pause();
        }
    }

    /// How many connections have ended.
    pub fn ended(&self) -> usize {
        self.state.ended.load(Ordering::SeqCst)
    }

    /// Closes the connections; returns what the backends received.
    pub fn stop(mut self) -> Vec<ReceivedMessage> {
        self.state.stop.store(true, Ordering::SeqCst);
        let threads = std::mem::take(&mut self.threads).into_iter();
        let shares = threads.map(|thread| thread.join().expect("a backend failed"));
        shares.flatten().collect()
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.state.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(addresses: Vec<(String, SocketAddr)>, state: &BackendsState) -> Vec<ReceivedMessage> {
    let mut connections: Vec<BackendConnection> = addresses
        .into_iter()
        .map(BackendConnection::connect)
        .collect();
    let mut history = Vec::new();
    while !state.stop.load(Ordering::SeqCst) {
        let mut fds: Vec<_> = connections
            .iter()
            .map(|connection| PollFd::new(&connection.stream, PollFlags::IN))
            .collect();
        if let Err(e) = poll(&mut fds, Some(&LOOK_EVERY)) {
            assert_eq!(e, rustix::io::Errno::INTR, "poll");
            continue;
        }
        let awake: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut awake = awake.into_iter();
        connections.retain_mut(|connection| {
            let is_open =
                !awake.next().unwrap_or(false) || connection.read_ready(state, &mut history);
            if !is_open {
                state.ended.fetch_add(1, Ordering::SeqCst);
            }
            is_open
        });
    }
    history
}

impl BackendConnection {
    fn connect((name, to): (String, SocketAddr)) -> Self {
        let mut stream = TcpStream::connect(to).unwrap_or_else(|e| panic!("{name}: {e}"));
        stream.set_nodelay(true).expect("nodelay");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a write timeout");
        let hello = format!("HELLO 1 id={name} max=64\n");
        stream.write_all(hello.as_bytes()).expect("HELLO is taken");
        Self {
            name,
            stream,
            unread: Vec::new(),
        }
    }

    /// Reads what there is and replies; `false` if the connection is over.
    fn read_ready(&mut self, state: &BackendsState, history: &mut Vec<ReceivedMessage>) -> bool {
        let mut chunk = [0; 16 * 1024];
        match self.stream.read(&mut chunk) {
            Ok(0) | Err(_) => return false,
            Ok(count) => self.unread.extend_from_slice(&chunk[..count]),
        }
        loop {
            let parsed = Frame::parse(&self.unread);
            let parsed = parsed.unwrap_or_else(|e| panic!("{}: broken protocol: {e}", self.name));
            let Some((frame, taken)) = parsed else {
                return true;
            };
            self.unread.drain(..taken);
            match frame.verb.as_str() {
                "OK" => {
                    state.serving.fetch_add(1, Ordering::SeqCst);
                }
                "PING" => self.reply("PONG\n"),
                "MSG" => {
                    let id = frame.field("id").to_owned();
                    let body = frame.body().to_vec();
                    let refuse = String::from_utf8_lossy(&body).contains(REFUSE);
                    let verb = if refuse { "NACK" } else { "ACK" };
                    self.reply(&format!("{verb} id={id}\n"));
                    history.push(ReceivedMessage {
                        backend: self.name.clone(),
                        id,
                        body,
                        acked: !refuse,
                    });
                }
                "BYE" => {}
                _ => panic!("{}: {:?} was not expected", self.name, frame.line),
            }
        }
    }

    /// What the other side does not take is seen at the next read.
    fn reply(&mut self, line: &str) {
        let _ = self.stream.write_all(line.as_bytes());
    }
}
