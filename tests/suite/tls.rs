//! TLS at the providers' entrance: who does not speak it properly costs nobody else anything, certificates change under
//! load, and an answer inside it is as whole as one in the clear. (`hostile_http` runs through TLS as well.)

use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, ProtocolVersion};

use crate::support::{
    Authority, DEADLINE, Gate, Random, RawHttp, Relay, Steady, Via, Wire, eventually, heavy,
    post_request,
};

/// The beginning of a ClientHello: a handshake record of 512 bytes, a ClientHello of 508, TLS 1.2, and no more.
const HELLO_BEGINS: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

/// What `openssl s_client` says of a connection to the relay, its input being `typed`.
fn s_client(relay: &Relay, arguments: &str, typed: &str) -> String {
    let mut command = Command::new("openssl");
    command
        .arg("s_client")
        .arg("-CAfile")
        .arg(Authority::get().file());
    command.arg("-connect").arg(relay.ready().http.to_string());
    command.args(arguments.split_whitespace());
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = command.spawn().expect("openssl");
    let mut input = child.stdin.take().expect("piped");
    input.write_all(typed.as_bytes()).expect("typed");
    // Held open while something was typed: at its end s_client would go without waiting for what comes of it.
    let held = (!typed.is_empty()).then_some(input);
    let mut said = String::new();
    let mut out = child.stdout.take().expect("piped");
    out.read_to_string(&mut said).expect("its words");
    let mut err = child.stderr.take().expect("piped");
    err.read_to_string(&mut said).expect("its words");
    drop(held);
    child.wait().expect("its end");
    said
}

/// A socket to the front that has not said anything.
fn bare(relay: &Relay) -> RawHttp {
    RawHttp::connect(relay.ready().http)
}

fn gate(relay: &Relay, client: &Arc<ClientConfig>) -> Gate {
    Gate {
        addr: relay.ready().http,
        tls: Some(Arc::clone(client)),
    }
}

#[test]
fn a_handshake_that_drips_or_stops_is_cut_at_the_request_deadline() {
    let relay = Relay::via(Via::Tls, "[http]\nrequest_deadline = \"2s\"");
    let steady = Steady::start(&relay);
    let began = Instant::now();
    let hello = [HELLO_BEGINS, &[0; 200]].concat();
    let mut drips: Vec<_> = [0, 1, 5, HELLO_BEGINS.len(), 100]
        .iter()
        .map(|start| {
            let mut drip = bare(&relay);
            drip.send(&hello[..*start]);
            (drip, hello[*start..].iter())
        })
        .collect();
    // And whoever says nothing at all, or no more after a whole handshake.
    let mut silent = [bare(&relay), relay.http()];
    while !drips.is_empty() {
        drips.retain_mut(|(drip, more)| {
            if !drip.stirs(Duration::from_millis(50)) {
                drip.send(&[*more.next().expect("bytes enough for many seconds")]);
                return true;
            }
            let after = began.elapsed();
            assert!(after >= Duration::from_secs(2), "cut too early: {after:?}");
            false
        });
        assert!(
            began.elapsed() < DEADLINE,
            "{} drips are not cut",
            drips.len()
        );
    }
    for one in &mut silent {
        one.expect_closed();
    }
    steady.still_served();
}

#[test]
fn what_is_no_tls_is_told_so_and_closed_and_nothing_of_it_arrives() {
    let relay = Relay::via(Via::Tls, "[http]\nrequest_deadline = \"5s\"");
    let steady = Steady::start(&relay);
    let mut till = relay.backend("till-7");
    let mut clear = bare(&relay);
    let answer = clear.exchange(&post_request("/notify/till-7", &[], b"hello"));
    let answer = answer.expect("an answer in the clear");
    assert_eq!(answer.told(), (400, "tls"));
    assert!(answer.text().contains("https://"), "{}", answer.text());
    clear.expect_closed();

    let mut random = Random::new();
    for round in 0..60 {
        let length = random.below(20_000);
        let mut bytes = random.bytes(length + 1);
        match round % 3 {
            0 => bytes[0] = 22, // a handshake, it says
            1 => bytes
                .splice(0..0, HELLO_BEGINS.iter().copied())
                .for_each(drop),
            _ => {}
        }
        let mut rude = bare(&relay);
        rude.send(&bytes);
        rude.half_close();
        // An alert, or nothing; then the end.
        let mut said = Vec::new();
        let end = rude.wire().read_to_end(&mut said);
        let alerted = said.is_empty() || said[0] == 21 || said.starts_with(b"HTTP/1.1 400");
        assert!(alerted, "round {round}: {}, {end:?}", said.escape_ascii());
    }
    till.settle();
    steady.still_served();
    eventually("nobody is left", || {
        relay.metric("payrelay_http_connections") <= 2.0
    });
    assert!(relay.metric("payrelay_http_refusals_total{reason=\"tls\"}") >= 20.0);
}

