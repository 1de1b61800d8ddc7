//! The outbox: notifications that were answered ok and that no backend has acknowledged yet, on disk.
//!
//! # The life of a notification in it
//!
//! ```text
//!  not delivered ──store──▶ pending ──ACK──▶ done ──outbox.keep──▶ deleted
//!   (answered ok             │  ▲  ▲
//!    once it is synced)      │  │  └──── payrelay outbox retry ─────┐
//!                            │  └─ due: now, when its backend comes, │
//!                            │     or after a wait that doubles      │
//!                            └─ NACK delay=-1, max_tries, expire ─▶ dead ──payrelay outbox drop──▶ deleted
//! ```
//!
//! A pending one is *held* while a session still has the MSG in hand that its provider did not want to wait for: it is not
//! sent again before that session has told what came of it, or is gone. After a restart nothing is held.
//!
//! A try counts once the MSG has been written to a backend. That nobody was there, or nobody had room, changes nothing
//! on disk; it only delays the next redelivery.
//!
//! | part | what lives there |
//! |---|---|
//! | `file`, `check`, `paths` | opening, locking, checking, migrating; whether it could be opened; what lies beside it |
//! | `watch` | whether the files at the path are still the ones that are written |
//! | `rows`, `by_id`, `filter`, `newest`, `count_delta` | the statements |
//! | `writer`, `ops`, `group`, `sweep` | the one thread that changes anything; group commit |
//! | `redelivery`, `queues`, `batch`, `inbox` | the one thread that delivers; which backend is due when; what is read for it; its inbox |
//! | `rate_limiter`, `next_state` | how many it sends a second; what a receipt means |
//! | `told` | what the log says of what is not delivered |
//! | `stats` | counts, and the disk's health |
//! | `unknown` | for which backends something is pending that were never here |
//! | `checkpoint` | when the log goes to the database, and its bound |
//! | `clock` | time that the relay has lived through |
//! | `transfer` | notifications on their way to another file or machine |
//! | `shared` | the mirror in Redis, and what becomes of a node's when it is gone |
//!
//! Invariant: a store's `then` is called with `Ok` only after the sync of its commit has returned.

mod batch;
mod by_id;
mod check;
mod checkpoint;
mod clock;
mod count_delta;
mod error;
mod file;
mod filter;
mod group;
mod inbox;
mod late;
mod newest;
mod next_state;
mod ops;
mod paths;
mod queues;
mod rate_limiter;
mod redelivery;
mod refill;
mod rows;
mod shared;
mod stats;
mod sweep;
#[cfg(test)]
mod tests;
mod threads;
mod told;
mod transfer;
mod unknown;
mod watch;
mod writer;

use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::Mutex;
use rusqlite::Connection;

pub use self::check::check_path;
pub use self::error::{AskError, NotStored, OpenCause, OpenError};
pub use self::filter::Filter;
pub use self::inbox::{HeldReceipt, Inbox};
pub use self::newest::{Found, Search};
pub use self::ops::{AdminAction, Order, Ordered, ROWS_AT_ONCE, SPARED_MAX, Undelivered};
pub use self::rows::{Payload, Row, State};
pub use self::shared::{Gone, NoHandOver, SharedLink};
pub use self::threads::OutboxThreads;
pub use self::transfer::{BadImport, DatabaseCopy, Exported, Parsed};
pub use self::unknown::{UnknownBackend, UnknownBackends};

use self::checkpoint::Checkpoint;
use self::clock::Clock;
use self::file::FileGuard;
use self::ops::{Limits, Op, StoreRequest};
use self::rate_limiter::RateLimiter;
use self::redelivery::Redelivery;
use self::shared::SharedState;
use self::stats::Stats;
use self::told::OutboxLog;
use self::unknown::UnknownWatch;
use self::writer::{GROUP_MAX, Writer};
use crate::config;
use crate::dispatcher::Dispatcher;
use crate::heartbeat::{self, Role};
use crate::log_once::LogOnce;
use crate::metrics::{Metrics, OutboxReadings};
use crate::notification::{Again, EventKey, NotificationId, unix_ms};
use crate::thread;

/// What to do when a thread of the outbox hangs.
const ADVICE: &str = "look at the disk of outbox.path";

/// SQLite's own calls are deep; measured at under 40 KiB, and a debug build takes more.
const STACK_BYTES: usize = 512 * 1024;

/// The most backends that have a metric of their own.
const BACKENDS_SHOWN: usize = 50;

