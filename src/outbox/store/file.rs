//! The database file: made, locked, checked and brought to this version's schema; or left as it was.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags, params};
use rustix::fs::{FlockOperation, flock};

use super::check::existing;
use super::checkpoint;
use super::clock::{Clock, Gap, Moment, System};
use super::damage::{Checked, check_for_a_while};
use super::error::OpenCause;
use super::paths::{beside, check_beside, lock_path};
use super::rows;
use super::wal::Log;
use super::watch::FileWatch;

/// `payr`: what tells this database from other programs'.
const APPLICATION_ID: i64 = 0x7061_7972;

/// The schema, step by step: the file's version is how many of these it has seen. Never change one that was released;
/// add another.
const MIGRATIONS: [&str; 3] = [
    include_str!("schema.sql"),
    include_str!("schema-2.sql"),
    include_str!("schema-3.sql"),
];

/// SQLite's way to the files that lets no other process in and keeps the index of the log in memory. So no other program's
/// reader keeps the log from being cut back, no other program writes, and there is no -shm file whose loss would matter: when
/// a mapped -shm is truncated, the next access ends the process.
const VFS: &str = "unix-excl";

/// How long to wait for another program's lock.
pub const BUSY_TIMEOUT: Duration = Duration::from_secs(2);

/// The log is cut back to this after a burst, in bytes.
const LOG_BYTES_KEPT: i64 = 64 << 20;

/// The database as long as this relay has it.
#[derive(Debug)]
pub struct Store {
    /// The connection that writes.
    pub writing: Connection,
    /// The file, as other connections find it.
    pub path: PathBuf,
    /// It goes on from the latest time that is on disk.
    pub clock: Clock,
    /// Whether the files stay what they are.
    pub watch: FileWatch,
    pub guard: Arc<FileGuard>,
}

/// To be kept until the last connection is closed.
#[derive(Debug)]
pub struct FileGuard {
    /// Closed before a connection, it would take along SQLite's own locks: they are the process's, not the descriptor's.
    database: File,
    /// It keeps other relays out.
    lock: File,
}

/// Opens the database at `path`, which need not be there.
///
/// # Errors
/// It cannot be used. An existing file is then as it was.
pub fn open(path: &Path) -> Result<Store, OpenCause> {
    make_directory(directory_of(path)).map_err(OpenCause::Directory)?;
    check_beside(path)?;
    let lock = lock(path)?;
    let real_path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let log = Log::beside(&real_path)?;
    if existing(path)?.map_or(0, |file| file.len()) == 0 {
        // To SQLite an empty file is a new database, and it would delete the log.
        if log != Log::None {
            return Err(OpenCause::DatabaseMissing);
        }
        make(&real_path)?;
    }
    let database = OpenOptions::new().read(true).write(true).open(path);
    let database = database.map_err(|error| match error.kind() {
        io::ErrorKind::PermissionDenied => OpenCause::ReadOnly,
        _ => error.into(),
    })?;
    let guard = Arc::new(FileGuard { database, lock });
    let mut writing = connect(path)?;
    inspect(&writing, log)?;
    let clock = prepare(&mut writing)?;
    let watch = FileWatch::new(path, &guard.database, &guard.lock)?;
    Ok(Store {
        writing,
        path: path.to_owned(),
        clock,
        watch,
        guard,
    })
}

/// Closes the database so that all of it is in one file, and notes that its log is not needed any more.
///
/// # Errors
/// The disk does not take it; what was stored stays in database and log.
pub fn close(writing: &Connection, now: Moment) -> rusqlite::Result<()> {
    writing.execute(
        "UPDATE total SET in_use = 0, clock_ms = max(clock_ms, ?1), wall_ms = ?2, boot_ms = ?3",
        [now.clock_ms, now.wall_ms, now.boot_ms],
    )?;
    writing.query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |_| Ok(()))
}

/// How much room the file system of `path` has for this user, in bytes.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let disk = rustix::fs::statvfs(directory_of(path)).ok()?;
    Some(disk.f_bavail.saturating_mul(disk.f_frsize))
}

/// A connection that only reads what the writing one has committed.
///
/// # Errors
/// SQLite cannot open it.
pub fn reading(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let reading = Connection::open_with_flags_and_vfs(path, flags, VFS)?;
    reading.busy_timeout(BUSY_TIMEOUT)?;
    // SQLite opens the log with the first read. Later, another file may lie there.
    rows::totals(&reading)?;
    Ok(reading)
}

/// Whether the database at `path`, read anew from the disk, is sound and has `totals` notifications in each state; as far as
/// can be seen in the time that the start takes for it.
///
/// # Errors
/// It cannot be read.
pub fn is_sound(path: &Path, totals: [u64; 3]) -> rusqlite::Result<bool> {
    let reading = reading(path)?;
    if rows::totals(&reading)? != totals {
        return Ok(false);
    }
    Ok(matches!(
        check_for_a_while(&reading),
        Ok(None | Some(Checked::Sound))
    ))
}

fn make_directory(directory: &Path) -> io::Result<()> {
    if directory.is_dir() {
        return Ok(());
    }
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => io::ErrorKind::NotADirectory.into(),
            _ => error,
        })?;
    // Its entry in its parent must survive a power loss as well as what will be in it.
    let parent = directory.parent().filter(|p| !p.as_os_str().is_empty());
    File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
}

/// A lock of its own file: SQLite's locks on the database would be lost with any other descriptor of it that is closed.
fn lock(path: &Path) -> Result<File, OpenCause> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(lock_path(path))
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