#[test]
fn versions_below_1_2_are_refused_and_1_2_and_1_3_are_spoken() {
    let relay = Relay::via(Via::Tls, "");
    let mut till = relay.backend("till-7");
    for (version, agreed) in [
        (&TLS12, ProtocolVersion::TLSv1_2),
        (&TLS13, ProtocolVersion::TLSv1_3),
    ] {
        let mut connection = RawHttp::connect(gate(&relay, &Authority::get().client(&[version])));
        let tls = connection.wire().tls().expect("TLS");
        assert_eq!(tls.protocol_version(), Some(agreed));
        connection.send(&post_request("/notify/till-7", &[], b"hello"));
        till.expect("MSG id=* =5", b"hello").ack();
        assert_eq!(connection.must_answer().told(), (200, "delivered"));
    }
    for old in ["-tls1_1", "-tls1"] {
        let said = s_client(&relay, &format!("{old} -cipher ALL:@SECLEVEL=0"), "");
        assert!(said.contains("alert"), "{old}: {said}");
        assert!(said.contains("Cipher is (NONE)"), "{old}: {said}");
    }
}

/// Certificates here are of an elliptic curve.
#[test]
fn an_old_client_that_cannot_connect_is_told_of_with_what_it_offers() {
    for (arguments, offer) in [
        (
            "-tls1_2 -cipher ECDHE-RSA-AES128-GCM-SHA256",
            "it offers TLS 1.2 or later with TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256: none that fits the key of the certificate",
        ),
        (
            "-tls1_2 -cipher AES128-SHA:ECDHE-ECDSA-AES128-SHA:@SECLEVEL=0",
            "it offers TLS 1.2 or later with TLS_RSA_WITH_AES_128_CBC_SHA, TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA: none that the \
             relay speaks",
        ),
        ("-tls1 -cipher ALL:@SECLEVEL=0", "it offers TLS 1.0 with"),
    ] {
        let relay = Relay::via(Via::Tls, "");
        for _ in 0..3 {
            let said = s_client(&relay, arguments, "");
            assert!(said.contains("alert"), "{arguments}: {said}");
        }
        let line = relay.log_contains(offer);
        assert!(
            line.contains("[WARN]") && line.contains(": no TLS with 127.0.0.1:"),
            "{line}"
        );
        assert_eq!(
            relay.log().matches(": no TLS with ").count(),
            1,
            "once in 10 s"
        );
    }
}

#[test]
fn renegotiation_is_refused() {
    let relay = Relay::via(Via::Tls, "[http]\nrequest_deadline = \"5s\"");
    let steady = Steady::start(&relay);
    let said = s_client(&relay, "-tls1_2", "R\n");
    assert!(said.contains("RENEGOTIATING"), "{said}");
    assert!(said.contains("no renegotiation"), "{said}");
    steady.still_served();
}

#[test]
fn http_1_1_is_what_alpn_chooses_and_who_insists_on_another_is_refused() {
    let relay = Relay::via(Via::Tls, "");
    for (offered, chosen) in [
        (vec!["h2", "http/1.1"], Some("http/1.1")),
        (vec!["http/1.1"], Some("http/1.1")),
        (vec![], None),
    ] {
        let mut client = (*Authority::get().client(rustls::ALL_VERSIONS)).clone();
        client.alpn_protocols = offered
            .iter()
            .map(|name| name.as_bytes().to_vec())
            .collect();
        let mut connection = RawHttp::connect(gate(&relay, &Arc::new(client)));
        let tls = connection.wire().tls().expect("TLS");
        assert!(!tls.is_handshaking(), "{offered:?}");
        assert_eq!(
            tls.alpn_protocol(),
            chosen.map(str::as_bytes),
            "{offered:?}"
        );
    }
    let mut client = (*Authority::get().client(rustls::ALL_VERSIONS)).clone();
    client.alpn_protocols = vec![b"h2".to_vec()];
    let alert = refused(&relay, &Arc::new(client));
    assert_eq!(alert, AlertDescription::NoApplicationProtocol);
}

