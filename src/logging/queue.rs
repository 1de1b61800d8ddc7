//! The queue between the threads that say something and the thread that writes the log.
//!
//! It is bounded in lines and in bytes, and nobody waits for room in it: a line that does not fit is lost and counted. What the
//! log's own thread has taken counts until it is written, so the bounds hold for everything that is in memory.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::{Condvar, Mutex};

use super::line::LogLine;
use crate::config::LogFormat;

/// The most lines that wait.
const LINES_MAX: usize = 16 * 1024;

/// The most bytes that wait.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// Of both bounds, a quarter is kept for warnings and errors.
const fn share(bound: usize, level: Level) -> usize {
    match level {
        Level::Error | Level::Warn => bound,
        Level::Info | Level::Debug | Level::Trace => bound / 4 * 3,
    }
}

/// The most lines that are taken at once.
const BATCH_LINES_MAX: usize = 256;

/// The queue. Every verb but [`Queue::take`] and [`Queue::wait_disposed`] returns at once.
#[derive(Debug, Default)]
pub(super) struct Queue {
    state: Mutex<State>,
    /// For the thread that writes.
    something: Condvar,
    /// For threads that wait for a flush.
    disposed: Condvar,
    lost: AtomicU64,
    is_json: AtomicBool,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<Queued>,
    /// Of the lines in the queue and of those that are being written.
    held_lines: usize,
    held_bytes: usize,
    /// Lines lost since the last that was let in.
    lost: u64,
    /// Lines let in since the start, and how many of them are written or lost since.
    accepted: u64,
    disposed: u64,
    /// The file to open, and after how many accepted lines.
    open: Option<(Target, u64)>,
    closed: bool,
}

#[derive(Debug)]
struct Queued {
    line: LogLine,
    /// Lines lost before this one.
    lost_before: u64,
}

/// What the log is written to: the file, or standard error.
pub(super) type Target = Option<PathBuf>;

/// What the log's thread has to do next.
#[derive(Debug)]
pub(super) enum Task {
    /// Lines to write; [`Queue::dispose`] them then. Before the first of them so many were lost.
    Write(Vec<LogLine>, u64),
    /// Open this file and write to it from now on.
    Open(Target),
    /// The time that was given to [`Queue::take`] has come.
    Due,
    /// Nothing comes any more.
    End,
}

impl Queue {
    /// Adds `line`, or loses it.
    pub(super) fn add(&self, line: LogLine) {
        let (lines_max, bytes_max) = (
            share(LINES_MAX, line.level()),
            share(BYTES_MAX, line.level()),
        );
        let mut state = self.state.lock();
        let size = line.size();
        if state.held_lines >= lines_max || state.held_bytes + size > bytes_max {
            state.lost += 1;
            drop(state);
            self.add_lost(1);
            return;
        }
        state.held_lines += 1;
        state.held_bytes += size;
        state.accepted += 1;
        let lost_before = std::mem::take(&mut state.lost);
        state.lines.push_back(Queued { line, lost_before });
        drop(state);
        self.something.notify_one();
    }

    /// Counts lines that could not be written.
    pub(super) fn add_lost(&self, lines: u64) {
        self.lost.fetch_add(lines, Ordering::Relaxed);
    }

    /// What the lines look like that are written from now on.
    pub(super) fn set_format(&self, format: LogFormat) {
        self.is_json
            .store(format == LogFormat::Json, Ordering::Relaxed);
    }

    /// What lines look like.
    pub(super) fn format(&self) -> LogFormat {
        match self.is_json.load(Ordering::Relaxed) {
            true => LogFormat::Json,
            false => LogFormat::Text,
        }
    }

    /// Lines lost since the start.
    pub(super) fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Lets the log's thread open `target`, once it has written what was said until now, or at once if it cannot write.
    pub(super) fn open(&self, target: Target) {
        let mut state = self.state.lock();
        let after = state.accepted;
        state.open = Some((target, after));
        drop(state);
        self.something.notify_one();
    }

