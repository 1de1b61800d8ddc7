//! The HTTP front end from outside: real sockets, a handler of the test's own. Here is what the tests share.

mod late;
mod room;
mod storm;
mod strain;
mod talk;

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use super::*;
use crate::fds::FdBudget;
use crate::thread::{JoinOnDrop, SMALL_STACK_BYTES, spawn};

/// How long a test waits for what must happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Answers with what it was asked.
struct Echo;

impl Echo {
    fn reply(request: &HttpRequest<'_>) -> Response {
        let mut body = format!("{} {} ", request.method, request.target).into_bytes();
        body.extend_from_slice(request.body);
        Response {
            status: 200,
            head: b"Content-Type: text/plain\r\n".to_vec(),
            body,
        }
    }
}

impl Handler for Echo {
    fn handle(&self, request: &HttpRequest<'_>, responder: Responder) {
        responder.answer(&Self::reply(request));
    }
}

/// Panics at `/fall`, and echoes the rest.
struct PanickingHandler;

impl Handler for PanickingHandler {
    fn handle(&self, request: &HttpRequest<'_>, responder: Responder) {
        assert_ne!(request.target, "/fall");
        Echo.handle(request, responder);
    }
}

/// Says when it is asked, and answers from another thread when it is told to.
struct Gate {
    asked: Sender<()>,
    held: Sender<(Response, Responder)>,
    _answerer: JoinOnDrop,
}

impl Handler for Gate {
    fn handle(&self, request: &HttpRequest<'_>, responder: Responder) {
        let _ = self.held.send((Echo::reply(request), responder));
        let _ = self.asked.send(());
    }
}

fn gate() -> (Gate, Receiver<()>, Sender<()>) {
    let (asked, was_asked) = unbounded();
    let (tell, told) = unbounded();
    let (held, holding) = unbounded::<(Response, Responder)>();
    let answerer = spawn("answerer", SMALL_STACK_BYTES, move || {
        for (reply, responder) in holding {
            let _ = told.recv_timeout(PATIENCE);
            responder.answer(&reply);
        }
    })
    .expect("a thread");
    let gate = Gate {
        asked,
        held,
        _answerer: answerer,
    };
    (gate, was_asked, tell)
}

struct Words(Sender<&'static str>);

impl Watcher for Words {
    fn refused(&self, reason: &'static str) {
        let _ = self.0.send(reason);
    }
}

pub(crate) fn limits() -> ListenerLimits {
    ListenerLimits {
        max_connections: 10,
        max_body: 100_000,
        request_deadline: PATIENCE,
        answer_deadline: PATIENCE,
        idle_max: IDLE_MAX,
    }
}

pub(crate) struct Setup {
    pub(crate) listener: HttpListener,
    pub(super) fds: FdBudget,
    words: Receiver<&'static str>,
}

fn open(limits: ListenerLimits, fds: usize, handler: impl Handler) -> Setup {
    open_shared(limits, fds, Arc::new(handler))
}

pub(crate) fn open_shared(limits: ListenerLimits, fds: usize, handler: Arc<dyn Handler>) -> Setup {
    let (say, words) = unbounded();
    // The tests' figures leave out what wakes the accept thread.
    let fds = FdBudget::with(fds + OWN_FDS - 2);
    let listener = listen(SocketAddr::from(([127, 0, 0, 1], 0))).expect("a port");
    let listener = HttpListener::start(
        "http",
        listener,
        limits,
        fds.clone(),
        handler,
        Arc::new(Words(say)),
    )
    .expect("a listener");
    Setup {
        listener,
        fds,
        words,
    }
}

/// A request that was handed over, and its client, which waits for the answer.
pub(crate) fn handed_over() -> (Responder, Client) {
    struct Hand(Sender<Responder>);
    impl Handler for Hand {
        fn handle(&self, _: &HttpRequest<'_>, responder: Responder) {
            let _ = self.0.send(responder);
        }
    }
    // One listener for all tests of the process: it serves as many as they like.
    static SHARED: std::sync::LazyLock<Mutex<(Setup, Receiver<Responder>)>> =
        std::sync::LazyLock::new(|| {
            let (hand, handed) = unbounded();
            let limits = ListenerLimits {
                max_connections: 4096,
                ..limits()
            };
            Mutex::new((open(limits, 4096, Hand(hand)), handed))
        });
    let shared = SHARED.lock();
    let mut client = shared.0.client();
    client.post("");
    let responder = shared.1.recv_timeout(PATIENCE).expect("a request");
    (responder, client)
}

impl Setup {
    pub(crate) fn client(&self) -> Client {
        self.client_of(TcpStream::connect(self.listener.addr()).expect("a connection"))
    }

    fn client_of(&self, stream: TcpStream) -> Client {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Client {
            stream,
            unread: Vec::new(),
        }
    }

    pub(crate) fn word(&self) -> &'static str {
        self.words.recv_timeout(PATIENCE).expect("a refusal")
    }

    /// Waits until so many descriptors are free: whoever paid an answer may keep its connection's a moment longer.
    fn wait_descriptors(&self, free: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.fds.free() != free {
            assert!(Instant::now() < deadline, "{:?}", self.fds);
            std::thread::yield_now();
        }
    }

    /// Waits until so many are connected.
    fn wait_connections(&self, count: usize) {
        let deadline = Instant::now() + PATIENCE;
        while self.listener.connections() != count {
            assert!(Instant::now() < deadline, "still {:?}", self.listener);
            std::thread::yield_now();
        }
    }
}

