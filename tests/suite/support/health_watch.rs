//! When each node said that it did not hear the others: `/readyz` is asked all the while.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::{RawHttp, Relay};

/// How often a node is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// From when to when.
pub type Interval = (Instant, Instant);

/// A thread for each node, which asks.
pub struct HealthWatch {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Vec<Interval>>>,
}

impl HealthWatch {
    pub fn begin(nodes: &[Relay]) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let threads = nodes.iter().map(|node| {
            let (admin, stop) = (node.ready().admin, Arc::clone(&stop));
            thread::spawn(move || {
                let mut red: Vec<Interval> = Vec::new();
                let mut since = None;
                let mut connection = RawHttp::connect(admin);
                while !stop.load(Ordering::SeqCst) {
                    let asked = Instant::now();
                    let answer = connection.exchange(b"GET /readyz HTTP/1.1\r\nHost: x\r\n\r\n");
                    let answer = answer.expect("readyz is answered");
                    if answer.header("connection") == Some("close") {
                        connection = RawHttp::connect(admin);
                    }
                    // A disk that hangs on a busy machine is another reason.
                    match answer.status == 503 && answer.text().contains("\"redis: ") {
                        false => red.extend(since.take().map(|since| (since, asked))),
                        true => drop(since.get_or_insert(asked)),
                    }
                    super::let_pass(ASK_EVERY);
                }
                red.extend(since.map(|since| (since, Instant::now())));
                red
            })
        });
        Self {
            threads: threads.collect(),
            stop,
        }
    }

    /// Stops asking; for each node when it was red.
    pub fn end(mut self) -> Vec<Vec<Interval>> {
        self.stop.store(true, Ordering::SeqCst);
        let threads = std::mem::take(&mut self.threads).into_iter();
        let joined = threads.map(|thread| thread.join().expect("readyz is answered"));
        joined.collect()
    }
}

impl Drop for HealthWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}
