//! What is let in and what is not, byte by byte, in tables; and random mutations of both.
//!
//! Longer than other files because the tables are.

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

#[test]
fn hostile_heads_are_refused() {
    use Malformed as M;
    let long = format!("X: {}\r\n", "y".repeat(100 * 1024));
    let many = "A: b\r\n".repeat(10_000);
    let over = "A: b\r\n".repeat(HEADERS_MAX); // and Host
    let table: &[(&str, Vec<u8>, Refusal)] = &[
        (
            "empty length",
            with("Content-Length:\r\n"),
            M::ContentLength.into(),
        ),
        (
            "signed length",
            with("Content-Length: +5\r\n"),
            M::ContentLength.into(),
        ),
        (
            "negative length",
            with("Content-Length: -5\r\n"),
            M::ContentLength.into(),
        ),
        (
            "hex length",
            with("Content-Length: 0x5\r\n"),
            M::ContentLength.into(),
        ),
        (
            "fraction",
            with("Content-Length: 5.0\r\n"),
            M::ContentLength.into(),
        ),
        (
            "two numbers",
            with("Content-Length: 5 5\r\n"),
            M::ContentLength.into(),
        ),
        (
            "list of lengths",
            with("Content-Length: 5, 5\r\n"),
            M::ContentLength.into(),
        ),
        (
            "twenty digits",
            with("Content-Length: 00000000000000000005\r\n"),
            M::ContentLength.into(),
        ),
        (
            "repeated length",
            with("Content-Length: 5\r\ncontent-length: 5\r\n"),
            M::ContentLength.into(),
        ),
        (
            "different lengths",
            with("Content-Length: 5\r\nContent-Length: 6\r\n"),
            M::ContentLength.into(),
        ),
        (
            "a terabyte",
            with("Content-Length: 1000000000000\r\n"),
            too_long(Some(1_000_000_000_000)),
        ),
        (
            "19 digits",
            with("Content-Length: 9999999999999999999\r\n"),
            too_long(Some(9_999_999_999_999_999_999)),
        ),
        (
            "one too many",
            with("Content-Length: 1001\r\n"),
            too_long(Some(1001)),
        ),
        (
            "length and coding",
            with("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            M::LengthAndCoding.into(),
        ),
        (
            "coding and length",
            with("Transfer-Encoding: identity\r\nContent-Length: 5\r\n"),
            M::LengthAndCoding.into(),
        ),
        (
            "gzip",
            with("Transfer-Encoding: gzip, chunked\r\n"),
            Refusal::Coding,
        ),
        (
            "identity",
            with("Transfer-Encoding: identity\r\n"),
            Refusal::Coding,
        ),
        ("no coding", with("Transfer-Encoding:\r\n"), Refusal::Coding),
        (
            "xchunked",
            with("Transfer-Encoding: xchunked\r\n"),
            Refusal::Coding,
        ),
        (
            "chunked list",
            with("Transfer-Encoding: chunked,\r\n"),
            Refusal::Coding,
        ),
        (
            "chunked twice",
            with("Transfer-Encoding: chunked, chunked\r\n"),
            Refusal::Coding,
        ),
        (
            "two codings",
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            Refusal::Coding,
        ),
        (
            "hidden coding",
            with("Transfer-Encoding: identity\r\nTransfer-Encoding: chunked\r\n"),
            Refusal::Coding,
        ),
        (
            "vertical tab",
            with("Transfer-Encoding: \x0bchunked\r\n"),
            M::ControlByte.into(),
        ),
        (
            "space before colon",
            with("Transfer-Encoding : chunked\r\n"),
            M::HeaderName.into(),
        ),
        ("folded", with("A: b\r\n c\r\n"), M::HeaderName.into()),
        (
            "folded by tab",
            with("A: b\r\n\tc\r\n"),
            M::HeaderName.into(),
        ),
        (
            "folded first",
            b"GET / HTTP/1.1\r\n Host: x\r\n\r\n".to_vec(),
            M::HeaderName.into(),
        ),
        ("no name", with(": b\r\n"), M::HeaderName.into()),
        ("no colon", with("Abc\r\n"), M::HeaderName.into()),
        ("bad name", with("A(b): c\r\n"), M::HeaderName.into()),
        ("bare cr in value", with("A: b\rc\r\n"), M::BareCr.into()),
        ("cr cr lf", with("A: b\r\r\n"), M::BareCr.into()),
        ("bare lf", with("A: b\nC: d\r\n"), M::BareLf.into()),
        (
            "only lf",
            b"GET / HTTP/1.1\nHost: x\n\n".to_vec(),
            M::BareLf.into(),
        ),
        ("nul in value", with("A: b\0c\r\n"), M::ControlByte.into()),
        (
            "nul in target",
            b"GET /\0 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::ControlByte.into(),
        ),
        ("del", with("A: \x7f\r\n"), M::ControlByte.into()),
        (
            "utf-8 value of a header that is read",
            with("Connection: \u{e9}\r\n"),
            M::NotAscii.into(),
        ),
        ("utf-8 name", with("A\u{e9}: 1\r\n"), M::HeaderName.into()),
        (
            "byte 255",
            b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::NotAscii.into(),
        ),
        (
            "tls hello",
            b"\x16\x03\x01\x02\x00\x01".to_vec(),
            M::ControlByte.into(),
        ),
        ("0.9", b"GET /\r\n".to_vec(), M::RequestLine.into()),
        (
            "0.9 with a version",
            b"GET / HTTP/0.9\r\n".to_vec(),
            Refusal::Version,
        ),
        (
            "1.2",
            b"GET / HTTP/1.2\r\nHost: x\r\n\r\n".to_vec(),
            Refusal::Version,
        ),
        (
            "2.0",
            b"GET / HTTP/2.0\r\nHost: x\r\n\r\n".to_vec(),
            Refusal::Version,
        ),
        (
            "http/2 preface",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
            Refusal::Version,
        ),
        (
            "3",
            b"GET / HTTP/3\r\nHost: x\r\n\r\n".to_vec(),
            M::RequestLine.into(),
        ),
        (
            "lower-case version",
            b"GET / http/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::RequestLine.into(),
        ),
        (
            "long version",
            b"GET / HTTP/1.10\r\nHost: x\r\n\r\n".to_vec(),
            M::RequestLine.into(),
        ),
        (
            "words after the version",
            b"GET / HTTP/1.1 x\r\nHost: x\r\n\r\n".to_vec(),
            M::RequestLine.into(),
        ),
        (
            "two spaces",
            b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::RequestLine.into(),
        ),
        (
            "tab",
            b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::RequestLine.into(),
        ),
        (
            "space first",
            b" GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::RequestLine.into(),
        ),
        (
            "space in target",
            b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::RequestLine.into(),
        ),
        (
            "bad method",
            b"G@T / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::RequestLine.into(),
        ),
        (
            "no host",
            b"GET / HTTP/1.1\r\n\r\n".to_vec(),
            M::Host.into(),
        ),
        ("two hosts", with("Host: y\r\n"), M::Host.into()),
        (
            "two hosts in 1.0",
            b"GET / HTTP/1.0\r\nHost: x\r\nHost: x\r\n\r\n".to_vec(),
            M::Host.into(),
        ),
        (
            "coding in 1.0",
            b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec(),
            M::CodingIn10.into(),
        ),
        (
            "other expectation",
            with("Expect: 200-ok\r\n"),
            Refusal::Expectation,
        ),
        (
            "two expectations",
            with("Expect: 100-continue\r\nExpect: x\r\n"),
            Refusal::Expectation,
        ),
        (
            "connect",
            b"CONNECT pay:443 HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::Connect.into(),
        ),
        (
            "asterisk",
            b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::Target.into(),
        ),
        (
            "no slash",
            b"GET a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::Target.into(),
        ),
        (
            "other scheme",
            b"GET ftp://x/a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::Target.into(),
        ),
        (
            "no authority",
            b"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n".to_vec(),
            M::Target.into(),
        ),
        ("100 KB header", with(&long), Refusal::HeadTooLong),
        ("10,000 headers", with(&many), Refusal::HeadTooLong),
        ("65 headers", with(&over), Refusal::TooManyHeaders),
    ];
    for (what, input, refusal) in table {
        let verdicts = [
            read(input),
            read_in_pieces(input, 1),
            read_in_pieces(input, 7),
        ];
        for verdict in verdicts {
            assert_eq!(verdict, Err(*refusal), "{what}");
        }
    }
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

#[test]
fn a_chunked_request_reads_the_same_however_it_is_split() {
    let mut input = chunked(
        "5\r\nhello\r\n006;a=\"b\"\r\n world\r\nA\r\n0123\r\n6789\r\n0;x\r\nTrailer: x\r\nB:\r\n\r\n",
    );
    input.extend_from_slice(b"GET /");
    let whole = accepted(&input);
    assert_eq!(whole.body, b"hello world0123\r\n6789");
    assert_eq!(whole.left, 5);
    for piece in 1..input.len() {
        assert_eq!(
            read_in_pieces(&input, piece),
            Ok(Some(whole.clone())),
            "pieces of {piece}"
        );
    }
    // And cut anywhere in two.
    let start = with("Transfer-Encoding: Chunked\r\n").len();
    for cut in start..input.len() - 5 {
        let (mut front, mut back) = (input[start..cut].to_vec(), input[cut..].to_vec());
        let mut chunks = Chunks::new(BODY_MAX);
        let first = chunks.decode(&mut front);
        let second = chunks.decode(&mut back);
        let (Ok(first), Ok(second)) = (first, second) else {
            panic!("cut at {cut}: {first:?}, {second:?}");
        };
        assert!(!first.done && second.done);
        assert_eq!(
            [&front[..first.kept], &back[..second.kept]].concat(),
            whole.body
        );
        assert_eq!(back.len() - second.consumed, 5);
    }
}

#[test]
fn hostile_chunks_are_refused() {
    let chunk = Refusal::from(Malformed::Chunk);
    let long_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(256));
    let many_trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(33));
    let long_trailer = format!("0\r\nA: {}\r\n\r\n", "x".repeat(8192));
    let endless_name = format!("0\r\n{}", "x".repeat(8193));
    for (what, body, refusal) in [
        ("no size", "\r\nhello\r\n0\r\n\r\n", chunk),
        ("no hex", "g\r\nhello\r\n0\r\n\r\n", chunk),
        ("0x", "0x5\r\nhello\r\n0\r\n\r\n", chunk),
        ("sign", "+5\r\nhello\r\n0\r\n\r\n", chunk),
        ("minus", "-5\r\nhello\r\n0\r\n\r\n", chunk),
        ("space", "5 \r\nhello\r\n0\r\n\r\n", chunk),
        ("space first", " 5\r\nhello\r\n0\r\n\r\n", chunk),
        ("nine digits", "000000005\r\nhello\r\n0\r\n\r\n", chunk),
        ("huge", "ffffffff\r\n", too_long(None)),
        ("too long", "3e9\r\n", too_long(None)),
        ("too long in sum", "1\r\na\r\n3e8\r\n", too_long(None)),
        ("size too small", "4\r\nhello\r\n0\r\n\r\n", chunk),
        ("size too large", "6\r\nhello\r\n0\r\n\r\n", chunk),
        ("lf after size", "5\nhello\r\n0\r\n\r\n", chunk),
        ("cr after size", "5\rhello\r\n0\r\n\r\n", chunk),
        ("lf after data", "5\r\nhello\n0\r\n\r\n", chunk),
        ("lf after zero", "0\n\r\n", chunk),
        ("lf at the end", "0\r\n\n", chunk),
        ("cr at the end", "0\r\n\rx", chunk),
        ("nul in extension", "5;\0\r\nhello\r\n0\r\n\r\n", chunk),
        ("lf in extension", "5;a\nhello\r\n0\r\n\r\n", chunk),
        (
            "non-ascii extension",
            "5;\u{e9}\r\nhello\r\n0\r\n\r\n",
            chunk,
        ),
        ("long extension", &long_extension, chunk),
        ("trailer without colon", "0\r\nabc\r\n\r\n", chunk),
        ("trailer without name", "0\r\n: b\r\n\r\n", chunk),
        ("folded trailer", "0\r\nA: b\r\n c\r\n\r\n", chunk),
        ("space before colon", "0\r\nA : b\r\n\r\n", chunk),
        ("bare cr in trailer", "0\r\nA: b\rc\r\n\r\n", chunk),
        ("bare lf in trailer", "0\r\nA: b\n\r\n", chunk),
        ("nul in trailer", "0\r\nA: \0\r\n\r\n", chunk),
        ("33 trailers", &many_trailers, Refusal::TooManyTrailers),
        ("long trailer", &long_trailer, Refusal::TooManyTrailers),
        (
            "endless trailer name",
            &endless_name,
            Refusal::TooManyTrailers,
        ),
    ] {
        for piece in [1, 5, usize::MAX] {
            assert_eq!(
                read_in_pieces(&chunked(body), piece),
                Err(refusal),
                "{what}"
            );
        }
    }
}

