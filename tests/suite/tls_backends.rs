//! Backends behind TLS: the same protocol, the same bounds, with the real LuaSec too. (`rude` and the scenarios of
//! `clients` run through TLS as well.)

use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::support::{
    Adapter, Authority, Backend, DEADLINE, Lua, LuaSetup, Random, Relay, Setup, Steady, Via, Wire,
    eventually, heavy, run, token,
};

fn relay(fragment: &str) -> Relay {
    Relay::backends_via(Via::Tls, fragment)
}

fn in_the_clear_to(relay: &Relay) -> Backend {
    Backend::connect(relay.ready().tcp_tls.expect("a listener"))
}

#[test]
fn a_backend_behind_tls_is_served_like_any_other() {
    let relay = relay("[http]\nmax_body = \"4MiB\"");
    let mut till = relay.backend_with("till-7", "max=64");
    let mut random = Random::new();
    for length in [0, 1, 5000, 16 * 1024, 16 * 1024 + 1, 100_000, 4 << 20] {
        let body = random.bytes(length);
        let answer = relay.post("/notify/till-7", &body);
        till.expect("MSG id=* h=0 =*", &body).ack();
        assert_eq!(answer.answer().told(), (200, "delivered"), "{length} bytes");
    }
    // Many at once, written by whoever brings them.
    let pending: Vec<_> = (0..40)
        .map(|n| relay.post("/notify/till-7", &[n; 3000]))
        .collect();
    for _ in 0..40 {
        till.message().ack();
    }
    for answer in pending {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    // What it sends may be long, too.
    till.send_bytes(b"WHATEVER =300000\n");
    till.send_bytes(&[b'x'; 300_000]);
    till.send_bytes(b"\n");
    till.expect_error("unknown-verb");
    till.settle();
}

#[test]
fn one_id_is_one_backend_whichever_way_it_comes() {
    let relay = relay("");
    let mut first = relay.backend("till-7");
    let mut second = Backend::connect(relay.ready().tcp);
    second.hello("till-7", "");
    first.expect_bye("takeover");
    let answer = relay.post("/notify/till-7", b"hello");
    second.expect("MSG id=* =5", b"hello").ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    let mut third = relay.backend("till-7");
    second.expect_bye("takeover");
    let answer = relay.post("/notify/till-7", b"hello");
    third.expect("MSG id=* =5", b"hello").ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    third.send("BYE");
    third.expect_closed();
}

#[test]
fn an_end_is_said_inside_tls() {
    let relay = relay("");
    let to = relay.ready().tcp_tls.expect("a listener");
    let stream = TcpStream::connect(to).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut wire = Wire::seal(stream, relay.client());
    std::io::Write::write_all(&mut wire, b"HELLO 1 id=till-7\nBYE\n").expect("taken");
    let mut said = String::new();
    wire.read_to_string(&mut said)
        .expect("close_notify, not a cut");
    assert!(said.starts_with("OK id=till-7 "), "{said}");
}

#[test]
fn a_handshake_that_stops_or_drips_ends_with_the_hello_deadline() {
    let relay = relay("[tcp]\nhello_deadline = \"4s\"");
    let steady = Steady::start(&relay);
    let began = Instant::now();
    let to = relay.ready().tcp_tls.expect("a listener");
    let mut ones: Vec<_> = [&b""[..], &[22], &[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]]
        .iter()
        .map(|start| {
            let mut one = TcpStream::connect(to).expect("a connection");
            std::io::Write::write_all(&mut one, start).expect("taken");
            one.set_read_timeout(Some(Duration::from_millis(50)))
                .expect("a timeout");
            one
        })
        .collect();
    // The first two are silent, the third drips.
    while let Some(drip) = ones.last_mut() {
        let mut byte = [0];
        match drip.read(&mut byte) {
            Err(e) if e.kind() == std::io::ErrorKind::WouldBlock => {
                let _ = std::io::Write::write_all(drip, &[0]);
            }
            _ => drop(ones.pop()),
        }
        assert!(began.elapsed() < DEADLINE, "{} are not cut", ones.len());
    }
    assert!(began.elapsed() >= Duration::from_secs(4), "cut too early");
    // Who has shaken hands and says no more is told why.
    let mut silent = Backend::raw(&relay);
    silent.expect_fatal("bad-hello");
    steady.still_served();
}

#[test]
fn what_is_no_tls_is_told_so_and_refused() {
    let relay = relay("");
    let steady = Steady::start(&relay);
    let mut clear = in_the_clear_to(&relay);
    clear.send("HELLO 1 id=till-7");
    let error = clear.expect_fatal("bad-hello");
    assert!(error.field("msg").contains("TLS"), "{:?}", error.line);
    let mut random = Random::new();
    for _ in 0..40 {
        let length = random.below(6000) + 1;
        let mut bytes = random.bytes(length);
        bytes[0] = 22;
        let mut rude = TcpStream::connect(relay.ready().tcp_tls.expect("a listener")).expect("in");
        rude.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let _ = std::io::Write::write_all(&mut rude, &bytes);
        let _ = rude.shutdown(std::net::Shutdown::Write);
        let mut said = Vec::new();
        let _ = rude.read_to_end(&mut said);
        assert!(said.is_empty() || said[0] == 21, "{}", said.escape_ascii());
    }
    steady.still_served();
    eventually("none is left", || relay.metric("payrelay_sessions") == 1.0);
}

#[test]
fn tls_is_no_token() {
    const SECRET: &str = "correct horse battery staple";
    let relay = relay(&format!("[tcp]\nsecrets = [\"{SECRET}\"]"));
    let mut stranger = Backend::raw(&relay);
    stranger.send("HELLO 1 id=till-7");
    stranger.expect_fatal("bad-token");
    let token = token(SECRET, "till-7");
    relay.backend_with("till-7", &format!("token={token}"));
}

#[test]
fn beyond_the_cap_a_backend_is_turned_away_before_the_handshake() {
    let relay = relay("[tcp]\nmax_connections = 1");
    let mut till = relay.backend("till-7");
    let mut late = Backend::raw(&relay);
    assert!(!late.try_send(b"HELLO 1 id=late\n") || late.next().is_none());
    till.settle();
    drop(till);
    eventually("there is room again", || {
        let mut next = Backend::raw(&relay);
        next.try_send(b"HELLO 1 id=next\n") && next.next().is_some_and(|frame| frame.verb == "OK")
    });
}

#[test]
fn certificates_change_and_sessions_stay() {
    let relay = relay("");
    let mut till = relay.backend("till-7");
    let shown = || {
        let to = relay.ready().tcp_tls.expect("a listener");
        let wire = Wire::seal(TcpStream::connect(to).expect("in"), relay.client());
        let tls = wire.tls().expect("TLS");
        tls.peer_certificates().expect("a certificate")[0].to_vec()
    };
    let first = shown();
    Authority::get().issue(relay.path("").as_path());
    relay.signal(Signal::HUP);
    eventually("the new one is shown", || shown() != first);
    let answer = relay.post("/notify/till-7", b"hello");
    till.expect("MSG id=* =5", b"hello").ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
}

#[test]
fn an_idle_session_behind_tls_costs_little() {
    let _alone = heavy();
    let relay = relay("");
    let steady = Steady::start(&relay);
    let before = relay.process().rss_kib();
    let crowd: Vec<_> = (0..500)
        .map(|n| relay.backend(&format!("till-{n}")))
        .collect();
    steady.still_served();
    let each = (relay.process().rss_kib() - before) * 1024 / 500;
    eprintln!("an idle session behind TLS: {each} bytes");
    assert!(each < 160 * 1024, "{each} bytes each"); // a debug build's stacks; release takes a quarter
    drop(crowd);
    steady.still_served();
}

#[test]
fn the_lua_client_believes_no_other_authority_and_no_other_name() {
    let relay = relay("");
    let to = relay.ready().tcp_tls.expect("a listener");
    let ca = Authority::get().file();
    // A certificate of its own signs for itself alone.
    let stranger = tempfile::tempdir().expect("a folder");
    Authority::get().issue(stranger.path());
    let stranger = stranger.path().join("cert.pem");
    for lua in Lua::ALL {
        let mut setup = LuaSetup::new(Adapter::LuaSec(lua), "till-7", "ack");
        for (cafile, name, words) in [
            (
                &ca,
                "elsewhere.example",
                "its certificate is not for elsewhere.example",
            ),
            (&stranger, "localhost", "certificate verify failed"),
        ] {
            setup.cafile.clone_from(cafile);
            setup.name = name;
            let said = setup.start(to).line("LOG warn could not connect to ");
            assert!(said.contains(words), "{said}");
        }
        setup.cafile.clone_from(&ca);
        setup.name = "other.example";
        setup.start(to).line("READY");
    }
}

#[test]
fn strangers_do_not_reach_the_listener_without_secrets() {
    let dir = tempfile::tempdir().expect("a folder");
    Authority::get().issue(dir.path());
    let file = dir.path().join("relay.toml");
    let tls = |listen: &str| {
        format!(
            "[tcp.tls]\nlisten = \"{listen}:0\"\ncert = {:?}\nkey = {:?}\n\
             [[route]]\npath = \"/notify/{{id}}\"\nverify = \"none\"\n",
            dir.path().join("cert.pem"),
            dir.path().join("key.pem")
        )
    };
    let check = |text: String| {
        std::fs::write(&file, text).expect("written");
        let (code, _, err) = run(&["check", "-c", &file.to_string_lossy()]);
        (code, err)
    };
    let (code, err) = check(tls("0.0.0.0"));
    assert_eq!(code, Some(78), "{err}");
    assert!(
        err.contains("tcp.tls.listen") && err.contains("tcp.secrets is empty"),
        "{err}"
    );
    let (code, err) = check(tls("127.0.0.1"));
    assert_eq!(code, Some(0), "{err}");
    let secrets = "[tcp]\nsecrets = [\"correct horse battery staple\"]\n";
    let (code, err) = check(format!("{secrets}{}", tls("0.0.0.0")));
    assert_eq!(code, Some(0), "{err}");

    // Nor when the secrets go away while it is open.
    let files = "cert = \"cert.pem\"\nkey = \"key.pem\"";
    let relay = Setup::with(&format!(
        "{secrets}[tcp.tls]\nlisten = \"0.0.0.0:0\"\n{files}"
    ));
    let relay = relay.certified().start();
    relay.rewrite(&format!("[tcp.tls]\nlisten = \"127.0.0.1:0\"\n{files}"));
    relay.signal(Signal::HUP);
    relay.log_contains("not reloaded: the new file has no tcp.secrets");
}
