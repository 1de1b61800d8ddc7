//! The HTTP front end's framing, beside tiny_http: whatever is let in must be the same request to both, and end at the same byte.

use std::cell::RefCell;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use httparse::EMPTY_HEADER;
use payrelay::edge::HttpRequest;
use payrelay::edge::framing::{Body, Chunks, HEADERS_MAX, HeadScan, parse_head};
use payrelay::http::write_head;

const BODY_BYTES_MAX: usize = 4096;

/// Reads `data` as what a provider's connection sends. The first byte says how it is cut into reads.
pub fn run(data: &[u8]) {
    let Some((&cut, data)) = data.split_first() else {
        return;
    };
    let step = 1 + usize::from(cut);
    // However it is cut, the head ends where it ends.
    let whole = HeadScan::default().go_on(data);
    let mut scan = HeadScan::default();
    let mut pieces = Ok(None);
    let mut end = 0;
    while end < data.len() && matches!(pieces, Ok(None)) {
        end = (end + step).min(data.len());
        pieces = scan.go_on(&data[..end]);
    }
    assert_eq!(whole, pieces);
    let Ok(Some(span)) = whole else {
        return;
    };
    let mut slots = [EMPTY_HEADER; HEADERS_MAX];
    let Ok(head) = parse_head(&data[span.start..span.end], &mut slots, BODY_BYTES_MAX) else {
        return;
    };
    let rest = &data[span.end..];
    let body = match head.shape.body {
        Body::Length(length) => rest.get(..length).map(<[u8]>::to_vec),
        Body::Chunked => chunked(rest, step),
    };
    let Some(body) = body else {
        return;
    };
    assert!(body.len() <= BODY_BYTES_MAX);
    let request = HttpRequest {
        method: head.method,
        target: &head.target,
        headers: head.headers,
        body: &body,
        peer: SocketAddr::from((Ipv4Addr::LOCALHOST, 1)),
    };
    let mut canonical = Vec::new();
    write_head(&mut canonical, &request, 7);
    TINY.with_borrow_mut(|tiny| {
        tiny.get_or_insert_with(Tiny::open)
            .reads(&request, &canonical)
    });
}

/// The decoded body, the same however it is cut into reads; `None` if it is refused, or not whole.
fn chunked(bytes: &[u8], step: usize) -> Option<Vec<u8>> {
    let decode = |step: usize| {
        let mut chunks = Chunks::new(BODY_BYTES_MAX);
        let (mut body, mut used) = (Vec::new(), 0);
        for piece in bytes.chunks(step) {
            let mut piece = piece.to_vec();
            let decoded = chunks.decode(&mut piece).map_err(|_| ())?;
            body.extend_from_slice(&piece[..decoded.kept]);
            used += decoded.consumed;
            if decoded.done {
                return Ok(Some((body, used)));
            }
        }
        Ok(None)
    };
    let whole: Result<_, ()> = decode(bytes.len().max(1));
    assert_eq!(whole, decode(step));
    whole.ok().flatten().map(|(body, _)| body)
}

thread_local! {
    static TINY: RefCell<Option<Tiny>> = const { RefCell::new(None) };
}

/// A tiny_http at the end of a link.
struct Tiny {
    link: UnixStream,
    server: tiny_http::Server,
    _directory: tempfile::TempDir,
}

impl Tiny {
    fn open() -> Self {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("link");
        let listener = std::os::unix::net::UnixListener::bind(&path).expect("a socket");
        let server = tiny_http::Server::from_listener(listener, None).expect("a server");
        let link = UnixStream::connect(path).expect("a link");
        Self {
            link,
            server,
            _directory: directory,
        }
    }

    /// tiny_http takes `canonical` for `request`, and what follows it for the next.
    fn reads(&mut self, request: &HttpRequest<'_>, canonical: &[u8]) {
        const NEXT: &[u8] = b"POST /the-next HTTP/1.1\r\nHost: link\r\n\r\n";
        self.link
            .write_all(&[canonical, NEXT].concat())
            .expect("a link that takes it");
        let receive = || {
            let received = self
                .server
                .recv_timeout(Duration::from_secs(5))
                .expect("a server");
            received.expect("tiny_http does not take it for a request")
        };
        let (first, next) = (receive(), receive());
        assert_eq!(
            next.url(),
            "/the-next",
            "what follows is not the next request"
        );
        assert_eq!(first.method().as_str(), request.method);
        assert_eq!(first.url(), request.target);
        assert_eq!(
            first.body_length().unwrap_or(0),
            0,
            "it would wait for a body"
        );
        let sent: Vec<(String, String)> = httparse_headers(canonical);
        let got: Vec<(String, String)> = first
            .headers()
            .iter()
            .map(|header| {
                (
                    header.field.as_str().as_str().to_owned(),
                    header.value.as_str().to_owned(),
                )
            })
            .collect();
        assert_eq!(got, sent);
        for (name, value) in &got {
            let name = name.to_ascii_lowercase();
            // In place of a header whose value is not ASCII, with its name.
            let names_another = name == "x-payrelay-not-ascii"
                && request
                    .headers
                    .iter()
                    .any(|header| header.name == value.as_str() && !header.value.is_ascii());
            let ours = names_another
                || matches!(
                    (&*name, &**value),
                    ("x-payrelay-peer", "127.0.0.1:1") | ("x-payrelay-request", "7")
                );
            assert!(
                ours || !name.starts_with("x-payrelay-"),
                "a header in our own name came through"
            );
            assert!(!matches!(
                &*name,
                "content-length" | "transfer-encoding" | "connection" | "expect" | "te" | "upgrade"
            ));
            let came = request.headers.iter().any(|header| {
                header.name.eq_ignore_ascii_case(&name) && header.value == value.as_bytes()
            });
            assert!(ours || came, "a header that nobody sent");
        }
        // Answered by nobody: a link has no way back.
        drop(first.into_writer());
        drop(next.into_writer());
    }
}

fn httparse_headers(head: &[u8]) -> Vec<(String, String)> {
    let mut slots = [EMPTY_HEADER; HEADERS_MAX + 2];
    let mut parsed = httparse::Request::new(&mut slots);
    let whole = parsed.parse(head).expect("a canonical head");
    assert_eq!(whole, httparse::Status::Complete(head.len()));
    let text = |value: &[u8]| String::from_utf8(value.to_vec()).expect("ASCII");
    parsed
        .headers
        .iter()
        .map(|header| (header.name.to_owned(), text(header.value)))
        .collect()
}
