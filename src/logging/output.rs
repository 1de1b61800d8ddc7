//! The open file, or standard error: lines go out whole, and those that do not are counted.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;

use super::LoggingError;
use super::queue::Target;

/// Readable by the owner and its group: what the relay logs is nobody else's business.
const FILE_MODE: u32 = 0o640;

/// What a pipe that takes anything takes whole, without waiting; PIPE_BUF of Linux.
const PIPE_BYTES: usize = 4096;

/// How often a thread that cannot write looks whether it should try elsewhere.
const LOOK_AROUND: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 250_000_000,
};

/// Where the lines go.
#[derive(Debug)]
pub(super) struct Output {
    handle: Handle,
    /// Whether it takes any number of bytes without waiting for a reader: a regular file.
    is_file: bool,
    /// The last write stopped within a line.
    torn: bool,
}

#[derive(Debug)]
enum Handle {
    Stderr,
    File(File),
}

/// Why writing ended before the end.
#[derive(Debug)]
pub(super) enum Stopped {
    /// The system refuses: no room, no disk.
    Error(io::Error),
    /// Nobody reads, and the caller wants to do something else.
    Interrupted,
}

impl Output {
    /// Opens `target` for appending.
    ///
    /// # Errors
    /// The file cannot be opened.
    pub(super) fn open(target: Target) -> Result<Self, LoggingError> {
        let handle = match &target {
            None => Handle::Stderr,
            Some(path) => Handle::File(open(path).map_err(|error| LoggingError::Open {
                file: path.clone(),
                error,
            })?),
        };
        let is_file = match &handle {
            Handle::Stderr => is_file(io::stderr()),
            Handle::File(file) => is_file(file),
        };
        Ok(Self {
            handle,
            is_file,
            torn: false,
        })
    }

    /// Writes `bytes`, which are whole lines. Says how many bytes of whole lines went out, and why not more. While nobody reads,
    /// `interrupted` is asked now and then.
    pub(super) fn write(
        &mut self,
        bytes: &[u8],
        interrupted: impl Fn() -> bool,
    ) -> (usize, Result<(), Stopped>) {
        if self.torn
            && let Err(stopped) = self.put(b"\n", &interrupted).1
        {
            return (0, Err(stopped));
        }
        let (written, result) = self.put(bytes, &interrupted);
        let whole_lines = bytes[..written].iter().rposition(|&byte| byte == b'\n');
        let whole = whole_lines.map_or(0, |at| at + 1);
        self.torn = whole < written;
        (whole, result)
    }

    fn put(
        &mut self,
        bytes: &[u8],
        interrupted: &impl Fn() -> bool,
    ) -> (usize, Result<(), Stopped>) {
        let mut at = 0;
        while at < bytes.len() {
            let mut piece = &bytes[at..];
            if !self.is_file {
                match self.takes() {
                    Ok(true) => piece = &piece[..piece.len().min(PIPE_BYTES)],
                    Ok(false) if interrupted() => return (at, Err(Stopped::Interrupted)),
                    Ok(false) => continue,
                    Err(error) => return (at, Err(Stopped::Error(error))),
                }
            }
            let written = match &mut self.handle {
                Handle::Stderr => io::stderr().write(piece),
                Handle::File(file) => file.write(piece),
            };
            match written {
                Ok(0) => return (at, Err(Stopped::Error(io::ErrorKind::WriteZero.into()))),
                Ok(count) => at += count,
                Err(error) => match error.kind() {
                    io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock => {}
                    _ => return (at, Err(Stopped::Error(error))),
                },
            }
        }
        (at, Ok(()))
    }

    /// Whether the other end takes [`PIPE_BYTES`], now or within [`LOOK_AROUND`].
    fn takes(&self) -> io::Result<bool> {
        let stderr = io::stderr();
        let mut fds = [match &self.handle {
            Handle::Stderr => PollFd::new(&stderr, PollFlags::OUT),
            Handle::File(file) => PollFd::new(file, PollFlags::OUT),
        }];
        match poll(&mut fds, Some(&LOOK_AROUND)) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()), // no memory to wait with
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    // A pipe is opened for reading too: to open it for writing alone waits for a reader, or fails without one, and a reader
    // that ends would take along what it has not read.
    let is_pipe = fs::metadata(path).is_ok_and(|about| about.file_type().is_fifo());
    OpenOptions::new()
        .append(true)
        .read(is_pipe)
        .create(true)
        .mode(FILE_MODE)
        .custom_flags(OFlags::NONBLOCK.bits().cast_signed())
        .open(path)
}

fn is_file(handle: impl AsFd) -> bool {
    rustix::fs::fstat(handle)
        .is_ok_and(|about| rustix::fs::FileType::from_raw_mode(about.st_mode).is_file())
}
