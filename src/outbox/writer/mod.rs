//! The one thread that changes the database. It commits in groups: what comes in while one is synced makes up the next.
//!
//! Nothing is answered before the sync has returned. A group that the disk does not take is undone whole: what was to be
//! stored is refused, so that its providers keep it; what was to be noted of stored ones is tried again.

mod group;
mod health;
mod mirror_ops;
mod sweep;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError};
use rusqlite::{Connection, TransactionBehavior};

use self::group::{Group, GroupOutcome};
use crate::heartbeat::Pulse;
use crate::log_once::LogOnce;
use crate::metrics::Metrics;
use crate::outbox::inbox::{Inbox, Written};
use crate::outbox::ops::{Limits, Op, StatusUpdate};
use crate::outbox::outbox_log::OutboxLog;
use crate::outbox::shared::Mirror;
use crate::outbox::store::checkpoint::Checkpoint;
use crate::outbox::store::clock::Clock;
use crate::outbox::store::count_delta::CountDelta;
use crate::outbox::store::error::NotStored;
use crate::outbox::store::file;
use crate::outbox::store::row::State;
use crate::outbox::store::stats::Stats;
use crate::outbox::store::watch::{FileWatch, WatchedFile};
use crate::thread::CooperativeYield;

/// The most changes in one commit.
pub const GROUP_MAX: usize = 256;

/// How often expired and acknowledged ones are looked for, and what the disk did not take is tried again.
const HOUSEKEEPING: Duration = Duration::from_secs(1);

/// How often the time is written while something is pending and nothing else is written: what the relay lives through counts as
/// age after a restart of the machine too.
const SAVE_CLOCK_EVERY: Duration = Duration::from_secs(600);

/// The thread's own.
pub struct Writer {
    pub connection: Connection,
    pub ops: Receiver<Op>,
    pub inbox: Arc<Inbox>,
    pub stats: Arc<Stats>,
    pub clock: Clock,
    pub stopping: bool,
    pub limits: Limits,
    pub metrics: Arc<Metrics>,
    /// Not taken by the disk, to be tried again. No more than is being redelivered.
    pub owed: Vec<StatusUpdate>,
    pub told: Arc<OutboxLog>,
    pub full: LogOnce,
    pub failed: LogOnce,
    /// `outbox.path`
    pub path: PathBuf,
    pub watch: FileWatch,
    /// When everything about the files was last checked.
    pub checked: Option<Instant>,
    pub checkpoint: Checkpoint,
    /// When the time was last written.
    pub saved: Instant,
    /// Whether the disk is known to be nearly full.
    pub disk_is_low: bool,
    pub yielding: CooperativeYield,
    /// Whether it has run before, and panicked.
    pub has_run: bool,
    /// What is in Redis too; `None`: nothing.
    pub mirror: Option<Mirror>,
}

/// Why a group was not written.
enum NotWritten {
    Disk(rusqlite::Error),
    /// Redis did not take it, and must.
    Mirror,
}

impl From<rusqlite::Error> for NotWritten {
    fn from(error: rusqlite::Error) -> Self {
        Self::Disk(error)
    }
}