    /// Lets the log's thread end once it has written what was said until now, or at once if it cannot write.
    pub(super) fn close(&self) {
        self.state.lock().closed = true;
        self.something.notify_one();
    }

    /// Whether the log's thread should stop trying to write: another file is to be opened, or the end has come.
    pub(super) fn interrupts(&self) -> bool {
        let state = self.state.lock();
        state.closed || state.open.is_some()
    }

    /// Waits for something to do, until `due` at most.
    pub(super) fn take(&self, due: Option<Instant>) -> Task {
        let mut state = self.state.lock();
        loop {
            if state
                .open
                .as_ref()
                .is_some_and(|(_, after)| state.disposed >= *after)
                && let Some(task) = state.take_open()
            {
                return task;
            }
            if !state.lines.is_empty() || state.lost > 0 {
                return state.take_lines();
            }
            if state.closed {
                return Task::End;
            }
            match due {
                None => self.something.wait(&mut state),
                Some(due) if due <= Instant::now() => return Task::Due,
                Some(due) => {
                    self.something.wait_until(&mut state, due);
                }
            }
        }
    }

    /// What interrupts writing, see [`Queue::interrupts`].
    pub(super) fn take_interrupt(&self) -> Option<Task> {
        let mut state = self.state.lock();
        let open = state.take_open();
        open.or_else(|| state.closed.then_some(Task::End))
    }

    /// Lines of [`Task::Write`] are written, or lost: so many, of so many bytes.
    pub(super) fn dispose(&self, lines: usize, bytes: usize) {
        let mut state = self.state.lock();
        state.held_lines -= lines;
        state.held_bytes -= bytes;
        state.disposed += lines as u64;
        drop(state);
        self.disposed.notify_all();
    }

    /// The log's thread begins, perhaps again after a panic: what it had taken then is lost. Says how many lines that is.
    pub(super) fn recover(&self) -> u64 {
        let mut state = self.state.lock();
        let waiting: usize = state.lines.iter().map(|queued| queued.line.size()).sum();
        let taken = (state.held_lines - state.lines.len()) as u64;
        state.held_lines = state.lines.len();
        state.held_bytes = waiting;
        state.disposed += taken;
        drop(state);
        self.add_lost(taken);
        taken
    }

    /// Waits until everything that was said until now is written or lost, for so long at most. Whether it is.
    pub(super) fn wait_disposed(&self, most: Duration) -> bool {
        let deadline = Instant::now() + most;
        let mut state = self.state.lock();
        let wanted = state.accepted;
        while state.disposed < wanted {
            if self.disposed.wait_until(&mut state, deadline).timed_out() {
                return state.disposed >= wanted;
            }
        }
        true
    }
}

impl State {
    fn take_open(&mut self) -> Option<Task> {
        self.open.take().map(|(target, _)| Task::Open(target))
    }

    /// The next lines, up to a loss among them, and up to a file that is to be opened.
    fn take_lines(&mut self) -> Task {
        let lost_before = match self.lines.front_mut() {
            Some(first) => std::mem::take(&mut first.lost_before),
            None => std::mem::take(&mut self.lost),
        };
        let to_open = self.open.as_ref().map(|(_, after)| after - self.disposed);
        let most = to_open.map_or(BATCH_LINES_MAX, |lines| {
            BATCH_LINES_MAX.min(usize::try_from(lines).unwrap_or(usize::MAX))
        });
        let count = self
            .lines
            .iter()
            .take(most)
            .take_while(|queued| queued.lost_before == 0);
        let count = count.count();
        let lines = self
            .lines
            .drain(..count)
            .map(|queued| queued.line)
            .collect();
        if self.lines.is_empty() {
            self.lines.shrink_to(BATCH_LINES_MAX); // after a flood its memory goes back
        }
        Task::Write(lines, lost_before)
    }
}
