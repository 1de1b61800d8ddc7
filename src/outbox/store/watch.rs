//! Whether the files at `outbox.path` are still the ones that SQLite has open.
//!
//! SQLite goes on writing to files that were deleted, moved away or cut short, and reports success. What is written to them is
//! lost with the process. So before anything is answered as stored, the writer compares what lies at the path with what it
//! wrote itself. A check costs three system calls; nothing is read but the first bytes of the log.
//!
//! No other process can write through SQLite: the relay holds the database exclusively (see `file`). So every change that
//! the writer did not make itself was made past SQLite.

use std::fmt;
use std::fs::{self, File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Access, AtFlags, CWD, accessat};

use super::paths;
use super::wal::{self, LOG_HEADER_BYTES};

/// The two files that hold the outbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WatchedFile {
    /// The database at `outbox.path`.
    Database,
    /// Its write-ahead log: what was stored since the last checkpoint.
    Log,
}

/// Why the files at the path cannot be relied on.
#[derive(Debug)]
pub struct FileFault {
    /// The file at fault.
    pub path: PathBuf,
    /// Which of the two that is.
    pub part: WatchedFile,
    /// What is wrong.
    pub kind: FaultKind,
}

/// What is wrong with a file.
#[derive(Debug)]
pub enum FaultKind {
    /// Nothing lies at the path.
    Gone,
    /// Another file lies at the path.
    Replaced,
    /// It is shorter than the relay left it.
    Truncated,
    /// Its content is not what the relay wrote.
    Overwritten,
    /// The database has another length or time of change than the relay left; its content must be checked.
    Touched,
    /// The relay could not open it again.
    NoAccess(io::Error),
    /// Its file system takes no writes.
    ReadOnly,
}

impl FileFault {
    /// Whether the content is damaged, so that it does not become right again by itself.
    pub fn is_final(&self) -> bool {
        matches!(self.kind, FaultKind::Truncated | FaultKind::Overwritten)
    }
}

impl fmt::Display for FileFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let path = self.path.display();
        let advice = match (&self.kind, self.part) {
            (FaultKind::Gone | FaultKind::Replaced, WatchedFile::Database) => {
                "move the relay's own file back to this place; if it was deleted, save what the relay still has with `payrelay outbox \
                 rescue FILE` before it is stopped"
            }
            (FaultKind::Gone | FaultKind::Replaced, WatchedFile::Log) => {
                "move it back, or restart the relay with SIGTERM (never kill -9), which saves its content in the database"
            }
            (FaultKind::Truncated | FaultKind::Overwritten | FaultKind::Touched, _) => {
                "save what can still be read with `payrelay outbox rescue FILE`, stop the relay, and put FILE or a backup in the \
                 place of the damaged files"
            }
            (FaultKind::NoAccess(_), _) => {
                "let the relay's user read and write it, and its directory"
            }
            (FaultKind::ReadOnly, _) => {
                "look for the cause (dmesg), then mount the file system writable, or restart the relay on another path"
            }
        };
        write!(f, "refuses to store: {path} ")?;
        match &self.kind {
            FaultKind::Gone => f.write_str(
                "was deleted or moved away, or its file system is not mounted any more",
            )?,
            FaultKind::Replaced => f.write_str("is not the file that the relay has open")?,
            FaultKind::Truncated => f.write_str("was truncated by another program")?,
            FaultKind::Overwritten | FaultKind::Touched => {
                f.write_str("was written by another program")?;
            }
            FaultKind::NoAccess(error) => write!(f, "cannot be opened again ({error})")?,
            FaultKind::ReadOnly => f.write_str("lies on a file system that takes no writes")?,
        }
        write!(f, "; {advice}")
    }
}

/// What identifies a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Identity {
    device: u64,
    inode: u64,
}

impl Identity {
    fn of(file: &Metadata) -> Self {
        Self {
            device: file.dev(),
            inode: file.ino(),
        }
    }
}

/// When and how long a file was left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stamp {
    bytes: u64,
    changed: (i64, i64),
}

impl Stamp {
    fn of(file: &Metadata) -> Self {
        Self {
            bytes: file.size(),
            changed: (file.mtime(), file.mtime_nsec()),
        }
    }
}

/// The first bytes of the log, as far as they tell one log from the next: it begins anew after a checkpoint with the first
/// salt increased by one (<https://sqlite.org/fileformat2.html#walformat>).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct LogHeader {
    salt_1: u32,
    salt_2: u32,
}

/// How often the log may begin anew between two looks at it: a checkpoint writes twice.
const RESTARTS_MAX: u32 = 3;

/// The files at the path, as the writer left them.
#[derive(Debug)]
pub struct FileWatch {
    database_path: PathBuf,
    log_path: PathBuf,
    database: (Identity, Stamp),
    log: Identity,
    log_bytes: u64,
    log_header: LogHeader,
    /// The log as it was opened at the start, so that what is read of it is what SQLite writes.
    log_file: File,
    /// Of the same directory; written with nothing to see whether its file system takes writes.
    probe: File,
}

impl FileWatch {
    /// Watches the database at `path`, which `database` has open, and its log. SQLite must have both open.
    ///
    /// # Errors
    /// A file cannot be looked at, or is not the one that is open.
    pub fn new(path: &Path, database: &File, probe: &File) -> io::Result<Self> {
        // From now on the working directory may be renamed too.
        let database_path = std::path::absolute(path)?;
        // SQLite has the log beside the file that a link leads to.
        let log_path = paths::log_path(&fs::canonicalize(path)?);
        let log_file = File::open(&log_path)?;
        let opened = database.metadata()?;
        let log_opened = log_file.metadata()?;
        let header = log_header(&log_file)?
            .ok_or_else(|| io::Error::other("its -wal file has no beginning"))?;
        if Identity::of(&fs::metadata(&database_path)?) != Identity::of(&opened) {
            return Err(io::Error::other("it was replaced while it was opened"));
        }
        Ok(Self {
            database_path,
            log_path,
            database: (Identity::of(&opened), Stamp::of(&opened)),
            log: Identity::of(&log_opened),
            log_bytes: log_opened.size(),
            log_header: header,
            log_file,
            probe: probe.try_clone()?,
        })
    }

