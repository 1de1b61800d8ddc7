//! When SQLite's write-ahead log goes to the database, and how long it may become when it cannot.
//!
//! A checkpoint moves the log only up to where the oldest reader still reads. Without a bound, one reader that holds its
//! transaction open lets the log grow until the disk is full.

use std::cell::Cell;
use std::time::Instant;

use rusqlite::Connection;

/// How much of the log is gathered before it goes to the database, in pages of 4 KiB: few syncs for many commits.
const PAGES: i32 = 4096;

/// How much more is gathered before the next attempt, when a reader has kept the log from beginning anew.
const PAGES_MORE: i32 = 1024;

/// What a page takes in the log, in bytes, its header included.
const PAGE_BYTES: u64 = 4096 + 24;

thread_local! {
    /// How long the log is after this thread's last commit, in pages; SQLite tells a plain function.
    static LOG_PAGES: Cell<i32> = const { Cell::new(0) };
}

/// The log of the connection that writes. It is used on one thread.
#[derive(Debug)]
pub struct Checkpoint {
    /// The length of the log, in pages, at which it goes to the database.
    next_pages: i32,
    /// `outbox.max_log_bytes`
    max_bytes: u64,
    /// Since when a reader, or an error, has kept a part of the log where it is.
    held: Option<Instant>,
    warned: bool,
}

impl Checkpoint {
    /// For `connection`, whose log may take `max_bytes`.
    pub fn new(connection: &Connection, max_bytes: u64) -> Self {
        connection.wal_hook(Some(|_, pages| {
            LOG_PAGES.set(pages);
            Ok(())
        }));
        Self {
            next_pages: PAGES,
            max_bytes,
            held: None,
            warned: false,
        }
    }

    /// How long the log is, in bytes; the file may be longer.
    pub fn log_bytes(&self) -> u64 {
        u64::try_from(LOG_PAGES.get()).unwrap_or(0) * PAGE_BYTES
    }

    /// Whether the log is long enough to be moved.
    pub fn is_due(&mut self) -> bool {
        let pages = LOG_PAGES.get();
        if pages < PAGES {
            // It has begun anew.
            self.next_pages = PAGES;
            self.warned = false;
        }
        pages >= self.next_pages
    }

    /// Whether the log must not grow, because it is as long as it may be and cannot be moved.
    pub fn is_full(&self) -> bool {
        self.log_bytes() >= self.max_bytes
    }

    /// Moves what can be moved into the database. Says whether everything was.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn run(&mut self, connection: &Connection) -> rusqlite::Result<bool> {
        self.next_pages = LOG_PAGES.get().saturating_add(PAGES_MORE);
        let moved = move_and_mark(connection);
        match moved {
            Ok(true) => self.held = None,
            Ok(false) | Err(_) => {
                self.held.get_or_insert_with(Instant::now);
            }
        }
        moved
    }

    /// What to say when the log has reached half of its bound, once for each time that it grows so long.
    pub fn warning(&mut self) -> Option<String> {
        let is_long = self.held.is_some() && self.log_bytes() >= self.max_bytes / 2;
        (is_long && !std::mem::replace(&mut self.warned, true)).then(|| self.words())
    }

    /// Why it cannot be moved.
    pub fn words(&self) -> String {
        format!(
            "its -wal file has grown to {} MiB (outbox.max_log_bytes is {} MiB), because something has been reading the outbox \
             for {} s and does not end, or the disk does not take what is in it",
            self.log_bytes() >> 20,
            self.max_bytes >> 20,
            self.held.map_or(0, |since| since.elapsed().as_secs())
        )
    }
}

/// Moves the whole log into the database, if no reader keeps it from that, and marks the database as one whose log is needed;
/// the log as one that, moved whole, is not needed any more. Says whether it was moved.
///
/// # Errors
/// The disk does not take it.
pub fn move_and_mark(connection: &Connection) -> rusqlite::Result<bool> {
    if !move_log(connection)? {
        return Ok(false); // nothing is written: while the log cannot be moved it must not grow
    }
    connection.execute("UPDATE total SET in_use = 1", [])?;
    let moved = move_log(connection)?;
    connection.execute("UPDATE total SET in_use = 2", [])?;
    Ok(moved)
}

fn move_log(connection: &Connection) -> rusqlite::Result<bool> {
    connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |row| {
        Ok(row.get::<_, i64>(1)? == row.get::<_, i64>(2)?)
    })
}
