//! The hostile requests, byte by byte: those that must be refused, with their status, and those that merely look odd.

/// A request line and Host; further header lines follow.
pub const POST: &str = "POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\n";

/// What a parser that disagrees with the relay about where the request ends would take for the next one.
pub const SMUGGLED: &str =
    "POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: 8\r\n\r\nsmuggled";

/// Requests that must be refused, with the status.
pub fn refused() -> Vec<(&'static str, Vec<u8>, u16)> {
    let with = |headers: &str| format!("{POST}{headers}\r\n").into_bytes();
    // A whole request for whoever takes it as chunked, so that taking it would show.
    let empty_chunked = |headers: &str| format!("{POST}{headers}\r\n0\r\n\r\n").into_bytes();
    let chunked =
        |body: &str| format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
    let raw = |text: &str| text.as_bytes().to_vec();
    let many = |count: usize| {
        (0..count)
            .map(|n| format!("X-{n}: {n}\r\n"))
            .collect::<String>()
    };
    vec![
        (
            "a length of 10^12",
            with("Content-Length: 1000000000000\r\n"),
            413,
        ),
        (
            "a length one over the limit",
            with("Content-Length: 1048577\r\n"),
            413,
        ),
        (
            "a length beyond 64 bits",
            with("Content-Length: 99999999999999999999999\r\n"),
            400,
        ),
        ("a negative length", with("Content-Length: -1\r\n"), 400),
        ("a length with a plus", with("Content-Length: +5\r\n"), 400),
        ("an empty length", with("Content-Length:\r\n"), 400),
        ("a length in hex", with("Content-Length: 0x5\r\n"), 400),
        (
            "two numbers in one length",
            with("Content-Length: 5 5\r\n"),
            400,
        ),
        (
            "lengths joined by a comma",
            with("Content-Length: 5, 5\r\n"),
            400,
        ),
        (
            "a length repeated alike",
            with("Content-Length: 5\r\nContent-Length: 5\r\n"),
            400,
        ),
        (
            "a length repeated unlike",
            with("Content-Length: 5\r\nContent-Length: 6\r\n"),
            400,
        ),
        (
            "a length and chunked",
            empty_chunked("Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        (
            "chunked and a length",
            empty_chunked("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n"),
            400,
        ),
        (
            "a space before the colon",
            empty_chunked("Transfer-Encoding : chunked\r\n"),
            400,
        ),
        ("another coding", with("Transfer-Encoding: gzip\r\n"), 501),
        (
            "another coding before chunked",
            with("Transfer-Encoding: gzip, chunked\r\n"),
            501,
        ),
        (
            "chunked twice",
            with("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
            501,
        ),
        (
            "almost chunked",
            with("Transfer-Encoding: xchunked\r\n"),
            501,
        ),
        (
            "a chunk size that is none",
            chunked("zz\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a negative chunk size",
            chunked("-5\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk size with a prefix",
            chunked("0x5\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk size with a space before",
            chunked(" 5\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        ("no chunk size", chunked("\r\nhello\r\n0\r\n\r\n"), 400),
        (
            "a chunk size beyond 64 bits",
            chunked("fffffffffffffffff\r\nhello\r\n"),
            400,
        ),
        (
            "a chunk size over the limit",
            chunked("100001\r\nhello\r\n"),
            413,
        ),
        (
            "a chunk longer than its size",
            chunked("3\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk shorter than its size",
            chunked("7\r\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk size ended by LF alone",
            chunked("5\nhello\r\n0\r\n\r\n"),
            400,
        ),
        (
            "a chunk ended by LF alone",
            chunked("5\r\nhello\n0\r\n\r\n"),
            400,
        ),
        (
            "a trailer that is no header",
            chunked("5\r\nhello\r\n0\r\nno trailer\r\n\r\n"),
            400,
        ),
        (
            "a thousand trailers",
            chunked(&format!("5\r\nhello\r\n0\r\n{}\r\n", many(1000))),
            431,
        ),
        ("HTTP/0.9", raw("GET /notify/till-7\r\n"), 400),
        (
            "HTTP/2.0",
            raw("POST /notify/till-7 HTTP/2.0\r\nHost: relay\r\n\r\n"),
            505,
        ),
        (
            "the preface of HTTP/2",
            raw("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
            505,
        ),
        (
            "HTTP/1.2",
            raw("POST /notify/till-7 HTTP/1.2\r\nHost: relay\r\n\r\n"),
            505,
        ),
        (
            "no HTTP at all",
            raw("POST /notify/till-7 HTTQ/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        ("TLS", raw("\x16\x03\x01\x02\0\x01\0\x01"), 400),
        (
            "chunked in HTTP/1.0",
            raw("POST /notify/till-7 HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
            400,
        ),
        ("a bare CR in a header", with("X-A: a\rX-B: b\r\n"), 400),
        ("a bare LF after a header", with("X-A: a\nX-B: b\r\n"), 400),
        ("a NUL in a header", with("X-A: a\0b\r\n"), 400),
        ("a DEL in a header", with("X-A: a\x7fb\r\n"), 400),
        (
            "a byte beyond ASCII in a header that the relay goes by",
            with("Connection: \u{e9}\r\n"),
            400,
        ),
        (
            "a byte beyond ASCII in the target",
            raw("POST /notify/\u{e9} HTTP/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        ("a folded header", with("X-A: a\r\n b\r\n"), 400),
        (
            "a folded first header",
            raw("POST /notify/till-7 HTTP/1.1\r\n Host: relay\r\n\r\n"),
            400,
        ),
        ("a header without a colon", with("X-A\r\n"), 400),
        ("a header without a name", with(": a\r\n"), 400),
        ("a bad header name", with("X A: a\r\n"), 400),
        ("no Host", raw("POST /notify/till-7 HTTP/1.1\r\n\r\n"), 400),
        ("two Hosts", with("Host: other\r\n"), 400),
        (
            "a space in the target",
            raw("POST /notify/till-7 x HTTP/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        (
            "no target",
            raw("POST HTTP/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        (
            "CONNECT",
            raw("CONNECT relay:80 HTTP/1.1\r\nHost: relay\r\n\r\n"),
            400,
        ),
        (
            "another expectation",
            with("Expect: the-unexpected\r\nContent-Length: 1\r\n"),
            417,
        ),
        (
            "a header of 100 KB",
            with(&format!("X-A: {}\r\n", "a".repeat(100_000))),
            431,
        ),
        (
            "a target of 100 KB",
            raw(&format!(
                "POST /{} HTTP/1.1\r\nHost: relay\r\n\r\n",
                "a".repeat(100_000)
            )),
            431,
        ),
        ("65 headers", with(&many(64)), 431),
        ("10,000 headers", with(&many(10_000)), 431),
    ]
}

/// Requests that look odd and are fine; each carries five bytes, `hello`.
pub fn served() -> Vec<(&'static str, Vec<u8>)> {
    let with =
        |headers: &str| format!("{POST}{headers}Content-Length: 5\r\n\r\nhello").into_bytes();
    let chunked =
        |body: &str| format!("{POST}Transfer-Encoding: chunked\r\n\r\n{body}").into_bytes();
    vec![
        ("a TE that has made servers panic", with("TE: trailers;q=NaN\r\n")),
        ("HTTP/1.0", b"POST /notify/till-7 HTTP/1.0\r\nContent-Length: 5\r\n\r\nhello".to_vec()),
        ("leading zeros in the length", format!("{POST}Content-Length: 0005\r\n\r\nhello").into_bytes()),
        ("the target in absolute form", b"POST http://relay/notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: 5\r\n\r\nhello".to_vec()),
        ("one empty line too many before it", [b"\r\n", &with("")[..]].concat()),
        ("64 headers", with(&(0..62).map(|n| format!("X-{n}: {n}\r\n")).collect::<String>())),
        ("chunks with extensions", chunked("2;a=1\r\nhe\r\n3;b\r\nllo\r\n0\r\n\r\n")),
        ("chunks with leading zeros", chunked("002\r\nhe\r\n0003\r\nllo\r\n000\r\n\r\n")),
        ("chunks with trailers", chunked("5\r\nhello\r\n0\r\nContent-Length: 99\r\nX-A: a\r\n\r\n")),
        ("chunked in capitals", format!("{POST}transfer-encoding: CHUNKED\r\n\r\n5\r\nhello\r\n0\r\n\r\n").into_bytes()),
        ("a peer that it claims to be", with("X-Payrelay-Peer: 10.0.0.1:1\r\nX-Forwarded-For: 10.0.0.1\r\n")),
        ("Connection: anything", with("Connection: close, X-A, content-length\r\nX-A: a\r\n")),
    ]
}
