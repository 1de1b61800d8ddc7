//! What a slow peer costs, and what is written when a socket takes a part.

use std::io::Read;
use std::os::unix::net::UnixStream;

use super::*;
use crate::notification::{BackendId, IdMint};

fn link() -> (Link, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a socket");
    ours.set_nonblocking(true).expect("an option");
    let socket = Arc::new(OwnedFd::from(ours));
    (Link::new(socket, None, Instant::now()), theirs)
}

fn notification(head: Vec<u8>, body: Vec<u8>) -> Arc<Notification> {
    Arc::new(Notification {
        id: IdMint::new(0).mint(0),
        backend: BackendId::parse("a").expect("an id"),
        route: "r".into(),
        verified: "none".into(),
        event: None,
        event_proven: false,
        at_unix_ms: 0,
        tries: 1,
        head,
        body,
    })
}

#[test]
fn a_peer_that_never_quite_catches_up_costs_what_it_has_not_read_and_no_more() {
    let (mut link, mut peer) = link();
    let now = Instant::now();
    let mut chunk = [0; 1000];
    let fill = |out: &mut Vec<u8>| out.resize(out.len() + 1000, b'x');
    while link.is_flushed() {
        link.frame(now, fill);
        link.flush(now).expect("an open socket");
    }
    for _ in 0..200 {
        link.frame(now, fill); // what it never gets to read
    }
    for _ in 0..10_000 {
        link.frame(now, fill);
        peer.read_exact(&mut chunk).expect("there is always more");
        link.flush(now).expect("an open socket");
        let held: usize = link.unwritten.iter().map(|p| p.bytes().len()).sum();
        assert!(held <= link.bytes + PIECE_BYTES_MAX + 1000, "{held} held");
    }
}

#[test]
fn what_a_socket_takes_in_part_goes_on_where_it_stopped() {
    for (head_bytes, body_bytes) in [(0, 4 << 20), (2 << 20, 4 << 20), (4 << 20, 9)] {
        let (mut link, mut peer) = link();
        let now = Instant::now();
        let bytes = |count: usize| (0..count).map(|n| (n >> 5) as u8).collect();
        let (head, body): (Vec<u8>, Vec<u8>) = (bytes(head_bytes), bytes(body_bytes));
        let expected = [b"MSG\n".as_slice(), &head, &body, b"\n"].concat();
        let notification = notification(head, body);
        link.send(now, b"MSG\n", &notification)
            .expect("an open socket");
        assert!(!link.is_flushed(), "more than a socket takes at once");
        let mut read = vec![0; expected.len()];
        let mut at = 0;
        while at < read.len() {
            at += peer.read(&mut read[at..]).expect("there is more");
            link.flush(now).expect("an open socket");
        }
        assert!(read == expected, "{head_bytes} and {body_bytes} bytes");
        assert!(link.is_flushed());
    }
}

#[test]
fn bytes_are_counted_as_they_go_and_large_bodies_apart() {
    let (mut link, mut peer) = link();
    let now = Instant::now();
    let body = (0..1 << 20).map(|n: u32| (n >> 5) as u8).collect();
    let notification = notification(b"head".to_vec(), body);
    let mut expected = Vec::new();
    for _ in 0..3 {
        link.frame(now, |out| out.extend_from_slice(b"line\n"));
        link.data(now, &notification);
        expected.extend_from_slice(b"line\nhead");
        expected.extend_from_slice(&notification.body);
        expected.push(b'\n');
    }
    assert!(link.is_backed_up() && !link.is_flooded());
    let (mut got, mut chunk) = (Vec::new(), vec![0; 77_777]);
    while got.len() < expected.len() {
        link.flush(now).expect("an open socket");
        let read = peer.read(&mut chunk).expect("bytes");
        got.extend_from_slice(&chunk[..read]);
        let (copied, body) = link.unwritten.iter().fold((0, 0), |(c, b), p| match p {
            Piece::Copied(bytes) => (c + bytes.len(), b),
            Piece::Body(_) => (c, b + p.bytes().len()),
        });
        assert_eq!(copied + body - link.gone, link.bytes);
        assert!(body - link.body_bytes == link.gone || body == link.body_bytes);
    }
    assert!(got == expected);
    assert_eq!((link.bytes, link.body_bytes), (0, 0));
}
