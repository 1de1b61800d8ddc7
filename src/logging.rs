//! Where log lines go: standard error or a file, one line a record, written whole.
//!
//! simplelog formats; what it lacks is here: a level that changes while running, a file that can be reopened, times of one
//! width, dependencies that are heard only when they warn, and line breaks in a message that stay inside its line. Nothing
//! here decides what is worth a line, and a log that cannot be written never stops the relay, nor does a standard error that
//! nobody reads: the lines lost are counted and told later. (A file on a disk that hangs does: no system call says so before.)

use std::fmt::{self, Write as _};
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::{Level, LevelFilter, Log, Metadata, Record};
use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use simplelog::{ConfigBuilder, ThreadLogMode, WriteLogger};

use crate::config;
use crate::notification::unix_ms;

/// Records of these targets are written at every level; those of others only from warn up.
const OWN_TARGET: &str = "payrelay";

/// Readable by the owner and its group: what the relay logs is nobody else's business.
const FILE_MODE: u32 = 0o640;

/// A line longer than this is cut, so that one record cannot fill the disk. In bytes.
const LINE_BYTES_MAX: usize = 16 * 1024;

/// What a pipe that takes anything takes whole, without waiting; PIPE_BUF of Linux.
const PIPE_BYTES: usize = 4096;

/// How long whoever reads standard error may take to make room: 10 ms. Threads that serve many wait for it, so it is short.
const PATIENCE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 10_000_000,
};

/// No patience at all, for whoever had some and has not read since.
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};

/// The process's log. There is one; dropping this handle leaves it as it is.
#[derive(Debug)]
pub struct Logging {
    output: Arc<Mutex<Output>>,
}

/// Why the log is not where it should be.
#[derive(Debug)]
pub enum LoggingError {
    /// The file cannot be opened for appending.
    Open {
        /// `log.file`
        file: PathBuf,
        /// The system's reason.
        error: io::Error,
    },
    /// This process has a logger already.
    Taken,
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { file, error } => {
                write!(f, "cannot open the log file {}: {error}", file.display())
            }
            Self::Taken => f.write_str("this process logs elsewhere already"),
        }
    }
}

impl std::error::Error for LoggingError {}

impl Logging {
    /// Opens the log and makes it the process's own.
    ///
    /// # Errors
    /// The file cannot be opened, or another logger was installed before.
    pub fn start(settings: &config::Log) -> Result<Self, LoggingError> {
        let output = Arc::new(Mutex::new(Output::open(settings.file.as_deref())?));
        let lines = Lines::to(Arc::clone(&output));
        log::set_boxed_logger(Box::new(lines)).map_err(|_| LoggingError::Taken)?;
        log::set_max_level(settings.level);
        Ok(Self { output })
    }

    /// Takes a changed level or file over. On an error the old file is kept, and the level is the new one.
    ///
    /// # Errors
    /// The new file cannot be opened.
    pub fn reload(&self, settings: &config::Log) -> Result<(), LoggingError> {
        log::set_max_level(settings.level);
        if self.output.lock().file == settings.file {
            return Ok(());
        }
        let fresh = Output::open(settings.file.as_deref())?;
        self.replace(fresh);
        Ok(())
    }

    /// Opens the same file anew, after a rotation has moved it away. On an error the old one is kept.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub fn reopen(&self) -> Result<(), LoggingError> {
        let file = self.output.lock().file.clone();
        let fresh = Output::open(file.as_deref())?;
        self.replace(fresh);
        Ok(())
    }

    fn replace(&self, mut fresh: Output) {
        let mut output = self.output.lock();
        // Lines lost on a full disk are told on the new file.
        fresh.lost = output.lost;
        let old = std::mem::replace(&mut *output, fresh);
        drop(output);
        drop(old); // closed outside the lock: closing may wait for the disk
    }
}

/// The open file, or standard error.
#[derive(Debug)]
struct Output {
    /// `None`: standard error.
    file: Option<PathBuf>,
    handle: Handle,
    /// Lines that could not be written since the last that could.
    lost: u64,
    /// The last write stopped within a line.
    torn: bool,
}

#[derive(Debug)]
enum Handle {
    Stderr,
    File(File),
}

impl Output {
    fn open(file: Option<&Path>) -> Result<Self, LoggingError> {
        let handle = match file {
            None => Handle::Stderr,
            Some(path) => Handle::File(
                OpenOptions::new()
                    .append(true)
                    .create(true)
                    .mode(FILE_MODE)
                    .open(path)
                    .map_err(|error| LoggingError::Open {
                        file: path.to_owned(),
                        error,
                    })?,
            ),
        };
        Ok(Self {
            file: file.map(Path::to_owned),
            handle,
            lost: 0,
            torn: false,
        })
    }

    /// Writes `lines`; what cannot be written is counted and told before the next that can.
    fn write(&mut self, lines: &[u8]) {
        let count = lines.iter().filter(|&&byte| byte == b'\n').count() as u64;
        let mut told = Vec::new();
        if self.torn {
            told.push(b'\n');
        }
        if self.lost > 0 {
            told.extend_from_slice(
                format!(
                    "({} lines of the log before this one were lost)\n",
                    self.lost
                )
                .as_bytes(),
            );
        }
        let whole = if told.is_empty() {
            self.put(lines)
        } else {
            told.extend_from_slice(lines);
            self.put(&told)
        };
        if whole {
            self.lost = 0;
            self.torn = false;
        } else {
            self.lost += count;
        }
    }

