//! One HTTP/1.1 request over a connection of its own, and its answer. Nothing else a client could do.

use std::fmt;
use std::io::{self, Read, Write};
use std::time::{Duration, Instant};

use super::connect;
use super::tls::{Trust, Wire};

/// The largest answer taken, head and body, in bytes: a stored body of 64 MiB in base 64, what 100,000 backends are in JSON,
/// and more.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Header lines an answer may have.
const HEADERS_MAX: usize = 64;

/// Headers that belong to one connection, in lower case: each request has its own.
pub const OWN_HEADERS: [&str; 4] = ["host", "content-length", "connection", "transfer-encoding"];

/// A request.
#[derive(Debug)]
pub struct ClientRequest<'a> {
    /// `POST`, or `GET`.
    pub method: &'a str,
    /// `host:port` to connect to, and the `Host`.
    pub place: &'a str,
    /// Whom to believe there; `None`: no TLS.
    pub trust: Option<&'a Trust>,
    /// Path and query.
    pub target: &'a str,
    /// Header lines beyond Host, Content-Length and Connection.
    pub headers: &'a [(String, String)],
    /// The body.
    pub body: &'a [u8],
    /// From connecting to the answer's last byte.
    pub deadline: Duration,
}

/// What came back.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientResponse {
    /// The status code.
    pub status: u16,
    /// The words after it.
    pub reason: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, out of its chunks if it came in such.
    pub body: Vec<u8>,
}

/// Why there is no answer.
#[derive(Debug)]
pub enum HttpError {
    /// There is no connection.
    Connect(io::Error),
    /// The connection broke, or nothing came in time.
    Broken(io::Error),
    /// The deadline passed.
    TimedOut(Duration),
    /// The connection was closed before the answer was whole.
    CutShort,
    /// What came is no HTTP/1 answer.
    NotHttp,
    /// More than this client takes.
    TooBig,
}

impl fmt::Display for HttpError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Connect(error) => write!(f, "cannot connect: {error}"),
            Self::Broken(error) => write!(f, "the connection broke: {error}"),
            Self::TimedOut(after) => write!(f, "no answer within {} s", after.as_secs()),
            Self::CutShort => f.write_str("the connection was closed before the answer was whole"),
            Self::NotHttp => f.write_str("what answers there does not speak HTTP/1.1"),
            Self::TooBig => write!(f, "the answer is larger than {ANSWER_BYTES_MAX} bytes"),
        }
    }
}

impl std::error::Error for HttpError {}

impl ClientRequest<'_> {
    /// Sends it, and waits for the answer.
    ///
    /// # Errors
    /// There is no whole answer; see [`HttpError`].
    pub fn send(&self) -> Result<ClientResponse, HttpError> {
        let until = Instant::now() + self.deadline;
        let timed_out = || HttpError::TimedOut(self.deadline);
        let left = || {
            until
                .checked_duration_since(Instant::now())
                .filter(|left| !left.is_zero())
                .ok_or_else(timed_out)
        };
        let broken = |error: io::Error| match error.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => timed_out(),
            _ => HttpError::Broken(error),
        };
        let socket = connect(self.place, left()?).map_err(HttpError::Connect)?;
        let mut wire = Wire::over(socket, self.trust, left()?).map_err(broken)?;
        let timeout = Some(left()?);
        wire.socket().set_write_timeout(timeout).map_err(broken)?;
        let mut request = self.head();
        request.extend_from_slice(self.body);
        // Not an error yet: the relay may have answered before it had read all, as with 413.
        let written = wire.write_all(&request);
        let mut came = Vec::new();
        let mut piece = [0; 16 * 1024];
        loop {
            let timeout = Some(left()?);
            wire.socket().set_read_timeout(timeout).map_err(broken)?;
            let count = match wire.read(&mut piece) {
                Ok(count) => count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(broken(written.err().unwrap_or(error))),
            };
            came.extend_from_slice(&piece[..count]);
            if let Some(answer) = ClientResponse::find(&came, count == 0)? {
                return Ok(answer);
            }
            if count == 0 {
                return Err(HttpError::CutShort);
            }
            if came.len() > ANSWER_BYTES_MAX {
                return Err(HttpError::TooBig);
            }
        }
    }

    fn head(&self) -> Vec<u8> {
        let mut head = format!(
            "{} {} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n",
            self.method,
            self.target,
            self.place,
            self.body.len()
        );
        for (name, value) in self.headers {
            head.push_str(name);
            head.push_str(": ");
            head.push_str(value);
            head.push_str("\r\n");
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}

/// The head of an answer.
#[derive(Debug)]
pub struct ResponseHead<'a> {
    /// The status code.
    pub status: u16,
    /// The words after it.
    pub reason: &'a str,
    /// How long it is itself.
    pub bytes: usize,
    /// The connection ends with this answer.
    pub closes: bool,
    headers: Vec<httparse::Header<'a>>,
}

