//! What a session reads: bytes off its socket, plain or sealed, to be taken for lines.

use rustix::buffer::spare_capacity;
use rustix::io::Errno;

use super::serve::Session;
use crate::tls::Opened;
use crate::wire;

/// What one read takes from the socket at least, in bytes: a good many ACKs. On the heap, since a stack keeps for ever the
/// pages that it ever used; and more than malloc keeps for a thread's next use (1,032 in glibc), since thousands are idle.
const READ_BYTES: usize = 2048;

/// The same of what is sealed: a handshake's usual flight. Of a longer record the rest lies with rustls meanwhile.
const SEALED_READ_BYTES: usize = 4096;

/// What is read from a connection that broke in a write, in bytes: the ACKs of the largest credit, with reasons.
const LAST_WORDS_BYTES_MAX: usize = 1 << 20;

impl Session {
    /// One read, and what it says; the bytes read. `None`: the peer has closed, or the connection is broken.
    pub(super) fn read(&mut self) -> Option<usize> {
        if self.sealed {
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
        self.hear(bytes);
        Some(count)
    }

    fn hear(&mut self, mut bytes: Vec<u8>) {
        let used = self.consume(&bytes);
        // Kept only while it holds a part of a line.
        if used < bytes.len() {
            bytes.drain(..used);
            self.inbound = bytes;
        }
    }

    /// One read behind TLS, and what it says.
    #[inline(never)] // its stack is not needed where nothing is sealed
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
            self.hear(bytes);
            match opened {
                Ok(Opened::Bytes(_)) => {}
                Ok(Opened::Hungry) => return Some(count),
                Ok(Opened::End) => return None,
                Err(error) => {
                    self.house.metrics.session_refused("tls");
                    log::debug!("{}: TLS failed: {error}", self.peer);
                    return None;
                }
            }
        }
    }

    /// A backend that speaks in the clear to the port for TLS is told so, as it understands it.
    #[cold]
    fn refuse_in_the_clear(&self) -> Option<usize> {
        self.house.metrics.session_refused("tls");
        let mut out = Vec::new();
        wire::line(&mut out, "ERR")
            .arg("code", "bad-hello")
            .arg("fatal", "1")
            .arg("msg", "this port speaks TLS only")
            .end();
        // It learns it or not; nothing was agreed.
        let _ = rustix::io::write(&self.socket, &out);
        None
    }

    /// The connection broke in a write. ACKs that came before are in the socket still, and count: their payments are
    /// booked.
    pub(super) fn hear_last_words(&mut self) {
        let mut bytes = 0;
        while bytes < LAST_WORDS_BYTES_MAX
            && let Some(count @ 1..) = self.read()
        {
            bytes += count;
        }
    }
}