    /// Whether all of `bytes` went out. An error ends it: no waiting for a disk to have room, nor for long for a reader.
    fn put(&mut self, bytes: &[u8]) -> bool {
        let mut rest = bytes;
        while !rest.is_empty() {
            let written = match &mut self.handle {
                Handle::Stderr => {
                    let patience = if self.lost == 0 { PATIENCE } else { NOW };
                    if !takes(io::stderr(), patience) {
                        return false;
                    }
                    io::stderr().write(&rest[..rest.len().min(PIPE_BYTES)])
                }
                Handle::File(file) => file.write(rest),
            };
            match written {
                Ok(0) => return false,
                Ok(count) => {
                    rest = &rest[count..];
                    self.torn = !rest.is_empty();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return false,
            }
        }
        true
    }
}

/// Whether `output`, a pipe or the like, takes [`PIPE_BYTES`] within `patience`.
fn takes(output: impl AsFd, patience: Timespec) -> bool {
    let mut fds = [PollFd::new(&output, PollFlags::OUT)];
    loop {
        match poll(&mut fds, Some(&patience)) {
            Ok(ready) => return ready > 0,
            Err(Errno::INTR) => {}
            Err(_) => return false, // no memory to wait with
        }
    }
}

/// The logger: simplelog in front of [`Batch`].
struct Lines {
    formatter: Box<WriteLogger<Batch>>,
}

impl Lines {
    fn to(output: Arc<Mutex<Output>>) -> Self {
        let format = ConfigBuilder::new()
            .set_time_level(LevelFilter::Off) // Batch writes it: simplelog's RFC 3339 varies in width
            .set_thread_level(LevelFilter::Error)
            .set_thread_mode(ThreadLogMode::Names)
            .set_target_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off)
            .build();
        let batch = Batch {
            output,
            pending: Vec::new(),
        };
        Self {
            // The level in force is log::max_level(), which can change; simplelog's cannot.
            formatter: WriteLogger::new(LevelFilter::Trace, format, batch),
        }
    }
}

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
            && (metadata.level() <= Level::Warn || is_own(metadata.target()))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let speaker = if is_own(record.target()) {
            ""
        } else {
            record.target()
        };
        let message = OneLine {
            speaker,
            message: record.args(),
        };
        self.formatter.log(
            &Record::builder()
                .metadata(record.metadata().clone())
                .args(format_args!("{message}"))
                .build(),
        );
        self.formatter.flush();
    }

    fn flush(&self) {
        self.formatter.flush();
    }
}

fn is_own(target: &str) -> bool {
    target
        .strip_prefix(OWN_TARGET)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// A message that stays one line of bounded length, whatever a peer put into it.
struct OneLine<'a> {
    /// The dependency that speaks; empty for the relay itself.
    speaker: &'a str,
    message: &'a fmt::Arguments<'a>,
}

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line = Escaping {
            out: f,
            left: LINE_BYTES_MAX,
        };
        if !self.speaker.is_empty() {
            line.write_str(self.speaker)?;
            line.write_str(": ")?;
        }
        line.write_fmt(*self.message)
    }
}

/// Writes control characters as `\n`, `\t`, `\u{1b}`, and nothing once the line is full.
struct Escaping<'a, 'b> {
    out: &'a mut fmt::Formatter<'b>,
    left: usize,
}

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let bytes = if c.is_control() {
                c.escape_default().len()
            } else {
                c.len_utf8()
            };
            if self.left == 0 {
                return Ok(());
            }
            if bytes > self.left {
                self.left = 0;
                return self.out.write_str("…");
            }
            self.left -= bytes;
            if c.is_control() {
                write!(self.out, "{}", c.escape_default())?;
            } else {
                self.out.write_char(c)?;
            }
        }
        Ok(())
    }
}

/// Gathers the pieces that simplelog writes, so that a record leaves in one write and no two lines mix.
struct Batch {
    output: Arc<Mutex<Output>>,
    pending: Vec<u8>,
}

impl Write for Batch {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        if self.pending.last().is_none_or(|&byte| byte == b'\n') {
            write!(self.pending, "{} ", Utc(unix_ms()))?;
        }
        self.pending.extend_from_slice(piece);
        Ok(piece.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.pending.is_empty() {
            // This lock is the file's: it orders the lines, so it spans the write by design.
            self.output.lock().write(&self.pending);
            self.pending.clear();
            self.pending.shrink_to(LINE_BYTES_MAX);
        }
        Ok(())
    }
}

/// Unix milliseconds, shown as `2026-03-01T12:00:00.123Z`.
struct Utc(u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1000, self.0 % 1000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Howard Hinnant's civil_from_days, for days since 1970: years begin in March, so a leap day comes last.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}

#[cfg(test)]
mod tests;