impl<'a> ResponseHead<'a> {
    /// The head at the beginning of `came`; `None`: it has not come whole yet.
    ///
    /// # Errors
    /// It is none.
    pub fn find(came: &'a [u8]) -> Result<Option<Self>, HttpError> {
        let mut headers = vec![httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut headers);
        let bytes = match response.parse(came) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(HttpError::NotHttp),
        };
        let (status, reason) = (response.code.unwrap_or(0), response.reason.unwrap_or(""));
        let (old, count) = (response.version != Some(1), response.headers.len());
        headers.truncate(count);
        let mut head = Self {
            status,
            reason,
            bytes,
            closes: old,
            headers,
        };
        head.closes |= head.is("connection", "close");
        Ok(Some(head))
    }

    /// The first header called `name`, if it is text.
    pub fn header(&self, name: &str) -> Option<&'a str> {
        let found = self
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        std::str::from_utf8(found?.value).ok()
    }

    /// How long the body is, by `Content-Length`; 0 where there can be none.
    ///
    /// # Errors
    /// The header is no number.
    pub fn length(&self) -> Result<Option<usize>, HttpError> {
        if matches!(self.status, 204 | 304) {
            return Ok(Some(0));
        }
        let length = self
            .header("content-length")
            .map(|text| text.trim().parse());
        length.transpose().map_err(|_| HttpError::NotHttp)
    }

    fn is(&self, name: &str, value: &str) -> bool {
        self.header(name)
            .is_some_and(|have| have.eq_ignore_ascii_case(value))
    }
}

impl ClientResponse {
    /// The first header called `name`, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value.as_str())
    }

    /// The answer in `came`, if it is whole; `ended`: nothing more will come.
    fn find(came: &[u8], ended: bool) -> Result<Option<Self>, HttpError> {
        let Some(head) = ResponseHead::find(came)? else {
            return Ok(None);
        };
        let rest = &came[head.bytes..];
        if (100..200).contains(&head.status) {
            return Self::find(rest, ended); // an interim answer; the real one follows
        }
        let body = match head.is("transfer-encoding", "chunked") {
            true => unchunk(rest)?,
            false => match head.length()? {
                Some(length) => rest.get(..length).map(<[u8]>::to_vec),
                None => ended.then(|| rest.to_vec()),
            },
        };
        let owned = |header: &httparse::Header<'_>| {
            let value = String::from_utf8_lossy(header.value).into_owned();
            (header.name.to_ascii_lowercase(), value)
        };
        Ok(body.map(|body| Self {
            status: head.status,
            reason: head.reason.to_owned(),
            headers: head.headers.iter().map(owned).collect(),
            body,
        }))
    }
}

/// The bytes of all chunks, once the last is there.
fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, HttpError> {
    let mut body = Vec::new();
    loop {
        let (at, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(HttpError::NotHttp),
        };
        if size == 0 {
            return Ok(Some(body)); // trailers say nothing this client wants
        }
        let size = usize::try_from(size)
            .ok()
            .filter(|&size| size <= ANSWER_BYTES_MAX)
            .ok_or(HttpError::TooBig)?;
        let Some(chunk) = rest.get(at..at + size) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        match rest.get(at + size..at + size + 2) {
            Some(b"\r\n") => rest = &rest[at + size + 2..],
            Some(_) => return Err(HttpError::NotHttp),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever part of it has come, an answer is either not there yet or the same.
    fn whole(bytes: &[u8]) -> ClientResponse {
        for cut in 0..bytes.len() {
            assert!(
                matches!(ClientResponse::find(&bytes[..cut], false), Ok(None)),
                "cut at {cut}"
            );
        }
        ClientResponse::find(bytes, false)
            .expect("HTTP")
            .expect("whole")
    }

    #[test]
    fn a_length_ends_the_body() {
        let answer = whole(
            b"HTTP/1.1 200 OK\r\nX-Payrelay-Outcome: delivered\r\nContent-Length: 7\r\n\r\nsuccess",
        );
        assert_eq!((answer.status, answer.reason.as_str()), (200, "OK"));
        assert_eq!(answer.header("x-payrelay-outcome"), Some("delivered"));
        assert_eq!(answer.body, b"success");
    }

    #[test]
    fn chunks_are_put_together_and_interim_answers_skipped() {
        let answer = whole(
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 503 Busy\r\nTransfer-Encoding: chunked\r\n\r\n\
              3\r\nfai\r\n1;x=y\r\nl\r\n0\r\n",
        );
        assert_eq!((answer.status, &answer.body[..]), (503, &b"fail"[..]));
    }

    #[test]
    fn without_a_length_the_end_of_the_connection_ends_the_body() {
        let bytes = b"HTTP/1.0 200 OK\r\n\r\nabc";
        assert!(matches!(ClientResponse::find(bytes, false), Ok(None)));
        let answer = ClientResponse::find(bytes, true)
            .expect("HTTP")
            .expect("whole");
        assert_eq!(answer.body, b"abc");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert!(matches!(
            ClientResponse::find(b"ERR code=bad-frame fatal=1\n", false),
            Err(HttpError::NotHttp)
        ));
        assert!(matches!(
            ClientResponse::find(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", false),
            Err(HttpError::NotHttp)
        ));
    }

    #[test]
    fn a_request_has_its_length_and_closes() {
        let request = ClientRequest {
            method: "POST",
            place: "127.0.0.1:8080",
            trust: None,
            target: "/notify/a?x=1",
            headers: &[("Content-Type".into(), "text/plain".into())],
            body: b"hello",
            deadline: Duration::from_secs(1),
        };
        assert_eq!(
            String::from_utf8_lossy(&request.head()),
            "POST /notify/a?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 5\r\n\
             Connection: close\r\nContent-Type: text/plain\r\n\r\n"
        );
    }
}
