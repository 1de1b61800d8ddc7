//! The backends' side of a run: thousands of connections in one thread, each acknowledging what comes.

use std::io::{self, Read, Write};
use std::iter;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use payrelay::wire;

use super::cpu;
use super::error::BenchError;
use super::histogram::Histogram;
use super::load_thread::LoadThread;
use super::plan::{Endpoint, Plan};
use super::poller::{BELL, Bell, Poller};
use super::run_state::RunState;
use super::scanner::{Arrival, Came, FrameScanner};
use super::stamp::PROBE;
use crate::cli::stop::Stop;
use crate::cli::text::one_line;
use crate::cli::{Failure, say};
use crate::client::frames::{self, ErrFrame, RelayFrame};

/// How long connecting to a relay, and its answer to a HELLO, may take.
const GREETING_DEADLINE: Duration = Duration::from_secs(10);

/// So many say HELLO before the first answer is awaited.
const GREETED_TOGETHER: usize = 256;

/// What one read takes from a socket, in bytes; one buffer serves all.
const READ_BYTES: usize = 256 * 1024;

/// ACKs that a relay does not read, in bytes, before the connection is given up: far more than any credit.
const UNREAD_BYTES_MAX: usize = 1 << 20;

/// What the backends have seen.
#[derive(Debug, Default)]
pub struct BackendStats {
    /// From when it was due to its arrival, each notification once.
    pub latency: Histogram,
    /// Arrivals beyond the first of each.
    pub duplicates: u64,
    /// Arrivals with other bytes than were posted, or at another backend.
    pub damaged: u64,
    /// Arrivals that are not of this run.
    pub foreign: u64,
    /// When the last of this run arrived, in nanoseconds since the run began.
    pub last_ns: u64,
    /// Processor time of the thread since its start.
    pub cpu: Duration,
    /// Why it ended before it was asked to.
    pub error: Option<BenchError>,
}

/// Connects every backend of `plan`, and acknowledges from then on what comes.
///
/// # Errors
/// One of them is not let in, or the person at the terminal has lost patience.
pub fn connect(
    plan: &Arc<Plan>,
    state: &Arc<RunState>,
    stop: &Stop,
) -> Result<LoadThread<BackendStats>, Failure> {
    let mut all = Vec::with_capacity(plan.backends.len());
    let numbers: Vec<usize> = (0..plan.backends.len()).collect();
    // One alone to begin with: what it is refused for, the others would be too, and each counts as a failed HELLO.
    let (one, others) = numbers.split_at(numbers.len().min(1));
    for some in iter::once(one).chain(others.chunks(GREETED_TOGETHER)) {
        if stop.asked().try_recv().is_ok() {
            return Err(Failure::new("stopped before it began"));
        }
        let first = all.len();
        for &number in some {
            all.push(Backend::connect(plan, number)?);
        }
        for backend in &mut all[first..] {
            backend.await_ok(plan)?;
        }
    }
    start(all, plan, state).map_err(Failure::cannot_start)
}

fn start(
    backends: Vec<Backend>,
    plan: &Arc<Plan>,
    state: &Arc<RunState>,
) -> io::Result<LoadThread<BackendStats>> {
    let bell = Bell::new()?;
    let poller = Poller::new(&bell)?;
    for backend in &backends {
        poller.add(&backend.socket, backend.number as u64)?;
    }
    let crowd = Crowd {
        backends,
        poller,
        plan: Arc::clone(plan),
        state: Arc::clone(state),
        seen: BackendStats::default(),
    };
    LoadThread::start("bench-backends", bell, move || crowd.run())
}

/// One backend.
#[derive(Debug)]
struct Backend {
    number: usize,
    socket: TcpStream,
    scanner: FrameScanner,
    /// What the socket did not take yet.
    unwritten: Vec<u8>,
}

impl Backend {
    /// Connects and says HELLO.
    fn connect(plan: &Plan, number: usize) -> Result<Self, Failure> {
        let Endpoint { text, address } = plan.tcp_of(number);
        let (id, token) = &plan.backends[number];
        let mut hello = Vec::new();
        frames::hello(&mut hello, id, token.as_deref(), plan.credit);
        let greet = || {
            let mut socket = TcpStream::connect_timeout(address, GREETING_DEADLINE)?;
            socket.set_nodelay(true)?;
            socket.set_write_timeout(Some(GREETING_DEADLINE))?;
            socket.write_all(&hello)?;
            Ok(socket)
        };
        let socket = greet().map_err(|error: io::Error| {
            let hint = match error.kind() {
                io::ErrorKind::ConnectionRefused => "; is the relay running there?",
                _ => "",
            };
            Failure::new(format_args!("cannot connect to {text}: {error}{hint}"))
        })?;
        Ok(Self {
            number,
            socket,
            scanner: FrameScanner::default(),
            unwritten: Vec::new(),
        })
    }

