//! What a backend writes: unknown, unusual, malformed and too long.

use crate::support::{Backend, Relay};

#[test]
fn an_unknown_verb_is_said_to_be_unknown_and_skipped_with_its_data() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    till.send_bytes(b"JUGGLE to=till-8 ref=42 =6\nACK\nA\n\n");
    assert_eq!(till.expect_error("unknown-verb").field("ref"), "42");
    till.send_bytes(b"TOSS ch=x =0\n\nCATCH ch=x\nFUTURE x=1 =1\n\0\n");
    for _ in 0..3 {
        till.expect_error("unknown-verb");
    }
    // Data that comes in pieces is skipped too, up to its last byte.
    till.send_bytes(b"TOSS ch=x =100000\n");
    for _ in 0..1000 {
        till.send_bytes(&[b'\n'; 100]);
    }
    till.send_bytes(b"\n");
    till.expect_error("unknown-verb");
    till.settle();
    let answer = relay.post("/notify/till-7", b"x");
    till.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

#[test]
fn what_is_merely_unusual_is_accepted() {
    let relay = Relay::start();
    let mut till = Backend::raw(&relay);
    till.send_bytes(b"HELLO 1 id=till-7 colour=blue max=4\r\n");
    till.expect_line("OK id=till-7");
    till.send_bytes(b"PING\r\nPONG\nPING\n");
    till.expect_line("PONG");
    till.expect_line("PONG");
    let answer = relay.post("/notify/till-7", b"x");
    let id = till.message().id();
    // Percent-escapes that need not be, an unknown key, in pieces.
    let escaped: String = id.bytes().map(|byte| format!("%{byte:02X}")).collect();
    till.send_bytes(format!("ACK later=1 id={}", &escaped[..10]).as_bytes());
    till.send_bytes(&escaped.as_bytes()[10..]);
    till.send_bytes(b"\r\n");
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

#[test]
fn what_is_malformed_is_a_bad_frame_and_ends_the_session() {
    let relay = Relay::start();
    let bad: [&[u8]; 17] = [
        b"\n",
        b"\r\n",
        b" PING\n",
        b"PING \n",
        b"ping\n",
        b"PING  x=1\n",
        b"RDY max\n",
        b"RDY max=1 max=1\n",
        b"RDY max=%\n",
        b"RDY max=%1\n",
        b"RDY max=%GG\n",
        b"RDY MAX=1\n",
        b"RDY max=1 =0 x=1\n\n",
        b"RDY m\tax=1\n",
        b"RDY max=\xc2\xa51\n",
        b"PONG =2\nabX",
        b"PONG =2\nab\r\n",
    ];
    for bytes in bad {
        let mut till = relay.backend("till-7");
        till.send_bytes(bytes);
        let error = till.expect_fatal("bad-frame");
        assert!(
            error.field("msg").len() > 5,
            "{}: {:?}",
            bytes.escape_ascii(),
            error.line
        );
    }
}

#[test]
fn a_line_may_have_1024_bytes_and_no_more() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let longest = format!("PING x={}", "y".repeat(1024 - 7));
    till.send(&longest);
    till.expect_line("PONG");
    till.send_bytes(format!("{longest}y\n").as_bytes());
    till.expect_fatal("too-long");
}

#[test]
fn data_beyond_max_body_is_too_big_before_it_is_sent() {
    let relay = Relay::with("[http]\nmax_body = \"1KiB\"");
    let mut till = relay.backend("till-7");
    till.send_bytes(b"PUB ch=x ref=7 =1024\n");
    till.send_bytes(&[b'x'; 1024]);
    till.send_bytes(b"\n");
    till.expect_line("OK ref=7");
    till.send("PUB ch=x =1025");
    till.expect_fatal("too-big");
    let mut till = relay.backend("till-7");
    till.send("PUB ch=x =9999999999");
    till.expect_fatal("too-big");
}
