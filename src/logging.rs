//! Where log lines go: standard error or a file, one line a record, written whole, by a thread that holds up nobody.
//!
//! A thread that says something formats its message, puts it into a queue with a bound, and goes on. A thread of the log's own
//! writes the lines, and waits for the disk or for the reader of standard error alone. A full queue and a full disk cost lines:
//! these are counted ([`lost_lines`]), and the next line that can be written says how many are missing. simplelog formats;
//! added here are a level and a file that change while running, times of one width, dependencies that are heard only when they
//! warn, and control characters that stay inside their line. Nothing here decides what is worth a line.

mod line;
mod output;
mod queue;
mod writer;

use std::any::Any;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::fmt;
use std::io;
use std::panic::{self, PanicHookInfo};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use log::{Level, Log, Metadata, Record};
use parking_lot::Mutex;
use rustix::fs::Access;

use self::line::LogLine;
pub use self::line::Utc;
use self::output::Output;
use self::queue::{Queue, Target};
use self::writer::LogWriter;
use crate::config;
use crate::heartbeat::{self, Role};
use crate::thread::{JoinOnDrop, SMALL_STACK_BYTES};

/// Records of these targets are written at every level; those of others only from warn up.
const OWN_TARGET: &str = "payrelay";

/// How long a thread that panics, and the end of the process, wait for the last lines to be written.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// The log of this process, once it is started. Never dropped: a log that hangs cannot hold up the end of the process.
static LOG: OnceLock<Running> = OnceLock::new();

/// The process's log. There is one; dropping this handle leaves it as it is.
#[derive(Debug)]
pub struct Logging {
    queue: Arc<Queue>,
    target: Mutex<Target>,
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
    /// The system has no room for the thread that writes.
    Thread(io::Error),
    /// This process has a logger already.
    Taken,
}

impl fmt::Display for LoggingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Open { file, error } => {
                write!(
                    f,
                    "log.file = \"{}\": cannot be opened for writing: {error}; make its folder, and let this user write to it",
                    file.display()
                )
            }
            Self::Thread(error) => {
                write!(f, "cannot start the thread that writes the log: {error}")
            }
            Self::Taken => f.write_str("this process logs elsewhere already"),
        }
    }
}

impl std::error::Error for LoggingError {}

/// Whether a log could be written to `file`; opens nothing that is not there.
///
/// # Errors
/// It could not.
pub fn check_file(file: &Path) -> Result<(), LoggingError> {
    let folder = file
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty());
    let tried = match file.exists() {
        true if file.is_dir() => Err(io::ErrorKind::IsADirectory.into()),
        true => rustix::fs::access(file, Access::WRITE_OK).map_err(io::Error::from),
        false => rustix::fs::access(
            folder.unwrap_or(Path::new(".")),
            Access::WRITE_OK | Access::EXEC_OK,
        )
        .map_err(io::Error::from),
    };
    tried.map_err(|error| LoggingError::Open {
        file: file.to_owned(),
        error,
    })
}

/// How many lines were lost since the start, because the log could not be written (fast enough).
pub fn lost_lines() -> u64 {
    LOG.get().map_or(0, |running| running.close.0.lost())
}

impl Logging {
    /// Opens the log and makes it the process's own. From now on a panic is a line of the log too.
    ///
    /// # Errors
    /// The file cannot be opened, there is no room for a thread, or another logger was installed before.
    pub fn start(settings: &config::LogConfig) -> Result<Self, LoggingError> {
        let running = Running::start(settings.file.clone())?;
        let logging = running.handle(settings.file.clone());
        logging.queue.set_format(settings.format);
        let lines = Lines(Arc::clone(&logging.queue));
        LOG.set(running).map_err(|_| LoggingError::Taken)?;
        log::set_boxed_logger(Box::new(lines)).map_err(|_| LoggingError::Taken)?;
        log::set_max_level(settings.level);
        panic::set_hook(Box::new(tell_panic));
        Ok(logging)
    }

    /// Takes a changed level, file or format over. A file that cannot be opened is told in the log, which goes on where it was.
    pub fn reload(&self, settings: &config::LogConfig) {
        log::set_max_level(settings.level);
        self.queue.set_format(settings.format);
        let mut target = self.target.lock();
        if *target != settings.file {
            target.clone_from(&settings.file);
            self.queue.open(settings.file.clone());
        }
    }

    /// Opens the same file anew, after a rotation has moved it away. If that fails, the log goes on where it was, and says so.
    pub fn reopen(&self) {
        let target = self.target.lock().clone();
        self.queue.open(target);
    }

    /// Waits until everything that was said until now is written, for half a second at most: the last thing before the end.
    pub fn flush(&self) {
        self.queue.wait_disposed(FLUSH_MAX);
    }
}

/// A log and its thread. Dropping it ends the thread.
#[derive(Debug)]
struct Running {
    close: CloseOnDrop,
    _thread: JoinOnDrop,
}

#[derive(Debug)]
struct CloseOnDrop(Arc<Queue>);

impl Drop for CloseOnDrop {
    fn drop(&mut self) {
        self.0.close();
    }
}

impl Running {
    fn start(target: Target) -> Result<Self, LoggingError> {
        let mut writer = LogWriter::new(Output::open(target)?);
        let queue = Arc::new(Queue::default());
        let its = Arc::clone(&queue);
        let role = Role::vital(writer::NAME, "lines of the log are lost")
            .advice("look at the disk of log.file, or at what reads the log")
            .not_vital();
        let thread = heartbeat::supervise(role, SMALL_STACK_BYTES, move |pulse| {
            writer.run(&its, pulse);
        });
        Ok(Self {
            close: CloseOnDrop(queue),
            _thread: thread.map_err(LoggingError::Thread)?,
        })
    }

    fn handle(&self, target: Target) -> Logging {
        Logging {
            queue: Arc::clone(&self.close.0),
            target: Mutex::new(target),
        }
    }
}

/// The logger.
struct Lines(Arc<Queue>);

impl Log for Lines {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.level() <= log::max_level()
            && (metadata.level() <= Level::Warn || is_own(metadata.target()))
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let speaker = match is_own(record.target()) {
            true => "",
            false => record.target(),
        };
        self.0
            .add(LogLine::new(record.level(), speaker, *record.args()));
    }

    fn flush(&self) {
        self.0.wait_disposed(FLUSH_MAX);
    }
}

fn is_own(target: &str) -> bool {
    target
        .strip_prefix(OWN_TARGET)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Writes a panic to the log and waits for it, but not for long: Rust's own hook would wait for the reader of standard error.
fn tell_panic(about: &PanicHookInfo<'_>) {
    let words = panic_words(about.payload());
    let place = about.location().map(ToString::to_string);
    let place = place.as_deref().unwrap_or("?");
    let backtrace = Backtrace::capture();
    match backtrace.status() {
        BacktraceStatus::Captured => log::error!("panicked at {place}: {words}\n{backtrace}"),
        _ => log::error!("panicked at {place}: {words}"),
    }
    if std::thread::current().name() != Some(writer::NAME) {
        log::logger().flush();
    }
}

/// What a panic says.
fn panic_words(payload: &(dyn Any + Send)) -> &str {
    let text = payload.downcast_ref::<&str>().copied();
    let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
    text.unwrap_or("no message")
}

#[cfg(test)]
mod tests;
