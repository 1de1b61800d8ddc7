//! What a benchmark's bodies say about themselves: which run, which notification, since when. Fixed places, so that a
//! reader needs neither a JSON parser nor the whole body.
//!
//! ```text
//! {"run":"0123456789abcdef","n":"0000000012","at":"00000000000012345678","pad":"xxxx…"}
//! ```

use std::io::Write;

/// The bytes before the filling.
pub const STAMP_BYTES: usize = 78;

/// The bytes after the filling.
pub const END: &[u8] = b"\"}";

/// The shortest body: a stamp, no filling, the end.
pub const BODY_BYTES_MIN: usize = STAMP_BYTES + END.len();

/// The most notifications of one run: what ten digits can number, and far below.
pub const NOTIFICATIONS_MAX: u64 = 100_000_000;

/// The number of a notification that only asks whether the way is open. It is acknowledged, and not counted.
pub const PROBE: u64 = NOTIFICATIONS_MAX;

/// What a body is filled with, a piece of it.
pub static FILLING: [u8; 64 * 1024] = [b'x'; 64 * 1024];

/// Which notification a body belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BodyStamp {
    /// The run, so that one does not count what another left behind.
    pub run: u64,
    /// The notification's number, from 0.
    pub n: u64,
    /// When it was due, in nanoseconds since the run began.
    pub at_ns: u64,
}

impl BodyStamp {
    /// Appends the stamp: [`STAMP_BYTES`].
    pub fn write(self, out: &mut Vec<u8>) {
        let Self { run, n, at_ns } = self;
        // A Vec takes everything.
        let _ = write!(
            out,
            "{{\"run\":\"{run:016x}\",\"n\":\"{n:010}\",\"at\":\"{at_ns:020}\",\"pad\":\""
        );
    }

    /// Reads a stamp back; `None` if it is not one, to the last byte.
    pub fn read(bytes: &[u8; STAMP_BYTES]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?;
        let rest = text.strip_prefix("{\"run\":\"")?;
        let (run, rest) = rest.split_at_checked(16)?;
        let (n, rest) = rest.strip_prefix("\",\"n\":\"")?.split_at_checked(10)?;
        let (at, rest) = rest.strip_prefix("\",\"at\":\"")?.split_at_checked(20)?;
        if rest != "\",\"pad\":\"" {
            return None;
        }
        Some(Self {
            run: u64::from_str_radix(run, 16).ok()?,
            n: n.parse().ok()?,
            at_ns: at.parse().ok()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_as_it_was_written_and_nothing_else_is_one() {
        for (run, n, at_ns) in [(0, 0, 0), (u64::MAX, PROBE, u64::MAX), (7, 12, 345)] {
            let stamp = BodyStamp { run, n, at_ns };
            let mut bytes = Vec::new();
            stamp.write(&mut bytes);
            let bytes: [u8; STAMP_BYTES] = bytes.try_into().expect("its length is fixed");
            assert_eq!(BodyStamp::read(&bytes), Some(stamp));
            let json = [&bytes[..], b"xx", END].concat();
            assert!(serde_json::from_slice::<serde_json::Value>(&json).is_ok());
            for at in 0..STAMP_BYTES {
                let mut wrong = bytes;
                wrong[at] = b'!';
                assert_eq!(BodyStamp::read(&wrong), None, "byte {at}");
            }
        }
    }
}
