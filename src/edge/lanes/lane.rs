//! One lane: a canonical request down, its whole answer up.
//!
//! What a peer may not say is left out here: hop-by-hop headers, framing, and everything in our own name.

use std::fmt;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use httparse::{EMPTY_HEADER, Header};

use super::PROBE_HEADER;
use crate::edge::framing::{HEADERS_MAX, list};
use crate::edge::socket::{Received, receive_until, receive_waiting, send_until};
use crate::edge::{Reply, Request};

/// A request that was longer in sending than this has used up a part of its deadline worth counting.
const AT_ONCE: Duration = Duration::from_millis(10);

/// The largest answer from the pool, head and body, in bytes. Routes' answers are at most 16 KiB.
pub const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// What a lane keeps for its next answer.
const IDLE_ANSWER_BYTES: usize = 1024;

/// What a lane keeps for its next request's head.
const IDLE_HEAD_BYTES: usize = 4 * 1024;

/// One kept connection.
pub struct Lane {
    stream: UnixStream,
    head: Vec<u8>,
    answer: Vec<u8>,
}

/// Why a lane is lost.
#[derive(Clone, Copy, Debug)]
pub enum Lost {
    /// The deadline passed.
    Silent,
    /// It was closed.
    Closed,
    /// What came is no answer we pass on.
    Garbled,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Silent => "no answer within its deadline",
            Self::Closed => "closed before the answer",
            Self::Garbled => "the answer is malformed or over 65536 bytes",
        })
    }
}

impl Lane {
    /// A lane on a connection whose receive timeout is set.
    pub fn new(stream: UnixStream) -> Self {
        Self {
            stream,
            head: Vec::with_capacity(IDLE_HEAD_BYTES),
            answer: Vec::with_capacity(IDLE_ANSWER_BYTES),
        }
    }

    /// Whether somebody at the other end answers.
    pub fn prove(&mut self, deadline: Instant) -> bool {
        let probe = format!(
            "GET / HTTP/1.1\r\nHost: lane\r\n{PROBE_HEADER}: probe\r\nContent-Length: 0\r\n\r\n"
        );
        if !send_until(&self.stream, probe.as_bytes(), &[], deadline) {
            return false;
        }
        self.answer.clear();
        matches!(self.receive_answer(deadline), Ok(reply) if reply.status == 204)
    }

    /// Sends the request down the lane and returns what comes back, within `most`.
    ///
    /// # Errors
    /// The lane must not be used again.
    pub fn exchange(&mut self, request: &Request<'_>, most: Duration) -> Result<Reply, Lost> {
        let start = Instant::now();
        let deadline = start + most;
        write_head(&mut self.head, request);
        if !send_until(&self.stream, &self.head, request.body, deadline) {
            return Err(if Instant::now() < deadline {
                Lost::Closed
            } else {
                Lost::Silent
            });
        }
        if self.head.capacity() > IDLE_HEAD_BYTES {
            self.head = Vec::with_capacity(IDLE_HEAD_BYTES);
        }
        self.answer.clear();
        if start.elapsed() < AT_ONCE {
            // One system call for the whole answer, under the socket's own timeout.
            took(receive_waiting(&self.stream, &mut self.answer))?;
        }
        let reply = self.receive_answer(deadline)?;
        if self.answer.capacity() > IDLE_ANSWER_BYTES {
            self.answer = Vec::with_capacity(IDLE_ANSWER_BYTES);
        }
        Ok(reply)
    }

    /// Receives until the answer is whole.
    fn receive_answer(&mut self, deadline: Instant) -> Result<Reply, Lost> {
        loop {
            if let Some(reply) = parse_answer(&self.answer)? {
                return Ok(reply);
            }
            if self.answer.len() >= ANSWER_BYTES_MAX {
                return Err(Lost::Garbled);
            }
            self.answer.reserve(IDLE_ANSWER_BYTES);
            took(receive_until(&self.stream, &mut self.answer, deadline))?;
        }
    }
}

fn took(received: Received) -> Result<(), Lost> {
    match received {
        Received::Bytes(_) => Ok(()),
        Received::TimedOut => Err(Lost::Silent),
        Received::End | Received::Broken => Err(Lost::Closed),
    }
}

/// Writes the canonical head of `request` into `out`, replacing what is there.
fn write_head(out: &mut Vec<u8>, request: &Request<'_>) {
    let dropped = dropped_by_connection(request.headers);
    out.clear();
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for Header { name, value } in request.headers {
        let is_named = || {
            dropped
                .iter()
                .any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
        };
        if is_ours(name) || is_named() {
            continue;
        }
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value);
        out.extend_from_slice(b"\r\n");
    }
    // Writing into a Vec cannot fail.
    let _ = write!(
        out,
        "x-payrelay-peer: {}\r\nContent-Length: {}\r\n\r\n",
        request.peer,
        request.body.len()
    );
}

/// The headers that Connection says are for this hop only.
fn dropped_by_connection<'a>(headers: &[Header<'a>]) -> Vec<&'a [u8]> {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("connection"))
        .flat_map(|header| list(header.value))
        .collect()
}

/// Whether a header ends at the gatehouse whoever sends it: about this hop, about framing, or in our own name.
fn is_ours(name: &str) -> bool {
    const NAMES: [&str; 9] = [
        "connection",
        "content-length",
        "expect",
        "keep-alive",
        "te",
        "trailer",
        "trailers",
        "transfer-encoding",
        "upgrade",
    ];
    NAMES.iter().any(|known| name.eq_ignore_ascii_case(known))
        || begins_with(name, "proxy-")
        || begins_with(name, "x-payrelay-")
}

fn begins_with(name: &str, prefix: &str) -> bool {
    name.as_bytes()
        .get(..prefix.len())
        .is_some_and(|start| start.eq_ignore_ascii_case(prefix.as_bytes()))
}

/// Reads an answer of the pool: exactly one, framed by its Content-Length. `None`: there is more to come.
fn parse_answer(bytes: &[u8]) -> Result<Option<Reply>, Lost> {
    if bytes.is_empty() {
        return Ok(None);
    }
    let mut slots = [EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut slots);
    let body = match response.parse(bytes) {
        Ok(httparse::Status::Complete(end)) => end,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(_) => return Err(Lost::Garbled),
    };
    let status = response.code.unwrap_or(0);
    let mut length = None;
    let mut head = Vec::with_capacity(body);
    for header in response.headers.iter() {
        let name = header.name;
        if name.eq_ignore_ascii_case("content-length") {
            let digits = std::str::from_utf8(header.value).unwrap_or_default();
            let value: usize = digits.parse().map_err(|_| Lost::Garbled)?;
            if length.replace(value).is_some() {
                return Err(Lost::Garbled);
            }
        } else if name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(Lost::Garbled);
        } else if !["connection", "date", "keep-alive", "server"]
            .iter()
            .any(|known| name.eq_ignore_ascii_case(known))
        {
            head.extend_from_slice(name.as_bytes());
            head.extend_from_slice(b": ");
            head.extend_from_slice(header.value);
            head.extend_from_slice(b"\r\n");
        }
    }
    // A 204 has no body, and need not say so.
    let length = length
        .or((status == 204).then_some(0))
        .ok_or(Lost::Garbled)?;
    if length > ANSWER_BYTES_MAX - body.min(ANSWER_BYTES_MAX) || bytes.len() - body > length {
        return Err(Lost::Garbled);
    }
    if bytes.len() - body < length {
        return Ok(None);
    }
    Ok(Some(Reply {
        status,
        head,
        body: bytes[body..].to_vec(),
    }))
}
