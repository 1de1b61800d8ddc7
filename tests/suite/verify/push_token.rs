//! Google's push token through the HTTP port, by a key that a file has, and how that file comes to have it.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use rustix::process::Signal;
use serde_json::{Value, json};

use super::callback::{listed, quoted};
use super::fresh::{self, now};
use super::jws::{signing_input, start};
use crate::support::{Authority, Random};

const AUDIENCE: &str = "https://pay.example/rtdn/till-7";
pub(super) const EMAIL: &str = "push@proj.iam.gserviceaccount.com";
const PUSH: &str = r#"{"message":{"data":"eyJ2ZXJzaW9uIjoiMS4wIn0=","messageId":"136969346945"},"subscription":"projects/p/subscriptions/s"}"#;

fn claims(at: u64) -> Value {
    json!({
        "iss": "https://accounts.google.com", "aud": AUDIENCE, "email": EMAIL, "email_verified": true,
        "iat": at, "exp": at + 3600, "sub": "1",
    })
}

fn push_token(header: &Value, claims: &Value) -> String {
    let text = signing_input(header, claims);
    let signature = STANDARD
        .decode(fresh::rsa(text.as_bytes()))
        .expect("base64");
    format!("{text}.{}", URL_SAFE_NO_PAD.encode(signature))
}

/// The value of `Authorization` that Google sends to [`google_route`], and the body.
pub(super) fn push() -> (String, &'static str) {
    let header = json!({ "alg": "RS256", "kid": "k1", "typ": "JWT" });
    let token = push_token(&header, &claims(now()));
    (format!("Bearer {token}"), PUSH)
}

pub(super) fn google_route(keys: &str, more: &str) -> String {
    format!(
        "[[route]]\npath = \"/rtdn/{{id}}\"\nname = \"rtdn\"\nverify = \"google-play\"\nkeys = {}\n\
         claims = {{ aud = {}, email = {} }}\n{more}\n",
        listed(keys),
        quoted(AUDIENCE),
        quoted(EMAIL)
    )
}

#[test]
fn googles_push_gets_in_and_no_bit_of_its_token_may_change() {
    let relay = start(&google_route(&fresh::key_set("k1"), ""));
    let mut till = relay.backend("till-7");
    let token = push_token(
        &json!({ "alg": "RS256", "kid": "k1", "typ": "JWT" }),
        &claims(now()),
    );
    let post = |authorization: &str| {
        relay.post_with(
            "/rtdn/till-7",
            &[("Authorization", authorization)],
            PUSH.as_bytes(),
        )
    };
    let answer = post(&format!("Bearer {token}"));
    let message = till.expect(
        "MSG id=* route=rtdn verified=google-play event=136969346945 =*",
        PUSH.as_bytes(),
    );
    let head = String::from_utf8_lossy(message.frame.head()).into_owned();
    assert!(
        !head.to_ascii_lowercase().contains("authorization"),
        "the token goes further: {head}"
    );
    message.ack();
    assert_eq!(answer.answer().outcome(), "delivered");
    let mut random = Random::new();
    let mut changed = 0;
    while changed < 40 {
        let at = random.below(token.len());
        let mut forged = token.clone().into_bytes();
        forged[at] ^= 1 << random.below(7);
        let forged = String::from_utf8(forged).expect("ASCII");
        // The rest is no header.
        if forged.bytes().any(|b| !b.is_ascii_graphic()) {
            continue;
        }
        let answer = post(&format!("Bearer {forged}")).answer();
        assert_eq!(answer.outcome(), "bad-signature", "byte {at}");
        changed += 1;
    }
    till.settle();
}

#[test]
fn googles_token_for_another_by_another_or_too_old_is_refused_with_its_reason() {
    let relay = start(&google_route(&fresh::key_set("k1"), ""));
    let header = json!({ "alg": "RS256", "kid": "k1" });
    let with = |change: fn(&mut Value)| {
        let mut changed = claims(now());
        change(&mut changed);
        push_token(&header, &changed)
    };
    let usual = claims(now());
    let text = signing_input(&json!({ "alg": "HS256", "kid": "k1" }), &usual);
    let by_public_key = URL_SAFE_NO_PAD.encode(fresh::mac(
        fresh::public_key().as_bytes(),
        &[text.as_bytes()],
    ));
    let forgeries = [
        (
            "other-claim",
            with(|c| c["aud"] = "https://pay.example/other".into()),
        ),
        (
            "other-claim",
            with(|c| c["email"] = "evil@proj.iam.gserviceaccount.com".into()),
        ),
        ("other-claim", with(|c| c["email_verified"] = false.into())),
        (
            "other-claim",
            with(|c| c["iss"] = "https://accounts.evil.com".into()),
        ),
        ("malformed", with(|c| c["aud"] = json!([AUDIENCE]))),
        (
            "missing",
            with(|c| drop(c.as_object_mut().map(|c| c.remove("email")))),
        ),
        ("expired", with(|c| c["exp"] = (now() - 301).into())),
        ("expired", with(|c| c["nbf"] = (now() + 400).into())),
        ("malformed", with(|c| c["exp"] = "soon".into())),
        (
            "unknown-key",
            push_token(&json!({ "alg": "RS256", "kid": "k2" }), &usual),
        ),
        ("missing", push_token(&json!({ "alg": "RS256" }), &usual)),
        (
            "malformed",
            push_token(&json!({ "alg": "RS512", "kid": "k1" }), &usual),
        ),
        ("malformed", format!("{text}.{by_public_key}")),
        (
            "malformed",
            format!(
                "{}.",
                signing_input(&json!({ "alg": "none", "kid": "k1" }), &usual)
            ),
        ),
        (
            "mismatch",
            format!("{}.AAAA", signing_input(&header, &usual)),
        ),
    ];
    let reasons = |reason: &str| {
        relay.metric(&format!(
            "payrelay_signature_refusals_total{{reason=\"{reason}\"}}"
        ))
    };
    for (n, (reason, token)) in forgeries.iter().enumerate() {
        let before = reasons(reason);
        let bearer = format!("Bearer {token}");
        let answer = relay
            .post_with(
                "/rtdn/till-7",
                &[("Authorization", &bearer)],
                PUSH.as_bytes(),
            )
            .answer();
        assert_eq!(answer.outcome(), "bad-signature", "{n}: {reason}");
        assert_eq!(
            reasons(reason),
            before + 1.0,
            "{n}: {reason}: {}",
            relay.log()
        );
    }
    for headers in [
        &[][..],
        &[("Authorization", "Basic x")],
        &[("Authorization", "Bearer ")],
    ] {
        let answer = relay
            .post_with("/rtdn/till-7", headers, PUSH.as_bytes())
            .answer();
        assert_eq!(answer.outcome(), "bad-signature", "{headers:?}");
    }
}