#[test]
fn the_limits_of_chunks_are_let_in() {
    let longest_extension = format!("1;{}\r\na\r\n0\r\n\r\n", "x".repeat(255));
    assert_eq!(accepted(&chunked(&longest_extension)).body, b"a");
    let most_trailers = format!("0\r\n{}\r\n", "A: b\r\n".repeat(32));
    assert_eq!(accepted(&chunked(&most_trailers)).body, b"");
    let most = format!("000003e8\r\n{}\r\n0\r\n\r\n", "x".repeat(1000));
    assert_eq!(accepted(&chunked(&most)).body.len(), 1000);
}

/// xorshift64*: enough for choosing where to hurt an input.
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % bound.max(1)
    }

    fn mutate(&mut self, input: &mut Vec<u8>) {
        const SPICE: [&[u8]; 12] = [
            b"\r\n",
            b"\n",
            b"\r",
            b"\0",
            b" ",
            b":",
            b",",
            b"\xff",
            b"Content-Length: 5\r\n",
            b"Transfer-Encoding: chunked\r\n",
            b"0\r\n\r\n",
            b"chunked",
        ];
        let at = self.below(input.len());
        match self.below(5) {
            0 => input[at] = self.below(256) as u8,
            1 => {
                input.remove(at);
            }
            2 => {
                let spice = SPICE[self.below(SPICE.len())];
                input.splice(at..at, spice.iter().copied());
            }
            3 => input.truncate(at),
            _ => {
                let end = (at + self.below(20)).min(input.len());
                let copy = input[at..end].to_vec();
                input.splice(at..at, copy);
            }
        }
    }
}

