//! What is agreed on with a client: version, ALPN, name; and who is refused.

use crate::support::{Authority, DEADLINE, RawHttp, Relay, Steady, Via, Wire, post_request};
use crate::tls::gate;
use rustls::version::{TLS12, TLS13};
use rustls::{AlertDescription, ClientConfig, ProtocolVersion};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::sync::Arc;

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
        let log = relay.log();
        let told = log.lines().filter(|line| {
            line.contains(": no TLS with ") && !line.contains(" more in 10 s like: ")
        });
        assert_eq!(told.count(), 1, "once in 10 s");
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
pub fn refused(relay: &Relay, client: &Arc<ClientConfig>) -> AlertDescription {
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
