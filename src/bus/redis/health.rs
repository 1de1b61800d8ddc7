//! Whether this node hears and is heard: what the publisher and the subscriber know of their connections, put together.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};

use super::link::Trouble;
use crate::bus::events::Hub;
use crate::metrics::{BusMetrics, BusReadings};

/// How long the subscriber may hear nothing of this node's own canary, which sings every second.
pub const SILENCE_MAX: Duration = Duration::from_secs(3);

/// A connection's state: it stands, or why not.
pub type Standing = Result<(), Trouble>;

/// Shared by the two threads and whoever asks.
pub struct Health {
    began: Instant,
    state: Mutex<State>,
    changed: Condvar,
    up: AtomicBool,
    /// When the last canary was heard, and how long it had been on its way; milliseconds and microseconds from `began`.
    canary_ms: AtomicU64,
    canary_lag_us: AtomicU64,
    wanted: AtomicUsize,
    standing: AtomicUsize,
    hub: Arc<Hub>,
    metrics: BusMetrics,
}

struct State {
    publisher: Standing,
    subscriber: Standing,
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Health(up: {})", self.is_up())
    }
}

impl Health {
    /// Nothing stands yet.
    pub fn new(hub: Arc<Hub>, metrics: BusMetrics) -> Self {
        const NOT_YET: &str = "not connected yet";
        let not_yet = || Err(Trouble(NOT_YET.into()));
        hub.turn(Some(NOT_YET)).tell();
        Self {
            began: Instant::now(),
            state: Mutex::new(State {
                publisher: not_yet(),
                subscriber: not_yet(),
            }),
            changed: Condvar::new(),
            up: AtomicBool::new(false),
            canary_ms: AtomicU64::new(0),
            canary_lag_us: AtomicU64::new(0),
            wanted: AtomicUsize::new(0),
            standing: AtomicUsize::new(0),
            hub,
            metrics,
        }
    }

    /// Whether both connections stand.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Waits until both stand, or `deadline`; says whether they do.
    pub fn wait_up(&self, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while !self.is_up() {
            if self.changed.wait_until(&mut state, deadline).timed_out() {
                break;
            }
        }
        self.is_up()
    }

    /// What the publisher's connection is now.
    pub fn publisher(&self, now: Standing) {
        self.set(|state| state.publisher = now);
    }

    /// What the subscriber's connection is now.
    pub fn subscriber(&self, now: Standing) {
        self.set(|state| state.subscriber = now);
    }

    fn set(&self, change: impl FnOnce(&mut State)) {
        let (why, news) = {
            let mut state = self.state.lock();
            change(&mut state);
            let why = state.why();
            let was_up = self.up.swap(why.is_none(), Ordering::Relaxed);
            self.changed.notify_all();
            self.metrics.up(why.is_none());
            if was_up == why.is_none() {
                return; // a trouble is said once, and what comes of it is not
            }
            // Under the lock, since another thread may be about to say the opposite.
            let news = self.hub.turn(why.as_ref().map(|why| &*why.0));
            (why, news)
        };
        match why {
            None => log::info!("redis: connected, every subscription stands"),
            Some(why) => log::warn!(
                "redis: {why}; backends on other nodes cannot be reached until it is back"
            ),
        }
        news.tell();
    }

    /// Why other nodes are not reached; `None`: they are.
    pub fn unwell(&self) -> Option<String> {
        let why = self.state.lock().why();
        why.or_else(|| {
            let age = self.canary_age();
            (age > SILENCE_MAX + Duration::from_millis(500))
                .then(|| Trouble(format!("silent for {:.1} s", age.as_secs_f64())))
        })
        .map(|why| format!("redis: {why}"))
    }

    /// What a canary sent now carries.
    pub fn canary_word(&self) -> u64 {
        self.began.elapsed().as_micros() as u64
    }

    /// A canary was heard; `sent` is what it carries.
    pub fn canary(&self, sent: u64) {
        let now = self.began.elapsed();
        let lag = (now.as_micros() as u64).saturating_sub(sent);
        self.canary_ms
            .store(now.as_millis() as u64, Ordering::Relaxed);
        self.canary_lag_us.store(lag, Ordering::Relaxed);
    }

    /// How long ago the last canary was heard.
    pub fn canary_age(&self) -> Duration {
        let heard = Duration::from_millis(self.canary_ms.load(Ordering::Relaxed));
        self.began.elapsed().saturating_sub(heard)
    }

    /// How many subscriptions are wanted, and how many stand.
    pub fn subscriptions(&self, wanted: usize, standing: usize) {
        self.wanted.store(wanted, Ordering::Relaxed);
        self.standing.store(standing, Ordering::Relaxed);
    }

    /// For the metrics.
    pub fn readings(&self) -> BusReadings {
        BusReadings {
            canary_age: self.canary_age(),
            canary_lag: Duration::from_micros(self.canary_lag_us.load(Ordering::Relaxed)),
            subscriptions_wanted: self.wanted.load(Ordering::Relaxed),
            subscriptions_standing: self.standing.load(Ordering::Relaxed),
        }
    }
}

impl State {
    fn why(&self) -> Option<Trouble> {
        match (&self.publisher, &self.subscriber) {
            (Ok(()), Ok(())) => None,
            (Err(why), _) => Some(why.clone()),
            (Ok(()), Err(why)) => Some(why.clone()),
        }
    }
}
