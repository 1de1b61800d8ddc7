//! What the providers' entrance shows: every kind of key, new certificates under load, files that are not to be had; and
//! sessions that are resumed.

use std::fs;
use std::sync::Arc;

use rustix::process::Signal;
use rustls::crypto::aws_lc_rs::default_provider;
use rustls::version::{TLS12, TLS13};
use rustls::{ClientConfig, HandshakeKind, NamedGroup};

use crate::support::{Authority, Gate, RawHttp, Relay, Setup, Steady, Via, eventually, heavy};

fn gate(relay: &Relay, client: &Arc<ClientConfig>) -> Gate {
    Gate {
        addr: relay.ready().http,
        tls: Some(Arc::clone(client)),
    }
}

/// The certificate that the relay shows.
fn shown(relay: &Relay) -> Vec<u8> {
    let mut connection = relay.http();
    let tls = connection.wire().tls().expect("TLS");
    tls.peer_certificates().expect("a certificate")[0].to_vec()
}

#[test]
fn every_kind_of_key_that_operators_have_is_taken() {
    for kind in ["P-256", "P-384", "rsa"] {
        let relay = Setup::default().via(Via::Tls).start();
        Authority::get().issue_kind(relay.path("").as_path(), kind);
        relay.signal(Signal::HUP);
        relay.log_contains("reloaded");
        let _till = relay.backend("till-7");
        for version in [&TLS12, &TLS13] {
            let mut connection =
                RawHttp::connect(gate(&relay, &Authority::get().client(&[version])));
            assert_eq!(
                connection.post("/nowhere", b"").told(),
                (404, "no-route"),
                "{kind}"
            );
        }
    }
}

#[test]
fn keys_that_withstand_quantum_computers_are_agreed_on() {
    let relay = Relay::via(Via::Tls, "");
    let mut provider = default_provider();
    provider
        .kx_groups
        .retain(|group| group.name() == NamedGroup::X25519MLKEM768);
    let client = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_protocol_versions(&[&TLS13])
        .expect("a version")
        .with_root_certificates(Authority::get().roots())
        .with_no_client_auth();
    let mut connection = RawHttp::connect(gate(&relay, &Arc::new(client)));
    assert_eq!(connection.post("/nowhere", b"").told(), (404, "no-route"));
}

#[test]
fn certificates_change_under_load_and_a_bad_file_changes_nothing() {
    let relay = Relay::via(Via::Tls, "");
    let steady = Steady::start(&relay);
    let first = shown(&relay);
    let mut kept = relay.http();
    assert_eq!(
        kept.post("/notify/steady", b"hello").told(),
        (200, "delivered")
    );

    let mut seen = first.clone();
    for _ in 0..5 {
        Authority::get().issue(relay.path("").as_path());
        assert!(shown(&relay) == seen, "read before SIGHUP");
        relay.signal(Signal::HUP);
        eventually("the new one is shown", || shown(&relay) != seen);
        seen = shown(&relay);
        steady.still_served();
        assert_eq!(
            kept.post("/notify/steady", b"hello").told(),
            (200, "delivered")
        );
    }

    let cert = fs::read(relay.path("cert.pem")).expect("a certificate");
    let key = fs::read(relay.path("key.pem")).expect("a key");
    for (file, contents, words) in [
        ("cert.pem", &b"nonsense"[..], "no certificate in PEM form"),
        (
            "cert.pem",
            &cert[..cert.len() / 2],
            "the PEM in it is broken",
        ),
        ("key.pem", b"", "no private key in PEM form"),
        (
            "key.pem",
            b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n",
            "http.tls.key",
        ),
    ] {
        fs::write(relay.path(file), contents).expect("written");
        relay.signal(Signal::HUP);
        let line = relay.log_contains(words);
        assert!(line.contains("the certificate in use stays"), "{line}");
        assert!(shown(&relay) == seen, "{words}");
        fs::write(relay.path("cert.pem"), &cert).expect("written");
        fs::write(relay.path("key.pem"), &key).expect("written");
    }
    // A key that is another's.
    let elsewhere = tempfile::tempdir().expect("a folder");
    Authority::get().issue(elsewhere.path());
    fs::copy(elsewhere.path().join("key.pem"), relay.path("key.pem")).expect("copied");
    relay.signal(Signal::HUP);
    relay.log_contains("the key is not that of the first certificate");
    assert!(shown(&relay) == seen);
    fs::remove_file(relay.path("key.pem")).expect("removed");
    relay.signal(Signal::HUP);
    relay.log_contains("there is no such file");
    assert!(shown(&relay) == seen);
    steady.still_served();
}

#[test]
fn sessions_are_resumed_and_cost_the_relay_no_memory() {
    let _alone = heavy();
    let relay = Relay::via(Via::Tls, "");
    let steady = Steady::start(&relay);
    for version in [&TLS12, &TLS13] {
        let client = Authority::get().client(&[version]);
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let mut connection = RawHttp::connect(gate(&relay, &client));
            connection.post("/notify/steady", b"hello");
            kinds.push(connection.wire().tls().expect("TLS").handshake_kind());
        }
        let kinds: Vec<_> = kinds.into_iter().flatten().collect();
        assert!(
            matches!(
                kinds[..],
                [
                    HandshakeKind::Full | HandshakeKind::FullWithHelloRetryRequest,
                    HandshakeKind::Resumed
                ]
            ),
            "{kinds:?}"
        );
    }
    // Whoever never comes back leaves nothing. Caches and arenas fill up at first; a leak never ends.
    let mut grown = Vec::new();
    let settled = (0..5).any(|_| {
        let before = relay.process().rss_kib();
        for _ in 0..300 {
            let stranger = Authority::get().client(&[&TLS13]);
            assert_eq!(
                RawHttp::connect(gate(&relay, &stranger))
                    .post("/notify/steady", b"x")
                    .status,
                200
            );
        }
        grown.push(relay.process().rss_kib().saturating_sub(before));
        grown.last() < Some(&256)
    });
    assert!(settled, "in KiB, three hundred each: {grown:?}");
    steady.still_served();
}

#[test]
fn a_certificate_that_is_not_to_be_had_stops_the_start_and_check_says_the_same() {
    let dir = tempfile::tempdir().expect("a folder");
    let file = dir.path().join("relay.toml");
    let cert = dir.path().join("cert.pem");
    let text = format!(
        "[http]\nlisten = \"127.0.0.1:0\"\ntls = {{ cert = {cert:?}, key = {cert:?} }}\n\
         [[route]]\npath = \"/notify/{{id}}\"\nverify = \"none\"\n"
    );
    fs::write(&file, text).expect("written");
    for command in ["check", "run"] {
        let (code, _, err) = crate::support::run(&[command, "-c", &file.to_string_lossy()]);
        assert_eq!(code, Some(78), "{command}: {err}");
        assert!(err.contains("http.tls.cert = "), "{command}: {err}");
        assert!(err.contains("there is no such file"), "{command}: {err}");
    }
}
