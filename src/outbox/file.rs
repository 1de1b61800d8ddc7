//! The database file: made, locked, checked and brought to this version's schema; or left as it was.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::config::DbConfig;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use rustix::fs::{FlockOperation, flock};

use super::error::{OpenCause, OpenError};
use super::rows;

/// `payr`: what tells this database from other programs'.
const APPLICATION_ID: i64 = 0x7061_7972;

/// The schema, step by step: the file's version is how many of these it has seen. Never change one that was released;
/// add another.
const MIGRATIONS: [&str; 1] = [include_str!("schema.sql")];

/// How long to wait for another program's lock.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// How long the start may take to look for damage. What a large file has beyond that is found when it is read.
const CHECK_BUDGET: Duration = Duration::from_millis(800);

/// Instructions of SQLite's machine between two looks at the clock.
const CHECK_OPS: i32 = 10_000;

/// How much of the log is gathered before it goes to the database file, in pages of 4 KiB: few syncs for many commits.
const CHECKPOINT_PAGES: i64 = 4096;

/// The log is cut back to this after a burst, in bytes.
const WAL_BYTES_KEPT: i64 = 64 << 20;

/// The database as long as this relay has it.
#[derive(Debug)]
pub struct Store {
    /// The connection that writes.
    pub writing: Connection,
    /// The file, as other connections find it.
    pub path: PathBuf,
    /// The latest of the outbox's own time that is on disk.
    pub last_ms: u64,
    /// Held until the end: it keeps other relays out.
    pub lock: File,
}

/// Opens the database at `path`, which need not be there.
///
/// # Errors
/// It cannot be used. An existing file is then as it was.
pub fn open(path: &Path) -> Result<Store, OpenError> {
    let fail = |cause| OpenError {
        path: path.to_owned(),
        cause,
    };
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    make_directory(directory).map_err(|error| fail(OpenCause::Directory(error)))?;
    let lock = lock(path).map_err(&fail)?;
    make_file(path, directory).map_err(|error| {
        fail(match error.kind() {
            io::ErrorKind::StorageFull => OpenCause::Full,
            io::ErrorKind::ReadOnlyFilesystem => OpenCause::ReadOnly,
            _ => OpenCause::Directory(error),
        })
    })?;
    let mut writing = connect(path, OpenFlags::SQLITE_OPEN_READ_WRITE).map_err(&fail)?;
    inspect(&writing).map_err(&fail)?;
    let last_ms = prepare(&mut writing).map_err(|error| fail(cause(error)))?;
    Ok(Store {
        writing,
        path: path.to_owned(),
        last_ms,
        lock,
    })
}

/// A connection that only reads what the writing one has committed.
///
/// # Errors
/// SQLite cannot open it.
pub fn reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reading = Connection::open_with_flags(path, flags)?;
    reading.busy_timeout(BUSY_TIMEOUT)?;
    Ok(reading)
}

fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)?;
    // Its entry in its parent must survive a power loss as well as what will be in it.
    let parent = directory.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// A lock of its own file: SQLite's locks on the database would be lost with any other descriptor of it that is closed.
fn lock(path: &Path) -> Result<File, OpenCause> {
    let mut name = path.as_os_str().to_owned();
    name.push(".lock");
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(&name)
        .map_err(|error| match error.kind() {
            io::ErrorKind::ReadOnlyFilesystem => OpenCause::ReadOnly,
            _ => OpenCause::Directory(error),
        })?;
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenCause::OtherRelay),
        Err(error) => Err(OpenCause::Directory(error.into())),
    }
}

fn make_file(path: &Path, directory: &Path) -> io::Result<()> {
    let made = OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path);
    match made {
        Ok(file) => {
            file.sync_all()?;
            File::open(directory)?.sync_all()
        }
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
    }
}

fn connect(path: &Path, flags: OpenFlags) -> Result<Connection, OpenCause> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
        .map_err(cause)?;
    connection.busy_timeout(BUSY_TIMEOUT).map_err(cause)?;
    // Until the file is known to be sound, closing it must not move its log into it.
    connection
        .set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)
        .map_err(cause)?;
    if connection.is_readonly("main").map_err(cause)? {
        return Err(OpenCause::ReadOnly);
    }
    Ok(connection)
}

/// Looks whether the file is one to go on with. Only reads.
fn inspect(connection: &Connection) -> Result<(), OpenCause> {
    let number = |name: &str| {
        connection
            .pragma_query_value(None, name, |row| row.get::<_, i64>(0))
            .map_err(cause)
    };
    let pages = number("page_count")?;
    if pages == 0 {
        return Ok(()); // just made
    }
    if number("application_id")? != APPLICATION_ID {
        return Err(OpenCause::Foreign);
    }
    let version = number("user_version")?;
    if version > MIGRATIONS.len() as i64 {
        return Err(OpenCause::Newer(version));
    }
    let until = Instant::now() + CHECK_BUDGET;
    let late = move || Instant::now() >= until;
    connection
        .progress_handler(CHECK_OPS, Some(late))
        .map_err(cause)?;
    let checked = check(connection);
    connection
        .progress_handler(0, None::<fn() -> bool>)
        .map_err(cause)?;
    match checked {
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::OperationInterrupted) => {
            log::info!(
                "the outbox is large: {} MiB were not looked through for damage at the start",
                pages * 4 / 1024
            );
            Ok(())
        }
        Err(error) => Err(cause(error)),
        Ok(Some(words)) => Err(OpenCause::Corrupt(words)),
        Ok(None) => Ok(()),
    }
}

/// What is damaged, if anything is.
fn check(connection: &Connection) -> rusqlite::Result<Option<String>> {
    let words: String =
        connection.query_row("PRAGMA quick_check(1)", [], |row| row.get::<_, String>(0))?;
    if words != "ok" {
        return Ok(Some(words.replace('\n', " ")));
    }
    rows::first_damaged(connection)
}

/// Brings the file to this version; says the latest time in it.
fn prepare(connection: &mut Connection) -> rusqlite::Result<u64> {
    // The first of these is the first thing that writes.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
    connection.pragma_update(None, "synchronous", "FULL")?;
    connection.pragma_update(None, "wal_autocheckpoint", CHECKPOINT_PAGES)?;
    connection.pragma_update(None, "journal_size_limit", WAL_BYTES_KEPT)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    let version: i64 = connection.pragma_query_value(None, "user_version", |row| row.get(0))?;
    let seen = usize::try_from(version).unwrap_or(0);
    if seen < MIGRATIONS.len() {
        let change = connection.transaction()?;
        for migration in &MIGRATIONS[seen..] {
            change.execute_batch(migration)?;
        }
        change.pragma_update(None, "application_id", APPLICATION_ID)?;
        change.pragma_update(None, "user_version", MIGRATIONS.len() as i64)?;
        change.commit()?;
    }
    // Whatever a session had in hand when the relay before ended is nobody's now.
    rows::release_held(connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    let last: i64 = connection.query_row("SELECT clock_ms FROM total", [], |row| row.get(0))?;
    Ok(u64::try_from(last).unwrap_or(0))
}

fn cause(error: rusqlite::Error) -> OpenCause {
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => OpenCause::Locked,
        Some(ErrorCode::NotADatabase) => OpenCause::NoDatabase,
        Some(ErrorCode::DatabaseCorrupt) => OpenCause::Corrupt(error.to_string()),
        Some(ErrorCode::ReadOnly) => OpenCause::ReadOnly,
        Some(ErrorCode::DiskFull) => OpenCause::Full,
        _ => OpenCause::Sqlite(error),
    }
}
