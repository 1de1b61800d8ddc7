//! `--json` of the commands that ask no admin port: one object a line with the fields of doc/api.md, exit codes and words as without it.

use std::collections::BTreeSet;
use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use serde_json::Value;
use tempfile::TempDir;

use crate::cli::beside;
use crate::support::{DEADLINE, Relay, binary, eventually};

/// The fields that doc/api.md has for `command`.
fn documented(command: &str) -> BTreeSet<String> {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/doc/api.md");
    let text = fs::read_to_string(file).expect("the document");
    let begin = format!("| `{command}` |");
    let row = text.lines().find(|line| line.starts_with(&begin));
    let fields = row.and_then(|row| row.split('|').nth(3)).expect("a row");
    // What explains a field stands in parentheses or behind the list.
    let list = fields.split(';').next().unwrap_or_default();
    let mut depth = 0;
    let outside: String = list
        .chars()
        .filter(|c| {
            match c {
                '(' => depth += 1,
                ')' => depth -= 1,
                _ => return depth == 0,
            }
            false
        })
        .collect();
    let names = outside
        .split_whitespace()
        .map(|word| word.trim_matches('`'));
    names.map(str::to_owned).collect()
}

/// `line`, an object with the documented fields of `command`.
fn object(command: &str, line: &str) -> Value {
    let value: Value = serde_json::from_str(line).unwrap_or_else(|_| panic!("JSON: {line}"));
    let fields = value.as_object().expect("an object").keys().cloned();
    assert_eq!(
        fields.collect::<BTreeSet<_>>(),
        documented(command),
        "{line}"
    );
    value
}

fn decoded(value: &Value) -> Vec<u8> {
    let text = value.as_str().expect("text");
    BASE_64.decode(text).expect("base 64")
}

#[test]
fn send_and_listen_print_objects() {
    let relay = Relay::with(
        "[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\nforward_headers = [\"x-a\"]",
    );
    let mut listen = beside(&relay, &["listen", "game-01", "--json", "--count", "2"]);
    eventually("listen is connected", || {
        relay.metric("payrelay_sessions") == 1.0
    });
    let body = relay.path("body.bin");
    fs::write(&body, b"\xb4\xfb\n\0\"").expect("a file");
    let body = body.display().to_string();
    let mut send = beside(&relay, &["send", "game-01", "--json", "--file", &body]);
    assert_eq!(send.wait_exit(DEADLINE), Some(0), "{}", send.stderr());
    let sent = object("send", &send.stdout());
    assert_eq!(
        (&sent["status"], &sent["outcome"]),
        (&200.into(), &"delivered".into())
    );
    assert_eq!(
        (decoded(&sent["body_base64"]), &sent["why"]),
        (b"success".to_vec(), &Value::Null)
    );
    assert!(
        sent["took_ms"].as_f64().is_some_and(|ms| ms > 0.0),
        "{sent}"
    );

    let mut second = beside(
        &relay,
        &["send", "game-01", "--body", "x", "--header", "X-A: b"],
    );
    assert_eq!(second.wait_exit(DEADLINE), Some(0), "{}", second.stderr());
    assert_eq!(listen.wait_exit(DEADLINE), Some(0), "{}", listen.stderr());
    let lines = listen.stdout();
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    let first = object("listen", lines[0]);
    assert_eq!(first["id"], sent["id"]);
    assert_eq!(
        (&first["route"], &first["event"]),
        (&"/notify/{id}".into(), &Value::Null)
    );
    assert_eq!(
        (&first["verified"], &first["tries"]),
        (&"none".into(), &1.into())
    );
    assert!(
        first["at"]
            .as_u64()
            .is_some_and(|at| at > 1_700_000_000_000)
    );
    assert_eq!(decoded(&first["body_base64"]), b"\xb4\xfb\n\0\"");
    let head = first["head"].as_str().expect("text");
    assert!(head.starts_with("POST /notify/game-01 "), "{head}");
    let second = object("listen", lines[1]);
    let head = second["head"].as_str().expect("text");
    assert!(head.to_ascii_lowercase().contains("x-a: b"), "{head}");

    // A refusal: the object says why, and so does standard error, as without --json.
    let mut send = beside(&relay, &["send", "nobody", "--json", "--body", "x"]);
    assert_eq!(send.wait_exit(DEADLINE), Some(1));
    let refused = object("send", &send.stdout());
    assert_eq!(
        (&refused["status"], &refused["outcome"]),
        (&503.into(), &"offline".into())
    );
    let why = refused["why"].as_str().expect("words");
    assert!(
        send.stderr().contains(why) && why.contains("payrelay listen nobody"),
        "{why}"
    );
}