/// How long whoever asks for a change waits for the disk.
const ORDER_PATIENCE: Duration = Duration::from_secs(30);

/// The store, for whoever has something to store or to ask.
pub struct Outbox {
    ops: Sender<Op>,
    reading: Mutex<Connection>,
    inbox: Arc<Inbox>,
    stats: Arc<Stats>,
    clock: Clock,
    retry_first: Duration,
    shared: Option<Arc<SharedState>>,
    metrics: Arc<Metrics>,
    told: Arc<OutboxLog>,
    // Last: it must outlive every connection.
    _guard: Arc<FileGuard>,
}

impl fmt::Debug for Outbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Outbox")
            .field("pending", &self.stats.pending())
            .field("dead", &self.stats.dead())
            .finish_non_exhaustive()
    }
}

/// What a relay tells its outbox to work with.
pub struct OutboxOptions {
    /// `[outbox]`
    pub config: config::OutboxConfig,
    /// How long a redelivery may wait for its session to take it; `tcp.ack_timeout`.
    pub patience: Duration,
    /// How many notifications may wait to be written; as many as may be in flight.
    pub queue: usize,
    /// What the bus tells of arrivals.
    pub inbox: Arc<Inbox>,
    pub dispatcher: Dispatcher,
    pub metrics: Arc<Metrics>,
    /// The way to Redis, if it is to be shared.
    pub shared: Option<SharedLink>,
}

impl Outbox {
    /// Opens the store, or makes it, and begins to deliver what is in it.
    ///
    /// # Errors
    /// The file cannot be used; it is as it was then.
    pub fn open(setting: OutboxOptions) -> Result<(Arc<Self>, OutboxThreads), OpenError> {
        let OutboxOptions {
            config,
            patience,
            queue,
            inbox,
            dispatcher,
            metrics,
            shared,
        } = setting;
        let store = file::open(&config.path)?;
        let fail = |cause| OpenError {
            path: config.path.clone(),
            cause,
        };
        let read = |error| fail(OpenCause::Sqlite(error));
        let totals = rows::totals(&store.writing).map_err(read)?;
        let stats = Arc::new(Stats::of(totals));
        inbox.set_pending(stats.pending());
        let clock = store.clock;
        let (reading, redelivering) = (
            file::reading(&store.path).map_err(read)?,
            file::reading(&store.path).map_err(read)?,
        );
        let (ops, asked) = bounded(queue + GROUP_MAX);
        let ms = |wait: Duration| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        let shared = shared.filter(|_| config.shared != config::SharedOutbox::Off);
        let parts = shared.map(|link| shared::share(link, &config, &store, ops.clone()));
        let (mirror, worker) = parts.transpose().map_err(read)?.unzip();
        let (mirror, mirror_events) = mirror.unzip();
        let state = worker.as_ref().map(|worker| Arc::clone(&worker.state));
        let told = Arc::new(OutboxLog::default());
        let checkpoint = Checkpoint::new(&store.writing, config.max_log_bytes);
        let mut writer = Writer {
            connection: store.writing,
            ops: asked,
            inbox: Arc::clone(&inbox),
            stats: Arc::clone(&stats),
            clock,
            stopping: false,
            limits: Limits {
                expire_ms: ms(config.expire),
                keep_ms: ms(config.keep),
                max_messages: config.max_messages,
                max_bytes: config.max_bytes,
            },
            metrics: Arc::clone(&metrics),
            owed: Vec::new(),
            told: Arc::clone(&told),
            full: LogOnce::new(),
            failed: LogOnce::new(),
            path: store.path.clone(),
            watch: store.watch,
            checked: None,
            checkpoint,
            saved: Instant::now(),
            disk_is_low: false,
            yielding: thread::CooperativeYield::default(),
            has_run: false,
            mirror,
        };
        let started = |error| fail(OpenCause::Thread(error));
        let role = Role::vital("outbox-writer", "nothing can be stored").advice(ADVICE);
        let writer = heartbeat::supervise(role, STACK_BYTES, move |pulse| writer.run(pulse))
            .map_err(started)?;
        let retry_first = config.retry_first;
        let mut redelivery = Redelivery {
            inbox: Arc::clone(&inbox),
            ops: ops.clone(),
            reading: redelivering,
            dispatcher,
            clock,
            settings: config.clone(),
            limiter: RateLimiter::per_second(config.redelivery_rate),
            patience,
            metrics: Arc::clone(&metrics),
            queues: Default::default(),
            flights: Default::default(),
            flight_bytes: 0,
            paused: false,
            yielding: thread::CooperativeYield::default(),
            news: Default::default(),
            unread: Default::default(),
            refilled: Default::default(),
            unknown: UnknownWatch::new(Instant::now()),
            stats: Arc::clone(&stats),
            told: Arc::clone(&told),
        };
        let role = Role::vital("redelivery", "what is stored is not delivered").advice(ADVICE);
        let thread = heartbeat::supervise(role, STACK_BYTES, move |pulse| redelivery.run(pulse))
            .map_err(started)?;
        let threads = OutboxThreads {
            inbox: Arc::clone(&inbox),
            ops: ops.clone(),
            mirror_events,
            mirror: worker.map(shared::start).transpose().map_err(started)?,
            redelivery: Some(thread),
            writer: Some(writer),
            _guard: Arc::clone(&store.guard),
        };
        let outbox = Self {
            ops,
            reading: Mutex::new(reading),
            inbox,
            stats,
            clock,
            retry_first,
            shared: state,
            metrics,
            told,
            _guard: store.guard,
        };
        log::info!(
            "the outbox {} has {} pending, {} dead",
            config.path.display(),
            outbox.stats.pending(),
            outbox.stats.dead()
        );
        Ok((Arc::new(outbox), threads))
    }