pub(crate) struct Client {
    stream: TcpStream,
    unread: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    head: String,
    pub(crate) body: String,
}

impl Client {
    /// Whether nothing has come yet.
    pub(crate) fn has_no_answer(&self) -> bool {
        self.stream.set_nonblocking(true).expect("an option");
        let peeked = self.stream.peek(&mut [0; 1]);
        self.stream.set_nonblocking(false).expect("an option");
        self.unread.is_empty() && peeked.is_err_and(|e| e.kind() == std::io::ErrorKind::WouldBlock)
    }
}

impl Answer {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case(name).then_some(value)
        })
    }

    pub(crate) fn outcome(&self) -> &str {
        self.header("X-Payrelay-Outcome").unwrap_or("none")
    }

    fn says_close(&self) -> bool {
        self.header("Connection") == Some("close")
    }
}

impl Client {
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> &mut Self {
        self.stream.write_all(bytes.as_ref()).expect("sent");
        self
    }

    fn post(&mut self, body: &str) -> &mut Self {
        self.post_all(&[body])
    }

    /// Posts `bodies` in one write, so that they come together.
    fn post_all(&mut self, bodies: &[&str]) -> &mut Self {
        let post = |body: &&str| {
            let length = body.len();
            format!("POST /x HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}")
        };
        self.send(bodies.iter().map(post).collect::<String>())
    }

    fn more(&mut self) -> usize {
        let mut buffer = [0; 64 * 1024];
        let read = self.stream.read(&mut buffer).expect("an answer in time");
        self.unread.extend_from_slice(&buffer[..read]);
        read
    }

    /// Reads up to and with the next empty line.
    fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                let head = self.unread.drain(..at + 4).collect();
                return String::from_utf8(head).expect("text");
            }
            assert_ne!(self.more(), 0, "closed before an answer");
        }
    }

    fn answer_to(&mut self, is_head: bool) -> Answer {
        let head = self.head();
        let status = head[9..12].parse().expect("a status");
        let mut answer = Answer {
            status,
            head,
            body: String::new(),
        };
        if !is_head && let Some(length) = answer.header("Content-Length") {
            let length: usize = length.parse().expect("a length");
            while self.unread.len() < length {
                assert_ne!(self.more(), 0, "closed within an answer");
            }
            let rest = self.unread.split_off(length);
            let body = std::mem::replace(&mut self.unread, rest);
            answer.body = String::from_utf8(body).expect("text");
        }
        answer
    }

    pub(crate) fn answer(&mut self) -> Answer {
        self.answer_to(false)
    }

    /// Waits for the end, whether by FIN or by RST; nothing more may come.
    pub(crate) fn expect_end(&mut self) {
        assert!(self.unread.is_empty(), "{:?}", self.unread);
        let mut buffer = [0; 16];
        match self.stream.read(&mut buffer) {
            Ok(read) => assert_eq!(read, 0, "{:?}", &buffer[..read]),
            Err(error) => assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset),
        }
    }
}

/// Runs `work` in a process of its own, for it counts or limits what the whole process has. All its
/// threads share one heap that is large from the start, so that under a limit of address space only
/// what is asked for in whole mappings is refused, as stacks are.
pub(crate) fn alone(test: &str, work: impl FnOnce()) {
    const MARK: &str = "PAYRELAY_TEST_ALONE";
    const HEAP: &str = "glibc.malloc.arena_max=1:glibc.malloc.top_pad=16777216";
    if std::env::var_os(MARK).is_some() {
        return work();
    }
    let this = std::env::current_exe().expect("this test's path");
    let output = Command::new(this)
        .args(["--exact", "--nocapture", test])
        .env(MARK, "1")
        .env("GLIBC_TUNABLES", HEAP)
        .output()
        .expect("a process");
    assert!(
        output.status.success() && String::from_utf8_lossy(&output.stdout).contains("1 passed"),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// How many there are in a directory of procfs.
pub(crate) fn entries(directory: &str) -> usize {
    std::fs::read_dir(directory).expect("procfs").count()
}

/// Waits until the only thread of that name waits for something.
pub(crate) fn wait_asleep(name: &str) {
    let is_asleep = || {
        std::fs::read_dir("/proc/self/task")
            .expect("procfs")
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("stat")).ok())
            .any(|stat| stat.contains(&format!("({name}) S ")))
    };
    let deadline = Instant::now() + PATIENCE;
    while !is_asleep() {
        assert!(Instant::now() < deadline, "{name} never slept");
        std::thread::yield_now();
    }
}
