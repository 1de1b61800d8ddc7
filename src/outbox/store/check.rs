//! Whether an outbox could be opened at a path, as far as one can see without opening it: a relay may have it.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use rustix::fs::{Access, access};

use super::error::{OpenCause, OpenError};
use super::paths::check_beside;

/// What a database begins with (<https://sqlite.org/fileformat2.html#the_database_header>).
const MAGIC: &[u8] = b"SQLite format 3\0";

/// Looks at `path`; makes and changes nothing.
///
/// # Errors
/// A relay that starts now, as this user, would not get it.
pub fn check_path(path: &Path) -> Result<(), OpenError> {
    check(path).map_err(|cause| cause.at(path))
}

/// What lies at `path`; `None` if nothing does, so that a database may be made there.
///
/// # Errors
/// It cannot be told; something else than a file lies there; or a link that leads nowhere: the disk with the database may not be mounted.
pub fn existing(path: &Path) -> Result<Option<Metadata>, OpenCause> {
    match fs::metadata(path) {
        Ok(file) if file.is_file() => Ok(Some(file)),
        // Its length is 0, but it is no new database: /dev/null would be replaced by one.
        Ok(_) => Err(OpenCause::NoDatabase),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        Err(error) if path.is_symlink() => Err(OpenCause::Directory(io::Error::new(
            error.kind(),
            "it is a link to a file that is not there; mount the disk that has the file, or remove the link",
        ))),
        Err(_) => Ok(None),
    }
}

fn check(path: &Path) -> Result<(), OpenCause> {
    let parents = path.ancestors().skip(1);
    // Those that are missing are made at the start.
    let there = parents.map(|parent| match parent.as_os_str().is_empty() {
        true => Path::new("."),
        false => parent,
    });
    let there = there
        .into_iter()
        .find(|parent| parent.symlink_metadata().is_ok());
    let there = there.unwrap_or(Path::new("/"));
    if !there.is_dir() {
        return Err(OpenCause::Directory(io::ErrorKind::NotADirectory.into()));
    }
    let may = access(there, Access::WRITE_OK | Access::EXEC_OK);
    may.map_err(|error| OpenCause::Directory(error.into()))?;
    check_beside(path)?;
    let Some(about) = existing(path)? else {
        return Ok(()); // it is made
    };
    access(path, Access::READ_OK | Access::WRITE_OK).map_err(|_| OpenCause::ReadOnly)?;
    let mut begins = [0; MAGIC.len()];
    let read = File::open(path).and_then(|mut file| file.read_exact(&mut begins));
    match about.len() {
        0 => Ok(()),
        _ if read.is_ok() && begins == MAGIC => Ok(()),
        _ => Err(OpenCause::NoDatabase),
    }
}