#[test]
fn check_prints_an_object_whatever_it_finds() {
    let dir = TempDir::new().expect("a folder");
    let check = |text: &str| {
        fs::write(dir.path().join("relay.toml"), text).expect("relay.toml");
        let said = |args: &[&str]| {
            let said = binary().args(args).current_dir(dir.path()).output();
            said.expect("payrelay runs")
        };
        let (plain, json) = (said(&["check"]), said(&["check", "--json"]));
        assert_eq!(plain.status.code(), json.status.code());
        assert_eq!(plain.stderr, json.stderr);
        let shown = String::from_utf8(json.stdout).expect("text");
        (
            json.status.code(),
            object("check", &shown),
            String::from_utf8_lossy(&plain.stdout).into_owned(),
        )
    };
    let route = "delivery.ack_deadline = \"10s\"\n[[route]]\nname = \"n\"\npath = \"/notify/{id}\"\nverify = \"none\"\n";
    let (code, report, plain) = check(route);
    assert_eq!(code, Some(0));
    assert_eq!(
        (&report["ok"], &report["file"]),
        (&true.into(), &"relay.toml".into())
    );
    assert_eq!(report["errors"], Value::Array(Vec::new()));
    let checks = serde_json::json!([{ "name": "n", "path": "/notify/{id}", "checks": null }]);
    assert_eq!(report["routes"], checks);
    let warnings = report["warnings"].as_array().expect("a list");
    assert!(!warnings.is_empty());
    for warning in warnings {
        let line = format!("warning: {}\n", warning.as_str().expect("words"));
        assert!(plain.contains(&line), "{line}");
    }

    // Wrong in the file, and wrong beyond it.
    for (line, error) in [
        ("http.workers = -1\n", "relay.toml:1:16: http.workers"),
        ("log.file = \"none/log\"\n", "relay.toml:1:12: log.file"),
    ] {
        let (code, report, _) = check(&format!("{line}{route}"));
        assert_eq!((code, &report["ok"]), (Some(78), &false.into()));
        let errors = report["errors"].as_array().expect("a list");
        assert_eq!(errors.len(), 1, "{report}");
        let said = errors[0].as_str().expect("words");
        assert!(said.starts_with(error), "{said}");
    }
}

#[test]
fn verify_prints_its_verdict_as_an_object() {
    let dir = TempDir::new().expect("a folder");
    fs::write(
        dir.path().join("relay.toml"),
        "[[route]]\nname = \"hub\"\npath = \"/hub/{id}\"\nverify = \"github\"\nsecrets = [\"It's a Secret to Everybody\"]\n",
    )
    .expect("relay.toml");
    // The example of GitHub's documents.
    let sign = "757107ea0eb2509fc211221cce984b8a37570b6d7586c22c46f4379c8b043e17";
    let verify = |body: &str| {
        let request = format!(
            "POST /hub/till-1 HTTP/1.1\nHost: pay\nX-GitHub-Delivery: 72d3162e\nX-Hub-Signature-256: sha256={sign}\n\n{body}"
        );
        fs::write(dir.path().join("callback.http"), request).expect("a file");
        let said = binary()
            .args([
                "verify",
                "--route",
                "hub",
                "--file",
                "callback.http",
                "--json",
            ])
            .current_dir(dir.path())
            .output()
            .expect("payrelay runs");
        let shown = String::from_utf8(said.stdout).expect("text");
        (
            said.status.code(),
            object("verify", &shown),
            String::from_utf8_lossy(&said.stderr).into_owned(),
        )
    };
    let (code, genuine, words) = verify("Hello, World!");
    assert_eq!(
        (code, &genuine["genuine"], &*words),
        (Some(0), &true.into(), "")
    );
    assert_eq!(
        (&genuine["route"], &genuine["why"]),
        (&"hub".into(), &Value::Null)
    );
    assert_eq!(decoded(&genuine["signed_base64"]), b"Hello, World!");
    let (code, other, words) = verify("Hello, world!");
    assert_eq!((code, &other["genuine"]), (Some(1), &false.into()));
    let (reason, why) = (&other["reason"], &other["why"]);
    let said = format!(
        "payrelay: not genuine ({}): {}\n",
        reason.as_str().expect("a word"),
        why.as_str().expect("words")
    );
    assert_eq!(words, said);
}
