//! The commands on a relay whose certificate no authority has signed.

use crate::support::{Setup, run};
use std::path::Path;
use std::process::Command;
use tempfile::TempDir;

fn openssl(dir: &Path, arguments: &str) {
    let mut openssl = Command::new("openssl");
    openssl.args(arguments.split(' ')).current_dir(dir);
    let made = openssl.output().expect("openssl");
    assert!(
        made.status.success(),
        "{}",
        String::from_utf8_lossy(&made.stderr)
    );
}

fn self_signed(dir: &Path, key: &str, certificate: &str) {
    let names = "-subj /CN=relay -addext subjectAltName=IP:127.0.0.1";
    openssl(
        dir,
        &format!(
            "req -x509 -newkey rsa:2048 -nodes -days 5 {names} -keyout {key} -out {certificate}"
        ),
    );
}

/// `payrelay send` to a relay that shows a certificate which `ca` names, or does not.
fn send(url: &str, ca: &str, more: &[&str]) -> (Option<i32>, String, String) {
    let send = ["send", "nobody", "--body", "x", "--url", url, "--ca", ca];
    run(&[&send[..], more].concat())
}

#[test]
fn a_self_signed_certificate_is_believed_if_ca_names_it() {
    let dir = TempDir::new().expect("a folder");
    self_signed(dir.path(), "key.pem", "cert.pem");
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key) = (file("cert.pem"), file("key.pem"));
    let relay = Setup::with(&format!(
        "[http]\ntls = {{ cert = \"{cert}\", key = \"{key}\" }}"
    ))
    .start();
    let url = format!("https://{}/notify/{{id}}", relay.ready().http);
    let (code, said, words) = send(&url, &cert, &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("outcome  offline"), "{said}{words}");
    // Another name, or another certificate, is none.
    let (_, said, words) = send(&url, &cert, &["--server-name", "other"]);
    assert!(said.is_empty() && words.contains("TLS"), "{said}{words}");
    self_signed(dir.path(), "k2.pem", "other.pem");
    let (_, said, words) = send(&url, &file("other.pem"), &[]);
    assert!(said.is_empty() && words.contains("TLS"), "{said}{words}");
}

#[test]
fn a_self_signed_certificate_that_has_ended_is_believed_no_more() {
    let dir = TempDir::new().expect("a folder");
    self_signed(dir.path(), "key.pem", "cert.pem");
    openssl(
        dir.path(),
        "x509 -in cert.pem -signkey key.pem -days -1 -out ended.pem",
    );
    let file = |name: &str| dir.path().join(name).display().to_string();
    let (cert, key) = (file("ended.pem"), file("key.pem"));
    let tls = format!("[http]\ntls = {{ cert = \"{cert}\", key = \"{key}\" }}");
    let relay = Setup::with(&tls).start();
    let url = format!("https://{}/notify/{{id}}", relay.ready().http);
    let (code, said, words) = send(&url, &cert, &[]);
    assert_eq!(code, Some(1));
    assert!(said.is_empty() && words.contains("xpired"), "{said}{words}");
}
