//! Who may come in and who is believed to speak for others, by address; and those who fail too often.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use socket2::{Domain, Socket, Type};

use crate::support::{DEADLINE, RawHttp, Relay, Via, Wire, eventually, over_both, post_request};

over_both! {
    where_a_request_may_come_from_is_decided_before_it_is_read;
    a_proxy_header_is_believed_from_trusted_proxies_alone;
    a_connection_of_a_trusted_proxy_without_its_header_is_refused;
    a_proxy_header_that_drips_is_cut_at_the_request_deadline;
}

/// A connection from `source`, one of this host's many addresses.
pub fn from(source: &str, relay: &Relay) -> RawHttp {
    let mut connection = bare_from(source, relay);
    seal(&mut connection, relay);
    connection
}

/// The same, with nothing said: where TLS is spoken it has not begun.
fn bare_from(source: &str, relay: &Relay) -> RawHttp {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    let source: SocketAddr = format!("{source}:0").parse().expect("an address");
    socket
        .bind(&source.into())
        .expect("an address of this host");
    socket
        .connect(&relay.ready().http.into())
        .expect("a connection");
    let stream: std::net::TcpStream = socket.into();
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    RawHttp::over(Wire::Plain(stream))
}

fn seal(connection: &mut RawHttp, relay: &Relay) {
    if let Some(client) = relay.gate().tls {
        let stream = connection.wire().stream().try_clone().expect("a handle");
        *connection.wire() = Wire::seal(stream, &client);
    }
}

fn header_v2(source: [u8; 4]) -> Vec<u8> {
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend(source);
    header.extend([10, 0, 0, 1, 0x30, 0x39, 1, 187]);
    header
}

/// What comes of a POST to a route over `connection`: its status, or 0 if nothing was said.
pub fn status(connection: &mut RawHttp, path: &str, headers: &[(&str, &str)]) -> u16 {
    connection.send(&post_request(path, headers, b"hello"));
    connection
        .answer()
        .expect("an answer or a close")
        .map_or(0, |answer| answer.status)
}

/// Nobody is connected, so what is let in is answered 503.
pub const LET_IN: u16 = 503;

fn where_a_request_may_come_from_is_decided_before_it_is_read(via: Via) {
    let relay = Relay::via(via, "[http]\nallow = [\"127.0.0.2\", \"127.0.1.0/24\"]");
    for source in ["127.0.0.2", "127.0.1.77"] {
        assert_eq!(
            status(&mut from(source, &relay), "/notify/till-7", &[]),
            LET_IN,
            "{source}"
        );
    }
    // What they say of themselves makes no difference.
    let claims = [
        ("X-Forwarded-For", "127.0.0.2"),
        ("X-Payrelay-Peer", "127.0.0.2:1"),
    ];
    for source in ["127.0.0.1", "127.0.2.1"] {
        let mut stranger = from(source, &relay);
        match via {
            Via::Clear => {
                let answer = stranger.must_answer();
                assert_eq!(answer.told(), (403, "forbidden"), "{source}");
                assert!(answer.text().contains("http.allow"), "{}", answer.text());
            }
            Via::Tls => assert!(stranger.wire().tls().expect("TLS").is_handshaking()),
        }
        stranger.expect_closed();
        let told = status(&mut from(source, &relay), "/notify/till-7", &claims);
        assert!(matches!(told, 0 | 403), "{told}");
    }
    eventually("they are counted", || {
        relay.metric("payrelay_http_refusals_total{reason=\"forbidden\"}") >= 4.0
    });
}

#[test]
fn a_routes_list_narrows_that_of_all_routes() {
    let relay = Relay::with(
        "[http]\nallow = [\"127.0.0.0/24\"]\n\
         [[route]]\npath = \"/all/{id}\"\nverify = \"none\"\n\
         [[route]]\npath = \"/some/{id}\"\nverify = \"none\"\nallow = [\"127.0.0.2\", \"127.0.9.9\"]\n",
    );
    for (source, path, wanted) in [
        ("127.0.0.1", "/all/till-7", LET_IN),
        ("127.0.0.1", "/some/till-7", 403),
        ("127.0.0.2", "/some/till-7", LET_IN),
        ("127.0.9.9", "/some/till-7", 403),
    ] {
        assert_eq!(
            status(&mut from(source, &relay), path, &[]),
            wanted,
            "{source} {path}"
        );
    }
    let answer = from("127.0.0.1", &relay).exchange(&post_request("/some/till-7", &[], b"x"));
    assert_eq!(answer.expect("an answer").told(), (403, "forbidden"));
}

#[test]
fn x_forwarded_for_is_believed_from_trusted_proxies_alone() {
    let relay = Relay::with(
        "[http]\nallow = [\"203.0.113.0/24\"]\ntrusted_proxies = [\"127.0.0.2\", \"10.0.0.0/8\"]",
    );
    for (list, wanted) in [
        ("203.0.113.7", LET_IN),
        ("198.51.100.1", 403),
        ("203.0.113.7, 198.51.100.1", 403), // the nearest counts
        ("198.51.100.1, 203.0.113.7", LET_IN),
        ("203.0.113.7, 10.1.2.3", LET_IN),
        ("nonsense", 403), // the proxy's own address then, and that is not in the list
    ] {
        let headers = [("X-Forwarded-For", list)];
        let mut proxy = from("127.0.0.2", &relay);
        assert_eq!(
            status(&mut proxy, "/notify/till-7", &headers),
            wanted,
            "{list}"
        );
    }
    // Each request of a connection speaks for itself.
    let mut proxy = from("127.0.0.2", &relay);
    let (good, bad) = (
        [("X-Forwarded-For", "203.0.113.7")],
        [("X-Forwarded-For", "198.51.100.1")],
    );
    assert_eq!(status(&mut proxy, "/notify/till-7", &good), LET_IN);
    assert_eq!(status(&mut proxy, "/notify/till-7", &bad), 403);
    proxy.expect_closed();
    assert_eq!(
        status(&mut from("127.0.0.2", &relay), "/notify/till-7", &[]),
        403
    );
    assert_eq!(
        status(&mut from("127.0.0.3", &relay), "/notify/till-7", &good),
        403
    );
}

