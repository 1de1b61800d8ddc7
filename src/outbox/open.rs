//! Opening the outbox: the file, what is known of it, and its threads.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use parking_lot::Mutex;
use rusqlite::Connection;

use super::ops::{Limits, Op};
use super::redelivery::Redelivery;
use super::redelivery::rate_limiter::RateLimiter;
use super::shared::{self, Mirror, SharedLink};
use super::store::checkpoint::Checkpoint;
use super::store::error::{OpenCause, OpenError};
use super::store::file::{self, Store};
use super::store::rows;
use super::store::stats::Stats;
use super::store::unknown::UnknownWatch;
use super::threads::{self, OutboxThreads};
use super::writer::{GROUP_MAX, Writer};
use super::{Inbox, Outbox};
use crate::config::{OutboxConfig, SharedOutbox};
use crate::dispatcher::Dispatcher;
use crate::log_once::LogOnce;
use crate::metrics::Metrics;
use crate::thread::CooperativeYield;

/// What a relay tells its outbox to work with.
pub struct OutboxOptions {
    /// `[outbox]`
    pub config: OutboxConfig,
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
    pub fn open(options: OutboxOptions) -> Result<(Arc<Self>, OutboxThreads), OpenError> {
        let path = options.config.path.clone();
        let started = file::open(&path).and_then(|store| Self::start(options, store));
        let (outbox, threads) = started.map_err(|cause| cause.at(&path))?;
        Ok((Arc::new(outbox), threads))
    }

    fn start(options: OutboxOptions, store: Store) -> Result<(Self, OutboxThreads), OpenCause> {
        let config = options.config;
        let reading = || file::reading(&store.path).map_err(OpenCause::Sqlite);
        let (reading, redelivering) = (reading()?, reading()?);
        let stats = Stats::of(rows::totals(&store.writing).map_err(OpenCause::Sqlite)?);
        options.inbox.set_pending(stats.pending());
        log::info!(
            "the outbox {} has {} pending, {} dead",
            config.path.display(),
            stats.pending(),
            stats.dead()
        );
        let (ops, asked) = bounded(options.queue + GROUP_MAX);
        let link = options
            .shared
            .filter(|_| config.shared != SharedOutbox::Off);
        let parts = link.map(|link| shared::share(link, &config, &store, ops.clone()));
        let (mirror, worker) = parts.transpose().map_err(OpenCause::Sqlite)?.unzip();
        let (mirror, mirror_events) = mirror.unzip();
        let outbox = Self {
            ops,
            reading: Mutex::new(reading),
            inbox: options.inbox,
            stats: Arc::new(stats),
            clock: store.clock,
            retry_first: config.retry_first,
            shared: worker.as_ref().map(|worker| Arc::clone(&worker.state)),
            metrics: options.metrics,
            told: Arc::default(),
            _guard: Arc::clone(&store.guard),
        };
        // If one does not start, the others end in their order.
        let mut threads = OutboxThreads {
            inbox: Arc::clone(&outbox.inbox),
            ops: outbox.ops.clone(),
            mirror_events,
            mirror: None,
            redelivery: None,
            writer: None,
            _guard: Arc::clone(&store.guard),
        };
        let writer = outbox.writer(&config, store, asked, mirror);
        let (dispatcher, patience) = (options.dispatcher, options.patience);
        let redelivery = outbox.redelivery(config, dispatcher, patience, redelivering);
        let started = OpenCause::Thread;
        threads.writer = Some(threads::start_writer(writer).map_err(started)?);
        threads.redelivery = Some(threads::start_redelivery(redelivery).map_err(started)?);
        let mirroring = worker.map(threads::start_mirror).transpose();
        threads.mirror = mirroring.map_err(started)?;
        Ok((outbox, threads))
    }

    fn writer(
        &self,
        config: &OutboxConfig,
        store: Store,
        ops: Receiver<Op>,
        mirror: Option<Mirror>,
    ) -> Writer {
        let ms = |wait: Duration| i64::try_from(wait.as_millis()).unwrap_or(i64::MAX);
        Writer {
            ops,
            inbox: Arc::clone(&self.inbox),
            stats: Arc::clone(&self.stats),
            clock: self.clock,
            stopping: false,
            limits: Limits {
                expire_ms: ms(config.expire),
                keep_ms: ms(config.keep),
                max_messages: config.max_messages,
                max_bytes: config.max_bytes,
            },
            metrics: Arc::clone(&self.metrics),
            owed: Vec::new(),
            told: Arc::clone(&self.told),
            full: LogOnce::new(),
            failed: LogOnce::new(),
            path: store.path,
            watch: store.watch,
            checked: None,
            checkpoint: Checkpoint::new(&store.writing, config.max_log_bytes),
            connection: store.writing,
            saved: Instant::now(),
            disk_is_low: false,
            yielding: CooperativeYield::default(),
            has_run: false,
            mirror,
        }
    }

    fn redelivery(
        &self,
        config: OutboxConfig,
        dispatcher: Dispatcher,
        patience: Duration,
        reading: Connection,
    ) -> Redelivery {
        Redelivery {
            inbox: Arc::clone(&self.inbox),
            ops: self.ops.clone(),
            reading,
            dispatcher,
            clock: self.clock,
            limiter: RateLimiter::per_second(config.redelivery_rate),
            settings: config,
            patience,
            metrics: Arc::clone(&self.metrics),
            queues: Default::default(),
            flights: Default::default(),
            flight_bytes: 0,
            paused: false,
            yielding: CooperativeYield::default(),
            news: Default::default(),
            unread: Default::default(),
            refilled: Default::default(),
            unknown: UnknownWatch::new(Instant::now()),
            stats: Arc::clone(&self.stats),
            told: Arc::clone(&self.told),
        }
    }

    /// Whether there is a store at `path` with something in it to be delivered, as far as one can see from outside.
    pub fn is_at(path: &Path) -> bool {
        path.metadata().is_ok_and(|file| file.len() > 0)
    }
}
