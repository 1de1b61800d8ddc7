//! Every way the edge refuses a request: the status, the word for the operator and the sentence for the reader of the answer.
//!
//! One table, no `_` arm: how a peer is refused can be reviewed at a glance. Nothing here sends anything.

use std::net::IpAddr;
use std::time::Duration;

use super::limits::{HEAD_BYTES_MAX, HEADERS_MAX, TRAILER_BYTES_MAX, TRAILERS_MAX};
use super::reply::Response;
use crate::tls::Alert;

/// Why a request is not let in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It came in the clear to a port that speaks TLS.
    InTheClear,
    /// It comes from where nobody may.
    Forbidden,
    /// A trusted proxy does not begin its connection by saying for whom it comes.
    NoProxyHeader,
    /// It is no HTTP/1 that two parsers would read alike.
    Malformed(Malformed),
    /// Its version is neither 1.0 nor 1.1.
    Version,
    /// It uses a transfer coding other than one `chunked`.
    Coding,
    /// It expects something other than `100-continue`.
    Expectation,
    /// Its head is longer than [`HEAD_BYTES_MAX`].
    HeadTooLong,
    /// It has more than [`HEADERS_MAX`] headers.
    TooManyHeaders,
    /// Its trailer section is over the limit.
    TooManyTrailers,
    /// Its body is longer than `most` bytes; `length` if it said.
    BodyTooLong {
        /// What it announced.
        length: Option<u64>,
        /// What is taken.
        most: usize,
    },
    /// It was not whole within this.
    Slow(Duration),
    /// The peer ended its sending in the middle of it.
    CutShort,
    /// There is no room for another connection beside so many.
    Full(usize),
    /// There is no memory, or no thread, for it.
    NoResources,
    /// The handler did not answer within its deadline.
    Unanswered,
    /// The listener is closing.
    Draining,
}

/// What is known of a request that was refused, for the log.
#[derive(Clone, Debug)]
pub struct RefusedRequest<'a> {
    /// The method; empty if it cannot be read.
    pub method: &'a str,
    /// The path without its query, which may hold a password; empty if it cannot be read.
    pub path: &'a str,
    /// Who sent it, as far as that is known: a proxy, if the request's client was not read.
    pub peer: Option<IpAddr>,
    /// The status that it was answered with.
    pub status: u16,
    /// The word in `X-Payrelay-Outcome`.
    pub word: &'static str,
    /// Why it was refused.
    pub sentence: String,
}

impl<'a> RefusedRequest<'a> {
    /// The longest method that is shown, in bytes.
    const METHOD_BYTES_MAX: usize = 16;

    /// The request that `input` begins with, as far as it can be read.
    pub(super) fn of(input: &'a [u8], peer: IpAddr, refusal: Refusal, listener: &str) -> Self {
        let input = input.trim_ascii_start();
        let end = input.iter().position(|b| b"\r\n".contains(b));
        let line = &input[..end.unwrap_or(input.len())];
        let text = str::from_utf8(line).unwrap_or_else(|error| {
            str::from_utf8(&line[..error.valid_up_to()]).unwrap_or_default()
        });
        let (method, target) = text.split_once(' ').unwrap_or_default();
        let is_method = method.len() <= Self::METHOD_BYTES_MAX
            && method.bytes().all(|b| b.is_ascii_alphabetic())
            && target.starts_with('/');
        let (method, target) = if is_method {
            (method, target)
        } else {
            ("", "")
        };
        Self {
            method,
            path: target.split(['?', ' ']).next().unwrap_or_default(),
            peer: Some(peer),
            status: refusal.status(),
            word: refusal.word(),
            sentence: refusal.sentence(listener),
        }
    }
}

/// What is wrong with a malformed request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Malformed {
    /// A CR without its LF.
    BareCr,
    /// A LF without its CR.
    BareLf,
    /// A control byte other than HTAB.
    ControlByte,
    /// A byte of 0x80 or more in the first line, or in a header that the edge goes by.
    NotAscii,
    /// The first line is not `METHOD target HTTP/1.x`.
    RequestLine,
    /// A header's name, or what is left of one after folding or a space before the colon.
    HeaderName,
    /// A header's value.
    HeaderValue,
    /// None or several, where there must be one.
    Host,
    /// Repeated, or anything but 1 to 19 digits.
    ContentLength,
    /// Both Content-Length and Transfer-Encoding.
    LengthAndCoding,
    /// Transfer-Encoding in HTTP/1.0.
    CodingIn10,
    /// Neither `/path` nor `http://host/path`.
    Target,
    /// CONNECT: this is no proxy.
    Connect,
    /// A chunk's size, extension, end or trailer.
    Chunk,
}

impl From<Malformed> for Refusal {
    fn from(malformed: Malformed) -> Self {
        Self::Malformed(malformed)
    }
}

