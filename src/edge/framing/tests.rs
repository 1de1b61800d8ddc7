//! What is let in and what is not, byte by byte, in tables.

mod chunks;
mod mutations;

use httparse::EMPTY_HEADER;

use super::*;

const BODY_MAX: usize = 1000;

/// What a whole input came to: everything a head says, owned, and the body.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Read {
    method: String,
    target: String,
    headers: Vec<(String, Vec<u8>)>,
    shape: Framing,
    body: Vec<u8>,
    left: usize,
}

/// Reads one request that comes in pieces of `piece` bytes. `Ok(None)`: it is not whole.
fn read_in_pieces(input: &[u8], piece: usize) -> Result<Option<Read>, Refusal> {
    let mut pieces = input.chunks(piece);
    let mut buffer = Vec::new();
    let mut scan = HeadScan::default();
    let span = loop {
        if let Some(span) = scan.go_on(&buffer)? {
            break span;
        }
        match pieces.next() {
            Some(more) => buffer.extend_from_slice(more),
            None => return Ok(None),
        }
    };
    let mut slots = [EMPTY_HEADER; HEADERS_MAX];
    let head = parse_head(&buffer[span.start..span.end], &mut slots, BODY_MAX)?;
    let mut read = Read {
        method: head.method.to_owned(),
        target: head.target.to_string(),
        headers: head
            .headers
            .iter()
            .map(|header| (header.name.to_owned(), header.value.to_vec()))
            .collect(),
        shape: head.shape,
        body: Vec::new(),
        left: 0,
    };
    let mut rest = buffer[span.end..].to_vec();
    match read.shape.body {
        Body::Length(length) => {
            rest.extend(pieces.flatten());
            if rest.len() < length {
                return Ok(None);
            }
            read.left = rest.len() - length;
            rest.truncate(length);
            read.body = rest;
        }
        Body::Chunked => {
            let mut chunks = Chunks::new(BODY_MAX);
            loop {
                let decoded = chunks.decode(&mut rest)?;
                read.body.extend_from_slice(&rest[..decoded.kept]);
                if decoded.done {
                    read.left = rest.len() - decoded.consumed + pieces.flatten().count();
                    break;
                }
                assert_eq!(decoded.consumed, rest.len());
                match pieces.next() {
                    Some(more) => rest = more.to_vec(),
                    None => return Ok(None),
                }
            }
        }
    }
    Ok(Some(read))
}

fn read(input: &[u8]) -> Result<Option<Read>, Refusal> {
    read_in_pieces(input, input.len().max(1))
}

fn accepted(input: &[u8]) -> Read {
    match read(input) {
        Ok(Some(read)) => read,
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(input)),
    }
}

#[test]
fn a_plain_request_is_read() {
    let read = accepted(
        b"POST /notify/till-7?a=b HTTP/1.1\r\nHost: pay\r\nX-Sign:  a b\t\r\ncontent-length: 3\r\n\r\nabcGET",
    );
    assert_eq!(read.method, "POST");
    assert_eq!(read.target, "/notify/till-7?a=b");
    assert_eq!(read.headers[1], ("X-Sign".to_owned(), b"a b".to_vec()));
    assert_eq!(read.body, b"abc");
    assert_eq!(read.left, 3);
    assert_eq!(
        read.shape,
        Framing {
            body: Body::Length(3),
            http_1_0: false,
            keep_alive: true,
            expects_continue: false,
            is_head: false,
        }
    );
}

#[test]
fn what_the_connection_is_told_is_heard() {
    let shape = |version: &str, lines: &str| {
        let head = format!("HEAD / HTTP/{version}\r\nHost: x\r\n{lines}\r\n");
        accepted(head.as_bytes()).shape
    };
    assert!(shape("1.1", "").keep_alive);
    assert!(!shape("1.1", "Connection: x, CLOSE\r\n").keep_alive);
    assert!(!shape("1.1", "Connection: keep-alive\r\nConnection: close\r\n").keep_alive);
    assert!(!shape("1.0", "").keep_alive);
    assert!(shape("1.0", "Connection: Keep-Alive\r\n").keep_alive);
    assert!(shape("1.1", "").is_head);
}

