//! The bytes that one backend's socket has not taken yet: frames, written in batches, without blocking.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use rustix::io::Errno;
use rustix::net::{Shutdown, shutdown};

use crate::notification::Notification;
use crate::tls::{Opened, PIECES_MAX, Records};

/// More than this many bytes unwritten, and the session takes no further envelope until the peer has read some.
const BACKLOG_BYTES_MAX: usize = 256 * 1024;

/// More than this many bytes unwritten besides large bodies are the answers to what the peer asks, and the peer is not read
/// from until it has read some. Above [`BACKLOG_BYTES_MAX`] by what a batch of MSG can add, so that ACKs are read while MSG wait to be written.
const ANSWERS_BYTES_MAX: usize = 2 * BACKLOG_BYTES_MAX;

/// A piece that has this many bytes is not added to. It is given back only when all of it is written, which a peer that
/// never quite catches up would put off for ever.
const PIECE_BYTES_MAX: usize = 16 * 1024;

/// Bodies up to this many bytes are copied behind their line, so that a batch of small ones is one piece.
const COPIED_BYTES_MAX: usize = 16 * 1024;

/// The most pieces handed to one `writev`.
const PIECES_PER_WRITE: usize = 16;

/// The most that is encrypted at once: a record. Except in a handshake, no more than that is encrypted and unwritten.
const SEALED_AT_ONCE: usize = 16 * 1024;

/// A socket and the bytes that it has not taken yet. An idle link holds no buffer, unless it has TLS.
#[derive(Debug)]
pub struct Link {
    socket: Arc<OwnedFd>,
    /// TLS, if there is. What it holds unwritten comes before `unwritten`.
    records: Option<Records>,
    unwritten: VecDeque<Piece>,
    /// How much of the first piece has gone.
    gone: usize,
    bytes: usize,
    /// How many of them are in large bodies.
    body_bytes: usize,
    /// When the peer last took a byte, or had nothing to take.
    progress: Instant,
    /// Nothing more will be written.
    half_closed: bool,
}

#[derive(Debug)]
enum Piece {
    Copied(Vec<u8>),
    /// A large body, shared with the other owners of the notification.
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
    /// Writes to `socket`, which must be non-blocking; with TLS, if there are records.
    pub fn new(socket: Arc<OwnedFd>, records: Option<Records>, now: Instant) -> Self {
        Self {
            socket,
            records,
            unwritten: VecDeque::new(),
            gone: 0,
            bytes: 0,
            body_bytes: 0,
            progress: now,
            half_closed: false,
        }
    }

    /// The socket.
    pub fn socket(&self) -> &Arc<OwnedFd> {
        &self.socket
    }

    /// Lets `write` append a frame.
    pub fn frame(&mut self, now: Instant, write: impl FnOnce(&mut Vec<u8>)) {
        if self.is_flushed() {
            self.progress = now;
        }
        let room = match self.unwritten.back() {
            Some(Piece::Copied(bytes)) => bytes.len() < PIECE_BYTES_MAX,
            Some(Piece::Body(_)) | None => false,
        };
        if !room {
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
            self.body_bytes += notification.body.len();
            self.unwritten
                .push_back(Piece::Body(Arc::clone(notification)));
            self.frame(now, |out| out.push(b'\n'));
        }
    }