impl Writer {
    /// Works until it is told to stop. It can be called again after a panic: what was not committed is undone, the providers are
    /// told so, and redelivery reads anew what is on disk.
    pub fn run(&mut self, pulse: &Pulse) {
        if std::mem::replace(&mut self.has_run, true) {
            self.inbox.start_over();
        }
        let (mut swept, mut beaten) = (Instant::now(), Instant::now());
        let beat_every = self
            .mirror
            .as_ref()
            .map_or(HOUSEKEEPING, Mirror::beat_every);
        let beat_every = beat_every.min(HOUSEKEEPING);
        while !self.stopping {
            pulse.idle();
            let op = self.ops.recv_timeout(beat_every);
            pulse.busy();
            match op {
                Ok(first) => {
                    let more = self.ops.try_iter().take(GROUP_MAX - 1);
                    let group: Vec<Op> = std::iter::once(first).chain(more).collect();
                    self.work_off(group);
                    self.move_log();
                }
                Err(RecvTimeoutError::Timeout) => {
                    if !self.owed.is_empty() || self.stats.is_ailing() {
                        self.commit(Vec::new());
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if self.stats.pending() > 0 && self.saved.elapsed() >= SAVE_CLOCK_EVERY {
                self.commit(Vec::new());
            }
            if swept.elapsed() >= HOUSEKEEPING {
                swept = Instant::now();
                // Also while there is much to do and nothing of it is a commit.
                if !self.stats.is_ailing()
                    && let Err(fault) = self.check_files()
                {
                    self.distrust(&fault);
                }
                self.sweep();
            }
            if beaten.elapsed() >= beat_every {
                beaten = Instant::now();
                self.beat();
            }
        }
        self.finish(pulse);
    }

    /// Does what is left, and closes the database.
    fn finish(&mut self, pulse: &Pulse) {
        loop {
            pulse.busy();
            let rest: Vec<Op> = self.ops.try_iter().take(GROUP_MAX).collect();
            if rest.is_empty() && self.owed.is_empty() {
                break;
            }
            self.work_off(rest);
            if self.stats.is_ailing() {
                break; // the disk has the last word: what is not noted is sent again after the next start
            }
        }
        if self.stats.is_broken() {
            return;
        }
        let database_is_there = match self.check_files() {
            // What is in the log that is open goes to the database, which lacks nothing then.
            Err(fault) => fault.part == WatchedFile::Log && !fault.is_final(),
            Ok(()) => true,
        };
        if database_is_there && let Err(error) = file::close(&self.connection, self.clock.moment())
        {
            log::error!(
                "the outbox could not be closed in order: {error}; its -wal file must stay beside it"
            );
        }
    }

    /// Commits what came together, and then does what the mirror's thread asked.
    fn work_off(&mut self, group: Vec<Op>) {
        let (mirror, group): (Vec<Op>, Vec<Op>) = group
            .into_iter()
            .partition(|op| matches!(op, Op::Mirror(_)));
        if !group.is_empty() {
            self.commit(group);
        }
        for op in mirror {
            if let Op::Mirror(op) = op {
                self.mirror_op(*op);
            }
        }
    }

    pub(super) fn commit(&mut self, group: Vec<Op>) {
        let began = Instant::now();
        let mut outcome = GroupOutcome::default();
        let owed = std::mem::take(&mut self.owed);
        let mut group: Vec<Op> = owed.into_iter().map(Op::Update).chain(group).collect();
        if let Err(reason) = self.check_writable() {
            outcome.give_up(group);
            self.stopping |= outcome.stop;
            return self.turn_away(outcome, reason);
        }
        // In the order taken, however the workers' threads were scheduled meanwhile.
        group.sort_by_key(|op| match op {
            Op::Store(store) => Some(store.notification.id),
            _ => None,
        });
        let group = self.without_mirror(group);
        let written = self.write(group, &mut outcome);
        self.stopping |= outcome.stop;
        let kept = self.watch.committed();
        match written {
            Ok(()) => {
                self.metrics.outbox_committed(began.elapsed());
                self.count_in(&outcome.delta);
                match kept {
                    Ok(()) => {
                        self.saved = Instant::now();
                        self.stats.set_ailing(None);
                        self.tell(outcome);
                    }
                    // It is written, but to a file that nobody will find.
                    Err(fault) => {
                        self.distrust(&fault);
                        self.turn_away(outcome, NotStored::File);
                    }
                }
            }
            Err(NotWritten::Disk(error)) => {
                if let Some(mirror) = &mut self.mirror {
                    mirror.finish();
                    mirror.withdraw();
                }
                self.undo(outcome, &error);
            }
            Err(NotWritten::Mirror) => {
                if let Some(mirror) = &mut self.mirror {
                    mirror.withdraw();
                }
                self.turn_away(outcome, NotStored::Shared);
            }
        }
    }

    /// Has the counts and Redis follow what was committed.
    fn count_in(&mut self, delta: &CountDelta) {
        self.stats.moved(delta);
        self.inbox.set_pending(self.stats.pending());
        if let Some(mirror) = &mut self.mirror {
            if !mirror.is_required() {
                mirror.finish();
            }
            mirror.follow(&self.connection, delta.changed());
        }
    }

    /// While Redis must take what is stored and is away, nothing is stored; all else goes on.
    fn without_mirror(&mut self, group: Vec<Op>) -> Vec<Op> {
        if !self.mirror.as_ref().is_some_and(Mirror::refuses) {
            return group;
        }
        let mut rest = Vec::with_capacity(group.len());
        for op in group {
            match op {
                Op::Store(store) => {
                    self.metrics.outbox_refused(NotStored::Shared.as_str());
                    store.tell(Err(NotStored::Shared));
                }
                op => rest.push(op),
            }
        }
        rest
    }

    /// Writes the group and syncs it. What it came to, or was to come to, is in `outcome`.
    fn write(&mut self, group: Vec<Op>, outcome: &mut GroupOutcome) -> Result<(), NotWritten> {
        let now = self.clock.now_ms();
        let begun = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate);
        let begun = begun.and_then(|tx| Ok((group::bytes_left(&tx, self.limits)?, tx)));
        let (free_bytes, tx) = match begun {
            Ok(begun) => begun,
            Err(error) => {
                // Every op must find its way into the outcome, to be told.
                outcome.give_up(group);
                return Err(error.into());
            }
        };
        let somebody_waits = |op: &Op| matches!(op, Op::Store(_) | Op::Order(..));
        let mut yielding = match group.iter().any(somebody_waits) {
            true => None,
            false => Some(&mut self.yielding),
        };
        let mut yield_now = || {
            if let Some(yielding) = &mut yielding {
                yielding.yield_now();
            }
        };
        let mut changes = Group {
            tx: &tx,
            now,
            limits: self.limits,
            stats: &self.stats,
            free_bytes,
            outcome,
        };
        let mut failed = None;
        for op in group {
            if failed.is_some() {
                changes.outcome.give_up(vec![op]);
                continue;
            }
            failed = changes.apply(op, &mut yield_now).err();
        }
        if let Some(error) = failed {
            return Err(error.into()); // dropping the transaction undoes it
        }
        outcome.delta.write(&tx, self.clock.moment())?;
        if let Some(mirror) = &mut self.mirror {
            // Beside the sync, unless Redis has a say in it.
            mirror.begin(&outcome.stored);
            if mirror.is_required() && !mirror.finish() {
                return Err(NotWritten::Mirror);
            }
        }
        Ok(tx.commit()?)
    }

    fn tell(&mut self, outcome: GroupOutcome) {
        let written = outcome.settled.into_iter().map(|update| Written {
            seq: update.seq,
            due: (update.state == State::Pending).then_some(update.due),
            backend: update.backend,
        });
        self.inbox
            .written(written.collect(), &outcome.nudged, &outcome.retried);
        for (store, result) in outcome.stored {
            if let Err(reason) = result {
                self.metrics.outbox_refused(reason.as_str());
                self.full.error(format_args!(
                    "the outbox is full (outbox.max_messages, outbox.max_bytes): a notification is refused"
                ));
            }
            store.tell(result);
        }
        for (to, ordered) in outcome.ordered {
            let _ = to.send(Ok(ordered)); // whoever asked may have gone
        }
    }

    fn undo(&mut self, outcome: GroupOutcome, error: &rusqlite::Error) {
        let reason = NotStored::of(error);
        let words = format!("cannot write: {error}");
        let broken = matches!(
            error.sqlite_error_code(),
            Some(rusqlite::ErrorCode::DatabaseCorrupt | rusqlite::ErrorCode::NotADatabase)
        );
        self.stats.set_ailing(Some(words));
        if broken {
            self.stats.set_broken();
        }
        let ailment = self.stats.ailment().unwrap_or_default();
        self.failed.error(format_args!("the outbox {ailment}"));
        self.turn_away(outcome, reason);
    }

    /// Tells everybody that it was not done. What came of stored ones is noted later.
    fn turn_away(&mut self, outcome: GroupOutcome, reason: NotStored) {
        for (store, _) in outcome.stored {
            self.metrics.outbox_refused(reason.as_str());
            store.tell(Err(reason));
        }
        self.owed = outcome.settled;
        for (to, _) in outcome.ordered {
            let _ = to.send(Err(reason));
        }
    }
}