#[test]
fn continue_is_expected_only_where_it_may_be_sent() {
    let expects = |version: &str, length: usize| {
        let body = "x".repeat(length);
        let text = format!(
            "POST / HTTP/{version}\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        accepted(text.as_bytes()).shape.expects_continue
    };
    assert!(expects("1.1", 1));
    assert!(!expects("1.1", 0));
    assert!(!expects("1.0", 1));
}

#[test]
fn targets_are_reduced_to_origin_form() {
    for (target, origin) in [
        ("/", "/"),
        ("/a?b", "/a?b"),
        ("//a", "//a"),
        ("http://pay/a?b", "/a?b"),
        ("HTTPS://pay:80/a", "/a"),
        ("http://pay", "/"),
        ("http://pay?a=/b", "/?a=/b"),
    ] {
        let text = format!("GET {target} HTTP/1.1\r\nHost: x\r\n\r\n");
        assert_eq!(accepted(text.as_bytes()).target, origin, "{target}");
    }
}

#[test]
fn one_stray_empty_line_is_forgiven() {
    assert_eq!(
        accepted(b"\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n").method,
        "GET"
    );
    assert_eq!(
        read(b"\r\n\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n"),
        Err(Malformed::RequestLine.into())
    );
}

fn too_long(length: Option<u64>) -> Refusal {
    Refusal::BodyTooLong {
        length,
        most: BODY_MAX,
    }
}

/// A request head whose lines after Host are `lines`.
fn with(lines: &str) -> Vec<u8> {
    format!("POST / HTTP/1.1\r\nHost: x\r\n{lines}\r\n").into_bytes()
}

fn refused(input: &[u8], refusal: Refusal) {
    let verdicts = [
        read(input),
        read_in_pieces(input, 1),
        read_in_pieces(input, 7),
    ];
    for verdict in verdicts {
        let begin = String::from_utf8_lossy(&input[..input.len().min(100)]);
        assert_eq!(verdict, Err(refusal), "{begin:?}");
    }
}

#[test]
fn hostile_request_lines_are_refused() {
    use Malformed as M;
    let table: [(Refusal, &[&str]); 5] = [
        (
            M::RequestLine.into(),
            &[
                "GET / HTTP/3",
                "GET / http/1.1",
                "GET / HTTP/1.10",
                "GET / HTTP/1.1 x",
                "GET  / HTTP/1.1",
                "GET\t/ HTTP/1.1",
                " GET / HTTP/1.1",
                "GET /a b HTTP/1.1",
                "G@T / HTTP/1.1",
            ],
        ),
        (Refusal::Version, &["GET / HTTP/1.2", "GET / HTTP/2.0"]),
        (M::ControlByte.into(), &["GET /\0 HTTP/1.1"]),
        (M::Connect.into(), &["CONNECT pay:443 HTTP/1.1"]),
        (
            M::Target.into(),
            &[
                "OPTIONS * HTTP/1.1",
                "GET a HTTP/1.1",
                "GET ftp://x/a HTTP/1.1",
                "GET http:///a HTTP/1.1",
            ],
        ),
    ];
    for (refusal, lines) in table {
        for line in lines {
            refused(format!("{line}\r\nHost: x\r\n\r\n").as_bytes(), refusal);
        }
    }
}

#[test]
fn hostile_header_lines_are_refused() {
    use Malformed as M;
    let table: [(Refusal, &[&str]); 13] = [
        (
            M::ContentLength.into(),
            &[
                "Content-Length:",
                "Content-Length: +5",
                "Content-Length: -5",
                "Content-Length: 0x5",
                "Content-Length: 5.0",
                "Content-Length: 5 5",
                "Content-Length: 5, 5",
                "Content-Length: 00000000000000000005",
                "Content-Length: 5\r\ncontent-length: 5",
                "Content-Length: 5\r\nContent-Length: 6",
            ],
        ),
        (too_long(Some(1001)), &["Content-Length: 1001"]),
        (
            too_long(Some(1_000_000_000_000)),
            &["Content-Length: 1000000000000"],
        ),
        (
            too_long(Some(9_999_999_999_999_999_999)),
            &["Content-Length: 9999999999999999999"],
        ),
        (
            M::LengthAndCoding.into(),
            &[
                "Content-Length: 5\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding: identity\r\nContent-Length: 5",
            ],
        ),
        (
            Refusal::Coding,
            &[
                "Transfer-Encoding:",
                "Transfer-Encoding: gzip, chunked",
                "Transfer-Encoding: identity",
                "Transfer-Encoding: xchunked",
                "Transfer-Encoding: chunked,",
                "Transfer-Encoding: chunked, chunked",
                "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
                "Transfer-Encoding: identity\r\nTransfer-Encoding: chunked",
            ],
        ),
        (
            M::ControlByte.into(),
            &["Transfer-Encoding: \x0bchunked", "A: b\0c", "A: \x7f"],
        ),
        (
            M::HeaderName.into(),
            &[
                "Transfer-Encoding : chunked",
                "A: b\r\n c", // folded
                "A: b\r\n\tc",
                ": b",
                "Abc",
                "A(b): c",
                "A\u{e9}: 1",
            ],
        ),
        (M::BareCr.into(), &["A: b\rc", "A: b\r"]),
        (M::BareLf.into(), &["A: b\nC: d"]),
        // Where it would be read; elsewhere it may be in a value.
        (M::NotAscii.into(), &["Connection: \u{e9}"]),
        (M::Host.into(), &["Host: y"]),
        (
            Refusal::Expectation,
            &["Expect: 200-ok", "Expect: 100-continue\r\nExpect: x"],
        ),
    ];
    for (refusal, all) in table {
        for lines in all {
            refused(&with(&format!("{lines}\r\n")), refusal);
        }
    }
}

#[test]
fn other_hostile_heads_are_refused() {
    use Malformed as M;
    let table: [(Refusal, &[&[u8]]); 8] = [
        (
            M::HeaderName.into(),
            &[b"GET / HTTP/1.1\r\n Host: x\r\n\r\n"],
        ),
        (M::BareLf.into(), &[b"GET / HTTP/1.1\nHost: x\n\n"]),
        (
            M::NotAscii.into(),
            &[b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n"],
        ),
        // How TLS begins.
        (M::ControlByte.into(), &[b"\x16\x03\x01\x02\x00\x01"]),
        (M::RequestLine.into(), &[b"GET /\r\n"]),
        // The second is how HTTP/2 begins.
        (
            Refusal::Version,
            &[b"GET / HTTP/0.9\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"],
        ),
        (
            M::Host.into(),
            &[
                b"GET / HTTP/1.1\r\n\r\n",
                b"GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n",
            ],
        ),
        (
            M::CodingIn10.into(),
            &[b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n"],
        ),
    ];
    for (refusal, heads) in table {
        for head in heads {
            refused(head, refusal);
        }
    }
    let long = format!("X: {}\r\n", "y".repeat(100 * 1024));
    let many = "A: b\r\n".repeat(10_000);
    for lines in [long, many] {
        refused(&with(&lines), Refusal::HeadTooLong);
    }
    let over = "A: b\r\n".repeat(HEADERS_MAX); // and Host
    refused(&with(&over), Refusal::TooManyHeaders);
}

#[test]
fn the_limits_themselves_are_let_in() {
    let most = "A: b\r\n".repeat(HEADERS_MAX - 1); // and Host
    assert_eq!(accepted(&with(&most)).headers.len(), HEADERS_MAX);
    let bare = with("X: \r\n").len();
    let filled = |bytes: usize| with(&format!("X: {}\r\n", "y".repeat(bytes - bare)));
    assert_eq!(filled(HEAD_BYTES_MAX).len(), HEAD_BYTES_MAX);
    accepted(&filled(HEAD_BYTES_MAX));
    assert_eq!(read(&filled(HEAD_BYTES_MAX + 1)), Err(Refusal::HeadTooLong));
    let mut body = with("Content-Length: 1000\r\n");
    body.extend([0; 1000]);
    assert_eq!(accepted(&body).body.len(), 1000);
    accepted(&with("Content-Length: 0000000000000000000\r\n"));
}

fn chunked(body: &str) -> Vec<u8> {
    let mut input = with("Transfer-Encoding: Chunked\r\n");
    input.extend_from_slice(body.as_bytes());
    input
}
