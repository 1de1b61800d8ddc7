//! The writer's care of its files: whether they are what they should be, how long the log is, and how much room is left.

use std::time::Instant;

use super::{HOUSEKEEPING, Writer};
use crate::outbox::store::error::NotStored;
use crate::outbox::store::file;
use crate::outbox::store::watch::{FaultKind, FileFault};

/// The log says so when the disk has less room than this, in bytes.
const DISK_LOW_BYTES: u64 = 256 << 20;

impl Writer {
    /// Whether the files are those that can be written.
    pub(super) fn check_writable(&mut self) -> Result<(), NotStored> {
        if self.stats.is_broken() {
            return Err(NotStored::Disk);
        }
        if let Err(fault) = self.check_files() {
            self.distrust(&fault);
            return Err(NotStored::File);
        }
        if self.checkpoint.is_full() && !self.run_checkpoint() {
            let words = format!("stores nothing: {}", self.checkpoint.words());
            self.failed.error(format_args!("the outbox {words}"));
            self.stats.set_ailing(Some(words));
            return Err(NotStored::Log);
        }
        Ok(())
    }

    /// Whether the files are what they should be. What needs no look before every commit is looked at once a second.
    pub(super) fn check_files(&mut self) -> Result<(), FileFault> {
        match self.watch.check() {
            Err(fault) if matches!(fault.kind, FaultKind::Touched) => {
                let totals = self.stats.totals();
                if !file::is_sound(&self.path, totals).unwrap_or(false) {
                    return Err(FileFault {
                        kind: FaultKind::Overwritten,
                        ..fault
                    });
                }
                self.watch.database_is_sound()?;
                log::warn!(
                    "another program has touched the outbox {}; it is sound",
                    self.path.display()
                );
            }
            checked => checked?,
        }
        let now = Instant::now();
        let is_due = |last: Instant| now.saturating_duration_since(last) >= HOUSEKEEPING;
        if self.stats.is_ailing() || self.checked.is_none_or(is_due) {
            self.checked = Some(now);
            self.look_at_disk();
            self.watch.check_access()?;
        }
        Ok(())
    }

    /// Moves the log into the database when it has become long. Nobody waits for that.
    pub(super) fn move_log(&mut self) {
        if self.checkpoint.is_due() {
            self.run_checkpoint();
        }
    }

    /// Says whether the whole log is in the database.
    fn run_checkpoint(&mut self) -> bool {
        if let Err(fault) = self.check_files() {
            self.distrust(&fault);
            return false;
        }
        let moved = self.checkpoint.run(&self.connection);
        if let Err(error) = &moved {
            self.failed.error(format_args!(
                "the outbox cannot move its log into the database: {error}"
            ));
        }
        if let Some(words) = self.checkpoint.warning() {
            log::warn!("the outbox: {words}");
        }
        let kept = self.watch.database_is_sound();
        if let Err(fault) = kept.and_then(|()| self.watch.committed()) {
            self.distrust(&fault);
        }
        moved.unwrap_or(false)
    }

    /// Reads how much room is left, for the metrics, and says when there is little.
    fn look_at_disk(&mut self) {
        let Some(free) = file::free_bytes(&self.path) else {
            return;
        };
        self.stats.set_disk(free, self.checkpoint.log_bytes());
        if free < DISK_LOW_BYTES && !self.disk_is_low {
            log::warn!(
                "the disk of the outbox {} has only {} MiB left; when it is full, nothing is stored",
                self.path.display(),
                free >> 20
            );
        }
        // Not at every notification around the bound.
        self.disk_is_low = free
            < DISK_LOW_BYTES
                + if self.disk_is_low {
                    DISK_LOW_BYTES / 4
                } else {
                    0
                };
    }

    /// The files are not what they should be: nothing is stored.
    pub(super) fn distrust(&mut self, fault: &FileFault) {
        let words = fault.to_string();
        self.failed.error(format_args!("the outbox {words}"));
        self.stats.set_ailing(Some(words));
        if fault.is_final() {
            self.stats.set_broken();
        }
    }
}
