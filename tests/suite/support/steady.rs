//! A healthy backend and a well-behaved provider, at work all the while something rude goes on.

use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::http::{RawHttp, post_request};
use super::{DEADLINE, Relay};

/// One notification after another to a backend that acknowledges at once, each on a new connection. Any answer but
/// 200 fails the test when this is dropped or looked at.
pub struct Steady {
    progress: Arc<Progress>,
    backend: TcpStream,
    threads: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Progress {
    seen: Mutex<Seen>,
    more: Condvar,
}

#[derive(Default)]
struct Seen {
    stop: bool,
    answered: Vec<Duration>,
    problem: Option<String>,
}

impl Progress {
    /// Waits until `turn`, or until it is stopped: which of them it was.
    fn is_stopped_by(&self, turn: Instant) -> bool {
        let mut seen = self.seen.lock();
        while !seen.stop && !self.more.wait_until(&mut seen, turn).timed_out() {}
        seen.stop
    }
}

impl Steady {
    /// Begins, and waits for the first answer. The next request goes out when the last one is answered.
    pub fn start(relay: &Relay) -> Self {
        Self::start_every(relay, Duration::ZERO)
    }

    /// The same with one request in each `interval`, whatever the answers take: a load that does not give way.
    pub fn start_every(relay: &Relay, interval: Duration) -> Self {
        let mut backend = relay.backend("steady");
        let socket = backend.shutdown_handle();
        let acknowledges = thread::spawn(move || {
            while let Some(frame) = backend.next() {
                let id = frame.get("id").unwrap_or_default();
                if frame.verb == "MSG" && !backend.try_send(format!("ACK id={id}\n").as_bytes()) {
                    return;
                }
            }
        });
        let progress = Arc::new(Progress::default());
        let theirs = Arc::clone(&progress);
        let to = relay.gate();
        let posts = thread::spawn(move || {
            let request = post_request("/notify/steady", &[("Connection", "close")], b"steady");
            let mut turn = Instant::now();
            while !theirs.is_stopped_by(turn) {
                turn += interval;
                let outcome = RawHttp::connect(to.clone()).exchange(&request);
                let mut seen = theirs.seen.lock();
                match outcome {
                    Ok(answer) if answer.status == 200 => seen.answered.push(answer.elapsed),
                    Ok(answer) => seen.problem = Some(format!("{:?}", answer.told())),
                    Err(problem) => seen.problem = Some(problem),
                }
                let done = seen.problem.is_some();
                theirs.more.notify_all();
                if done {
                    return;
                }
            }
        });
        let steady = Self {
            progress,
            backend: socket,
            threads: vec![acknowledges, posts],
        };
        steady.still_served();
        steady
    }

    /// Waits for a request that began after now to be answered, and panics if any was not answered well.
    pub fn still_served(&self) {
        let deadline = Instant::now() + DEADLINE;
        let mut seen = self.progress.seen.lock();
        // The first may have begun before now; the second has not.
        let enough = seen.answered.len() + 2;
        while seen.problem.is_none() && seen.answered.len() < enough {
            let late = self
                .progress
                .more
                .wait_until(&mut seen, deadline)
                .timed_out();
            assert!(
                !late,
                "a good request beside it was not answered within {DEADLINE:?}"
            );
        }
        if let Some(problem) = &seen.problem {
            panic!("a good request beside it went wrong: {problem}");
        }
    }

    /// How long the next `count` requests take, sorted.
    pub fn next_latencies(&self, count: usize) -> Vec<Duration> {
        let from = self.progress.seen.lock().answered.len();
        while self.progress.seen.lock().answered.len() < from + count {
            self.still_served();
        }
        let mut latencies = self.progress.seen.lock().answered[from..from + count].to_vec();
        latencies.sort();
        latencies
    }
}

impl Drop for Steady {
    fn drop(&mut self) {
        if !thread::panicking() {
            self.still_served();
        }
        self.progress.seen.lock().stop = true;
        self.progress.more.notify_all();
        // The poster first: its last request still needs the backend.
        if let Some(posts) = self.threads.pop() {
            let _ = posts.join();
        }
        let _ = self.backend.shutdown(Shutdown::Both);
        if let Some(acknowledges) = self.threads.pop() {
            let _ = acknowledges.join();
        }
    }
}