/// `payrelay keys fetch` from a server that answers with `body`; what it says, and its exit code.
fn fetch(
    folder: &std::path::Path,
    status: &'static str,
    body: String,
    ca: bool,
) -> (Option<i32>, String) {
    use std::io::{Read, Write};
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let config = Authority::get().server();
    let server = std::thread::spawn(move || {
        let (stream, _) = listener.accept().expect("a client");
        let connection = rustls::ServerConnection::new(config).expect("TLS");
        let mut tls = rustls::StreamOwned::new(connection, stream);
        let mut request = [0; 1024];
        // A client that does not believe this server says so in place of a request.
        let Ok(read) = tls.read(&mut request) else {
            return;
        };
        assert!(request[..read].starts_with(b"GET /certs HTTP/1.1\r\n"));
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        );
        tls.write_all(answer.as_bytes()).expect("taken");
        tls.flush().expect("sent");
    });
    let mut command = Command::new(env!("CARGO_BIN_EXE_payrelay"));
    let url = format!("https://localhost:{}/certs", address.port());
    command
        .args(["keys", "fetch", "--url", &url, "--out", "keys.json"])
        .current_dir(folder);
    if ca {
        command.arg("--ca").arg(Authority::get().file());
    }
    let output = command.output().expect("payrelay");
    server.join().expect("a server");
    let said = [&output.stdout[..], &output.stderr].concat();
    (
        output.status.code(),
        String::from_utf8(said).expect("UTF-8"),
    )
}

#[test]
fn fetched_keys_are_believed_after_a_reload_and_a_bad_answer_leaves_the_file_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("keys.json");
    let fetch = |status, body, ca| fetch(folder.path(), status, body, ca);
    let (code, said) = fetch("200 OK", fresh::key_set("old"), true);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.contains("keys.json: 1 keys, new"), "{said}");
    let place = format!("file:{}", file.display());
    let relay = start(&google_route(
        &place,
        "[delivery]\nundelivered = \"refuse\"\n",
    ));
    let post = |kid: &str| {
        let token = push_token(&json!({ "alg": "RS256", "kid": kid }), &claims(now()));
        let bearer = format!("Bearer {token}");
        let answer = relay
            .post_with(
                "/rtdn/till-7",
                &[("Authorization", &bearer)],
                PUSH.as_bytes(),
            )
            .answer();
        answer.outcome().to_owned()
    };
    assert_eq!(
        (post("old").as_str(), post("new").as_str()),
        ("offline", "bad-signature")
    );
    for (status, body, ca) in [
        ("500 No", fresh::key_set("new"), true),
        ("200 OK", "<html>".to_owned(), true),
        ("200 OK", r#"{"keys":[]}"#.to_owned(), true),
        ("200 OK", fresh::key_set("new"), false), // an authority that the system does not know
    ] {
        let (code, said) = fetch(status, body, ca);
        assert_eq!(code, Some(1), "{said}");
        assert_eq!(
            std::fs::read_to_string(&file).expect("there"),
            fresh::key_set("old")
        );
    }
    let (code, said) = fetch("200 OK", fresh::key_set("new"), true);
    assert_eq!(code, Some(0), "{said}");
    let (_, said) = fetch("200 OK", fresh::key_set("new"), true);
    assert!(said.contains("as before"), "{said}");
    relay.signal(Signal::HUP);
    relay.log_contains("reloaded");
    assert_eq!(
        (post("old").as_str(), post("new").as_str()),
        ("bad-signature", "offline")
    );
    let plain = Command::new(env!("CARGO_BIN_EXE_payrelay"))
        .args([
            "keys",
            "fetch",
            "--url",
            "http://127.0.0.1:1/certs",
            "--out",
            "x",
        ])
        .output()
        .expect("payrelay");
    assert_eq!(plain.status.code(), Some(2));
}
