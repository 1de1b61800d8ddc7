//! TLS at the providers' entrance: who does not speak it properly costs nobody else anything, certificates change under
//! load, and an answer inside it is as whole as one in the clear. (`hostile_http` runs through TLS as well.)

use std::io::Read;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustls::{AlertDescription, ClientConfig};

use crate::support::{
    Authority, DEADLINE, Gate, Random, RawHttp, Relay, Steady, Via, Wire, eventually, heavy,
    post_request,
};
use crate::tls_versions::refused;

/// The beginning of a ClientHello: a handshake record of 512 bytes, a ClientHello of 508, TLS 1.2, and no more.
pub const HELLO_BEGINS: &[u8] = &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3];

/// A socket to the front that has not said anything.
pub fn bare(relay: &Relay) -> RawHttp {
    RawHttp::connect(relay.ready().http)
}

pub fn gate(relay: &Relay, client: &Arc<ClientConfig>) -> Gate {
    Gate {
        addr: relay.ready().http,
        tls: Some(Arc::clone(client)),
    }
}

#[test]
fn a_handshake_that_drips_or_stops_is_cut_at_the_request_deadline() {
    let relay = Relay::via(Via::Tls, "[http]\nrequest_deadline = \"4s\"");
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
            assert!(after >= Duration::from_secs(4), "cut too early: {after:?}");
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
    let relay = Relay::via(Via::Tls, "");
    let mut till = relay.backend("till-7");
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
