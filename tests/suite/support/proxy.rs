//! A TCP proxy that the test owns: it forwards, stands still, swallows, or cuts.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::{Condvar, Mutex};

/// A proxy before one address. Dropping it cuts everything.
pub struct TcpProxy {
    addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Forward,
    /// What comes is held back until the mode changes: a network that stands still.
    Freeze,
    /// What comes is lost: a firewall that drops.
    Swallow,
    Over,
}

struct Shared {
    mode: Mutex<Mode>,
    changed: Condvar,
    /// Both ends of every connection, to be cut.
    open: Mutex<Vec<TcpStream>>,
}

impl TcpProxy {
    /// Listens on a port of the system's choosing and forwards to `target`.
    pub fn before(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            mode: Mutex::new(Mode::Forward),
            changed: Condvar::new(),
            open: Mutex::new(Vec::new()),
        });
        let theirs = Arc::clone(&shared);
        let accepting = thread::spawn(move || accept(&listener, target, &theirs));
        Self {
            addr,
            shared,
            accepting: Some(accepting),
        }
    }

    pub fn addr(&self) -> SocketAddr {
        self.addr
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
        for end in self.shared.open.lock().drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
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

fn accept(listener: &TcpListener, target: SocketAddr, shared: &Arc<Shared>) {
    let mut pumps = Vec::new();
    while let Ok((near, _)) = listener.accept() {
        if *shared.mode.lock() == Mode::Over {
            break;
        }
        // A target that is down is a connection that ends at once.
        let Ok(far) = TcpStream::connect(target) else {
            continue;
        };
        let ends = |stream: &TcpStream| stream.try_clone().expect("a second handle");
        shared.open.lock().extend([ends(&near), ends(&far)]);
        for (from, to) in [(ends(&near), ends(&far)), (far, near)] {
            let shared = Arc::clone(shared);
            pumps.push(thread::spawn(move || pump(from, to, &shared)));
        }
    }
    for pump in pumps {
        let _ = pump.join();
    }
}

fn pump(mut from: TcpStream, mut to: TcpStream, shared: &Shared) {
    let mut chunk = [0; 16 * 1024];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        let mut mode = shared.mode.lock();
        while *mode == Mode::Freeze {
            shared.changed.wait(&mut mode);
        }
        let mode_now = *mode;
        drop(mode);
        let passed = match mode_now {
            Mode::Forward => to.write_all(&chunk[..count]).is_ok(),
            Mode::Swallow => true,
            Mode::Freeze | Mode::Over => false,
        };
        if !passed {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
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
}
