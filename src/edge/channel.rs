//! A peer's connection, plain or sealed: what is received from it, and what is sent to it.
//!
//! Sealed, the records stand behind a lock of their own, because two threads use them: the connection's own, which receives,
//! and whoever has the answer and writes it. The lock is held over cryptography and over sends that cannot wait; it is what
//! orders the bytes on this one socket. What the socket does not take, the connection's thread sends under a deadline.

use std::fmt;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use rustix::event::PollFlags;
use rustix::io::ioctl_fionread;

use super::proxy::{self, NoHeader};
use super::socket::{Received, receive_until, receive_waiting, send_now, send_until, wait};
use crate::tls::{Alert, Offer, Opened, Records};

/// What an idle sealed connection keeps for what comes sealed.
const IDLE_SEALED_BYTES: usize = 4 * 1024;

/// The most that is received at once of a large body: some records.
const SEALED_BYTES_MAX: usize = 64 * 1024;

/// A peer's connection.
pub struct Transport {
    stream: TcpStream,
    /// `None`: nothing is sealed.
    records: Option<Mutex<Records>>,
}

/// What came of sending without waiting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SendProgress {
    /// All of it is with the socket.
    Whole,
    /// So many bytes need no further care but [`Channel::send_until`], of the rest, which may be empty.
    Part(usize),
    /// The connection is gone.
    Gone,
}

impl Transport {
    /// Over `stream`, sealed if there are records.
    pub fn new(stream: TcpStream, records: Option<Records>) -> Self {
        Self {
            stream,
            records: records.map(Mutex::new),
        }
    }

    /// Sends what the socket takes now.
    pub fn send_now(&self, bytes: &[u8]) -> SendProgress {
        let Some(records) = &self.records else {
            return match send_now(&self.stream, bytes) {
                Some(sent) if sent == bytes.len() => SendProgress::Whole,
                Some(sent) => SendProgress::Part(sent),
                None => SendProgress::Gone,
            };
        };
        let mut records = records.lock();
        let sealed = records.seal(&[bytes]);
        match records.flush(&self.stream) {
            Err(_) => SendProgress::Gone,
            Ok(_) if sealed == bytes.len() && records.is_flushed() => SendProgress::Whole,
            Ok(_) => SendProgress::Part(sealed),
        }
    }

    /// Sends all of `bytes`, and what was not sent before; says whether it went before `deadline`.
    pub fn send_until(&self, bytes: &[u8], deadline: Instant) -> bool {
        let Some(records) = &self.records else {
            return send_until(&self.stream, bytes, &[], deadline);
        };
        let mut rest = bytes;
        loop {
            let sealed = records.lock().seal(&[rest]);
            rest = &rest[sealed..];
            if !self.flush_until(records, deadline) {
                return false;
            }
            if rest.is_empty() {
                return true;
            }
            if sealed == 0 {
                return false; // there is nothing agreed yet to seal it with
            }
        }
    }

    fn flush_until(&self, records: &Mutex<Records>, deadline: Instant) -> bool {
        loop {
            {
                let mut records = records.lock();
                if records.flush(&self.stream).is_err() {
                    return false;
                }
                if records.is_flushed() {
                    return true;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() || !wait(&self.stream, PollFlags::OUT, left) {
                return false;
            }
        }
    }

    /// Sends a refusal to a peer that may not have got as far as to read it: while nothing is agreed, `alert` in its place.
    /// Says whether it went before `deadline`.
    pub fn refuse_until(&self, bytes: &[u8], alert: Alert, deadline: Instant) -> bool {
        if self.is_agreed() {
            self.send_until(bytes, deadline)
        } else {
            self.send_plainly(&alert.record(), deadline)
        }
    }

    /// Sends `bytes` as they are, to a peer that does not speak TLS.
    pub fn send_plainly(&self, bytes: &[u8], deadline: Instant) -> bool {
        send_until(&self.stream, bytes, &[], deadline)
    }

    /// Whether anything can be said: the handshake is over, if there is one.
    pub fn is_agreed(&self) -> bool {
        let records = self.records.as_ref();
        records.is_none_or(|records| !records.lock().is_handshaking())
    }

    /// Says, if it is sealed, that nothing more will come: what was sent so far is all, and nobody has cut it short.
    pub fn say_end(&self) {
        if let Some(records) = &self.records {
            let mut records = records.lock();
            if !records.is_handshaking() {
                records.end();
                // What does not go now would be read by nobody.
                let _ = records.flush(&self.stream);
            }
        }
    }

    /// Ends what is sent. `false`: the peer is gone.
    pub fn end_sending(&self) -> bool {
        self.say_end();
        self.stream.shutdown(Shutdown::Write).is_ok()
    }

    /// Ends what is received, sent or both, whatever is under way.
    pub fn shutdown(&self, how: Shutdown) {
        // Fails only if the peer has closed already.
        let _ = self.stream.shutdown(how);
    }

    /// Whether something has come that was not received yet.
    pub fn has_unread(&self) -> bool {
        ioctl_fionread(&self.stream).is_ok_and(|bytes| bytes > 0)
    }

    /// The socket, for what is received only to be thrown away.
    pub fn stream(&self) -> &TcpStream {
        &self.stream
    }
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.records {
            None => "Channel(plain)",
            Some(_) => "Channel(sealed)",
        })
    }
}

