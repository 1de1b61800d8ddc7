//! One connection's records: what was received sealed comes out plain, and what is to be sent goes in plain.
//!
//! Whoever holds a [`Records`] holds it under a lock that is never kept over a wait. Bounds are rustls's: a record of 16
//! KiB, a handshake message of 64 KiB, 64 KiB of sealed bytes that the socket has not taken.

use std::fmt;
use std::io::{self, BufRead, IoSlice, Write};
use std::os::fd::AsFd;

use rustix::io::Errno;
use rustix::net::{SendAncillaryBuffer, SendFlags, sendmsg};
use rustls::ServerConnection;

use super::Offer;

/// One connection.
pub struct Records {
    tls: Box<ServerConnection>,
    /// The peer has said that it sends no more.
    ended: bool,
    /// What the peer sent first, until the handshake is over: its offer, for the log.
    hello: Vec<u8>,
}

/// The most that is kept of a handshake, in bytes; the suites stand at its beginning.
const HELLO_BYTES_MAX: usize = 2048;

/// What came of opening what was received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opened {
    /// So many plain bytes, at least one, were added.
    Bytes(usize),
    /// Everything is opened, and more is needed.
    Hungry,
    /// The peer sends no more, and said so.
    End,
}

/// An alert for a peer with whom nothing has been agreed yet, as it goes onto the wire.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Alert {
    /// There is no room, or no time.
    InternalError = 80,
    /// This peer may not come in.
    AccessDenied = 49,
}

impl Alert {
    /// The whole record: fatal, in the form that every version reads.
    pub fn record(self) -> [u8; 7] {
        [21, 3, 1, 0, 2, 2, self as u8]
    }
}

impl Records {
    pub(super) fn new(tls: ServerConnection) -> Self {
        Self {
            tls: Box::new(tls),
            ended: false,
            hello: Vec::new(),
        }
    }

    /// Whether nothing can be sent yet.
    pub fn is_handshaking(&self) -> bool {
        self.tls.is_handshaking()
    }

    /// Opens what `sealed` holds, as far as `plain` has room within its capacity, and takes it out there.
    ///
    /// # Errors
    /// What came is not TLS, or not what was agreed. The alert that says so waits to be flushed.
    pub fn open(
        &mut self,
        sealed: &mut Vec<u8>,
        plain: &mut Vec<u8>,
    ) -> Result<Opened, rustls::Error> {
        let mut used = 0;
        let opened = loop {
            let bytes = self.take(plain);
            if bytes > 0 {
                break Ok(Opened::Bytes(bytes));
            }
            if self.ended {
                break Ok(Opened::End);
            }
            if used == sealed.len() {
                break Ok(Opened::Hungry);
            }
            match self.tls.read_tls(&mut &sealed[used..]) {
                // Not while `plain` has room: a slice gives what it has, and nothing that was opened is waiting.
                Ok(0) | Err(_) => break Ok(Opened::Hungry),
                Ok(bytes) => used += bytes,
            }
            match self.tls.process_new_packets() {
                Ok(state) => self.ended = state.peer_has_closed(),
                Err(error) => break Err(error),
            }
        };
        match self.tls.is_handshaking() {
            true => {
                let room = HELLO_BYTES_MAX.saturating_sub(self.hello.len());
                self.hello.extend_from_slice(&sealed[..used.min(room)]);
            }
            false => self.hello = Vec::new(),
        }
        sealed.drain(..used);
        opened
    }

    /// What the peer offered, if the handshake is not over and so much of it was received.
    pub fn offer(&self) -> Option<Offer> {
        Offer::read(&self.hello)
    }

    /// Moves plain bytes that were opened before; says how many.
    fn take(&mut self, plain: &mut Vec<u8>) -> usize {
        let mut reader = self.tls.reader();
        let mut taken = 0;
        while plain.len() < plain.capacity() {
            // Nothing there is an error here, and the end an empty chunk.
            let Ok(chunk) = reader.fill_buf() else { break };
            let step = chunk.len().min(plain.capacity() - plain.len());
            if step == 0 {
                break;
            }
            plain.extend_from_slice(&chunk[..step]);
            reader.consume(step);
            taken += step;
        }
        taken
    }

    /// Seals `plain`, or the beginning of it that there is room for, and says how much. Only after the handshake.
    pub fn seal(&mut self, plain: &[&[u8]]) -> usize {
        let mut slices = [IoSlice::new(&[]); PIECES_MAX];
        let count = plain.len().min(PIECES_MAX);
        for (slice, piece) in slices.iter_mut().zip(plain) {
            *slice = IoSlice::new(piece);
        }
        self.tls
            .writer()
            .write_vectored(&slices[..count])
            .unwrap_or(0)
    }

    /// Says that nothing more will be sent; to be flushed.
    pub fn end(&mut self) {
        self.tls.send_close_notify();
    }

    /// Whether sealed bytes wait to be flushed.
    pub fn is_flushed(&self) -> bool {
        !self.tls.wants_write()
    }

    /// Sends what the socket takes now, and says whether it took any.
    ///
    /// # Errors
    /// The connection is gone.
    pub fn flush(&mut self, socket: impl AsFd) -> io::Result<bool> {
        let mut some = false;
        while self.tls.wants_write() {
            match self.tls.write_tls(&mut Out(&socket)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => some = true,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(some)
    }
}

/// How many pieces are sealed into one record.
pub const PIECES_MAX: usize = 16;

impl fmt::Debug for Records {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Records(…)")
    }
}

/// A socket that is written to without waiting.
struct Out<'a, S>(&'a S);

impl<S: AsFd> Write for Out<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        // NOSIGNAL: a peer that is gone is an error here, not a SIGPIPE to the process.
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            match sendmsg(self.0, slices, &mut SendAncillaryBuffer::default(), flags) {
                Err(Errno::INTR) => {}
                sent => return Ok(sent?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
