//! What is still to be written to one backend's socket: frames in batches, never a wait.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

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
    socket: Arc<OwnedFd>,
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
    /// Writes to `socket`, which must be non-blocking.
    pub fn new(socket: Arc<OwnedFd>, now: Instant) -> Self {
        Self {
            socket,
            unwritten: VecDeque::new(),
            gone: 0,
            bytes: 0,
            progress: now,
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
            match rustix::io::writev(&self.socket, &slices[..count]) {
                Ok(0) => return Err(ErrorKind::WriteZero.into()),
                Ok(written) => self.forget(written, now),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
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
        let _ = shutdown(&self.socket, Shutdown::Write);
    }
}
