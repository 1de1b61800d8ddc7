//! The provider's side: a callback whose answer can be waited for, and a socket that writes whatever bytes it likes.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use rustls::ClientConfig;
use socket2::SockRef;

use super::{DEADLINE, Wire};

/// An HTTP answer.
#[derive(Clone)]
pub struct Answer {
    pub status: u16,
    headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// From the request's first byte written to the answer's last byte read.
    pub elapsed: Duration,
}

impl Answer {
    /// The value of a header; its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut all = self.headers.iter().filter(|(key, _)| key == name);
        let value = all.next().map(|(_, value)| value.as_str());
        assert!(all.next().is_none(), "{name} twice in {self:?}");
        value
    }

    /// `X-Payrelay-Outcome`, or nothing.
    pub fn outcome(&self) -> &str {
        self.header("x-payrelay-outcome").unwrap_or_default()
    }

    /// `X-Payrelay-Id`, or nothing.
    pub fn id(&self) -> &str {
        self.header("x-payrelay-id").unwrap_or_default()
    }

    /// The body as text.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// Status and outcome, to be compared at a glance.
    pub fn told(&self) -> (u16, &str) {
        (self.status, self.outcome())
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} {:?} ({} body bytes)",
            self.status,
            self.headers,
            self.body.len()
        )
    }
}

/// Where a relay takes callbacks, and how.
#[derive(Clone)]
pub struct Gate {
    pub addr: SocketAddr,
    /// `None`: in the clear.
    pub tls: Option<Arc<ClientConfig>>,
}

/// In the clear.
impl From<SocketAddr> for Gate {
    fn from(addr: SocketAddr) -> Self {
        Self { addr, tls: None }
    }
}

/// A callback on its way, on a thread and a connection of its own.
pub struct Pending {
    what: String,
    answer: Receiver<Result<Answer, String>>,
}

impl Pending {
    /// Sends `request` to `to` on a new connection and reads the one answer.
    pub fn send(to: impl Into<Gate>, what: &str, request: Vec<u8>) -> Self {
        let (tell, answer) = bounded(1);
        let to = to.into();
        thread::spawn(move || {
            let _ = tell.send(RawHttp::connect(to).exchange(&request));
        });
        Self {
            what: what.to_owned(),
            answer,
        }
    }

    /// Whether the answer is there (or the connection has failed).
    pub fn answered_yet(&self) -> bool {
        !self.answer.is_empty()
    }

    /// Waits for the answer.
    pub fn answer(self) -> Answer {
        let what = &self.what;
        match self.answer.recv_timeout(DEADLINE * 2) {
            Ok(Ok(answer)) => answer,
            Ok(Err(problem)) => panic!("{what} was not answered: {problem}"),
            Err(_) => panic!("{what}: the client's thread is gone"),
        }
    }
}

/// A POST as a provider writes it.
pub fn post_request(path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut request = format!(
        "POST {path} HTTP/1.1\r\nHost: relay\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        request += &format!("{name}: {value}\r\n");
    }
    request += "\r\n";
    [request.as_bytes(), body].concat()
}

/// A socket to the HTTP front that writes exactly what it is told to.
pub struct RawHttp {
    wire: Wire,
    /// Read and not yet handed out.
    buffer: Vec<u8>,
    began: Instant,
}

impl RawHttp {
    pub fn connect(to: impl Into<Gate>) -> Self {
        let Gate { addr, tls } = to.into();
        let stream =
            TcpStream::connect(addr).unwrap_or_else(|e| panic!("no connection to {addr}: {e}"));
        stream.set_nodelay(true).expect("nodelay");
        stream
            .set_read_timeout(Some(DEADLINE))
            .expect("a read timeout");
        stream
            .set_write_timeout(Some(DEADLINE))
            .expect("a write timeout");
        let wire = match tls {
            None => Wire::Plain(stream),
            Some(config) => Wire::seal(stream, &config),
        };
        Self::over(wire)
    }

    /// A connection to a relay that may be down just now.
    pub fn try_connect(to: SocketAddr) -> Option<Self> {
        let stream = TcpStream::connect(to).ok()?;
        stream.set_nodelay(true).ok()?;
        stream.set_read_timeout(Some(DEADLINE)).ok()?;
        stream.set_write_timeout(Some(DEADLINE)).ok()?;
        Some(Self::over(Wire::Plain(stream)))
    }

    /// Over a connection that is there already.
    pub fn over(wire: Wire) -> Self {
        Self {
            wire,
            buffer: Vec::new(),
            began: Instant::now(),
        }
    }

    /// Writes `bytes`; whether the other side still took them.
    pub fn send(&mut self, bytes: &[u8]) -> bool {
        self.began = Instant::now();
        self.wire.write_all(bytes).is_ok()
    }

    /// Writes a request and reads its answer. That the relay may answer before it has taken everything is not held against it.
    pub fn exchange(&mut self, request: &[u8]) -> Result<Answer, String> {
        let sent = self.send(request);
        match self.answer() {
            Ok(Some(answer)) => Ok(answer),
            Ok(None) => Err(format!(
                "closed without an answer (whole request sent: {sent})"
            )),
            Err(problem) => Err(problem),
        }
    }

    /// A POST on this connection, kept open for the next.
    pub fn post(&mut self, path: &str, body: &[u8]) -> Answer {
        let answer = self.exchange(&post_request(path, &[], body));
        answer.unwrap_or_else(|problem| panic!("POST {path}: {problem}"))
    }

