//! The Lua backend's side of the protocol on a real socket, spoken line by line.
//!
//! PING is answered on the side, as every client must, unless a test waits for it.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use super::frame::{Frame, difference};
use super::tls::Wire;
use super::{DEADLINE, Relay};

/// One TCP connection of a backend.
pub struct Backend {
    name: String,
    wire: Wire,
    /// Read and not yet taken as a frame.
    buffer: Vec<u8>,
}

/// What a read came to.
enum Came {
    Frame(Frame),
    Closed,
    Nothing,
}

impl Relay {
    /// Connects the backend `id` and waits for its OK.
    pub fn backend(&self, id: &str) -> Backend {
        self.backend_with(id, "")
    }

    /// Connects the backend `id` with further keys of HELLO, such as `max=1`.
    pub fn backend_with(&self, id: &str, keys: &str) -> Backend {
        let mut backend = Backend::raw(self);
        backend.hello(id, keys);
        backend
    }
}

impl Backend {
    /// A connection that has not said HELLO.
    pub fn raw(relay: &Relay) -> Self {
        match relay.ready().tcp_tls {
            None => Self::connect(relay.ready().tcp),
            Some(to) => {
                let stream = TcpStream::connect(to);
                let stream = stream.unwrap_or_else(|e| panic!("no connection to {to}: {e}"));
                Self::over(Wire::seal(stream, relay.client()))
            }
        }
    }

    pub fn connect(to: SocketAddr) -> Self {
        let stream =
            TcpStream::connect(to).unwrap_or_else(|e| panic!("no connection to {to}: {e}"));
        Self::over(Wire::Plain(stream))
    }

    /// A connection whose kernel holds few bytes unread, so that not reading is soon felt at the other end.
    pub fn raw_with_small_window(relay: &Relay) -> Self {
        let to = relay.ready().tcp_tls.unwrap_or(relay.ready().tcp);
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("a small window");
        socket.connect(&to.into()).expect("a connection");
        Self::over(match relay.ready().tcp_tls {
            None => Wire::Plain(socket.into()),
            Some(_) => Wire::seal(socket.into(), relay.client()),
        })
    }

    pub fn over(wire: Wire) -> Self {
        let stream = wire.stream();
        stream.set_nodelay(true).expect("nodelay");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a write timeout");
        Self {
            name: "a backend without HELLO".to_owned(),
            wire,
            buffer: Vec::new(),
        }
    }

    /// Says HELLO and waits for OK.
    pub fn hello(&mut self, id: &str, keys: &str) -> Frame {
        self.name = format!("backend {id}");
        let space = if keys.is_empty() { "" } else { " " };
        self.send(&format!("HELLO 1 id={id}{space}{keys}"));
        self.expect_line(&format!(
            "OK id={id} node=* session=* heartbeat=* max_body=*"
        ))
    }

    /// Sends a line.
    pub fn send(&mut self, line: &str) {
        self.send_bytes(format!("{line}\n").as_bytes());
    }

    /// Sends bytes as they are.
    pub fn send_bytes(&mut self, bytes: &[u8]) {
        let sent = self.try_send(bytes);
        assert!(sent, "{}: the connection takes no more bytes", self.name);
    }

    /// Sends bytes; whether the other side took them.
    pub fn try_send(&mut self, bytes: &[u8]) -> bool {
        self.wire.write_all(bytes).is_ok()
    }

