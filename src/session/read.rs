//! How a session reads: bytes from its socket, plain or TLS, as lines.

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::state::Session;
use crate::tls::Opened;
use crate::wire;

/// What one read takes from the socket at least, in bytes: some fifty ACKs. On the heap, because a stack keeps every page
/// that it once used; and more than malloc caches for a thread (1,032 bytes in glibc), because thousands of threads are idle.
const READ_BYTES: usize = 2048;

/// The same with TLS: the usual flight of a handshake. rustls keeps the part of a longer record meanwhile.
const SEALED_READ_BYTES: usize = 4096;

/// What is read from a connection that broke in a write, in bytes: the ACKs of the largest credit, with reasons.
const AFTER_BREAK_BYTES_MAX: usize = 1 << 20;

impl Session {
    /// Reads once and does what the lines say; returns how many bytes. `None`: the peer has closed, or the connection is
    /// broken.
    pub fn read(&mut self) -> Option<usize> {
        if self.is_tls {
            return self.read_sealed();
        }
        let mut bytes = std::mem::take(&mut self.inbound);
        bytes.reserve(READ_BYTES);
        let count = match rustix::io::read(&self.socket, spare_capacity(&mut bytes)) {
            Err(Errno::AGAIN | Errno::INTR) => {
                self.inbound = bytes;
                return Some(0);
            }
            Ok(0) | Err(_) => return None,
            Ok(count) => count,
        };
        self.heard = self.now;
        self.pings = 0;
        self.take_in(bytes);
        Some(count)
    }

    /// The same with TLS.
    #[inline(never)] // keeps its stack out of the frames of a plain session
    fn read_sealed(&mut self) -> Option<usize> {
        let mut sealed = Vec::with_capacity(SEALED_READ_BYTES);
        let count = match rustix::io::read(&self.socket, spare_capacity(&mut sealed)) {
            Err(Errno::AGAIN | Errno::INTR) => return Some(0),
            Ok(0) | Err(_) => return None,
            Ok(count) => count,
        };
        self.heard = self.now;
        self.pings = 0;
        loop {
            let mut bytes = std::mem::take(&mut self.inbound);
            bytes.reserve(READ_BYTES);
            let opened = {
                let mut outgoing = self.mailbox.outgoing();
                if outgoing.link.is_in_the_clear(&sealed) {
                    drop(outgoing);
                    return self.refuse_in_the_clear();
                }
                let opened = outgoing.link.open(&mut sealed, &mut bytes, self.now);
                if opened.is_err() {
                    let _ = outgoing.flush(self.now); // the alert; the connection is over either way
                }
                opened
            };
            self.take_in(bytes);
            match opened {
                Ok(Opened::Bytes(_)) => {}
                Ok(Opened::Hungry) => return Some(count),
                Ok(Opened::End) => return None,
                Err(error) => {
                    self.context.metrics.session_refused("tls");
                    log::debug!("{}: TLS failed: {error}", self.peer);
                    return None;
                }
            }
        }
    }

    /// Tells a backend that speaks without TLS to the TLS port so, in the clear.
    #[cold]
    fn refuse_in_the_clear(&self) -> Option<usize> {
        self.context.metrics.session_refused("tls");
        let mut out = Vec::new();
        wire::line(&mut out, "ERR")
            .arg("code", "bad-hello")
            .arg("fatal", "1")
            .arg("msg", "this port speaks TLS only")
            .end();
        // The peer reads it or not; nothing else can be done.
        let _ = rustix::io::write(&self.socket, &out);
        None
    }

    /// Reads on after the connection broke in a write. ACKs that arrived before are still in the socket, and count: the
    /// backend has booked their payments.
    pub fn read_after_break(&mut self) {
        let mut bytes = 0;
        while bytes < AFTER_BREAK_BYTES_MAX
            && let Some(count @ 1..) = self.read()
        {
            bytes += count;
        }
    }
}
