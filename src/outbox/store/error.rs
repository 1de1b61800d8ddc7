//! Why the outbox does not open, and why it does not take a notification.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use rusqlite::ErrorCode;

/// Why there is no outbox. Nothing on the disk has been changed.
#[derive(Debug)]
pub struct OpenError {
    /// The database file.
    pub path: PathBuf,
    /// What is wrong.
    pub cause: OpenCause,
}

/// What is wrong with the file.
#[derive(Debug)]
pub enum OpenCause {
    /// Its directory, or its lock file, cannot be made or opened.
    Directory(io::Error),
    /// A file that belongs to it and lies beside it is another user's.
    Beside(PathBuf, io::Error),
    /// Another payrelay has it.
    OtherRelay,
    /// Another program holds it locked.
    Locked,
    /// It, or its file system, may only be read.
    ReadOnly,
    /// It is no SQLite database.
    NoDatabase,
    /// It is a database, but not of a payrelay.
    Foreign,
    /// A later payrelay made it; its version of the schema.
    Newer(i64),
    /// It is damaged; SQLite's words, or where.
    Corrupt(String),
    /// The relay did not end in order, and the log that has the newest notifications is not beside it.
    LogMissing,
    /// Its log is there, and it is not, or is empty.
    DatabaseMissing,
    /// The disk is full.
    Full,
    /// Anything else SQLite says.
    Sqlite(rusqlite::Error),
    /// The system has no room for a thread.
    Thread(io::Error),
}

impl OpenError {
    /// Whether the configuration, or whoever can edit it, must act before another start can do better.
    pub fn needs_a_person(&self) -> bool {
        match self.cause {
            OpenCause::Directory(_)
            | OpenCause::Beside(..)
            | OpenCause::OtherRelay
            | OpenCause::ReadOnly
            | OpenCause::NoDatabase
            | OpenCause::Foreign
            | OpenCause::Newer(_)
            | OpenCause::LogMissing
            | OpenCause::DatabaseMissing
            | OpenCause::Corrupt(_) => true,
            OpenCause::Locked | OpenCause::Full | OpenCause::Sqlite(_) | OpenCause::Thread(_) => {
                false
            }
        }
    }
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "outbox.path = \"{}\": {}",
            self.path.display(),
            self.cause
        )
    }
}

impl OpenCause {
    /// It is wrong with the file at `path`.
    pub fn at(self, path: &Path) -> OpenError {
        OpenError {
            path: path.to_owned(),
            cause: self,
        }
    }
}

impl From<io::Error> for OpenCause {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::StorageFull => Self::Full,
            io::ErrorKind::ReadOnlyFilesystem => Self::ReadOnly,
            _ => Self::Directory(error),
        }
    }
}

impl From<rusqlite::Error> for OpenCause {
    fn from(error: rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => Self::Locked,
            Some(ErrorCode::NotADatabase) => Self::NoDatabase,
            Some(ErrorCode::DatabaseCorrupt) => Self::Corrupt(error.to_string()),
            Some(ErrorCode::ReadOnly) => Self::ReadOnly,
            Some(ErrorCode::DiskFull) => Self::Full,
            _ => Self::Sqlite(error),
        }
    }
}

impl fmt::Display for OpenCause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenCause::Directory(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                write!(f, "there is a file already; nothing is overwritten")
            }
            OpenCause::Directory(error) => write!(
                f,
                "its directory cannot be used: {error}; make it, and let this user write to it"
            ),
            OpenCause::Beside(file, error) => write!(
                f,
                "{} cannot be used: {error}; give it to the relay's user (a relay that ran as another user made it)",
                file.display()
            ),
            OpenCause::OtherRelay => {
                write!(
                    f,
                    "another payrelay has it; stop that one, or give this one a path of its own"
                )
            }
            OpenCause::Locked => write!(
                f,
                "another program holds it locked (sqlite3, a backup?); end that program and start again"
            ),
            OpenCause::ReadOnly => write!(
                f,
                "it can only be read; let this user write to it and to its directory, or mount the file system writable"
            ),
            OpenCause::NoDatabase => write!(
                f,
                "it is no SQLite database, or its beginning is damaged; nothing was changed. {}",
                Rescue
            ),
            OpenCause::Foreign => write!(
                f,
                "it is the database of another program; name another path"
            ),
            OpenCause::Newer(version) => write!(
                f,
                "a later payrelay made it (schema {version}); run that one, or name another path and keep this file for it"
            ),
            OpenCause::Corrupt(words) => {
                write!(
                    f,
                    "it is damaged ({words}); nothing was changed. {}",
                    Rescue
                )
            }
            OpenCause::LogMissing => write!(
                f,
                "its -wal file is missing or is no log: it holds the newest notifications, which were answered ok. Nothing was \
                 changed. Put that file back beside the database; if it is lost for good, go on without it: sqlite3 \
                 FILE 'UPDATE total SET in_use = 0'"
            ),
            OpenCause::DatabaseMissing => write!(
                f,
                "it is missing or empty, but its -wal file is there and belongs to a database that was not closed. Nothing was \
                 changed. Put the database back beside it, or move the -wal file away too"
            ),
            OpenCause::Full => write!(f, "the disk is full; make room and start again"),
            OpenCause::Sqlite(error) => write!(f, "it cannot be opened: {error}"),
            OpenCause::Thread(error) => write!(f, "its threads do not start: {error}"),
        }
    }
}

impl std::error::Error for OpenError {}

/// What to do about a damaged file.
struct Rescue;

impl fmt::Display for Rescue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "Copy it away together with its -wal file, then save what can be saved (sqlite3 copy.db .recover | sqlite3 \
             saved.db) or restore a backup; with the file moved away, the relay starts with an empty outbox",
        )
    }
}

/// Why a notification was not stored. Its provider is told fail, and keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// `outbox.max_messages` or `outbox.max_bytes` is reached.
    Full,
    /// The disk is full.
    NoSpace,
    /// The disk does not take it: read-only, broken.
    Disk,
    /// The file at `outbox.path` is not the one that the relay writes to.
    File,
    /// The log is as long as `outbox.max_log_bytes` lets it become.
    Log,
    /// Redis did not take it, and `outbox.shared = "require"`; or the outbox is handed over.
    Shared,
    /// More waits to be written than may.
    Busy,
}

impl NotStored {
    /// The word in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Full => "full",
            Self::NoSpace => "no-space",
            Self::Disk => "disk",
            Self::File => "file",
            Self::Log => "log",
            Self::Shared => "shared",
            Self::Busy => "busy",
        }
    }

    /// What SQLite's error means for what was to be written.
    pub fn of(error: &rusqlite::Error) -> Self {
        match error.sqlite_error_code() {
            Some(ErrorCode::DiskFull) => Self::NoSpace,
            _ => Self::Disk,
        }
    }
}

/// Why the outbox cannot be asked.
#[derive(Debug)]
pub enum AskError {
    /// SQLite's words.
    Read(rusqlite::Error),
    /// The disk did not take the change.
    Write(NotStored),
}

impl fmt::Display for AskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(error) => write!(f, "the outbox cannot be read: {error}"),
            Self::Write(reason) => {
                write!(f, "the outbox cannot be changed ({})", reason.as_str())
            }
        }
    }
}

impl std::error::Error for AskError {}

impl From<rusqlite::Error> for AskError {
    fn from(error: rusqlite::Error) -> Self {
        Self::Read(error)
    }
}