    /// Waits for a frame like `pattern` (see [`Frame::matches`]) with exactly this body.
    pub fn expect(&mut self, pattern: &str, body: &[u8]) -> Received<'_> {
        let frame = self.expect_line(pattern);
        if let Some(difference) = difference(body, frame.body()) {
            panic!(
                "{}: {:?} has another body: {difference}",
                self.name, frame.line
            );
        }
        Received {
            frame,
            backend: self,
        }
    }

    /// Waits for a frame like `pattern`, whatever its data.
    pub fn expect_line(&mut self, pattern: &str) -> Frame {
        let frame = match pattern.starts_with("PING") {
            true => self.next_until(Instant::now() + DEADLINE),
            false => self.next(),
        };
        let frame = frame.unwrap_or_else(|| panic!("{}: closed instead of {pattern:?}", self.name));
        if let Err(problem) = frame.matches(pattern) {
            panic!("{}: {problem}", self.name);
        }
        frame
    }

    /// Waits for the next MSG, whatever it carries.
    pub fn message(&mut self) -> Received<'_> {
        let frame = self.expect_line("MSG id=* try=* route=* at=* h=* =*");
        Received {
            frame,
            backend: self,
        }
    }

    /// Waits for the next frame but PING; `None` if the connection is closed.
    pub fn next(&mut self) -> Option<Frame> {
        // One deadline for all of it: a relay that only PINGs is not saying what is waited for.
        let deadline = Instant::now() + DEADLINE;
        loop {
            let frame = self.next_until(deadline)?;
            if frame.verb != "PING" {
                return Some(frame);
            }
            self.try_send(b"PONG\n");
        }
    }

    fn next_until(&mut self, deadline: Instant) -> Option<Frame> {
        match self.read_until(deadline) {
            Came::Frame(frame) => Some(frame),
            Came::Closed => None,
            Came::Nothing => panic!("{}: nothing came within {DEADLINE:?}", self.name),
        }
    }

    /// Waits for the connection to end; no frame but PING may come before.
    pub fn expect_closed(&mut self) {
        if let Some(frame) = self.next() {
            panic!("{}: {:?} instead of a close", self.name, frame.line);
        }
    }

    /// Waits for `ERR code=<code> fatal=1` and the close.
    pub fn expect_fatal(&mut self, code: &str) -> Frame {
        let frame = self.expect_line(&format!("ERR code={code} fatal=1 msg=*"));
        self.expect_closed();
        frame
    }

    /// Waits for an ERR that does not end the session.
    pub fn expect_error(&mut self, code: &str) -> Frame {
        let frame = self.expect_line(&format!("ERR code={code} msg=*"));
        assert_eq!(frame.get("fatal"), None, "{}: {:?}", self.name, frame.line);
        frame
    }

    /// Waits for a BYE with this reason; the connection may still be read.
    pub fn expect_bye(&mut self, reason: &str) -> Frame {
        self.expect_line(&format!("BYE reason={reason} retry=*"))
    }

    /// Waits for a frame like `pattern`; `None` if it is a PING, which is left unanswered.
    pub fn expect_line_or_ping(&mut self, pattern: &str) -> Option<Frame> {
        let frame = self
            .next_until(Instant::now() + DEADLINE)
            .unwrap_or_else(|| panic!("{}: closed instead of {pattern:?}", self.name));
        if frame.verb == "PING" {
            return None;
        }
        if let Err(problem) = frame.matches(pattern) {
            panic!("{}: {problem}", self.name);
        }
        Some(frame)
    }

    /// A round trip: when it is over, the relay has read all that was sent, and had nothing to say before.
    pub fn settle(&mut self) {
        self.send("PING");
        self.expect_line("PONG");
    }

    /// Reads until `holds`; no frame but PING may come until then.
    pub fn expect_nothing_until(&mut self, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let done = holds();
            match self.read_until(Instant::now() + Duration::from_millis(5)) {
                Came::Nothing if done => return,
                Came::Nothing => {
                    assert!(Instant::now() < deadline, "{}: waited in vain", self.name)
                }
                Came::Frame(frame) if frame.verb == "PING" => self.send("PONG"),
                Came::Frame(frame) => panic!("{}: {:?} came too early", self.name, frame.line),
                Came::Closed => panic!("{}: closed too early", self.name),
            }
        }
    }

    /// Whether a frame comes `within` that time.
    pub fn comes(&mut self, within: Duration) -> bool {
        matches!(
            self.read_until(Instant::now() + within),
            Came::Frame(frame) if frame.verb == "MSG"
        )
    }

    /// Says "no more from me" and reads on.
    pub fn half_close(&mut self) {
        self.wire.say_end();
        let _ = self.wire.stream().shutdown(Shutdown::Write);
    }

    /// Closes with RST.
    pub fn reset(self) {
        SockRef::from(self.wire.stream())
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
    }

    /// Another handle on the same socket, with which another thread can end it.
    pub fn shutdown_handle(&self) -> TcpStream {
        self.wire.stream().try_clone().expect("a second handle")
    }

    fn read_until(&mut self, deadline: Instant) -> Came {
        loop {
            match Frame::parse(&self.buffer) {
                Ok(Some((frame, taken))) => {
                    self.buffer.drain(..taken);
                    return Came::Frame(frame);
                }
                Ok(None) => {}
                Err(problem) => panic!("{}: the relay broke the protocol: {problem}", self.name),
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Came::Nothing;
            }
            self.wire
                .stream()
                .set_read_timeout(Some(left))
                .expect("a read timeout");
            let mut chunk = [0; 64 * 1024];
            match self.wire.read(&mut chunk) {
                Ok(0) => return self.closed(),
                Ok(count) => self.buffer.extend_from_slice(&chunk[..count]),
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => return Came::Nothing,
                    ErrorKind::Interrupted => {}
                    _ => return self.closed(),
                },
            }
        }
    }

    fn closed(&self) -> Came {
        let left = self.buffer.len();
        assert_eq!(
            left, 0,
            "{}: closed inside a frame, {left} bytes in",
            self.name
        );
        Came::Closed
    }
}

/// A frame that has come, and the means to reply to it.
pub struct Received<'a> {
    pub frame: Frame,
    backend: &'a mut Backend,
}

impl Received<'_> {
    /// The notification's id.
    pub fn id(&self) -> String {
        self.frame.field("id").to_owned()
    }

    /// Acknowledges it, and gives its id.
    pub fn ack(self) -> String {
        self.reply("ACK", "")
    }

    /// Refuses it, with keys such as `delay=5 reason=full`.
    pub fn nack(self, keys: &str) -> String {
        self.reply("NACK", keys)
    }

    fn reply(self, verb: &str, keys: &str) -> String {
        let id = self.id();
        let space = if keys.is_empty() { "" } else { " " };
        self.backend.send(&format!("{verb} id={id}{space}{keys}"));
        id
    }
}
