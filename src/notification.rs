//! What all modules speak of: ids, the notification itself, and what can become of it.
//!
//! Nothing here does I/O or knows another module. Every other file speaks in these words.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use aws_lc_rs::digest;

/// The longest backend id, in bytes: it stands in paths, log lines and frames.
pub const BACKEND_ID_BYTES_MAX: usize = 64;

/// The name a Lua backend is known by: 1 to 64 of `A-Z a-z 0-9 . _ -`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(Arc<str>);

/// Why a text is no backend id.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BadBackendId {
    /// There is nothing in it.
    Empty,
    /// It is longer than [`BACKEND_ID_BYTES_MAX`]; the number is its length.
    TooLong(usize),
    /// It has a byte outside `A-Z a-z 0-9 . _ -`; the number is that byte's place, from 0.
    BadByte(usize),
}

impl fmt::Display for BadBackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => write!(f, "a backend id cannot be empty"),
            Self::TooLong(bytes) => {
                write!(
                    f,
                    "a backend id has at most {BACKEND_ID_BYTES_MAX} bytes, this one {bytes}"
                )
            }
            Self::BadByte(at) => write!(
                f,
                "a backend id is made of A-Z a-z 0-9 . _ - only; byte {} is something else",
                at + 1
            ),
        }
    }
}

impl std::error::Error for BadBackendId {}

impl BackendId {
    /// Takes `text` as a backend id, or says what is wrong with it.
    pub fn parse(text: &str) -> Result<Self, BadBackendId> {
        let allowed = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if text.is_empty() {
            return Err(BadBackendId::Empty);
        }
        if text.len() > BACKEND_ID_BYTES_MAX {
            return Err(BadBackendId::TooLong(text.len()));
        }
        match text.bytes().position(|b| !allowed(b)) {
            Some(at) => Err(BadBackendId::BadByte(at)),
            None => Ok(Self(text.into())),
        }
    }

    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Crockford's base 32: no I, L, O, U, so an id read over the telephone survives.
const BASE32: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";

/// The length of a notification id as text.
const ID_CHARS: usize = 26;

/// A notification's id: 26 characters that sort by time.
///
/// 48 bits of Unix milliseconds, 40 bits drawn once per process, 40 bits of a counter. It stays the same on every
/// redelivery, so a backend can de-duplicate on it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NotificationId(u128);

impl NotificationId {
    /// Reads the 26 characters back; `None` for anything else. Case does not matter.
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() != ID_CHARS {
            return None;
        }
        let mut bits: u128 = 0;
        for (at, byte) in text.bytes().enumerate() {
            let upper = byte.to_ascii_uppercase();
            let digit = BASE32.iter().position(|&c| c == upper)? as u128;
            // 26 × 5 = 130 bits: the first character may only be 0 to 7.
            if at == 0 && digit > 7 {
                return None;
            }
            bits = (bits << 5) | digit;
        }
        Some(Self(bits))
    }

    /// The id as 16 bytes that sort as its text does.
    pub fn to_bytes(self) -> [u8; 16] {
        self.0.to_be_bytes()
    }

    /// The id that [`NotificationId::to_bytes`] made these bytes of.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(bytes))
    }
}

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut text = [0u8; ID_CHARS];
        for (at, slot) in text.iter_mut().rev().enumerate() {
            *slot = BASE32[(self.0 >> (5 * at)) as usize & 31];
        }
        f.write_str(std::str::from_utf8(&text).unwrap_or_default())
    }
}

impl fmt::Debug for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Makes notification ids; one per process.
#[derive(Debug)]
pub struct IdMint {
    process: u64,
    next: AtomicU64,
}

impl IdMint {
    /// A mint whose ids differ from every other process's, given `random` bits of this process's own.
    pub fn new(random: u64) -> Self {
        Self {
            process: random & 0xFF_FFFF_FFFF,
            next: AtomicU64::new(0),
        }
    }

    /// A new id for a notification taken at `at_unix_ms`.
    pub fn mint(&self, at_unix_ms: u64) -> NotificationId {
        let count = self.next.fetch_add(1, Ordering::Relaxed) & 0xFF_FFFF_FFFF;
        let time = u128::from(at_unix_ms & 0xFFFF_FFFF_FFFF);
        NotificationId((time << 80) | (u128::from(self.process) << 40) | u128::from(count))
    }
}

/// By what a provider's retry is known, as 16 bytes of a SHA-256.
///
/// It is made of route, backend and event key: two merchants' orders with the same number, posted to the same route, are two
/// payments. Where nobody has checked that the provider sent it, head and body are part of it too: else anybody could
/// post rubbish under the number of an order, and the payment for it would be taken for a retry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EventKey([u8; 16]);

impl EventKey {
    /// The key of `notification`, if it has an event.
    pub fn of(notification: &Notification) -> Option<Self> {
        let event = notification.event.as_deref()?;
        let parts: [&[u8]; 5] = [
            notification.route.as_bytes(),
            notification.backend.as_str().as_bytes(),
            event.as_bytes(),
            &notification.head,
            &notification.body,
        ];
        // Whoever has one genuine callback, or needs none, must not keep a payment out by guessing its number.
        let known_by = match notification.event_proven {
            true => &parts[..3],
            false => &parts[..],
        };
        Some(Self(digest_of(known_by)))
    }

