//! Whether the threads that serve everybody still turn, and what happens when one panics.
//!
//! A loop that everybody depends on (accept, workers, bus, deadlines, outbox, log) is started with [`supervise`]. It marks when it
//! begins to work ([`Pulse::busy`]) and when it waits for more ([`Pulse::idle`]). A mark is one store into memory, without a
//! clock. A thread of this module reads the marks once a second: a loop that works without a new mark for longer than
//! [`HANG_AFTER`] hangs. A loop that panics is in the log, and is started again; a second panic within [`CALM`] waits a second first.
//! `/readyz` asks [`ailments`], the metrics ask [`threads`].
//!
//! There is one list of loops, that of the process, as the system has one list of threads.
//!
//! Builds with debug assertions have a fault injection for tests: if the environment variable `PAYRELAY_TEST_FAULTS` names a folder, the
//! next turn of the loop NAME panics when that folder has a file `NAME.panic`, which is deleted, and hangs for as long as it has
//! a file `NAME.hang`.

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use crate::thread::{self, JoinOnDrop, SMALL_STACK_BYTES};

/// A turn without a mark for longer than this counts as hanging.
pub const HANG_AFTER: Duration = Duration::from_secs(5);

/// A loop that panicked and was started again is reported for so long; so is one that panics again and again, for good.
pub const REPORTED_FOR: Duration = Duration::from_secs(5);

/// A loop that panics again within this time waits for [`PAUSE`] before it is started again.
const CALM: Duration = Duration::from_secs(10);
const PAUSE: Duration = Duration::from_secs(1);

/// How often the marks are read.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The loops of this process.
static LOOPS: Mutex<Vec<Arc<State>>> = Mutex::new(Vec::new());

/// When the marks were read last; `None`: no thread reads them.
static LOOKED: Mutex<Option<Instant>> = Mutex::new(None);

/// What a loop is for.
#[derive(Clone, Debug)]
pub struct Role {
    /// The name of its thread, in `/readyz`, in the metrics and in the log.
    pub name: String,
    /// What does not happen while it does not turn, for `/readyz`: "no new connection is accepted".
    pub without_it: &'static str,
    /// What to do when it hangs: "look at the disk of outbox.path".
    pub advice: &'static str,
    /// Whether a restart of the process is what helps: not if a disk hangs.
    pub restart_helps: bool,
    /// Whether the node cannot do its work without it. If not, `/readyz` stays 200 and names it as a warning.
    pub is_vital: bool,
}

impl Role {
    /// A loop without which the node cannot do its work.
    pub fn vital(name: impl Into<String>, without_it: &'static str) -> Self {
        Self {
            name: name.into(),
            without_it,
            advice: "restart payrelay if that goes on",
            restart_helps: true,
            is_vital: true,
        }
    }

    /// With other advice than to restart.
    #[must_use]
    pub fn advice(mut self, advice: &'static str) -> Self {
        self.advice = advice;
        self.restart_helps = false;
        self
    }

    /// A loop without which everybody is served all the same.
    #[must_use]
    pub fn not_vital(mut self) -> Self {
        self.is_vital = false;
        self
    }
}

/// A loop's marks, in its own thread.
#[derive(Debug)]
pub struct Pulse(Arc<State>);

/// What is known of a loop.
#[derive(Debug)]
struct State {
    role: Role,
    /// Grows with each turn. Odd: a turn is going on. Even: the loop waits for work. Written by the loop's thread alone.
    turns: AtomicU64,
    restarts: AtomicU64,
    watched: Mutex<Watched>,
}

#[derive(Debug)]
struct Watched {
    /// The value of `turns` at the last look, and since when it has been that.
    turns: u64,
    since: Instant,
    /// Whether the log says that it hangs.
    told: bool,
    panicked: Option<Instant>,
}

/// A loop that does not turn as it should.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ailment {
    /// Whether the node cannot do its work without it.
    pub is_vital: bool,
    /// Whether it hangs, and only a restart of the process can help.
    pub needs_restart: bool,
    /// Its name, what is wrong, what that means, and what to do.
    pub words: String,
}

