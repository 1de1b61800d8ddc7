//! One HTTP/1.1 request over a connection of its own, and its answer. Nothing else a client could do.

use std::fmt;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

use crate::cli::tls::{Trust, Wire};

/// The largest answer taken, head and body, in bytes: a stored body of 64 MiB in base 64, what 100,000 backends are in JSON,
/// and more.
const ANSWER_BYTES_MAX: usize = 128 << 20;

/// Header lines an answer may have.
const HEADERS_MAX: usize = 64;

/// Where to, and what.
#[derive(Debug)]
pub struct Post<'a> {
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
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// The words after it.
    pub reason: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, out of its chunks if it came in such.
    pub body: Vec<u8>,
}

impl Answer {
    /// The first header called `name`, in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(have, _)| have == name)
            .map(|(_, value)| value.as_str())
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum PostError {
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

impl fmt::Display for PostError {
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

impl std::error::Error for PostError {}

/// Sends it, and waits for the answer.
///
/// # Errors
/// There is no whole answer; see [`PostError`].
pub fn post(post: &Post<'_>) -> Result<Answer, PostError> {
    let until = Instant::now() + post.deadline;
    let timed_out = || PostError::TimedOut(post.deadline);
    let left = || {
        until
            .checked_duration_since(Instant::now())
            .filter(|left| !left.is_zero())
            .ok_or_else(timed_out)
    };
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => timed_out(),
        _ => PostError::Broken(error),
    };
    let socket = connect(post.place, left()?)?;
    let mut wire = Wire::over(socket, post.trust, left()?).map_err(broken)?;
    let timeout = Some(left()?);
    wire.socket().set_write_timeout(timeout).map_err(broken)?;
    let mut request = head(post);
    request.extend_from_slice(post.body);
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
        if let Some(answer) = parse(&came, count == 0)? {
            return Ok(answer);
        }
        if count == 0 {
            return Err(PostError::CutShort);
        }
        if came.len() > ANSWER_BYTES_MAX {
            return Err(PostError::TooBig);
        }
    }
}

fn connect(place: &str, within: Duration) -> Result<TcpStream, PostError> {
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in place.to_socket_addrs().map_err(PostError::Connect)? {
        match TcpStream::connect_timeout(&address, within) {
            Ok(socket) => return Ok(socket),
            Err(error) => last = error,
        }
    }
    Err(PostError::Connect(last))
}

fn head(post: &Post<'_>) -> Vec<u8> {
    let mut head = format!(
        "{} {} HTTP/1.1\r\nHost: {}\r\nContent-Length: {}\r\nConnection: close\r\n",
        post.method,
        post.target,
        post.place,
        post.body.len()
    );
    for (name, value) in post.headers {
        head.push_str(name);
        head.push_str(": ");
        head.push_str(value);
        head.push_str("\r\n");
    }
    head.push_str("\r\n");
    head.into_bytes()
}

/// The answer in `came`, if it is whole; `ended`: nothing more will come.
fn parse(came: &[u8], ended: bool) -> Result<Option<Answer>, PostError> {
    let mut rest = came;
    loop {
        let mut slots = [httparse::EMPTY_HEADER; HEADERS_MAX];
        let mut response = httparse::Response::new(&mut slots);
        let head_bytes = match response.parse(rest) {
            Ok(httparse::Status::Complete(bytes)) => bytes,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(PostError::NotHttp),
        };
        let status = response.code.unwrap_or_default();
        rest = &rest[head_bytes..];
        if (100..200).contains(&status) {
            continue; // an interim answer; the real one follows
        }
        let headers: Vec<(String, String)> = response
            .headers
            .iter()
            .map(|header| {
                (
                    header.name.to_ascii_lowercase(),
                    String::from_utf8_lossy(header.value).into_owned(),
                )
            })
            .collect();
        let mut answer = Answer {
            status,
            reason: response.reason.unwrap_or_default().to_owned(),
            headers,
            body: Vec::new(),
        };
        return Ok(body(&answer, rest, ended)?.map(|body| {
            answer.body = body;
            answer
        }));
    }
}

/// The whole body of `answer`, whose head `rest` follows.
fn body(answer: &Answer, rest: &[u8], ended: bool) -> Result<Option<Vec<u8>>, PostError> {
    let chunked = answer
        .header("transfer-encoding")
        .is_some_and(|coding| coding.eq_ignore_ascii_case("chunked"));
    if chunked {
        return unchunk(rest);
    }
    if matches!(answer.status, 204 | 304) {
        return Ok(Some(Vec::new()));
    }
    match answer.header("content-length") {
        Some(length) => {
            let length: usize = length.trim().parse().map_err(|_| PostError::NotHttp)?;
            Ok(rest.get(..length).map(<[u8]>::to_vec))
        }
        None => Ok(ended.then(|| rest.to_vec())),
    }
}

/// The bytes of all chunks, once the last is there.
fn unchunk(mut rest: &[u8]) -> Result<Option<Vec<u8>>, PostError> {
    let mut body = Vec::new();
    loop {
        let (at, size) = match httparse::parse_chunk_size(rest) {
            Ok(httparse::Status::Complete(found)) => found,
            Ok(httparse::Status::Partial) => return Ok(None),
            Err(_) => return Err(PostError::NotHttp),
        };
        if size == 0 {
            return Ok(Some(body)); // trailers say nothing this client wants
        }
        let size = usize::try_from(size)
            .ok()
            .filter(|&size| size <= ANSWER_BYTES_MAX)
            .ok_or(PostError::TooBig)?;
        let Some(chunk) = rest.get(at..at + size) else {
            return Ok(None);
        };
        body.extend_from_slice(chunk);
        match rest.get(at + size..at + size + 2) {
            Some(b"\r\n") => rest = &rest[at + size + 2..],
            Some(_) => return Err(PostError::NotHttp),
            None => return Ok(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whatever part of it has come, an answer is either not there yet or the same.
    fn whole(bytes: &[u8]) -> Answer {
        for cut in 0..bytes.len() {
            assert!(
                matches!(parse(&bytes[..cut], false), Ok(None)),
                "cut at {cut}"
            );
        }
        parse(bytes, false).expect("HTTP").expect("whole")
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
        assert!(matches!(parse(bytes, false), Ok(None)));
        let answer = parse(bytes, true).expect("HTTP").expect("whole");
        assert_eq!(answer.body, b"abc");
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert!(matches!(
            parse(b"ERR code=bad-frame fatal=1\n", false),
            Err(PostError::NotHttp)
        ));
        assert!(matches!(
            parse(b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", false),
            Err(PostError::NotHttp)
        ));
    }

    #[test]
    fn a_request_has_its_length_and_closes() {
        let post = Post {
            method: "POST",
            place: "127.0.0.1:8080",
            trust: None,
            target: "/notify/a?x=1",
            headers: &[("Content-Type".into(), "text/plain".into())],
            body: b"hello",
            deadline: Duration::from_secs(1),
        };
        assert_eq!(
            String::from_utf8_lossy(&head(&post)),
            "POST /notify/a?x=1 HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nContent-Length: 5\r\n\
             Connection: close\r\nContent-Type: text/plain\r\n\r\n"
        );
    }
}