    /// The key's bytes.
    pub fn bytes(&self) -> &[u8; 16] {
        &self.0
    }

    /// The key that had these bytes.
    pub fn from_bytes(bytes: [u8; 16]) -> Self {
        Self(bytes)
    }
}

/// 16 bytes of the SHA-256 of `parts`, each with its length, so that no two sets of parts run together to the same bytes.
pub fn digest_of(parts: &[&[u8]]) -> [u8; 16] {
    let mut hash = digest::Context::new(&digest::SHA256);
    for part in parts {
        hash.update(&(part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let mut sum = [0; 16];
    sum.copy_from_slice(&hash.finish().as_ref()[..16]);
    sum
}

/// Milliseconds since 1970-01-01 UTC by the system's clock; 0 if it stands before that.
pub fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}

/// Microseconds since 1970-01-01 UTC by the system's clock; 0 if it stands before that.
pub fn unix_us() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_micros() as u64)
}

/// One callback taken from a provider, on its way to one backend.
pub struct Notification {
    /// The same on every delivery.
    pub id: NotificationId,
    /// Whom it is for.
    pub backend: BackendId,
    /// The name of the route it came in by.
    pub route: Arc<str>,
    /// Which preset verified its signature; `none` if nothing did.
    pub verified: Cow<'static, str>,
    /// What makes a provider's retry the same event, if the route says how to find it.
    pub event: Option<Box<str>>,
    /// Whether the checked signature covers the event key. Known to the node that took it only, which alone asks.
    pub event_proven: bool,
    /// When it was taken, in Unix milliseconds.
    pub at_unix_ms: u64,
    /// Which delivery this is, from 1.
    pub tries: u32,
    /// The request line and the forwarded headers, CRLF after each; empty if the route forwards none.
    pub head: Vec<u8>,
    /// The request's body, byte for byte.
    pub body: Vec<u8>,
}

/// Shows neither head nor body: they are the provider's secrets.
impl fmt::Debug for Notification {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Notification({} for {} by {}, {} bytes)",
            self.id,
            self.backend,
            self.route,
            self.body.len()
        )
    }
}

/// What came of handing a notification to a backend, told to whoever handed it over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Receipt {
    /// The backend took it.
    Ack,
    /// The backend refused it: redeliver after the delay (`None`: as the relay sees fit), or never.
    Nack(Nack),
    /// The session ended, or was never there, before an answer came.
    Gone,
    /// The session's queue is full.
    Busy,
    /// The session had it for `tcp.ack_timeout` and said nothing.
    Expired,
    /// It did not get to the other nodes: the bus is down.
    Unreachable,
}

/// A backend's refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nack {
    /// When to try again.
    pub again: Again,
    /// The backend's own words, for the operator.
    pub reason: Option<Box<str>>,
}

/// When a refused notification may be tried again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Again {
    /// As the relay sees fit.
    #[default]
    Whenever,
    /// Not before this has passed.
    After(Duration),
    /// Never: to the dead letters.
    Never,
}

/// What the origin concluded; it decides the provider's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The backend acknowledged it.
    Delivered,
    /// It lies in the outbox, on disk, and will be delivered.
    Stored,
    /// The event was delivered or stored already, by an earlier request.
    Duplicate,
    /// The backend refused it (NACK).
    Refused,
    /// The backend has no session, or lost it before it acknowledged.
    Offline,
    /// No ACK within `delivery.ack_deadline`.
    TimedOut,
    /// A queue on the way is full.
    Busy,
    /// This node is stopping.
    Draining,
    /// No session here, and the bus to the other nodes is down.
    Unreachable,
}

impl Outcome {
    /// Every outcome, for tables and metrics.
    pub const ALL: [Self; 9] = [
        Self::Delivered,
        Self::Stored,
        Self::Duplicate,
        Self::Refused,
        Self::Offline,
        Self::TimedOut,
        Self::Busy,
        Self::Draining,
        Self::Unreachable,
    ];

    /// Whether the provider may be told ok. No `_` arm: a new outcome must be judged here.
    pub fn is_ok(self) -> bool {
        match self {
            // Acknowledged, or fsynced, now or when the same event came before.
            Self::Delivered | Self::Stored | Self::Duplicate => true,
            // Not safe with anyone: the provider must keep it and try again.
            Self::Refused
            | Self::Offline
            | Self::TimedOut
            | Self::Busy
            | Self::Draining
            | Self::Unreachable => false,
        }
    }

    /// The word in `X-Payrelay-Outcome` and in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Stored => "stored",
            Self::Duplicate => "duplicate",
            Self::Refused => "refused",
            Self::Offline => "offline",
            Self::TimedOut => "timeout",
            Self::Busy => "busy",
            Self::Draining => "draining",
            Self::Unreachable => "unreachable",
        }
    }
}

#[cfg(test)]
mod tests;
