//! Replies as bytes: one buffer, ready for one write.
//!
//! Nothing here decides what to answer, or sends it.

use std::io::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use httpdate::HttpDate;
use parking_lot::Mutex;

/// Sent when a client waits for it before its body.
pub const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// What a request is answered. Date, Content-Length and Connection are added when it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status, 200 to 599.
    pub status: u16,
    /// Header lines, CRLF after each; none of Content-Length, Connection, Date.
    pub head: Vec<u8>,
    /// The body. Given for a HEAD request too, which gets its length alone.
    pub body: Vec<u8>,
}

/// The Connection header of a reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionHeader {
    /// None: HTTP/1.1 keeps the connection.
    None,
    /// `keep-alive`, which HTTP/1.0 must be told.
    KeepAlive,
    /// `close`.
    Close,
}

/// Puts the whole reply into `out`, replacing what is there. A HEAD's has no body, but says how long it would be.
pub fn render(out: &mut Vec<u8>, reply: &Response, header: ConnectionHeader, is_head: bool) {
    out.clear();
    out.reserve(192 + reply.head.len() + reply.body.len());
    // What is no final status would leave the client waiting for another.
    let status = if (200..=599).contains(&reply.status) {
        reply.status
    } else {
        500
    };
    // Writing into a Vec cannot fail.
    let _ = write!(out, "HTTP/1.1 {status} {}\r\n", reason(status));
    out.extend_from_slice(&reply.head);
    out.extend_from_slice(b"Date: ");
    out.extend_from_slice(&date());
    out.extend_from_slice(match header {
        ConnectionHeader::None => b"\r\n".as_slice(),
        ConnectionHeader::KeepAlive => b"\r\nConnection: keep-alive\r\n",
        ConnectionHeader::Close => b"\r\nConnection: close\r\n",
    });
    // RFC 9110 §8.6: 204 must not have one, and 304's would be another reply's.
    let bodiless = matches!(status, 204 | 304);
    if !bodiless {
        let _ = write!(out, "Content-Length: {}\r\n", reply.body.len());
    }
    out.extend_from_slice(b"\r\n");
    if !bodiless && !is_head {
        out.extend_from_slice(&reply.body);
    }
}

/// The bytes of an IMF-fixdate.
const DATE_BYTES: usize = 29;

/// The current date, formatted once a second.
fn date() -> [u8; DATE_BYTES] {
    static CACHE: Mutex<(u64, [u8; DATE_BYTES])> =
        Mutex::new((0, *b"Thu, 01 Jan 1970 00:00:00 GMT"));
    let now = SystemTime::now();
    let second = now
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    let mut cache = CACHE.lock();
    if cache.0 != second {
        let mut text = [0; DATE_BYTES];
        if write!(text.as_mut_slice(), "{}", HttpDate::from(now)).is_ok() {
            *cache = (second, text);
        }
    }
    cache.1
}

fn reason(status: u16) -> &'static str {
    match status {
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        204 => "No Content",
        304 => "Not Modified",
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        409 => "Conflict",
        413 => "Content Too Large",
        417 => "Expectation Failed",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        _ => "Other",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(status: u16, header: ConnectionHeader, is_head: bool) -> String {
        let reply = Response {
            status,
            head: b"X-A: b\r\n".to_vec(),
            body: b"hello".to_vec(),
        };
        let mut out = b"left over".to_vec();
        render(&mut out, &reply, header, is_head);
        let text = String::from_utf8(out).unwrap_or_default();
        let at = text.find("Date: ").map_or(0, |at| at + 6);
        assert!(httpdate::parse_http_date(&text[at..at + DATE_BYTES]).is_ok());
        [&text[..at], &text[at + DATE_BYTES..]].concat()
    }

    #[test]
    fn a_reply_is_whole() {
        assert_eq!(
            rendered(200, ConnectionHeader::None, false),
            "HTTP/1.1 200 OK\r\nX-A: b\r\nDate: \r\nContent-Length: 5\r\n\r\nhello"
        );
    }

    #[test]
    fn the_connections_fate_is_told() {
        assert!(
            rendered(200, ConnectionHeader::Close, false).contains("\r\nConnection: close\r\n")
        );
        assert!(
            rendered(200, ConnectionHeader::KeepAlive, false)
                .contains("\r\nConnection: keep-alive\r\n")
        );
    }

    #[test]
    fn what_may_have_no_body_has_none() {
        assert!(rendered(200, ConnectionHeader::None, true).ends_with("Content-Length: 5\r\n\r\n"));
        for status in [204, 304] {
            let text = rendered(status, ConnectionHeader::None, false);
            assert!(!text.contains("Content-Length") && text.ends_with("\r\n\r\n"));
        }
    }

    #[test]
    fn what_is_no_final_status_is_a_500() {
        for status in [0, 100, 199, 600] {
            assert!(rendered(status, ConnectionHeader::None, false).starts_with("HTTP/1.1 500 "));
        }
    }
}