/// A loop, for the metrics.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThreadReading {
    /// The thread's name.
    pub name: String,
    /// Whether it turns.
    pub is_well: bool,
    /// How often it panicked and was started again.
    pub restarts: u64,
}

impl Pulse {
    fn new(role: Role) -> Self {
        let state = Arc::new(State {
            role,
            turns: AtomicU64::new(0),
            restarts: AtomicU64::new(0),
            watched: Mutex::new(Watched {
                turns: 0,
                since: Instant::now(),
                told: false,
                panicked: None,
            }),
        });
        LOOPS.lock().push(Arc::clone(&state));
        Self(state)
    }

    /// A turn begins, or a long turn has come one step further.
    #[inline]
    pub fn busy(&self) {
        let turns = self.0.turns.load(Ordering::Relaxed);
        self.0.turns.store((turns | 1) + 2, Ordering::Relaxed);
        #[cfg(debug_assertions)]
        faults::inject(&self.0.role.name);
    }

    /// The loop waits for work from now on, for as long as none comes.
    #[inline]
    pub fn idle(&self) {
        let turns = self.0.turns.load(Ordering::Relaxed);
        self.0.turns.store(turns & !1, Ordering::Relaxed);
    }

    /// The loop has panicked, and is about to be started again.
    #[expect(
        clippy::disallowed_methods,
        reason = "a thread that panics again and again is to do so once a second"
    )]
    fn panicked(&self) {
        self.idle();
        let now = Instant::now();
        let before = self.0.watched.lock().panicked.replace(now);
        self.0.restarts.fetch_add(1, Ordering::Relaxed);
        let name = &self.0.role.name;
        if before.is_some_and(|before| now - before < CALM) {
            log::error!("thread {name} has panicked again; it is started again in a second");
            std::thread::park_timeout(PAUSE);
        } else {
            log::error!("thread {name} has panicked; it is started again");
        }
    }
}

impl Drop for Pulse {
    /// The loop has come to its end, as it was told to.
    fn drop(&mut self) {
        LOOPS.lock().retain(|state| !Arc::ptr_eq(state, &self.0));
    }
}

impl State {
    /// What is wrong with the loop, if anything is.
    fn ailment(&self, now: Instant) -> Option<Ailment> {
        let watched = self.watched.lock();
        let Role {
            name,
            without_it,
            advice,
            restart_helps,
            is_vital,
        } = &self.role;
        let seconds = |since: Instant| now.saturating_duration_since(since).as_secs();
        let hangs = watched.hangs(self.turns.load(Ordering::Relaxed), now);
        let words = if hangs {
            let hanging = seconds(watched.since);
            format!("thread {name} has hung for {hanging} s: {without_it}; {advice}")
        } else {
            let panicked = watched.panicked?;
            if now.saturating_duration_since(panicked) >= REPORTED_FOR {
                return None;
            }
            let ago = seconds(panicked);
            format!("thread {name} panicked {ago} s ago and was started again; the log says why")
        };
        Some(Ailment {
            is_vital: *is_vital,
            needs_restart: hangs && *restart_helps,
            words,
        })
    }

    /// Reads the mark; logs that the loop hangs, and that it turns again. `late`: this look comes late, so the whole process
    /// stood still, and not the loop.
    fn look(&self, now: Instant, late: bool) {
        let turns = self.turns.load(Ordering::Relaxed);
        let mut watched = self.watched.lock();
        if watched.turns == turns && !late {
            let hangs = watched.hangs(turns, now);
            let begins = hangs && !std::mem::replace(&mut watched.told, hangs);
            drop(watched);
            if let (true, Some(ailment)) = (begins, self.ailment(now)) {
                log::error!("{}", ailment.words);
            }
            return;
        }
        let since = std::mem::replace(&mut watched.since, now);
        watched.turns = turns;
        let told = std::mem::take(&mut watched.told);
        drop(watched);
        if told {
            let (name, hung) = (&self.role.name, (now - since).as_secs());
            log::info!("thread {name} turns again after {hung} s");
        }
    }
}

