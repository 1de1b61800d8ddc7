//! When sentinels named another primary than before: they are asked all the while.
//!
//! A test kills one primary, and on a busy machine the sentinels may find the next one dead too, and name a third. The servers have
//! healed only then, whatever the sentinels said before.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::{DEADLINE, SentinelGroup, pause};

/// How often a sentinel is asked.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// A thread for each sentinel, which asks.
pub struct SwitchWatch {
    stop: Arc<AtomicBool>,
    switches: Arc<Mutex<Vec<Instant>>>,
    threads: Vec<JoinHandle<()>>,
}

impl SwitchWatch {
    pub fn begin(group: &SentinelGroup) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let switches = Arc::new(Mutex::new(Vec::new()));
        let threads = group.sentinels.iter().map(|sentinel| {
            let addr = sentinel.addr();
            let (stop, switches) = (Arc::clone(&stop), Arc::clone(&switches));
            thread::spawn(move || {
                let mut before = None;
                while !stop.load(Ordering::SeqCst) {
                    // It is killed, stopped, or just not there yet.
                    if ask(addr, &stop, &mut before, &switches).is_err() {
                        pause();
                    }
                }
            })
        });
        Self {
            threads: threads.collect(),
            stop,
            switches,
        }
    }

    /// When a sentinel last named another primary, if that was between `from` and `to`.
    pub fn last_within(&self, from: Instant, to: Instant) -> Option<Instant> {
        let switches = self.switches.lock();
        let within = switches.iter().filter(|at| from <= **at && **at < to);
        within.max().copied()
    }
}

impl Drop for SwitchWatch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        for thread in self.threads.drain(..) {
            let _ = thread.join(); // it has nothing to say
        }
    }
}

/// Asks the sentinel at `addr` over one connection, until that breaks.
fn ask(
    addr: SocketAddr,
    stop: &AtomicBool,
    before: &mut Option<Vec<String>>,
    switches: &Mutex<Vec<Instant>>,
) -> redis::RedisResult<()> {
    let client = redis::Client::open(format!("redis://{addr}/"))?;
    let mut connection = client.get_connection_with_timeout(DEADLINE)?;
    connection.set_read_timeout(Some(DEADLINE))?;
    while !stop.load(Ordering::SeqCst) {
        let said: Vec<String> = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg("mymaster")
            .query(&mut connection)?;
        if before.as_ref().is_some_and(|before| *before != said) {
            switches.lock().push(Instant::now());
        }
        *before = Some(said);
        super::let_pass(ASK_EVERY);
    }
    Ok(())
}
