//! What lies beside the database: its log, its lock.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};
use rustix::io::Errno;

use super::error::OpenCause;

/// Where SQLite has the log of the database at `path`, which is no symbolic link.
pub fn log_path(path: &Path) -> PathBuf {
    beside(path, "-wal")
}

/// Where the lock of the database at `path` is.
pub fn lock_path(path: &Path) -> PathBuf {
    beside(path, ".lock")
}

/// The path with `ending` after it.
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// Whether this user may read and write what lies beside the database at `path`.
///
/// # Errors
/// A file is there, and this user may not.
pub fn check_beside(path: &Path) -> Result<(), OpenCause> {
    let real_path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    for file in [lock_path(path), log_path(&real_path)] {
        let may = access(&file, Access::READ_OK | Access::WRITE_OK);
        if let Err(error @ (Errno::ACCESS | Errno::PERM)) = may {
            return Err(OpenCause::Beside(file, error.into()));
        }
    }
    Ok(())
}