    /// Whether there is a store at `path` with something in it to be delivered, as far as one can see from outside.
    pub fn is_at(path: &Path) -> bool {
        path.metadata().is_ok_and(|file| file.len() > 0)
    }

    /// Stores what was not delivered. `then` learns its row once it is on disk, or why it is not; in this call or later.
    /// Never waits.
    pub fn store(
        &self,
        undelivered: Undelivered,
        then: impl FnOnce(Result<i64, NotStored>) + Send + 'static,
    ) {
        if self.stats.is_broken() {
            self.metrics.outbox_refused(NotStored::Disk.as_str());
            return then(Err(NotStored::Disk));
        }
        let Undelivered {
            notification,
            key,
            why,
            again,
            sent,
            held,
            mut timeline,
        } = undelivered;
        let now = self.clock.now_ms();
        let ms = |wait: Duration| now.saturating_add(wait.as_millis() as i64);
        let (state, due) = match again {
            _ if held => (State::Pending, rows::HELD),
            None => (State::Pending, 0),
            Some(Again::Whenever) => (State::Pending, ms(self.retry_first)),
            Some(Again::After(wait)) => (State::Pending, ms(wait)),
            Some(Again::Never) => (State::Dead, 0),
        };
        timeline.add(unix_ms(), "stored", &why);
        if state == State::Dead {
            timeline.add(unix_ms(), "dead", &why);
            self.metrics.outbox_died("given-up", 1);
            self.told.dead_on_arrival(&notification, &why);
        }
        let store = Box::new(StoreRequest {
            notification,
            key,
            state,
            tries: u32::from(sent.is_some()),
            due,
            why,
            timeline,
            then: Some(Box::new(then)),
        });
        if let Err(refused) = self.ops.try_send(Op::Store(store)) {
            let (TrySendError::Full(op) | TrySendError::Disconnected(op)) = refused;
            self.metrics.outbox_refused(NotStored::Busy.as_str());
            if let Op::Store(store) = op {
                store.tell(Err(NotStored::Busy));
            }
        }
    }

    /// A session has told what came of a notification that was stored as held.
    pub fn on_held_receipt(&self, held: HeldReceipt) {
        self.inbox.held(held);
    }

    /// From now on nothing is sent; what is under way may still be told of.
    pub fn pause(&self) {
        self.inbox.pause();
    }

    /// Why nothing can be stored just now, if so: a reason for `/readyz`.
    pub fn unwell(&self) -> Option<String> {
        let shared = || self.shared.as_ref()?.unwell();
        let words = self.stats.ailment().or_else(shared)?;
        Some(format!("outbox {words}"))
    }

    /// Why what is stored is on the disk alone just now, if so: a warning for `/readyz`.
    pub fn shared_warning(&self) -> Option<String> {
        let kept = self.stats.pending() + self.stats.dead();
        self.shared.as_ref()?.warning(kept)
    }

