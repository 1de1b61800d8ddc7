//! HTTP/1 framing, strictly: bytes in, a head or a refusal out, and the decoder of chunked bodies.
//!
//! Pure: no I/O, no clock. What two parsers could read in two ways is refused here, because that is how requests are
//! smuggled past an HTTP front end.

mod chunks;
#[cfg(test)]
mod tests;

use std::borrow::Cow;

use httparse::Header;

pub use super::limits::{HEAD_BYTES_MAX, HEADERS_MAX};
use super::refusal::{Malformed, Refusal};
pub use chunks::{Chunks, Decoded};

/// The most digits of a Content-Length: as many as always fit 64 bits.
const LENGTH_DIGITS_MAX: usize = 19;

/// Looks for the end of a head while it trickles in, judging every byte once.
#[derive(Debug, Default)]
pub struct HeadScan {
    /// How far it has looked.
    at: usize,
    /// Where the current line began.
    line: usize,
    /// Where the request line began: 0, or 2 after one stray empty line.
    start: usize,
    after_cr: bool,
}

/// Where a head lies in the bytes that were scanned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HeadSpan {
    /// Its first byte.
    pub start: usize,
    /// The first byte after its empty line.
    pub end: usize,
}

impl HeadScan {
    /// Goes on where it left off in `bytes`, which may have grown at their end since; `None`: the head is not whole yet.
    ///
    /// # Errors
    /// A byte that no head may have, a line that does not end in CRLF, more than [`HEAD_BYTES_MAX`], or a first line that
    /// asks for another version than 1.0 and 1.1. The scan is useless after that.
    pub fn go_on(&mut self, bytes: &[u8]) -> Result<Option<HeadSpan>, Refusal> {
        while let Some(&byte) = bytes.get(self.at) {
            if self.at - self.start >= HEAD_BYTES_MAX {
                return Err(Refusal::HeadTooLong);
            }
            match byte {
                b'\n' if self.after_cr => {
                    self.after_cr = false;
                    self.at += 1;
                    if let Some(span) = self.line_ended(bytes)? {
                        return Ok(Some(span));
                    }
                    continue;
                }
                _ if self.after_cr => return Err(Malformed::BareCr.into()),
                b'\n' => return Err(Malformed::BareLf.into()),
                b'\r' => self.after_cr = true,
                b'\t' | b' '..=b'~' => {}
                // RFC 9110 section 5.5: opaque in values. A name with it is refused when the head is parsed.
                0x80.. if self.line > self.start => {}
                0x80.. => return Err(Malformed::NotAscii.into()),
                _ => return Err(Malformed::ControlByte.into()),
            }
            self.at += 1;
        }
        Ok(None)
    }

    /// The line `self.line..self.at - 2` has ended.
    fn line_ended(&mut self, bytes: &[u8]) -> Result<Option<HeadSpan>, Refusal> {
        let line = &bytes[self.line..self.at - 2];
        let first = self.line == self.start;
        self.line = self.at;
        if first && line.is_empty() && self.start == 0 {
            // Old clients send one CRLF too many after a POST; RFC 9112 §2.2 asks servers to ignore it.
            self.start = self.at;
        } else if first {
            // Judged now: whoever speaks 0.9 sends one line only, and waits.
            check_version(line)?;
        } else if line.is_empty() {
            return Ok(Some(HeadSpan {
                start: self.start,
                end: self.at,
            }));
        }
        Ok(None)
    }
}

fn check_version(request_line: &[u8]) -> Result<(), Refusal> {
    let version = request_line.rsplit(|&b| b == b' ').next().unwrap_or(&[]);
    match version.strip_prefix(b"HTTP/") {
        Some(b"1.1" | b"1.0") => Ok(()),
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => {
            Err(Refusal::Version)
        }
        _ => Err(Malformed::RequestLine.into()),
    }
}

/// What a request's head says.
#[derive(Debug, PartialEq, Eq)]
pub struct Head<'a, 'h> {
    /// The method, as sent.
    pub method: &'a str,
    /// The target in origin form: `/path?query`.
    pub target: Cow<'a, str>,
    /// Every header in the order sent, values trimmed.
    pub headers: &'h [Header<'a>],
    /// What follows.
    pub shape: Framing,
}

/// What a head says about the bytes after it, and about the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Framing {
    /// How long the body is.
    pub body: Body,
    /// HTTP/1.0, to whom keep-alive must be confirmed and 100 must not be sent.
    pub http_1_0: bool,
    /// Whether the client would like to use the connection again.
    pub keep_alive: bool,
    /// Whether the client waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
    /// HEAD: the reply carries no body.
    pub is_head: bool,
}

/// How a body's end is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes; 0 if the head announces none.
    Length(usize),
    /// In chunks, to be decoded by [`Chunks`].
    Chunked,
}

