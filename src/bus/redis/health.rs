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
    /// A canary has come back that was sent on the present way out: what two threads say of two connections is a guess,
    /// and this is not.
    proven: AtomicBool,
    /// What a canary carries at least that proves it, in microseconds from `began`.
    proof_us: AtomicU64,
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
    /// The last trouble of either, while the bus is down: until this node has heard itself, it is still the reason.
    last: Option<Trouble>,
    /// What the log has said since the bus was up.
    said: Vec<Trouble>,
}

/// The most that the log says of one outage: each trouble once, and not for ever if they are all different.
const SAID_MAX: usize = 8;

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Health(up: {})", self.is_up())
    }
}

impl Health {
    /// Nothing stands yet.
    pub fn new(hub: Arc<Hub>, metrics: BusMetrics) -> Self {
        const NOT_YET: &str = "not connected yet";
        let not_yet = Trouble(NOT_YET.into());
        hub.turn(Some(NOT_YET)).tell();
        Self {
            began: Instant::now(),
            state: Mutex::new(State {
                publisher: Err(not_yet.clone()),
                subscriber: Err(not_yet.clone()),
                last: None,
                said: vec![not_yet], // no news
            }),
            changed: Condvar::new(),
            up: AtomicBool::new(false),
            proven: AtomicBool::new(false),
            proof_us: AtomicU64::new(0),
            canary_ms: AtomicU64::new(0),
            canary_lag_us: AtomicU64::new(0),
            wanted: AtomicUsize::new(0),
            standing: AtomicUsize::new(0),
            hub,
            metrics,
        }
    }

    /// Whether both connections stand, and this node has heard itself through them.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Waits until that is so, or `deadline`; says whether it is.
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
        self.set(|state| state.publisher = now, None);
    }

    /// The publisher has a new connection: only a canary sent from now on proves that this node hears.
    pub fn publisher_anew(&self) {
        self.proof_us.store(self.canary_word(), Ordering::Relaxed);
        self.set(|state| state.publisher = Ok(()), Some(false));
    }

    /// What the subscriber's connection is now.
    pub fn subscriber(&self, now: Standing) {
        self.set(|state| state.subscriber = now, None);
    }

    fn set(&self, change: impl FnOnce(&mut State), proven: Option<bool>) {
        let (was, why, is_news, news) = {
            let mut state = self.state.lock();
            change(&mut state);
            if let Some(proven) = proven {
                self.proven.store(proven, Ordering::Release);
            }
            state.last = state.trouble().or(state.last.take());
            let why = self.why(&state);
            let is_news = state.is_news(why.as_ref());
            let was = self.up.swap(why.is_none(), Ordering::Relaxed);
            self.changed.notify_all();
            self.metrics.up(why.is_none());
            // Under the lock, since another thread may be about to say the opposite.
            let changed = was != why.is_none();
            let news = changed.then(|| self.hub.turn(why.as_ref().map(|why| &*why.0)));
            (was, why, is_news, news)
        };
        match why {
            None if was => {}
            None => log::info!("redis: connected, every subscription stands"),
            Some(why) if is_news => log::warn!(
                "redis: {why}; backends on other nodes cannot be reached until it is back"
            ),
            Some(_) => {}
        }
        if let Some(news) = news {
            news.tell();
        }
    }

    /// Why other nodes are not reached; `None`: they are.
    pub fn unwell(&self) -> Option<String> {
        let why = self.why(&self.state.lock());
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
        if !self.proven.load(Ordering::Acquire) && sent >= self.proof_us.load(Ordering::Relaxed) {
            self.set(|_| {}, Some(true));
        }
    }

    fn why(&self, state: &State) -> Option<Trouble> {
        state.trouble().or_else(|| {
            let unproven = !self.proven.load(Ordering::Acquire);
            let not_heard = || Trouble("this node has not heard itself yet".into());
            unproven.then(|| state.last.clone().unwrap_or_else(not_heard))
        })
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
            canary_age: Some(self.canary_age()),
            canary_lag: Duration::from_micros(self.canary_lag_us.load(Ordering::Relaxed)),
            subscriptions_wanted: self.wanted.load(Ordering::Relaxed),
            subscriptions_standing: self.standing.load(Ordering::Relaxed),
        }
    }
}

impl State {
    /// Whether the log has not said it yet. The same trouble is said once, and another that follows it, too: what was a
    /// Redis that is gone may have become a password that is wrong.
    fn is_news(&mut self, why: Option<&Trouble>) -> bool {
        let Some(why) = why else {
            (self.last, self.said) = (None, Vec::new());
            return false;
        };
        let is_news = !self.said.contains(why) && self.said.len() < SAID_MAX;
        if is_news {
            self.said.push(why.clone());
        }
        is_news
    }

    /// What is wrong with a connection.
    fn trouble(&self) -> Option<Trouble> {
        match (&self.publisher, &self.subscriber) {
            (Ok(()), Ok(())) => None,
            (Err(why), _) => Some(why.clone()),
            (Ok(()), Err(why)) => Some(why.clone()),
        }
    }
}