/// Makes the database at `path`. It appears there whole, so that one that has never seen its log is never taken for one that
/// has lost it.
fn make(path: &Path) -> Result<(), OpenCause> {
    let new = beside(path, ".new");
    let connection = create(&new)?;
    connection.close().map_err(|(_, error)| error)?;
    Ok(publish(&new, path)?)
}

/// An empty database of this version at `new`, in place of what is left there of an attempt before. Once the connection is
/// closed, all of it is in that file.
///
/// # Errors
/// The directory or the disk does not take it.
pub fn create(new: &Path) -> Result<Connection, OpenCause> {
    for ending in ["", "-wal", "-journal"] {
        match fs::remove_file(beside(new, ending)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error.into()),
            _ => {}
        }
    }
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(new)?;
    let mut connection = connect(new)?;
    migrate(&mut connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    Ok(connection)
}

/// Gives the closed database `new` the name `path`; that survives a power loss when this returns.
///
/// # Errors
/// The disk does not take it.
pub fn publish(new: &Path, path: &Path) -> io::Result<()> {
    File::open(new)?.sync_all()?;
    fs::rename(new, path)?;
    File::open(directory_of(path))?.sync_all()
}

fn directory_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    }
}

fn connect(path: &Path) -> Result<Connection, OpenCause> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags_and_vfs(path, flags, VFS)?;
    connection.busy_timeout(BUSY_TIMEOUT)?;
    // Until the file is known to be sound, closing it must not move its log into it.
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    if connection.is_readonly("main")? {
        return Err(OpenCause::ReadOnly);
    }
    Ok(connection)
}

/// Looks whether the file is one to go on with, given what lies beside it. Only reads.
fn inspect(connection: &Connection, log: Log) -> Result<(), OpenCause> {
    let number = |name: &str| connection.pragma_query_value(None, name, |row| row.get::<_, i64>(0));
    let pages = number("page_count")?;
    if number("application_id")? != APPLICATION_ID {
        // One page in WAL mode and nothing in it: everything else was in the log.
        let mode: String = connection.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        return Err(match (pages, mode.as_str(), log) {
            (1, "wal", Log::None | Log::Broken) => OpenCause::LogMissing,
            _ => OpenCause::Foreign,
        });
    }
    let version = number("user_version")?;
    if version > MIGRATIONS.len() as i64 {
        return Err(OpenCause::Newer(version));
    }
    if log != Log::There && version >= 2 {
        let in_use: i64 = connection.query_row("SELECT in_use FROM total", [], |row| row.get(0))?;
        if in_use == 1 {
            return Err(OpenCause::LogMissing);
        }
    }
    match check_for_a_while(connection)? {
        None => {
            log::info!(
                "the outbox is large: {} MiB were not looked through for damage at the start",
                pages * 4 / 1024
            );
            Ok(())
        }
        Some(Checked::Damaged(words)) => Err(OpenCause::Corrupt(words)),
        Some(Checked::Sound) => Ok(()),
    }
}

/// Brings the file to this version and notes that it is in use; gives the clock that goes on from the latest time in it.
fn prepare(connection: &mut Connection) -> rusqlite::Result<Clock> {
    connection.pragma_update(None, "synchronous", "FULL")?;
    // The writer does that itself, after it has answered.
    connection.pragma_update(None, "wal_autocheckpoint", 0)?;
    connection.pragma_update(None, "journal_size_limit", LOG_BYTES_KEPT)?;
    connection.pragma_update(None, "cache_size", -8192)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(64);
    migrate(connection)?;
    // Whatever a session had in hand when the relay before ended is nobody's now.
    rows::release_held(connection)?;
    let (last, boot_id) = connection.query_row(
        "SELECT clock_ms, wall_ms, boot_ms, boot_id FROM total",
        [],
        |row| {
            let last = Moment {
                clock_ms: row.get(0)?,
                wall_ms: row.get(1)?,
                boot_ms: row.get(2)?,
            };
            Ok((last, row.get::<_, String>(3)?))
        },
    )?;
    let system = System::now();
    let (clock, gap) = Clock::resume(last, &boot_id, &system);
    connection.execute(
        "UPDATE total SET clock_ms = ?1, wall_ms = ?2, boot_ms = ?3, boot_id = ?4",
        params![
            clock.now_ms(),
            system.wall_ms,
            system.boot_ms,
            system.boot_id
        ],
    )?;
    checkpoint::move_and_mark(connection)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, false)?;
    if let Some(gap) = gap {
        tell_gap(connection, &gap, clock);
    }
    Ok(clock)
}

/// Says when the system's clock has jumped, or says more than can be proven, and what would come of believing it.
fn tell_gap(writing: &Connection, gap: &Gap, clock: Clock) {
    let Some(uncounted_ms) = gap.uncounted_ms() else {
        return;
    };
    let by_then = clock.now_ms().saturating_add(uncounted_ms.max(0));
    let spared = rows::pending_until(writing, by_then).unwrap_or(0);
    log::warn!(
        "{gap}; the outbox does not count that as age (outbox.expire, delivery.dedupe_window). {spared} pending would be expired \
         by it and are kept; when each was taken: payrelay outbox list --state pending"
    );
}

/// Brings the file to this version.
fn migrate(connection: &mut Connection) -> rusqlite::Result<()> {
    // This is the first thing that writes.
    connection.pragma_update_and_check(None, "journal_mode", "WAL", |_| Ok(()))?;
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
    Ok(())
}