/// The head as the HTTP front end understood it, written anew.
fn rewritten(read: &Read) -> Vec<u8> {
    let minor = if read.shape.http_1_0 { 0 } else { 1 };
    let mut text = format!("{} {} HTTP/1.{minor}\r\n", read.method, read.target).into_bytes();
    for (name, value) in &read.headers {
        text.extend_from_slice(name.as_bytes());
        text.push(b':');
        text.extend_from_slice(value);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"\r\n");
    match read.shape.body {
        Body::Length(_) => text.extend_from_slice(&read.body),
        Body::Chunked => {
            for piece in read.body.chunks(7) {
                text.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                text.extend_from_slice(piece);
                text.extend_from_slice(b"\r\n");
            }
            text.extend_from_slice(b"0\r\n\r\n");
        }
    }
    text
}

#[test]
fn mutations_never_panic_and_what_is_accepted_means_the_same_again() {
    let seeds: [Vec<u8>; 4] = [
        b"POST /notify/a?b=c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nConnection: close, x\r\n\r\nhello".to_vec(),
        chunked("5;q\r\nhello\r\n3\r\n wo\r\n0\r\nA: b\r\n\r\n"),
        b"GET http://pay/a HTTP/1.0\r\nConnection: keep-alive\r\nAccept: */*\r\n\r\n".to_vec(),
        b"\r\nPUT / HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nab".to_vec(),
    ];
    let seed = 0x7061_7972_656C_6179;
    let mut dice = Dice(seed);
    let mut let_in = 0;
    for round in 0..60_000 {
        let mut input = seeds[dice.below(seeds.len())].clone();
        for _ in 0..=dice.below(4) {
            if !input.is_empty() {
                dice.mutate(&mut input);
            }
        }
        let whole = read(&input);
        let piece = 1 + dice.below(input.len());
        assert_eq!(
            whole,
            read_in_pieces(&input, piece),
            "seed {seed}, round {round}: pieces of {piece} differ for {:?}",
            String::from_utf8_lossy(&input)
        );
        if let Ok(Some(mut accepted)) = whole {
            let_in += 1;
            accepted.left = 0;
            assert_eq!(
                read(&rewritten(&accepted)),
                Ok(Some(accepted)),
                "seed {seed}, round {round}: {:?}",
                String::from_utf8_lossy(&input)
            );
        }
    }
    assert!(
        let_in > 5_000,
        "only {let_in} mutations were let in: the test tests little"
    );
}