/// Reads a whole head, as [`HeadScan`] found it. `slots` holds the headers.
///
/// # Errors
/// Whatever is not to be let in; the connection must be closed after the answer, for nobody knows where the next request
/// would begin.
pub fn parse_head<'a, 'h>(
    bytes: &'a [u8],
    slots: &'h mut [Header<'a>; HEADERS_MAX],
    body_max: usize,
) -> Result<Head<'a, 'h>, Refusal> {
    let mut request = httparse::Request::new(slots);
    match request.parse(bytes) {
        Ok(httparse::Status::Complete(end)) if end == bytes.len() => {}
        Ok(_) => return Err(Malformed::RequestLine.into()),
        Err(error) => return Err(from_httparse(error)),
    }
    let (Some(method), Some(target), Some(minor)) = (request.method, request.path, request.version)
    else {
        return Err(Malformed::RequestLine.into());
    };
    let headers: &'h [Header<'a>] = request.headers;
    let http_1_0 = minor == 0;
    let facts = Facts::gather(headers)?;
    if facts.hosts > 1 || (facts.hosts == 0 && !http_1_0) {
        return Err(Malformed::Host.into());
    }
    let body = facts.body(http_1_0, body_max)?;
    if facts.other_expectation {
        return Err(Refusal::Expectation);
    }
    Ok(Head {
        method,
        target: origin_form(method, target)?,
        headers,
        shape: Framing {
            body,
            http_1_0,
            keep_alive: !facts.close && (!http_1_0 || facts.keep_alive),
            // RFC 9110 §10.1.1: from a 1.0 client it must be ignored.
            expects_continue: facts.expects_continue && !http_1_0 && body != Body::Length(0),
            is_head: method == "HEAD",
        },
    })
}

fn from_httparse(error: httparse::Error) -> Refusal {
    use httparse::Error;
    match error {
        Error::HeaderName => Malformed::HeaderName.into(),
        Error::HeaderValue => Malformed::HeaderValue.into(),
        Error::TooManyHeaders => Refusal::TooManyHeaders,
        // The scan has judged the version already: here it only stands in the wrong place.
        Error::Version | Error::Token | Error::NewLine | Error::Status => {
            Malformed::RequestLine.into()
        }
    }
}

/// What the headers say, counted before it is judged.
#[derive(Default)]
struct Facts<'a> {
    hosts: usize,
    lengths: usize,
    length: &'a [u8],
    codings: usize,
    chunked: bool,
    close: bool,
    keep_alive: bool,
    expects_continue: bool,
    other_expectation: bool,
}

impl<'a> Facts<'a> {
    fn gather(headers: &[Header<'a>]) -> Result<Self, Refusal> {
        let mut facts = Self::default();
        for header in headers {
            let name = header.name;
            if !header.value.is_ascii() && is_read(name) {
                return Err(Malformed::NotAscii.into());
            }
            // By length first: most headers are none of these.
            match name.len() {
                4 if name.eq_ignore_ascii_case("host") => facts.hosts += 1,
                6 if name.eq_ignore_ascii_case("expect") => {
                    let continues = header.value.eq_ignore_ascii_case(b"100-continue");
                    facts.expects_continue |= continues;
                    facts.other_expectation |= !continues;
                }
                10 if name.eq_ignore_ascii_case("connection") => {
                    for token in list(header.value) {
                        facts.close |= token.eq_ignore_ascii_case(b"close");
                        facts.keep_alive |= token.eq_ignore_ascii_case(b"keep-alive");
                    }
                }
                14 if name.eq_ignore_ascii_case("content-length") => {
                    facts.lengths += 1;
                    facts.length = header.value;
                }
                17 if name.eq_ignore_ascii_case("transfer-encoding") => {
                    facts.codings += 1;
                    facts.chunked = header.value.eq_ignore_ascii_case(b"chunked");
                }
                _ => {}
            }
        }
        Ok(facts)
    }

    fn body(&self, http_1_0: bool, body_max: usize) -> Result<Body, Refusal> {
        if self.codings > 0 {
            if self.lengths > 0 {
                return Err(Malformed::LengthAndCoding.into());
            }
            if http_1_0 {
                return Err(Malformed::CodingIn10.into());
            }
            if self.codings > 1 || !self.chunked {
                return Err(Refusal::Coding);
            }
            return Ok(Body::Chunked);
        }
        if self.lengths == 0 {
            return Ok(Body::Length(0));
        }
        let digits = (1..=LENGTH_DIGITS_MAX).contains(&self.length.len())
            && self.length.iter().all(u8::is_ascii_digit);
        if self.lengths > 1 || !digits {
            return Err(Malformed::ContentLength.into());
        }
        let length = self
            .length
            .iter()
            .fold(0u64, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        match usize::try_from(length) {
            Ok(length) if length <= body_max => Ok(Body::Length(length)),
            _ => Err(Refusal::BodyTooLong {
                length: Some(length),
                most: body_max,
            }),
        }
    }
}

/// The elements of a comma-separated header value.
pub fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value
        .split(|&b| b == b',')
        .map(<[u8]>::trim_ascii)
        .filter(|token| !token.is_empty())
}

/// Reduces `http://host/path` to `/path`; `/path` stays as it is.
fn origin_form<'a>(method: &str, target: &'a str) -> Result<Cow<'a, str>, Refusal> {
    if method == "CONNECT" {
        return Err(Malformed::Connect.into());
    }
    if target.starts_with('/') {
        return Ok(Cow::Borrowed(target));
    }
    let (scheme, rest) = target.split_once("://").ok_or(Malformed::Target)?;
    let known = scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https");
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if !known || authority.is_empty() {
        return Err(Malformed::Target.into());
    }
    Ok(if path.starts_with('/') {
        Cow::Borrowed(path)
    } else {
        Cow::Owned(format!("/{path}"))
    })
}

/// Whether the edge goes by what the header says.
fn is_read(name: &str) -> bool {
    const READ: [&str; 6] = [
        "host",
        "expect",
        "connection",
        "content-length",
        "transfer-encoding",
        "x-forwarded-for",
    ];
    READ.iter().any(|read| name.eq_ignore_ascii_case(read))
}

/// RFC 9110 §5.6.2: what a header's name is made of.
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}