    /// Waits for the answer to the HELLO, and turns the socket over to the poller.
    fn await_ok(&mut self, plan: &Plan) -> Result<(), Failure> {
        let until = Instant::now() + GREETING_DEADLINE;
        let (place, id) = (
            &plan.tcp_of(self.number).text,
            &plan.backends[self.number].0,
        );
        let refused = |why: &str| Failure::new(format_args!("{place} as {id}: {why}"));
        let mut answer = None;
        // Small, so that nothing after the OK can be in it but a PING.
        let mut piece = [0; 512];
        while answer.is_none() {
            let left = until.saturating_duration_since(Instant::now());
            let left = left.max(Duration::from_millis(1));
            let came = self
                .socket
                .set_read_timeout(Some(left))
                .and_then(|()| self.socket.read(&mut piece))
                .map_err(|error| refused(&format!("no answer to HELLO: {error}")))?;
            if came == 0 {
                return Err(refused("the relay closed the connection without a word"));
            }
            let told = self.scanner.take(&piece[..came], |came| {
                answer.get_or_insert(came);
            });
            told.map_err(|error| refused(&format!("this is no port for backends: {error}")))?;
        }
        match answer {
            Some(Came::Line(RelayFrame::Ok(_))) => {}
            Some(Came::Line(RelayFrame::Err(ErrFrame { code, msg, .. }))) => {
                let hint = match code.as_str() {
                    "bad-token" => "; its secrets are needed: name its configuration with -c",
                    "not-allowed" => {
                        "; add the benchmark's ids to tcp.backends of the relay, or leave that empty"
                    }
                    "limit" if self.number > 0 => {
                        "; its tcp.max_connections or descriptors do not suffice for so many --backends"
                    }
                    _ => "",
                };
                return Err(refused(&format!(
                    "{} ({}){hint}",
                    one_line(&msg),
                    one_line(&code)
                )));
            }
            Some(Came::Line(RelayFrame::Bye { reason, .. })) => {
                return Err(refused(&format!(
                    "the relay said BYE ({})",
                    one_line(&reason)
                )));
            }
            _ => return Err(refused("this is no port for backends")),
        }
        self.socket
            .set_nonblocking(true)
            .map_err(|error| refused(&error.to_string()))
    }

    /// Writes what there is, as far as the socket takes it.
    fn write(&mut self) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            match self.socket.write(&self.unwritten) {
                Ok(written) => {
                    self.unwritten.drain(..written);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return match self.unwritten.len() {
                        0..UNREAD_BYTES_MAX => Ok(()),
                        _ => Err(io::Error::other("the relay does not read")),
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}

/// All backends, in their thread.
struct Crowd {
    backends: Vec<Backend>,
    poller: Poller,
    plan: Arc<Plan>,
    state: Arc<RunState>,
    seen: BackendStats,
}

impl Crowd {
    fn run(mut self) -> BackendStats {
        let (mut ready, mut buffer) = (Vec::new(), vec![0; READ_BYTES]);
        let error = loop {
            // Nothing here has a clock: the relay PINGs.
            if let Err(error) = self.poller.wait(Duration::from_secs(3600), &mut ready) {
                break Some(BenchError::Poll(error));
            }
            if ready.contains(&BELL) {
                break None;
            }
            let mut served = ready
                .iter()
                .map(|&number| self.serve(number as usize, &mut buffer));
            if let Some(error) = served.find_map(Result::err) {
                break Some(error);
            }
        };
        for backend in &mut self.backends {
            backend.unwritten.extend_from_slice(b"BYE\n");
            // The relay sees the close if not the BYE.
            let _ = backend.write();
        }
        self.seen.error = error;
        self.seen.cpu = cpu::of_this_thread();
        self.seen
    }

    /// Reads what has come for one backend, and acknowledges it.
    fn serve(&mut self, number: usize, buffer: &mut [u8]) -> Result<(), BenchError> {
        let Self {
            backends,
            plan,
            state,
            seen,
            ..
        } = self;
        let Some(backend) = backends.get_mut(number) else {
            return Ok(());
        };
        let id = &plan.backends[number].0;
        loop {
            let came = match backend.socket.read(buffer) {
                Ok(0) => return Err(BenchError::Closed(id.clone())),
                Ok(came) => came,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(BenchError::Broken(id.clone(), error)),
            };
            let now_ns = state.now_ns();
            let mut error = None;
            let Backend {
                scanner, unwritten, ..
            } = backend;
            let told = scanner.take(&buffer[..came], |came| match came {
                Came::Arrival(arrival) => {
                    seen.note(&arrival, number, now_ns, plan, state);
                    // After the entry in the book, so that an answer that is read before it was given too early.
                    wire::line(unwritten, "ACK").arg("id", &arrival.id).end();
                }
                Came::Line(RelayFrame::Ping) => unwritten.extend_from_slice(b"PONG\n"),
                Came::Line(RelayFrame::Err(refusal)) => {
                    let fatal = refusal.fatal;
                    let refused = BenchError::Refused(id.clone(), refusal);
                    match fatal {
                        true => error = Some(refused),
                        false => say(refused),
                    }
                }
                Came::Line(RelayFrame::Bye { reason, .. }) => {
                    error = Some(BenchError::Bye(id.clone(), reason));
                }
                Came::Line(_) => {}
            });
            told.map_err(|error| BenchError::Frame(id.clone(), error))?;
            if let Some(error) = error {
                return Err(error);
            }
            // A read that did not fill the buffer has emptied the socket; the next byte is told anew.
            if came < buffer.len() {
                break;
            }
        }
        let written = backend.write();
        written.map_err(|error| BenchError::Broken(id.clone(), error))
    }
}

impl BackendStats {
    fn note(
        &mut self,
        message: &Arrival,
        backend: usize,
        now_ns: u64,
        plan: &Plan,
        state: &RunState,
    ) {
        let Some(stamp) = message.stamp.filter(|stamp| stamp.run == plan.run) else {
            self.foreign += 1;
            return;
        };
        if stamp.n >= PROBE {
            return;
        }
        self.last_ns = now_ns;
        let whole = message.intact && message.body_bytes == plan.body_bytes;
        if !whole || plan.backend_of(stamp.n) != backend {
            self.damaged += 1;
            return;
        }
        if state.arrived.set(stamp.n) {
            self.duplicates += 1;
            return;
        }
        state.received.fetch_add(1, Ordering::Relaxed);
        self.latency.record(now_ns.saturating_sub(stamp.at_ns));
    }
}
