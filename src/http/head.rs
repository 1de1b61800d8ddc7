//! The canonical head of a request, as a worker sees it.
//!
//! What a peer may not set is left out here: hop-by-hop headers, framing, and every `x-payrelay-*` header. A head says nothing
//! of a body, since none follows it on the link. Pure.

use std::io::Write;

use httparse::Header;

use super::request::{NOT_ASCII_HEADER, NUMBER_HEADER, PEER_HEADER};
use crate::edge::HttpRequest;
use crate::edge::framing::list;

/// Appends the canonical head of `request`, whose number is this, to `out`.
pub fn write(out: &mut Vec<u8>, request: &HttpRequest<'_>, number: u64) {
    out.extend_from_slice(request.method.as_bytes());
    out.push(b' ');
    out.extend_from_slice(request.target.as_bytes());
    out.extend_from_slice(b" HTTP/1.1\r\n");
    for (name, value) in kept(request.headers) {
        out.extend_from_slice(name.as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    // Writing into a Vec cannot fail.
    let _ = match request.peer.port() {
        0 => write!(out, "{PEER_HEADER}: {}\r\n", request.peer.ip()),
        _ => write!(out, "{PEER_HEADER}: {}\r\n", request.peer),
    };
    let _ = write!(out, "{NUMBER_HEADER}: {number}\r\n\r\n");
}

/// The headers that a handler may see.
pub fn kept<'a>(headers: &'a [Header<'a>]) -> impl Iterator<Item = (&'a str, &'a str)> {
    let dropped = dropped_by_connection(headers);
    let is_named = move |name: &str| {
        dropped
            .iter()
            .any(|token| token.eq_ignore_ascii_case(name.as_bytes()))
    };
    headers
        .iter()
        .filter(move |header| !is_ours(header.name) && !is_named(header.name))
        .map(|header| match std::str::from_utf8(header.value) {
            Ok(value) if value.is_ascii() => (header.name, value),
            // Nobody agrees on what such bytes say. The route refuses the request if it needs this header.
            _ => (NOT_ASCII_HEADER, header.name),
        })
}

/// The headers that Connection says are for this hop only.
fn dropped_by_connection<'a>(headers: &[Header<'a>]) -> Vec<&'a [u8]> {
    headers
        .iter()
        .filter(|header| header.name.eq_ignore_ascii_case("connection"))
        .flat_map(|header| list(header.value))
        .collect()
}

/// Whether a header ends here whoever sends it: about this hop, about framing, or in the relay's own name.
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