fn proxied(via: Via, deadline: &str) -> Relay {
    Relay::via(
        via,
        &format!(
            "[http]\nallow = [\"203.0.113.0/24\", \"127.0.0.9\"]\ntrusted_proxies = [\"127.0.0.2\"]\n\
         proxy_protocol = true\nrequest_deadline = \"{deadline}\"",
        ),
    )
}

fn a_proxy_header_is_believed_from_trusted_proxies_alone(via: Via) {
    let relay = proxied(via, "30s");
    let come = |source: &str, header: &[u8], headers: &[(&str, &str)]| {
        let mut connection = bare_from(source, &relay);
        connection.send(header);
        seal(&mut connection, &relay);
        status(&mut connection, "/notify/till-7", headers)
    };
    let forged = [("X-Forwarded-For", "203.0.113.7")];
    let refused = |told: u16| matches!(told, 0 | 400 | 403);
    assert_eq!(come("127.0.0.2", &header_v2([203, 0, 113, 7]), &[]), LET_IN);
    let v1 = b"PROXY TCP4 203.0.113.7 10.0.0.1 12345 443\r\n";
    assert_eq!(come("127.0.0.2", v1, &[]), LET_IN);
    assert!(refused(come(
        "127.0.0.2",
        &header_v2([198, 51, 100, 1]),
        &[]
    )));
    assert!(refused(come(
        "127.0.0.2",
        &header_v2([198, 51, 100, 1]),
        &forged
    )));
    // Who is no proxy speaks for himself, and a header of his is not one.
    assert_eq!(come("127.0.0.9", b"", &[]), LET_IN);
    assert!(refused(come(
        "127.0.0.9",
        &header_v2([203, 0, 113, 7]),
        &[]
    )));
    assert!(refused(come(
        "127.0.0.3",
        &header_v2([203, 0, 113, 7]),
        &forged
    )));

    // A header in pieces, and what follows in the same packet.
    let mut pieces = bare_from("127.0.0.2", &relay);
    for byte in header_v2([203, 0, 113, 7]) {
        pieces.send(&[byte]);
    }
    seal(&mut pieces, &relay);
    assert_eq!(status(&mut pieces, "/notify/till-7", &[]), LET_IN);
    assert_eq!(status(&mut pieces, "/notify/till-7", &[]), LET_IN, "kept");
    if via == Via::Clear {
        let mut at_once = bare_from("127.0.0.2", &relay);
        let request = post_request("/notify/till-7", &[], b"hello");
        at_once.send(&[header_v2([203, 0, 113, 7]), request].concat());
        assert_eq!(at_once.must_answer().status, LET_IN);
    }
}

fn a_connection_of_a_trusted_proxy_without_its_header_is_refused(via: Via) {
    let relay = proxied(via, "30s");
    let mut without = from("127.0.0.2", &relay);
    let forged = [("X-Forwarded-For", "203.0.113.7")];
    assert!(matches!(
        status(&mut without, "/notify/till-7", &forged),
        0 | 400
    ));
    without.expect_closed();
    if via == Via::Clear {
        let mut without = from("127.0.0.2", &relay);
        without.send(&post_request("/notify/till-7", &[], b"hello"));
        let answer = without.must_answer();
        assert_eq!(answer.told(), (400, "bad-request"));
        assert!(answer.text().contains("PROXY header"), "{}", answer.text());
    }
}

fn a_proxy_header_that_drips_is_cut_at_the_request_deadline(via: Via) {
    let relay = proxied(via, "2s");
    let began = Instant::now();
    let header = header_v2([203, 0, 113, 7]);
    let mut drip = bare_from("127.0.0.2", &relay);
    for byte in &header[..header.len() - 1] {
        if drip.stirs(Duration::from_millis(100)) {
            break;
        }
        drip.send(&[*byte]);
    }
    drip.expect_closed();
    let after = began.elapsed();
    assert!(
        after >= Duration::from_secs(2) && after < DEADLINE / 2,
        "{after:?}"
    );
    // And one that says nothing.
    bare_from("127.0.0.2", &relay).expect_closed();
}

#[test]
fn lists_change_on_sighup_for_those_who_are_connected_too() {
    let relay = Relay::with("[http]\nallow = [\"127.0.0.1\"]");
    let mut kept = from("127.0.0.1", &relay);
    assert_eq!(status(&mut kept, "/notify/till-7", &[]), LET_IN);
    relay.rewrite("[http]\nallow = [\"127.0.0.2\"]");
    relay.signal(Signal::HUP);
    relay.log_contains("reloaded");
    assert_eq!(status(&mut kept, "/notify/till-7", &[]), 403);
    assert_eq!(
        status(&mut from("127.0.0.2", &relay), "/notify/till-7", &[]),
        LET_IN
    );
}

// ---- backends -----------------------------------------------------------------------------------------------------------