impl Refusal {
    /// The HTTP status.
    pub fn status(self) -> u16 {
        match self {
            Self::InTheClear | Self::NoProxyHeader | Self::Malformed(_) | Self::CutShort => 400,
            Self::Forbidden => 403,
            Self::Slow(_) => 408,
            Self::BodyTooLong { .. } => 413,
            Self::Expectation => 417,
            Self::HeadTooLong | Self::TooManyHeaders | Self::TooManyTrailers => 431,
            Self::Coding => 501,
            Self::Full(_) | Self::NoResources | Self::Unanswered | Self::Draining => 503,
            Self::Version => 505,
        }
    }

    /// The word in `X-Payrelay-Outcome` and in the metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::InTheClear => "tls",
            Self::Forbidden => "forbidden",
            Self::NoProxyHeader | Self::Malformed(_) | Self::CutShort => "bad-request",
            Self::Version => "version",
            Self::Coding => "coding",
            Self::Expectation => "expectation",
            Self::HeadTooLong | Self::TooManyHeaders | Self::TooManyTrailers => "head-too-big",
            Self::BodyTooLong { .. } => "too-big",
            Self::Slow(_) | Self::Unanswered => "timeout",
            Self::Full(_) | Self::NoResources => "limit",
            Self::Draining => "draining",
        }
    }

    /// What a peer reads in its place while TLS has not been agreed.
    pub fn alert(self) -> Alert {
        match self {
            Self::Forbidden => Alert::AccessDenied,
            _ => Alert::InternalError,
        }
    }

    /// What the peer reads; `listener` is its name, under which its limits stand in the configuration.
    fn sentence(self, listener: &str) -> String {
        match self {
            Self::Forbidden => format!("{listener}.allow does not have your address"),
            Self::NoProxyHeader => format!(
                "a connection from one of {listener}.trusted_proxies must begin with a PROXY header, \
                 since {listener}.proxy_protocol = true"
            ),
            Self::InTheClear => "this port speaks TLS only: use https://".to_owned(),
            Self::Malformed(malformed) => malformed.sentence().to_owned(),
            Self::Version => "only HTTP/1.0 and HTTP/1.1 are spoken here".to_owned(),
            Self::Coding => "the only Transfer-Encoding taken is one chunked".to_owned(),
            Self::Expectation => "the only Expect taken is 100-continue".to_owned(),
            Self::HeadTooLong => format!("the head is over {HEAD_BYTES_MAX} bytes"),
            Self::TooManyHeaders => format!("the head has more than {HEADERS_MAX} headers"),
            Self::TooManyTrailers => {
                format!("the trailers are over {TRAILER_BYTES_MAX} bytes or {TRAILERS_MAX} lines")
            }
            Self::BodyTooLong {
                length: Some(length),
                most,
            } => format!("body of {length} bytes is over {listener}.max_body = {most}"),
            Self::BodyTooLong { length: None, most } => {
                format!("the body is over {listener}.max_body = {most}")
            }
            Self::Slow(most) => {
                format!("no whole request within {listener}.request_deadline = {most:?}")
            }
            Self::CutShort => {
                "the connection's sending side ended before the request did".to_owned()
            }
            Self::Full(most) => format!(
                "all of {listener}.max_connections = {most} are at work, or no file descriptor is left"
            ),
            Self::NoResources => "the system has no memory or thread left for this".to_owned(),
            Self::Unanswered => "the relay gave no answer in time".to_owned(),
            Self::Draining => "this node is stopping".to_owned(),
        }
    }

    /// The whole answer; `listener` is its name.
    pub fn reply(self, listener: &str) -> Response {
        let mut head = format!(
            "Content-Type: text/plain\r\nX-Payrelay-Outcome: {}\r\n",
            self.word()
        );
        if self.status() == 503 {
            head.push_str("Retry-After: 1\r\n");
        }
        let mut body = self.sentence(listener);
        body.push('\n');
        Response {
            status: self.status(),
            head: head.into_bytes(),
            body: body.into_bytes(),
        }
    }
}

impl Malformed {
    fn sentence(self) -> &'static str {
        match self {
            Self::BareCr => "a CR in the head is not followed by LF",
            Self::BareLf => "a line of the head ends in LF without CR",
            Self::ControlByte => "the head has a control byte in it",
            Self::NotAscii => {
                "the request line, or a header that the relay goes by, has a byte outside ASCII in it"
            }
            Self::RequestLine => "the first line is not METHOD, target and HTTP/1.1",
            Self::HeaderName => "a header line does not begin with a name and a colon",
            Self::HeaderValue => "a header has a bad value",
            Self::Host => "HTTP/1.1 asks for exactly one Host header, HTTP/1.0 for at most one",
            Self::ContentLength => "Content-Length must come once, as 1 to 19 digits",
            Self::LengthAndCoding => "Content-Length and Transfer-Encoding exclude each other",
            Self::CodingIn10 => "HTTP/1.0 knows no Transfer-Encoding",
            Self::Target => "the target is neither /path nor http://host/path",
            Self::Connect => "this is no proxy",
            Self::Chunk => "the chunked body is malformed",
        }
    }
}
