//! A new database, made of notifications that come from elsewhere.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::Connection;

use super::clock::Moment;
use super::count_delta::CountDelta;
use super::error::{OpenCause, OpenError};
use super::exported::{Exported, Parsed};
use super::{file, paths};
use crate::notification::unix_ms;

/// A new database, which a relay can be started on once it is finished.
pub struct DatabaseCopy {
    connection: Connection,
    path: PathBuf,
    part: PathBuf,
    now_ms: i64,
}

impl DatabaseCopy {
    /// Begins a database at `path`, which must not be there; it appears there when it is finished.
    ///
    /// # Errors
    /// There is something, or the directory cannot be used.
    pub fn begin(path: &Path) -> Result<Self, OpenError> {
        if path.symlink_metadata().is_ok() {
            let exists = io::Error::from(io::ErrorKind::AlreadyExists);
            return Err(OpenCause::Directory(exists).at(path));
        }
        let part = paths::beside(path, ".part");
        let connection = file::create(&part).map_err(|cause| cause.at(path))?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            part,
            now_ms: i64::try_from(unix_ms()).unwrap_or(i64::MAX),
        })
    }

    /// Adds some notifications.
    ///
    /// # Errors
    /// SQLite's: the disk is full, most likely.
    pub fn add(&mut self, some: &[Parsed]) -> rusqlite::Result<()> {
        let tx = self.connection.transaction()?;
        let mut delta = CountDelta::default();
        for one in some {
            Exported::insert(one, &tx, self.now_ms, &mut delta)?;
        }
        let now = Moment {
            clock_ms: self.now_ms,
            ..Moment::default()
        };
        delta.write(&tx, now)?;
        tx.commit()
    }

    /// Gives it up.
    pub fn discard(self) {
        drop(self.connection);
        for ending in ["", "-wal"] {
            let _ = fs::remove_file(paths::beside(&self.part, ending)); // the log is there no more, as a rule
        }
    }

    /// Ends it: it is whole, synced, and at its place.
    ///
    /// # Errors
    /// The disk does not take it.
    pub fn finish(self) -> Result<(), OpenError> {
        let closed = self.connection.close();
        closed.map_err(|(_, error)| OpenCause::Sqlite(error).at(&self.path))?;
        let published = file::publish(&self.part, &self.path);
        published.map_err(|error| OpenCause::Directory(error).at(&self.path))
    }
}
