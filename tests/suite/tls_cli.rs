//! `payrelay send` and `payrelay listen` through TLS: whom they believe, and what they say to whom they do not.

use std::fs;

use crate::support::{Authority, Process, Relay, Setup, Via, binary, run};

/// A relay that speaks TLS on both sides, and a file that names its addresses as they are.
fn relay() -> (Relay, String) {
    let relay = Setup::default()
        .via(Via::Tls)
        .backends_via(Via::Tls)
        .start();
    let ready = relay.ready();
    let cert = relay.path("cert.pem");
    let key = relay.path("key.pem");
    let tls = relay.ready().tcp_tls.expect("a listener");
    let text = format!(
        "[http]\nlisten = \"{}\"\ntls = {{ cert = {cert:?}, key = {key:?} }}\n\
         [tcp]\nlisten = \"{}\"\n[tcp.tls]\nlisten = \"{tls}\"\ncert = {cert:?}\nkey = {key:?}\n\
         [[route]]\npath = \"/notify/{{id}}\"\nverify = \"none\"\n",
        ready.http, ready.tcp
    );
    let file = relay.path("client.toml");
    fs::write(&file, text).expect("written");
    (relay, file.to_string_lossy().into_owned())
}

fn listen(arguments: &[&str]) -> Process {
    let mut command = binary();
    command
        .args(["listen", "till-7", "--count", "1"])
        .args(arguments);
    let listener = Process::start("payrelay listen", command);
    listener.wait_log("connected to");
    listener
}

#[test]
fn what_the_configuration_says_is_enough() {
    let (_relay, file) = relay();
    let mut listener = listen(&["-c", &file, "--tls"]);
    let (code, out, err) = run(&["send", "till-7", "-c", &file, "--body", "hello"]);
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    assert!(out.contains("outcome  delivered"), "{out}");
    listener.wait_line(0, |line| line == "hello");
    assert_eq!(listener.wait_exit(crate::support::DEADLINE), Some(0));
}

#[test]
fn an_authority_and_a_name_can_be_given() {
    let (relay, _) = relay();
    let ca = Authority::get().file();
    let ca = ca.to_string_lossy();
    let tls = relay.ready().tcp_tls.expect("a listener").to_string();
    let url = format!(
        "https://localhost:{}/notify/{{id}}",
        relay.ready().http.port()
    );
    let mut listener = listen(&["--connect", &tls, "--token", "x", "--ca", &ca]);
    let (code, out, err) = run(&[
        "send", "till-7", "--url", &url, "--ca", &ca, "--body", "hello",
    ]);
    assert_eq!(code, Some(0), "{out}{err}");
    assert_eq!(listener.wait_exit(crate::support::DEADLINE), Some(0));

    let send = |more: &[&str]| {
        let (code, _, err) =
            run(&[&["send", "till-7", "--url", &url, "--body", "x"], more].concat());
        assert_eq!(code, Some(1), "{err}");
        err
    };
    let err = send(&["--ca", &ca, "--server-name", "elsewhere.example"]);
    assert!(err.contains("not valid for name"), "{err}");
    let err = send(&["--ca", &ca, "--server-name", "other.example"]);
    assert!(err.contains("no backend \"till-7\" is connected"), "{err}");
    // A certificate of its own leads nowhere else.
    let stranger = tempfile::tempdir().expect("a folder");
    Authority::get().issue(stranger.path());
    let stranger = stranger.path().join("cert.pem");
    let err = send(&["--ca", &stranger.to_string_lossy()]);
    assert!(err.contains("TLS: invalid peer certificate"), "{err}");
    let err = send(&["--ca", &relay.path("key.pem").to_string_lossy()]);
    assert!(err.contains("no certificate in PEM form"), "{err}");
}

#[test]
fn another_certificate_than_the_files_is_not_believed() {
    let (relay, file) = relay();
    // The same authority, the same names, another key: not what the relay is known by here.
    Authority::get().issue(relay.path("").as_path());
    let (code, _, err) = run(&["send", "till-7", "-c", &file, "--body", "hello"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("was the relay reloaded"), "{err}");
}

#[test]
fn a_port_in_the_clear_is_not_taken_for_tls() {
    let relay = Relay::start();
    let ca = Authority::get().file();
    let ca = ca.to_string_lossy();
    let url = format!("https://{}/notify/till-7", relay.ready().http);
    let (code, _, err) = run(&["send", "till-7", "--url", &url, "--ca", &ca, "--body", "x"]);
    assert_eq!(code, Some(1), "{err}");
    assert!(err.contains("does not speak TLS"), "{err}");
}