impl Watched {
    fn hangs(&self, turns: u64, now: Instant) -> bool {
        let is_busy = turns & 1 == 1;
        is_busy && turns == self.turns && now.saturating_duration_since(self.since) >= HANG_AFTER
    }
}

/// Starts a thread for a loop that everybody depends on. `work` returns when the loop is to end. If it panics, that is logged,
/// and it is called again: what it keeps between calls must be fit for that.
///
/// # Errors
/// The system has no room for another thread.
pub fn supervise(
    role: Role,
    stack_bytes: usize,
    mut work: impl FnMut(&Pulse) + Send + 'static,
) -> io::Result<JoinOnDrop> {
    let name = role.name.clone();
    let pulse = Pulse::new(role);
    thread::spawn(name, stack_bytes, move || {
        while catch_unwind(AssertUnwindSafe(|| work(&pulse))).is_err() {
            pulse.panicked();
        }
    })
}

/// The loops that do not turn as they should, just now.
pub fn ailments() -> Vec<Ailment> {
    let now = Instant::now();
    let all = LOOPS.lock().clone();
    let mut ailing: Vec<Ailment> = all.iter().filter_map(|state| state.ailment(now)).collect();
    let looked = *LOOKED.lock();
    if looked.is_some_and(|looked| now.saturating_duration_since(looked) > HANG_AFTER) {
        ailing.push(Ailment {
            is_vital: true,
            needs_restart: true,
            words:
                "thread heartbeat hangs: it is not known whether the others do; restart payrelay"
                    .into(),
        });
    }
    ailing
}

/// All loops, for the metrics.
pub fn threads() -> Vec<ThreadReading> {
    let now = Instant::now();
    let all = LOOPS.lock().clone();
    all.iter()
        .map(|state| ThreadReading {
            name: state.role.name.clone(),
            is_well: state.ailment(now).is_none(),
            restarts: state.restarts.load(Ordering::Relaxed),
        })
        .collect()
}

/// The thread that reads the marks. Dropping it ends it.
#[derive(Debug)]
pub struct Heartbeat {
    _stop: Sender<()>, // dropped first: it ends the loop
    _thread: JoinOnDrop,
}

impl Heartbeat {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start() -> io::Result<Self> {
        let (stop, stopped) = bounded(0);
        let thread = thread::spawn("heartbeat", SMALL_STACK_BYTES, move || look_on(&stopped))?;
        Ok(Self {
            _stop: stop,
            _thread: thread,
        })
    }
}

fn look_on(stopped: &Receiver<()>) {
    let mut before = Instant::now();
    loop {
        let now = Instant::now();
        let late = now - before > 3 * LOOK_EVERY;
        before = now;
        *LOOKED.lock() = Some(now);
        let all = LOOPS.lock().clone();
        for state in all {
            state.look(now, late);
        }
        match stopped.recv_timeout(LOOK_EVERY) {
            Err(error) if error.is_timeout() => {}
            Ok(()) | Err(_) => break,
        }
    }
    *LOOKED.lock() = None;
}

/// Panics and hangs on demand, see the head of this file.
#[cfg(debug_assertions)]
mod faults {
    use std::fs;
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::time::Duration;

    /// Panics or hangs, if the loop `name` is to do so now.
    #[expect(
        clippy::disallowed_methods,
        reason = "the fault that a test asks for is to hang"
    )]
    #[expect(
        clippy::panic,
        reason = "the fault that a test asks for, in builds with debug assertions"
    )]
    pub fn inject(name: &str) {
        static FOLDER: OnceLock<Option<PathBuf>> = OnceLock::new();
        let folder =
            FOLDER.get_or_init(|| std::env::var_os("PAYRELAY_TEST_FAULTS").map(PathBuf::from));
        let Some(folder) = folder else { return };
        if fs::remove_file(folder.join(format!("{name}.panic"))).is_ok() {
            panic!("a test wants {name} to panic");
        }
        while folder.join(format!("{name}.hang")).exists() {
            std::thread::park_timeout(Duration::from_millis(10));
        }
    }
}

#[cfg(test)]
mod tests;