    /// Writes `line`, the head and the body of `notification` and the LF after them at once, as far as the socket takes them
    /// now. With TLS, or with bytes unwritten before them, they are copied first.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn send(
        &mut self,
        now: Instant,
        line: &[u8],
        notification: &Arc<Notification>,
    ) -> io::Result<()> {
        let parts = [line, &notification.head, &notification.body, b"\n"];
        let gone = match self.is_flushed() && self.records.is_none() {
            true => rustix::io::writev(&self.socket, &parts.map(IoSlice::new)),
            false => Ok(0),
        };
        let gone = match gone {
            Ok(gone) => gone,
            Err(Errno::INTR | Errno::AGAIN) => 0,
            Err(error) => return Err(error.into()),
        };
        let whole: usize = parts.iter().map(|part| part.len()).sum();
        if gone == whole {
            self.progress = now;
            return Ok(());
        }
        self.frame(now, |out| out.extend_from_slice(line));
        self.data(now, notification);
        self.forget(gone);
        self.flush(now)
    }

    /// Whether everything has been written.
    pub fn is_flushed(&self) -> bool {
        self.unwritten.is_empty() && self.records.as_ref().is_none_or(Records::is_flushed)
    }

    /// Whether there is something for the socket to take: before a handshake is over, only what belongs to that.
    pub fn wants_write(&self) -> bool {
        match &self.records {
            Some(records) if records.is_handshaking() => !records.is_flushed(),
            _ => !self.is_flushed(),
        }
    }

    /// Whether a handshake is still to be finished.
    pub fn is_handshaking(&self) -> bool {
        self.records.as_ref().is_some_and(Records::is_handshaking)
    }

    /// Whether it has TLS.
    pub fn is_tls(&self) -> bool {
        self.records.is_some()
    }

    /// Whether `received`, the first that came, is a line of the protocol and not TLS.
    pub fn is_in_the_clear(&self, received: &[u8]) -> bool {
        // A handshake begins with 22; this is the verb of a line.
        let begins = received.first().is_some_and(u8::is_ascii_uppercase);
        begins && self.records.as_ref().is_some_and(Records::is_handshaking)
    }

    /// Decrypts what was read, as far as `plain` has room within its capacity. What TLS answers by itself waits to be flushed.
    ///
    /// # Errors
    /// What came is not TLS, or not what was agreed.
    pub fn open(
        &mut self,
        sealed: &mut Vec<u8>,
        plain: &mut Vec<u8>,
        now: Instant,
    ) -> Result<Opened, rustls::Error> {
        if self.is_flushed() {
            self.progress = now;
        }
        match &mut self.records {
            Some(records) => records.open(sealed, plain),
            None => Ok(Opened::End), // never called without TLS
        }
    }

    /// Whether nothing more may be written: it would break the connection before the peer has read what came before.
    pub fn is_half_closed(&self) -> bool {
        self.half_closed
    }

    /// Whether so much is unwritten that nothing should be added.
    pub fn is_backed_up(&self) -> bool {
        self.bytes > BACKLOG_BYTES_MAX
    }

    /// Whether the peer has asked for so much without reading the answers that it should not be read from.
    pub fn is_flooded(&self) -> bool {
        self.bytes - self.body_bytes > ANSWERS_BYTES_MAX
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
        if self.records.is_some() {
            return self.flush_sealed(now);
        }
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
                Ok(written) => {
                    self.progress = now;
                    self.forget(written);
                }
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    fn flush_sealed(&mut self, now: Instant) -> io::Result<()> {
        loop {
            let Some(records) = &mut self.records else {
                return Ok(());
            };
            if records.flush(&self.socket)? {
                self.progress = now;
            }
            // One record after the other: an encrypted record is a copy, and a large body must not be copied whole.
            if !records.is_flushed() || self.unwritten.is_empty() || records.is_handshaking() {
                return Ok(());
            }
            let mut pieces = [&[][..]; PIECES_MAX];
            let (mut count, mut bytes) = (0, 0);
            for (slot, piece) in pieces.iter_mut().zip(&self.unwritten) {
                let skip = if count == 0 { self.gone } else { 0 };
                let piece = &piece.bytes()[skip..];
                *slot = &piece[..piece.len().min(SEALED_AT_ONCE - bytes)];
                bytes += slot.len();
                count += 1;
                if bytes == SEALED_AT_ONCE {
                    break;
                }
            }
            let sealed = records.seal(&pieces[..count]);
            if sealed == 0 {
                return Err(ErrorKind::WriteZero.into());
            }
            self.forget(sealed);
        }
    }

    fn forget(&mut self, written: usize) {
        self.bytes -= written;
        let mut left = written;
        while let Some(piece) = self.unwritten.front() {
            let step = left.min(piece.bytes().len() - self.gone);
            if matches!(piece, Piece::Body(_)) {
                self.body_bytes -= step;
            }
            left -= step;
            self.gone += step;
            if self.gone < piece.bytes().len() {
                return;
            }
            self.gone = 0;
            self.unwritten.pop_front();
        }
        self.unwritten = VecDeque::new(); // gives the memory back
    }

    /// Tells the peer that nothing more will come. What it has not read yet it still can.
    pub fn half_close(&mut self) {
        self.half_closed = true;
        if let Some(records) = &mut self.records
            && !records.is_handshaking()
        {
            records.end();
            let _ = records.flush(&self.socket); // or it is gone already
        }
        // A socket that is gone already needs no closing.
        let _ = shutdown(&self.socket, Shutdown::Write);
    }
}

#[cfg(test)]
mod tests;
