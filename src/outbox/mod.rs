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
//! | `store/` | the database: its files, its rows and the statements, counts, time; no threads |
//! | `ops`, `writer/` | what the one thread that changes the database is asked to do, and that thread; group commit |
//! | `inbox`, `redelivery/` | what the one thread that delivers is told, and that thread; which backend is due when |
//! | `shared/` | the mirror in Redis, and what becomes of a node's when it is gone |
//! | `open` | what it is made with, and how it starts |
//! | `queries` | what is asked and changes nothing |
//! | `outbox_log` | what the log says of what is not delivered |
//! | `threads` | the threads, and the order in which they end |
//!
//! Invariant: a store's `then` is called with `Ok` only after the sync of its commit has returned.

mod inbox;
mod open;
mod ops;
mod outbox_log;
mod queries;
mod redelivery;
mod shared;
mod store;
#[cfg(test)]
mod tests;
mod threads;
mod writer;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, TrySendError, bounded};
use parking_lot::Mutex;
use rusqlite::Connection;

pub use self::inbox::{HeldReceipt, Inbox};
pub use self::open::OutboxOptions;
pub use self::ops::{AdminAction, Order, Ordered, ROWS_AT_ONCE, SPARED_MAX, Undelivered};
pub use self::shared::{Gone, NoHandOver, SharedLink};
pub use self::store::check::check_path;
pub use self::store::copy::DatabaseCopy;
pub use self::store::error::{AskError, NotStored, OpenCause, OpenError};
pub use self::store::exported::{BadImport, Exported, Parsed};
pub use self::store::filter::Filter;
pub use self::store::newest::{Found, Search};
pub use self::store::row::{Payload, Row, State};
pub use self::store::unknown::{UnknownBackend, UnknownBackends};
pub use self::threads::OutboxThreads;

use self::ops::{Op, StoreRequest};
use self::outbox_log::OutboxLog;
use self::shared::SharedState;
use self::store::clock::Clock;
use self::store::file::FileGuard;
use self::store::row;
use self::store::stats::Stats;
use crate::metrics::Metrics;
use crate::notification::{Again, unix_ms};

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

impl Outbox {
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
            _ if held => (State::Pending, row::HELD),
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
}
