//! Many backends in few threads: each acknowledges at once what it gets, or refuses what says so, and keeps a history.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use super::{DEADLINE, Frame, pause};

/// A body with this in it is refused.
pub const REFUSE: &str = "do=nack";

/// How long a thread may not notice that it shall stop.
const LOOK_EVERY: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 20_000_000,
};

/// The backends, serving.
pub struct Fleet {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Vec<Heard>>>,
    size: usize,
}

#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    serving: AtomicUsize,
    ended: AtomicUsize,
}

/// One notification as a backend got it.
#[derive(Clone, Debug)]
pub struct Heard {
    pub backend: String,
    pub id: String,
    pub body: Vec<u8>,
    /// It was acknowledged, not refused. The reply was written before this was noted.
    pub acked: bool,
}

struct Ship {
    name: String,
    stream: TcpStream,
    unread: Vec<u8>,
}

impl Fleet {
    /// Connects every backend of `berths` to its address and says HELLO, without waiting for any OK.
    pub fn launch(berths: Vec<(String, SocketAddr)>, threads: usize) -> Self {
        let shared = Arc::new(Shared::default());
        let size = berths.len();
        let mut shares: Vec<Vec<_>> = (0..threads).map(|_| Vec::new()).collect();
        for (n, berth) in berths.into_iter().enumerate() {
            shares[n % threads].push(berth);
        }
        let threads = shares.into_iter().map(|share| {
            let shared = Arc::clone(&shared);
            thread::spawn(move || serve(share, &shared))
        });
        Self {
            threads: threads.collect(),
            shared,
            size,
        }
    }

    /// Waits until every backend was told OK, `within` at most.
    pub fn wait_serving(&self, within: Duration) {
        let deadline = Instant::now() + within;
        loop {
            let serving = self.shared.serving.load(Ordering::SeqCst);
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
        self.shared.ended.load(Ordering::SeqCst)
    }

    /// Leaves, and gives the history.
    pub fn land(mut self) -> Vec<Heard> {
        self.shared.stop.store(true, Ordering::SeqCst);
        let threads = std::mem::take(&mut self.threads).into_iter();
        let shares = threads.map(|thread| thread.join().expect("a backend failed"));
        shares.flatten().collect()
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

fn serve(berths: Vec<(String, SocketAddr)>, shared: &Shared) -> Vec<Heard> {
    let mut ships: Vec<Ship> = berths.into_iter().map(Ship::put_to_sea).collect();
    let mut history = Vec::new();
    while !shared.stop.load(Ordering::SeqCst) {
        let mut fds: Vec<_> = ships
            .iter()
            .map(|ship| PollFd::new(&ship.stream, PollFlags::IN))
            .collect();
        if let Err(e) = poll(&mut fds, Some(&LOOK_EVERY)) {
            assert_eq!(e, rustix::io::Errno::INTR, "poll");
            continue;
        }
        let awake: Vec<bool> = fds.iter().map(|fd| !fd.revents().is_empty()).collect();
        let mut awake = awake.into_iter();
        ships.retain_mut(|ship| {
            let sails = !awake.next().unwrap_or(false) || ship.hear(shared, &mut history);
            if !sails {
                shared.ended.fetch_add(1, Ordering::SeqCst);
            }
            sails
        });
    }
    history
}

impl Ship {
    fn put_to_sea((name, to): (String, SocketAddr)) -> Self {
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
    fn hear(&mut self, shared: &Shared, history: &mut Vec<Heard>) -> bool {
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
                    shared.serving.fetch_add(1, Ordering::SeqCst);
                }
                "PING" => self.reply("PONG\n"),
                "MSG" => {
                    let id = frame.field("id").to_owned();
                    let body = frame.body().to_vec();
                    let refuse = String::from_utf8_lossy(&body).contains(REFUSE);
                    let verb = if refuse { "NACK" } else { "ACK" };
                    self.reply(&format!("{verb} id={id}\n"));
                    history.push(Heard {
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
