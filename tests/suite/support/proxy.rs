//! A TCP proxy that the test owns: it forwards, stands still, swallows, or cuts.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

use super::Random;
use super::redis::free_addr;

/// A proxy before one address. Dropping it cuts everything.
pub struct TcpProxy {
    addr: SocketAddr,
    shared: Arc<ProxyState>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    /// What comes is held back until the mode changes: a network that stands still.
    Freeze,
    /// What comes is lost, and so is everything that comes later on that connection: a firewall that has forgotten it.
    Swallow,
    Over,
}

struct ProxyState {
    /// Where new connections go.
    target: Mutex<SocketAddr>,
    mode: Mutex<Mode>,
    changed: Condvar,
    open: Mutex<Vec<Arc<Conn>>>,
}

/// How much of what a client says first is remembered.
const SAID_BYTES_MAX: usize = 4096;

/// One connection through the proxy.
struct Conn {
    near: TcpStream,
    far: TcpStream,
    dead: AtomicBool,
    /// What the client said first.
    said: Mutex<Vec<u8>>,
}

impl TcpProxy {
    /// Listens on a port of the system's choosing and forwards to `target`.
    pub fn before(target: SocketAddr) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port"), target)
    }

    /// One before each of `targets`, on the same port of 127.0.0.2 and so on.
    pub fn before_each(targets: &[SocketAddr; 2]) -> [Self; 2] {
        let mut random = Random::new();
        loop {
            let Some(free) = free_addr(&mut random) else {
                continue; // somebody has it
            };
            let bind = |ip: u8| TcpListener::bind(SocketAddr::from(([127, 0, 0, ip], free.port())));
            if let (Ok(first), Ok(second)) = (bind(2), bind(3)) {
                return [Self::on(first, targets[0]), Self::on(second, targets[1])];
            }
        }
    }

    fn on(listener: TcpListener, target: SocketAddr) -> Self {
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(ProxyState {
            target: Mutex::new(target),
            mode: Mutex::new(Mode::Forward),
            changed: Condvar::new(),
            open: Mutex::new(Vec::new()),
        });
        let theirs = Arc::clone(&shared);
        let accepting = thread::spawn(move || accept(&listener, &theirs));
        Self {
            addr,
            shared,
            accepting: Some(accepting),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// New connections go to `target`; those there are stay where they are: an address that moves to another host.
    pub fn move_to(&self, target: SocketAddr) {
        *self.shared.target.lock() = target;
    }

    pub fn forward(&self) {
        self.set(Mode::Forward);
    }

    pub fn freeze(&self) {
        self.set(Mode::Freeze);
    }

    pub fn swallow(&self) {
        self.set(Mode::Swallow);
    }

    /// Cuts every connection there is; new ones are let in.
    pub fn cut(&self) {
        for conn in self.shared.open.lock().drain(..) {
            let _ = conn.near.shutdown(Shutdown::Both);
            let _ = conn.far.shutdown(Shutdown::Both);
        }
    }

    /// Lets the connections there are on which the client has said `word` die without a sign; says how many. Others, and
    /// new ones, go on.
    pub fn deaden(&self, word: &[u8]) -> usize {
        let open = self.shared.open.lock();
        let said_it = |conn: &&Arc<Conn>| {
            let said = conn.said.lock();
            said.windows(word.len()).any(|window| window == word)
        };
        let dying = open.iter().filter(said_it);
        dying
            .filter(|conn| !conn.dead.swap(true, Ordering::SeqCst))
            .count()
    }

    fn set(&self, mode: Mode) {
        *self.shared.mode.lock() = mode;
        self.shared.changed.notify_all();
    }
}

impl Drop for TcpProxy {
    fn drop(&mut self) {
        self.set(Mode::Over);
        let _ = TcpStream::connect(self.addr); // wakes accept
        self.cut();
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<ProxyState>) {
    let mut pumps = Vec::new();
    while let Ok((near, _)) = listener.accept() {
        if *shared.mode.lock() == Mode::Over {
            break;
        }
        // A target that is down is a connection that ends at once.
        let target = *shared.target.lock();
        let Ok(far) = TcpStream::connect(target) else {
            continue;
        };
        let ends = |stream: &TcpStream| stream.try_clone().expect("a second handle");
        let conn = Arc::new(Conn {
            near: ends(&near),
            far: ends(&far),
            dead: AtomicBool::new(false),
            said: Mutex::default(),
        });
        let mut open = shared.open.lock();
        open.retain(|conn| Arc::strong_count(conn) > 1); // those whose pumps are at work
        open.push(Arc::clone(&conn));
        drop(open);
        for (from, to, is_client) in [(ends(&near), ends(&far), true), (far, near, false)] {
            let (shared, conn) = (Arc::clone(shared), Arc::clone(&conn));
            pumps.push(thread::spawn(move || {
                pump(from, to, is_client, &conn, &shared);
            }));
        }
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, is_client: bool, conn: &Conn, shared: &ProxyState) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if is_client {
            let mut said = conn.said.lock();
            let room = SAID_BYTES_MAX - said.len();
            said.extend_from_slice(&chunk[..count.min(room)]);
        }
        let mut mode = shared.mode.lock();
        while *mode == Mode::Freeze {
            shared.changed.wait(&mut mode);
        }
        let mode_now = *mode;
        drop(mode);
        // TCP does not lose bytes in the middle: a connection that has lost some has lost all that follow.
        if mode_now == Mode::Swallow {
            conn.dead.store(true, Ordering::SeqCst);
        }
        let passed = match mode_now {
            Mode::Forward | Mode::Swallow if conn.dead.load(Ordering::SeqCst) => true,
            Mode::Forward => to.write_all(&chunk[..count]).is_ok(),
            Mode::Swallow | Mode::Freeze | Mode::Over => false,
        };
        if !passed {
            break;
        }
    }
    // Nor does the end get through.
    if !conn.dead.load(Ordering::SeqCst) {
        let _ = to.shutdown(Shutdown::Write);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn echo() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                thread::spawn(move || {
                    let mut copy = stream.try_clone().expect("a second handle");
                    std::io::copy(&mut copy, &mut &stream)
                });
            }
        });
        addr
    }

    fn say(stream: &mut TcpStream, word: &[u8]) {
        stream.write_all(word).expect("written");
    }

    fn hear(stream: &mut TcpStream) -> Vec<u8> {
        let mut chunk = [0; 16];
        let count = stream.read(&mut chunk).unwrap_or(0);
        chunk[..count].to_vec()
    }

    #[test]
    fn it_forwards_stands_still_swallows_and_cuts() {
        let proxy = TcpProxy::before(echo());
        let mut stream = TcpStream::connect(proxy.addr()).expect("a connection");
        say(&mut stream, b"one");
        assert_eq!(hear(&mut stream), b"one");

        proxy.swallow();
        say(&mut stream, b"two");
        let mut other = TcpStream::connect(proxy.addr()).expect("a connection");
        proxy.freeze();
        say(&mut other, b"three");
        proxy.forward();
        assert_eq!(hear(&mut other), b"three", "what stood still goes on");

        proxy.cut();
        assert_eq!(hear(&mut other), b"", "what is cut is closed");
        let mut third = TcpStream::connect(proxy.addr()).expect("a connection");
        say(&mut third, b"four");
        assert_eq!(hear(&mut third), b"four", "and new ones are let in");
    }

    #[test]
    fn a_connection_can_die_alone_and_without_a_sign() {
        let proxy = TcpProxy::before(echo());
        let mut streams = [b"one", b"two"].map(|word| {
            let mut stream = TcpStream::connect(proxy.addr()).expect("a connection");
            say(&mut stream, word);
            assert_eq!(hear(&mut stream), word);
            stream
        });
        assert_eq!(proxy.deaden(b"wo"), 1);
        assert_eq!(proxy.deaden(b"wo"), 0, "it is dead already");
        say(&mut streams[1], b"more");
        say(&mut streams[0], b"more");
        assert_eq!(hear(&mut streams[0]), b"more");
        streams[1].set_nonblocking(true).expect("an option");
        let nothing = streams[1].read(&mut [0]).expect_err("nothing to read");
        assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);
    }
}