    /// Reads one answer; `None` if the connection is closed (or reset) instead.
    pub fn answer(&mut self) -> Result<Option<Answer>, String> {
        loop {
            if let Some((answer, taken)) = parse(&self.buffer)? {
                self.buffer.drain(..taken);
                let elapsed = self.began.elapsed();
                if answer.status == 100 {
                    continue; // the go-ahead, not yet the answer
                }
                return Ok(Some(Answer { elapsed, ..answer }));
            }
            if !self.read_more()? {
                return match self.buffer.is_empty() {
                    true => Ok(None),
                    false => Err(format!(
                        "closed inside an answer, after {} bytes",
                        self.buffer.len()
                    )),
                };
            }
        }
    }

    /// Reads the answer that must come.
    pub fn must_answer(&mut self) -> Answer {
        match self.answer() {
            Ok(Some(answer)) => answer,
            Ok(None) => panic!("closed without an answer"),
            Err(problem) => panic!("{problem}"),
        }
    }

    /// Waits for the exact bytes, which must be the next ones.
    pub fn expect_bytes(&mut self, wanted: &[u8]) {
        while self.buffer.len() < wanted.len() {
            assert!(self.read_more().expect("an answer"), "closed too early");
        }
        assert_eq!(self.buffer.drain(..wanted.len()).as_slice(), wanted);
    }

    /// Waits for the other side to close; nothing may come before that.
    pub fn expect_closed(&mut self) {
        let open = self.read_more().expect("a close");
        assert!(!open, "{} bytes instead of a close", self.buffer.len());
    }

    /// Waits `within` for something to read or a close; says whether there is any.
    pub fn stirs(&mut self, within: Duration) -> bool {
        if !self.buffer.is_empty() {
            return true;
        }
        let stream = self.wire.stream();
        stream
            .set_read_timeout(Some(within))
            .expect("a read timeout");
        let nothing =
            |e: &io::Error| matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut);
        let stirs = match &mut self.wire {
            Wire::Plain(stream) => !stream.peek(&mut [0]).is_err_and(|e| nothing(&e)),
            // What is there may be a ticket, which says nothing.
            tls @ Wire::Tls(..) => {
                let mut chunk = [0; 16 * 1024];
                let read = tls.read(&mut chunk);
                if let Ok(count) = read {
                    self.buffer.extend_from_slice(&chunk[..count]);
                }
                !read.is_err_and(|e| nothing(&e))
            }
        };
        self.wire
            .stream()
            .set_read_timeout(Some(DEADLINE))
            .expect("a read timeout");
        stirs
    }

    /// Says "no more from me", and reads on.
    pub fn half_close(&mut self) {
        self.wire.say_end();
        let _ = self.wire.stream().shutdown(Shutdown::Write);
    }

    /// What lies beneath.
    pub fn wire(&mut self) -> &mut Wire {
        &mut self.wire
    }

    /// Closes with RST, as a crashed or impatient client does.
    pub fn reset(self) {
        SockRef::from(self.wire.stream())
            .set_linger(Some(Duration::ZERO))
            .expect("linger");
    }

    /// Reads what there is; `false` if the other side has closed.
    fn read_more(&mut self) -> Result<bool, String> {
        let mut chunk = [0; 16 * 1024];
        match self.wire.read(&mut chunk) {
            Ok(0) => Ok(false),
            Ok(count) => {
                self.buffer.extend_from_slice(&chunk[..count]);
                Ok(true)
            }
            // Inside TLS a close without a word of it is one too.
            Err(e)
                if matches!(
                    e.kind(),
                    ErrorKind::ConnectionReset | ErrorKind::BrokenPipe | ErrorKind::UnexpectedEof
                ) =>
            {
                Ok(false)
            }
            // So is an alert.
            Err(e) if e.to_string().contains("received fatal alert") => Ok(false),
            Err(e) if e.kind() == ErrorKind::Interrupted => Ok(true),
            Err(e) => Err(format!("nothing came within {DEADLINE:?}: {e}")),
        }
    }
}

/// Takes one answer off the front of `bytes`, if it is whole.
fn parse(bytes: &[u8]) -> Result<Option<(Answer, usize)>, String> {
    let mut slots = [httparse::EMPTY_HEADER; 64];
    let mut head = httparse::Response::new(&mut slots);
    let body_at = match head
        .parse(bytes)
        .map_err(|e| format!("no HTTP answer: {e}"))?
    {
        httparse::Status::Partial => return Ok(None),
        httparse::Status::Complete(at) => at,
    };
    let status = head.code.unwrap_or(0);
    let headers: Vec<(String, String)> = head
        .headers
        .iter()
        .map(|h| {
            (
                h.name.to_ascii_lowercase(),
                String::from_utf8_lossy(h.value).into_owned(),
            )
        })
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length = match length {
        Some((_, value)) => value
            .parse()
            .map_err(|e| format!("Content-Length {value:?}: {e}"))?,
        None if status == 100 || status == 204 => 0,
        None => return Err(format!("a {status} without Content-Length")),
    };
    let Some(body) = bytes.get(body_at..body_at + length) else {
        return Ok(None);
    };
    let answer = Answer {
        status,
        headers,
        body: body.to_vec(),
        elapsed: Duration::ZERO,
    };
    Ok(Some((answer, body_at + length)))
}
