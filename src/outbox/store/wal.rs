//! The write-ahead log beside the database: whether there is one.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use super::paths::log_path;

/// The header of a log (<https://sqlite.org/fileformat2.html#walformat>).
pub const LOG_HEADER_BYTES: usize = 32;

/// What lies at the log's place beside a database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    /// Nothing, or an empty file.
    None,
    /// Something that is no log.
    Broken,
    /// A log.
    There,
}

impl Log {
    /// Looks beside the database at `path`.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn beside(path: &Path) -> io::Result<Self> {
        let log = match File::open(log_path(path)) {
            Ok(log) => log,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Self::None),
            Err(error) => return Err(error),
        };
        let mut header = [0; LOG_HEADER_BYTES];
        match log.metadata()?.len() {
            0 => Ok(Self::None),
            bytes if bytes <= LOG_HEADER_BYTES as u64 => Ok(Self::Broken),
            _ => {
                log.read_exact_at(&mut header, 0)?;
                Ok(if is_log(&header) {
                    Self::There
                } else {
                    Self::Broken
                })
            }
        }
    }
}

/// Whether a log begins so.
pub fn is_log(header: &[u8; LOG_HEADER_BYTES]) -> bool {
    // The last bit says how its check sums are made.
    header[..4] == [0x37, 0x7f, 0x06, 0x82] || header[..4] == [0x37, 0x7f, 0x06, 0x83]
}