/// The receiving end of a channel, for the connection's own thread.
pub struct Reader<'a> {
    channel: &'a Transport,
    /// Received and not opened yet; without capacity if nothing is sealed.
    sealed: Vec<u8>,
    /// The socket's own receive timeout is set.
    times_out: bool,
    /// Why nothing can be received any more, for the log.
    pub error: Option<ReadError>,
}

/// Why there is no PROXY header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeaderError {
    /// The peer sent something else.
    Other,
    /// It sent nothing in time.
    Gone,
}

/// What a peer did instead of TLS.
#[derive(Clone, Debug, PartialEq)]
pub enum ReadError {
    /// It speaks HTTP in the clear.
    Clear,
    /// It broke TLS, or offers nothing that can be agreed on.
    Tls(rustls::Error, Option<Offer>),
}

impl<'a> Reader<'a> {
    /// Of `channel`.
    pub fn new(channel: &'a Transport) -> Self {
        let sealed = match channel.records {
            None => Vec::new(),
            Some(_) => Vec::with_capacity(IDLE_SEALED_BYTES),
        };
        Self {
            channel,
            sealed,
            times_out: false,
            error: None,
        }
    }

    /// Receives the header by which a proxy says for whom it comes; what follows it is left to be received, or in `buffer`.
    pub fn read_proxy_header(
        &mut self,
        buffer: &mut Vec<u8>,
        deadline: Instant,
    ) -> Result<Option<SocketAddr>, ProxyHeaderError> {
        // It stands before anything that is sealed. Both buffers have room for the longest.
        let buffer = match self.channel.records {
            None => buffer,
            Some(_) => &mut self.sealed,
        };
        loop {
            match proxy::read(buffer) {
                Err(NoHeader) => return Err(ProxyHeaderError::Other),
                Ok(Some(said)) => {
                    buffer.drain(..said.bytes);
                    return Ok(said.source);
                }
                Ok(None) => {}
            }
            match receive_until(&self.channel.stream, buffer, deadline) {
                Received::Bytes(_) => {}
                Received::End | Received::TimedOut | Received::Broken => {
                    return Err(ProxyHeaderError::Gone);
                }
            }
        }
    }

    /// Appends what is there to `buffer`, within its capacity; waits for it until `deadline`, and no longer.
    pub fn receive_until(&mut self, buffer: &mut Vec<u8>, deadline: Instant) -> Received {
        let Some(records) = &self.channel.records else {
            return receive_until(&self.channel.stream, buffer, deadline);
        };
        loop {
            // Asked first each time: a peer that always has one more byte must not outrun its deadline.
            if Instant::now() >= deadline {
                return Received::TimedOut;
            }
            if let Some(received) = self.open(records, buffer) {
                return received;
            }
            // Ours to send may be what the peer waits for: the rest of a handshake's flight.
            if !self.channel.flush_until(records, deadline) {
                return Received::TimedOut;
            }
            match receive_until(&self.channel.stream, &mut self.sealed, deadline) {
                Received::Bytes(_) => {}
                other => return other,
            }
        }
    }

    /// Appends to `buffer`, within its capacity; waits for `most`, which is the same each time. In the usual case that is one
    /// system call for the whole request. `None`: the system does not let us.
    pub fn receive_waiting(&mut self, buffer: &mut Vec<u8>, most: Duration) -> Option<Received> {
        if !self.times_out {
            self.times_out = self.channel.stream.set_read_timeout(Some(most)).is_ok();
            if !self.times_out {
                return None;
            }
        }
        let Some(records) = &self.channel.records else {
            return Some(receive_waiting(&self.channel.stream, buffer));
        };
        let deadline = Instant::now() + most;
        if let Some(received) = self.open(records, buffer) {
            return Some(received);
        }
        let received = receive_waiting(&self.channel.stream, &mut self.sealed);
        Some(match received {
            // It may be a part of a record only.
            Received::Bytes(_) => self.receive_until(buffer, deadline),
            other => other,
        })
    }

    /// Opens what was received; `None`: more is needed.
    fn open(&mut self, records: &Mutex<Records>, buffer: &mut Vec<u8>) -> Option<Received> {
        let mut records = records.lock();
        let full = self.sealed.len() == self.sealed.capacity();
        if records.is_handshaking() && self.sealed.first().is_some_and(u8::is_ascii_uppercase) {
            // A handshake begins with 22; this is the method of a request.
            self.error = Some(ReadError::Clear);
            return Some(Received::Broken);
        }
        let opened = records.open(&mut self.sealed, buffer);
        // At once, as far as it goes: the next flight of a handshake, or the alert.
        let _ = records.flush(&self.channel.stream);
        match opened {
            Ok(Opened::Bytes(bytes)) => Some(Received::Bytes(bytes)),
            Ok(Opened::End) => Some(Received::End),
            Ok(Opened::Hungry) => {
                if full && self.sealed.capacity() < SEALED_BYTES_MAX {
                    self.sealed.reserve_exact(SEALED_BYTES_MAX);
                }
                None
            }
            Err(error) => {
                let is_offer = matches!(error, rustls::Error::PeerIncompatible(_));
                let offer = is_offer.then(|| records.offer()).flatten();
                self.error = Some(ReadError::Tls(error, offer));
                Some(Received::Broken)
            }
        }
    }

    /// Whether nothing was received that has not been taken.
    pub fn is_empty(&self) -> bool {
        self.sealed.is_empty()
    }

    /// A request is over: gives back what only a large one needs.
    pub fn rest(&mut self) {
        if self.sealed.capacity() > IDLE_SEALED_BYTES {
            self.sealed.shrink_to(IDLE_SEALED_BYTES);
        }
    }
}