/// The alert that ends a handshake which must fail.
fn refused(relay: &Relay, client: &Arc<ClientConfig>) -> AlertDescription {
    let name = "localhost".try_into().expect("a name");
    let mut tls = rustls::ClientConnection::new(Arc::clone(client), name).expect("a client");
    let mut stream = TcpStream::connect(relay.ready().http).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    while tls.is_handshaking() {
        if let Err(error) = tls.complete_io(&mut stream) {
            let why = error.get_ref().and_then(|why| why.downcast_ref());
            return match why {
                Some(rustls::Error::AlertReceived(alert)) => *alert,
                _ => panic!("no alert, but {error}"),
            };
        }
    }
    panic!("the handshake succeeded");
}

#[test]
fn the_name_that_a_client_asks_for_makes_no_difference() {
    let relay = Relay::via(Via::Tls, "");
    let mut till = relay.backend("till-7");
    let client = Authority::get().client(rustls::ALL_VERSIONS);
    // The last one sends none: it is an address.
    for name in ["localhost", "other.example", "127.0.0.1"] {
        let stream = TcpStream::connect(relay.ready().http).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let mut connection = RawHttp::over(Wire::seal_as(stream, &client, name));
        connection.send(&post_request("/notify/till-7", &[], name.as_bytes()));
        till.expect("MSG id=* =*", name.as_bytes()).ack();
        assert_eq!(
            connection.must_answer().told(),
            (200, "delivered"),
            "{name}"
        );
    }
}

#[test]
fn an_end_is_said_inside_tls_so_that_nobody_can_cut_an_answer_short_unseen() {
    let relay = Relay::via(Via::Tls, "");
    for headers in [&[("Connection", "close")][..], &[("Expect", "nonsense")]] {
        let mut connection = relay.http();
        connection.send(&post_request("/notify/till-7", headers, b"hello"));
        connection.must_answer();
        let end = connection.wire().read(&mut [0]);
        assert!(
            matches!(end, Ok(0)),
            "{headers:?}: {end:?} instead of close_notify"
        );
    }
}

#[test]
fn a_request_cut_short_is_none_whether_the_cut_is_announced_or_not() {
    let relay = Relay::via(Via::Tls, "");
    let mut till = relay.backend("till-7");
    let whole = post_request("/notify/till-7", &[], b"amount=8800");
    let chunked =
        b"POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nTransfer-Encoding: chunked\r\n\r\n\
        4\r\namou\r\n";
    for request in [&whole[..whole.len() - 2], chunked] {
        for announced in [false, true] {
            let mut connection = relay.http();
            connection.send(request);
            if announced {
                connection.wire().say_end();
            }
            let stream = connection.wire().stream();
            stream
                .shutdown(std::net::Shutdown::Write)
                .expect("a half close");
            assert_eq!(connection.must_answer().told(), (400, "bad-request"));
            connection.expect_closed();
        }
    }
    till.settle();
    // Who has sent all of it is answered, however it ends its sending.
    for announced in [false, true] {
        let mut connection = relay.http();
        connection.send(&whole);
        if announced {
            connection.wire().say_end();
        }
        let stream = connection.wire().stream();
        stream
            .shutdown(std::net::Shutdown::Write)
            .expect("a half close");
        till.expect("MSG id=* =11", b"amount=8800").ack();
        assert_eq!(connection.must_answer().told(), (200, "delivered"));
    }
}

#[test]
fn answers_that_the_socket_does_not_take_at_once_arrive_whole_and_in_order() {
    let body = "0123456789abcdef".repeat(1000);
    let routes = format!("[[route]]\npath = \"/notify/{{id}}\"\nok = {{ body = \"{body}\" }}");
    let relay = Relay::via(Via::Tls, &routes);
    let mut till = relay.backend_with("till-7", "max=1024");
    let socket = till.shutdown_handle();
    let acknowledges = thread::spawn(move || {
        while let Some(frame) = till.next() {
            till.try_send(format!("ACK id={}\n", frame.field("id")).as_bytes());
        }
    });
    // Some megabytes of answers, more than the sockets on the way hold, before the first is read.
    const REQUESTS: usize = 800;
    let mut connection = relay.http();
    connection.send(&post_request("/notify/till-7", &[], b"hello").repeat(REQUESTS));
    // The relay takes the next only when the answer before it is written: at some point it stops.
    let answered = || relay.metric("payrelay_receipts_total{result=\"ack\"}") as usize;
    let mut before = usize::MAX;
    eventually("it waits for us to read", || {
        let now = answered();
        let stands_still = now > 10 && now == std::mem::replace(&mut before, now);
        crate::support::let_pass(Duration::from_millis(300));
        stands_still
    });
    assert!(answered() < REQUESTS, "the sockets took everything");
    let mut last = String::new();
    for _ in 0..REQUESTS {
        let answer = connection.must_answer();
        assert_eq!(
            (answer.told(), answer.text() == body),
            ((200, "delivered"), true)
        );
        // Ids ascend, and so say the order.
        assert!(answer.id() > last.as_str(), "{} after {last}", answer.id());
        last = answer.id().to_owned();
    }
    let _ = socket.shutdown(std::net::Shutdown::Both);
    acknowledges.join().expect("no panic");
}

