//! One backend's socket: bytes in as they come, frames out in batches, and never a wait in either.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Instant;

use crate::notification::Notification;

/// More than this many bytes unwritten, and the session takes no further parcel until the peer has read some.
const BACKLOG_BYTES_MAX: usize = 256 * 1024;

/// Bodies up to this many bytes are copied behind their line, so that a batch of small ones is one piece.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// The most pieces handed to one `writev`.
const PIECES_PER_WRITE: usize = 16;

/// A socket and what is still to be written to it. An idle link holds no buffer.
#[derive(Debug)]
pub struct Link {
    stream: TcpStream,
    unwritten: VecDeque<Piece>,
    /// How much of the first piece has gone.
    gone: usize,
    bytes: usize,
    /// When the peer last took a byte, or had nothing to take.
    progress: Instant,
}

#[derive(Debug)]
enum Piece {
    Copied(Vec<u8>),
    /// A large body, shared with whoever else holds the notification.
    Body(Arc<Notification>),
}

impl Piece {
    fn bytes(&self) -> &[u8] {
        match self {
            Self::Copied(bytes) => bytes,
            Self::Body(notification) => &notification.body,
        }
    }
}

impl Link {
    /// Takes over `stream`.
    ///
    /// # Errors
    /// The socket cannot be made non-blocking.
    pub fn new(stream: TcpStream, now: Instant) -> io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self {
            stream,
            unwritten: VecDeque::new(),
            gone: 0,
            bytes: 0,
            progress: now,
        })
    }

    /// The socket, to sleep on.
    pub fn socket(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }

    /// Reads what is there; `None`: nothing yet. 0 bytes: the peer has closed.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn read(&mut self, into: &mut [u8]) -> io::Result<Option<usize>> {
        match self.stream.read(into) {
            Ok(count) => Ok(Some(count)),
            Err(error) if is_not_now(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Lets `write` append a frame.
    pub fn frame(&mut self, now: Instant, write: impl FnOnce(&mut Vec<u8>)) {
        if self.unwritten.is_empty() {
            self.progress = now;
        }
        if !matches!(self.unwritten.back(), Some(Piece::Copied(_))) {
            self.unwritten.push_back(Piece::Copied(Vec::new()));
        }
        if let Some(Piece::Copied(bytes)) = self.unwritten.back_mut() {
            let before = bytes.len();
            write(bytes);
            self.bytes += bytes.len() - before;
        }
    }

    /// Appends the head and the body of `notification`, and the LF after them.
    pub fn data(&mut self, now: Instant, notification: &Arc<Notification>) {
        let large = notification.body.len() > COPIED_BYTES_MAX;
        self.frame(now, |out| {
            out.extend_from_slice(&notification.head);
            if !large {
                out.extend_from_slice(&notification.body);
                out.push(b'\n');
            }
        });
        if large {
            self.bytes += notification.body.len();
            self.unwritten
                .push_back(Piece::Body(Arc::clone(notification)));
            self.frame(now, |out| out.push(b'\n'));
        }
    }

    /// Whether everything has been written.
    pub fn is_flushed(&self) -> bool {
        self.unwritten.is_empty()
    }

    /// Whether so much is unwritten that nothing should be added.
    pub fn is_backed_up(&self) -> bool {
        self.bytes > BACKLOG_BYTES_MAX
    }

    /// When the peer last took a byte, while there are some for it.
    pub fn stalled_since(&self) -> Option<Instant> {
        (!self.is_flushed()).then_some(self.progress)
    }

    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        while !self.unwritten.is_empty() {
            let mut slices = [IoSlice::new(&[]); PIECES_PER_WRITE];
            let mut count = 0;
            for (slice, piece) in slices.iter_mut().zip(&self.unwritten) {
                let skip = if count == 0 { self.gone } else { 0 };
                *slice = IoSlice::new(&piece.bytes()[skip..]);
                count += 1;
            }
            match self.stream.write_vectored(&slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.forget(written, now),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn forget(&mut self, written: usize, now: Instant) {
        self.progress = now;
        self.bytes -= written;
        self.gone += written;
        while let Some(piece) = self.unwritten.front() {
            let length = piece.bytes().len();
            if self.gone < length {
                return;
            }
            self.gone -= length;
            self.unwritten.pop_front();
        }
        self.unwritten = VecDeque::new(); // gives the memory back
    }

    /// Tells the peer that nothing more will come. What it has not read yet it still can.
    pub fn half_close(&self) {
        // A socket that is gone already needs no closing.
        let _ = self.stream.shutdown(Shutdown::Write);
    }
}

fn is_not_now(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted)
}