    /// Whether everything is as the writer left it.
    pub fn check(&self) -> Result<(), FileFault> {
        self.check_database()?;
        let log = self.look(WatchedFile::Log)?;
        if log.size() < self.log_bytes {
            return Err(self.fault(WatchedFile::Log, FaultKind::Truncated));
        }
        match log_header(&self.log_file) {
            Ok(Some(header)) if header == self.log_header => Ok(()),
            Ok(_) => Err(self.fault(WatchedFile::Log, FaultKind::Overwritten)),
            Err(error) => Err(self.fault(WatchedFile::Log, FaultKind::NoAccess(error))),
        }
    }

    /// Whether the relay could open the files again, and their file system takes writes.
    pub fn check_access(&self) -> Result<(), FileFault> {
        let directory = self.log_path.parent().unwrap_or(Path::new("."));
        let wanted = Access::READ_OK | Access::WRITE_OK;
        for (path, part, wanted) in [
            (directory, WatchedFile::Database, wanted | Access::EXEC_OK),
            (&*self.database_path, WatchedFile::Database, wanted),
            (&*self.log_path, WatchedFile::Log, wanted),
        ] {
            if let Err(error) = accessat(CWD, path, wanted, AtFlags::EACCESS) {
                return Err(FileFault {
                    path: path.to_owned(),
                    part,
                    kind: kind_of(error.into()),
                });
            }
        }
        // Nothing is written, and nothing changes; but a file system that has given up says so.
        match self.probe.write_at(&[], 0) {
            Ok(_) => Ok(()),
            Err(error) => Err(self.fault(WatchedFile::Database, kind_of(error))),
        }
    }

    /// The writer has committed: whether that is in the log at the path. From now on the log is to stay as it is.
    pub fn committed(&mut self) -> Result<(), FileFault> {
        self.check_database()?;
        let log = self.look(WatchedFile::Log)?;
        let header = match log_header(&self.log_file) {
            Ok(Some(header)) => header,
            Ok(None) => return Err(self.fault(WatchedFile::Log, FaultKind::Overwritten)),
            Err(error) => return Err(self.fault(WatchedFile::Log, FaultKind::NoAccess(error))),
        };
        let before = self.log_header;
        let restarts = header.salt_1.wrapping_sub(before.salt_1);
        if header != before && !(1..=RESTARTS_MAX).contains(&restarts) {
            return Err(self.fault(WatchedFile::Log, FaultKind::Overwritten));
        }
        // One that begins anew may be cut back to its usual length.
        if header == before && log.size() < self.log_bytes {
            return Err(self.fault(WatchedFile::Log, FaultKind::Truncated));
        }
        self.log_header = header;
        self.log_bytes = log.size();
        Ok(())
    }

    /// The writer has moved the log into the database, or has checked that the database is sound. From now on it is to stay
    /// as it is.
    pub fn database_is_sound(&mut self) -> Result<(), FileFault> {
        let database = self.look(WatchedFile::Database)?;
        self.database.1 = Stamp::of(&database);
        Ok(())
    }

    fn check_database(&self) -> Result<(), FileFault> {
        let database = self.look(WatchedFile::Database)?;
        let (stamp, left) = (Stamp::of(&database), self.database.1);
        match stamp.bytes < left.bytes {
            true => Err(self.fault(WatchedFile::Database, FaultKind::Truncated)),
            false if stamp != left => Err(self.fault(WatchedFile::Database, FaultKind::Touched)),
            false => Ok(()),
        }
    }

    /// The file at the path, if it is the one that is open.
    fn look(&self, part: WatchedFile) -> Result<Metadata, FileFault> {
        let (path, wanted) = match part {
            WatchedFile::Database => (&self.database_path, self.database.0),
            WatchedFile::Log => (&self.log_path, self.log),
        };
        match fs::metadata(path) {
            Ok(file) if Identity::of(&file) == wanted => Ok(file),
            Ok(_) => Err(self.fault(part, FaultKind::Replaced)),
            Err(error) => Err(self.fault(part, kind_of(error))),
        }
    }

    fn fault(&self, part: WatchedFile, kind: FaultKind) -> FileFault {
        let path = match part {
            WatchedFile::Database => &self.database_path,
            WatchedFile::Log => &self.log_path,
        };
        FileFault {
            path: path.clone(),
            part,
            kind,
        }
    }
}

fn kind_of(error: io::Error) -> FaultKind {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => FaultKind::Gone,
        io::ErrorKind::ReadOnlyFilesystem => FaultKind::ReadOnly,
        _ => FaultKind::NoAccess(error),
    }
}

/// The beginning of a log; `None`: it is none.
fn log_header(log: &File) -> io::Result<Option<LogHeader>> {
    let mut bytes = [0; LOG_HEADER_BYTES];
    match log.read_exact_at(&mut bytes, 0) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        Err(error) => return Err(error),
    }
    let number =
        |at: usize| u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
    Ok(wal::is_log(&bytes).then(|| LogHeader {
        salt_1: number(16),
        salt_2: number(20),
    }))
}