#[test]
fn at_the_cap_a_newcomer_is_told_by_an_alert() {
    let relay = Relay::via(Via::Tls, "[http]\nmax_connections = 1");
    let mut till = relay.backend("till-7");
    let mut busy = relay.http();
    busy.send(&post_request("/notify/till-7", &[], b"hello"));
    let message = till.expect("MSG id=* =5", b"hello");
    let client = Authority::get().client(rustls::ALL_VERSIONS);
    assert_eq!(refused(&relay, &client), AlertDescription::InternalError);
    message.ack();
    assert_eq!(busy.must_answer().told(), (200, "delivered"));
}

#[test]
fn a_thousand_idle_connections_keep_nobody_out_and_cost_little() {
    let _alone = heavy();
    let relay = Relay::via(
        Via::Tls,
        "[http]\nmax_connections = 1200\nrequest_deadline = \"1m\"",
    );
    let steady = Steady::start(&relay);
    let (fds, before) = (relay.process().fds(), relay.process().rss_kib());
    let mut idle: Vec<_> = (0..1000).map(|_| relay.http()).collect();
    for connection in &mut idle {
        assert!(!connection.wire().tls().expect("TLS").is_handshaking());
    }
    steady.still_served();
    let each = (relay.process().rss_kib() - before) * 1024 / 1000;
    eprintln!("an idle TLS connection: {each} bytes");
    assert!(each < 160 * 1024, "{each} bytes each"); // a debug build's stacks; release takes a quarter
    let last = idle.last_mut().expect("a thousand");
    assert_eq!(
        last.post("/notify/steady", b"hello").told(),
        (200, "delivered")
    );
    drop(idle);
    eventually("their descriptors are back", || {
        relay.process().fds() <= fds + 8
    });
    steady.still_served();
}

/// Lets `connection` take new keys, which the relay must follow: records with nothing in them for it to read.
fn take_new_keys(connection: &mut RawHttp) -> bool {
    match connection.wire() {
        Wire::Plain(_) => false,
        Wire::Tls(tls, stream) => {
            tls.refresh_traffic_keys().expect("TLS 1.3");
            tls.complete_io(stream).is_ok()
        }
    }
}

#[test]
fn records_that_say_nothing_do_not_hold_a_connection() {
    let relay = Relay::via(Via::Tls, "[http]\nrequest_deadline = \"2s\"");
    let mut till = relay.backend("till-7");
    // A few, until the deadline; and so many that TLS itself has enough of them.
    for (pace, least) in [(100, Duration::from_secs(2)), (0, Duration::ZERO)] {
        let began = Instant::now();
        let mut idle = relay.http();
        while !idle.stirs(Duration::from_millis(pace + 1)) {
            take_new_keys(&mut idle);
            assert!(began.elapsed() < DEADLINE, "it is not cut");
        }
        idle.expect_closed();
        assert!(began.elapsed() >= least, "cut too early");
    }

    // While an answer is owed they harm nothing, nor does a part of the next request.
    let mut provider = relay.http();
    let next = post_request("/notify/till-7", &[], b"next");
    for _ in 0..3 {
        provider.send(&post_request("/notify/till-7", &[], b"hello"));
        let message = till.expect("MSG id=* =5", b"hello");
        for _ in 0..20 {
            assert!(take_new_keys(&mut provider));
        }
        provider.send(&next[..7]);
        message.ack();
        assert_eq!(provider.must_answer().told(), (200, "delivered"));
        provider.send(&next[7..]);
        till.expect("MSG id=* =4", b"next").ack();
        assert_eq!(provider.must_answer().told(), (200, "delivered"));
    }
}
