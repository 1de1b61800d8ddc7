//! What a backend is to be sent next, read from the disk; what waits behind that is read ahead by its number only.

use rusqlite::Connection;

use super::queues::BackendQueue;
use crate::notification::BackendId;
use crate::outbox::store::row::{Payload, Row, State};
use crate::outbox::store::rows;

/// How many numbers of rows are read ahead for one backend: what is under way to it is passed over once for so many.
const AHEAD: usize = 256;

/// What a backend is to be sent now, as it is on disk.
pub struct Batch {
    /// To be sent now; without a payload: damaged.
    pub rows: Vec<(Row, Option<Payload>)>,
    pub then: Next,
}

/// What there is beyond that.
pub enum Next {
    /// There may be more that can be sent now.
    More,
    /// The next one is due then, in the outbox's time.
    At(i64),
    /// Nothing.
    Never,
}

impl Batch {
    /// Reads what `backend` is to be sent next: `most` at most, and no more than `bytes` of them and one.
    pub fn read(
        reading: &Connection,
        queue: &mut BackendQueue,
        backend: &BackendId,
        now_ms: i64,
        most: usize,
        bytes: usize,
    ) -> rusqlite::Result<Self> {
        let mut is_all = false;
        if queue.ahead.is_empty() {
            let in_flight_rows = &queue.in_flight_rows;
            let is_in = |seq| !in_flight_rows.contains(&seq);
            queue.ahead = rows::due(reading, backend.as_str(), now_ms, AHEAD, is_in)?;
            is_all = queue.ahead.len() < AHEAD;
        }
        let (mut found, mut size) = (Vec::new(), 0);
        while found.len() < most && size < bytes {
            let Some(seq) = queue.ahead.pop_front() else {
                break;
            };
            // A late receipt came after it was looked for: its next state is on its way to the disk, and says when it is due.
            if queue.in_flight_rows.contains(&seq) {
                continue;
            }
            // Meanwhile it may have been dropped, or may have expired.
            let Some(row) = rows::row(reading, seq)? else {
                continue;
            };
            if row.state == State::Pending && row.due <= now_ms {
                size += row.bytes as usize;
                let payload = rows::payload(reading, &row)?;
                found.push((row, payload));
            }
        }
        let then = match is_all && queue.ahead.is_empty() {
            false => Next::More,
            true => {
                rows::next_due(reading, backend.as_str(), now_ms)?.map_or(Next::Never, Next::At)
            }
        };
        Ok(Self { rows: found, then })
    }
}