    /// Has other nodes take over all that is here, from now on until a restart: nothing more is stored or sent. Says how many are
    /// still here, and how many of these cannot be taken over since they are damaged on disk. It can be called again to learn
    /// how far it is.
    ///
    /// # Errors
    /// Nobody could take it over; nothing has changed.
    pub fn hand_over(&self) -> Result<(u64, u64), NoHandOver> {
        let shared = self.shared.as_ref().ok_or(NoHandOver::Off)?;
        shared.hand_over()?;
        self.inbox.pause();
        Ok((self.stats.pending() + self.stats.dead(), shared.damaged()))
    }

    /// Other nodes that hold no lease, and have something in Redis that nobody has taken over yet; `None`: Redis is away.
    pub fn gone(&self) -> Option<Vec<Gone>> {
        self.shared
            .as_ref()
            .map_or(Some(Vec::new()), |shared| shared.gone())
    }

    /// How many are to be delivered.
    pub fn pending(&self) -> u64 {
        self.stats.pending()
    }

    /// What the metrics show: all of it as of one moment on disk.
    pub fn readings(&self) -> OutboxReadings {
        let read = rows::at_once(&self.reading.lock(), |c| {
            let oldest = rows::oldest_pending(c)?;
            Ok((rows::totals(c)?, oldest, rows::busiest(c, BACKENDS_SHOWN)?))
        });
        let (totals, oldest, backends) =
            read.unwrap_or_else(|_| (self.stats.totals(), None, Vec::new()));
        let [pending, done, dead] = totals;
        let age = oldest.map_or(0, |stored| (self.clock.now_ms() - stored).max(0));
        OutboxReadings {
            pending,
            done,
            dead,
            oldest: Duration::from_millis(age.unsigned_abs()),
            backends,
            disk_free_bytes: self.stats.disk_free_bytes(),
            log_bytes: self.stats.log_bytes(),
            unknown_backends: self.stats.unknown().pending,
            shared: self
                .shared
                .as_ref()
                .map(|shared| shared.readings(pending + dead)),
        }
    }

    /// Rows behind the row `after`, oldest first, `limit` at most.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn list(&self, filter: &Filter, after: i64, limit: usize) -> Result<Vec<Row>, AskError> {
        Ok(filter.rows(&self.reading.lock(), after, limit)?)
    }

    /// The notification called `id`, and what it carries, unless that was damaged on disk.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn show(&self, id: NotificationId) -> Result<Option<(Row, Option<Payload>)>, AskError> {
        let filter = Filter {
            ids: vec![id],
            ..Filter::default()
        };
        let reading = self.reading.lock();
        let Some(row) = filter.rows(&reading, 0, 1)?.pop() else {
            return Ok(None);
        };
        let payload = rows::payload(&reading, &row)?;
        Ok(Some((row, payload)))
    }

    /// Has an operator's order done, [`ROWS_AT_ONCE`] rows at most. Waits for the disk.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn order(&self, order: Order) -> Result<Ordered, AskError> {
        self.ask(|tell| Op::Order(order, tell))
    }

    /// Adds what comes from another outbox; what is there already, by its id, is left as it is. Waits for the disk.
    ///
    /// # Errors
    /// The disk does not take it. That there is no room is no error: [`Ordered::full`].
    pub fn import(&self, some: Vec<Parsed>) -> Result<Ordered, AskError> {
        self.ask(|tell| Op::Import(some, tell))
    }

    fn ask(
        &self,
        op: impl FnOnce(Sender<Result<Ordered, NotStored>>) -> Op,
    ) -> Result<Ordered, AskError> {
        let (tell, told) = bounded(1);
        let busy = AskError::Write(NotStored::Busy);
        if self.ops.try_send(op(tell)).is_err() {
            return Err(busy);
        }
        match told.recv_timeout(ORDER_PATIENCE) {
            Ok(ordered) => ordered.map_err(AskError::Write),
            Err(_) => Err(busy),
        }
    }

    /// Tells `take` the events stored within `window` and how long ago that was, the oldest first; of the latest `limit`
    /// notifications only.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn keys(
        &self,
        window: Duration,
        limit: usize,
        mut take: impl FnMut(EventKey, &str, Duration),
    ) -> Result<(), AskError> {
        let now = self.clock.now_ms();
        let since = now.saturating_sub(i64::try_from(window.as_millis()).unwrap_or(i64::MAX));
        let age = |stored: i64| Duration::from_millis((now - stored).max(0).unsigned_abs());
        let take = |key, name: &str, stored| take(key, name, age(stored));
        Ok(rows::keys(&self.reading.lock(), since, limit, take)?)
    }
}
