//! A bad relay.toml: `check` and `run` exit 78 and name file, line, column, key and what is allowed.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use tempfile::TempDir;

use crate::support::run;

const ROUTE: &str = "[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n";

struct ErrorOutput {
    code: Option<i32>,
    errors: String,
}

/// Runs `payrelay <verb> -c relay.toml` on this text.
fn told(verb: &str, text: &str) -> ErrorOutput {
    let dir = TempDir::with_prefix("payrelay-").expect("a folder");
    let file = dir.path().join("relay.toml");
    fs::write(&file, text).expect("relay.toml is written");
    let file = file.to_str().expect("a path in UTF-8");
    let (code, stdout, stderr) = run(&[verb, "-c", file]);
    assert!(!stdout.contains("ready"), "it started");
    ErrorOutput {
        code,
        errors: stderr.replace(file, "relay.toml"),
    }
}

/// Both verbs refuse `text`, in a line that begins with `place` and has all of `words`.
fn refused(text: &str, place: &str, words: &[&str]) {
    for verb in ["check", "run"] {
        let told = told(verb, text);
        assert_eq!(told.code, Some(78), "{verb}: {}\nin:\n{text}", told.errors);
        let line = told
            .errors
            .lines()
            .find(|line| line.starts_with(&format!("relay.toml:{place}: ")));
        let line = line.unwrap_or_else(|| {
            panic!(
                "{verb}: no error at {place} in:\n{}\nfor:\n{text}",
                told.errors
            )
        });
        for word in words {
            assert!(
                line.contains(word),
                "{verb}: {word:?} is missing in:\n{line}"
            );
        }
    }
}

#[test]
fn an_unknown_key_is_named_with_those_that_there_are() {
    refused(
        &format!("{ROUTE}[http]\nwrokers = 4\n"),
        "5:1",
        &["http.wrokers", "workers", "max_body"],
    );
    refused(
        &format!("{ROUTE}[htpt]\nworkers = 4\n"),
        "4:2",
        &["htpt", "http"],
    );
    refused(
        &format!("{ROUTE}colour = 1\n"),
        "4:1",
        &["route[0].colour", "forward_headers"],
    );
}

#[test]
fn a_bad_unit_is_named_with_those_that_there_are() {
    refused(
        &format!("{ROUTE}[delivery]\nack_deadline = 4\n"),
        "5:16",
        &["delivery.ack_deadline", "ms", "s"],
    );
    refused(
        &format!("{ROUTE}[delivery]\nack_deadline = \"4 seconds\"\n"),
        "5:16",
        &["delivery.ack_deadline", "4 seconds"],
    );
    refused(
        &format!("{ROUTE}[http]\nmax_body = \"1 litre\"\n"),
        "5:12",
        &["http.max_body", "MiB"],
    );
    refused(
        &format!("{ROUTE}[http]\nworkers = \"many\"\n"),
        "5:11",
        &["http.workers"],
    );
    refused(
        &format!("{ROUTE}[tcp]\nqueue = 0\n"),
        "5:9",
        &["tcp.queue", "1 to 1024"],
    );
}

#[test]
fn what_is_no_toml_is_named_by_its_place() {
    refused(&format!("{ROUTE}[http\nworkers = 4\n"), "4:6", &["TOML"]);
    refused(
        &format!("{ROUTE}[http]\nworkers = 4\nworkers = 5\n"),
        "6:1",
        &["TOML"],
    );
}

#[test]
fn every_error_is_told_at_once() {
    let text = format!(
        "{ROUTE}[http]\nworkers = 65\nmax_body = \"1\"\n[tcp]\nqueue = -1\nbackends = [\"a b\"]\n"
    );
    for verb in ["check", "run"] {
        let told = told(verb, &text);
        assert_eq!(told.code, Some(78));
        for key in ["http.workers", "http.max_body", "tcp.queue", "tcp.backends"] {
            assert!(
                told.errors.contains(key),
                "{verb}: {key} is missing in:\n{}",
                told.errors
            );
        }
    }
}

#[test]
fn nobody_is_let_in_by_default() {
    refused(
        &format!("[tcp]\nlisten = \"0.0.0.0:0\"\n{ROUTE}"),
        "2:10",
        &["tcp.listen", "tcp.secrets", "127.0.0.1"],
    );
    let text = format!("[http]\nlisten = \"0.0.0.0:0\"\n{ROUTE}");
    for verb in ["check", "run"] {
        let told = told(verb, &text);
        assert_eq!(told.code, Some(78));
        let line = told
            .errors
            .lines()
            .find(|line| line.contains("allow_unverified"));
        let line = line.unwrap_or_else(|| panic!("{verb}: {}", told.errors));
        assert!(
            line.starts_with("relay.toml:") && line.contains("/notify/{id}"),
            "{verb}: {line}"
        );
    }
    refused(
        &format!("[admin]\nlisten = \"0.0.0.0:0\"\n{ROUTE}"),
        "2:10",
        &["admin.listen", "admin.token"],
    );
}

#[test]
fn a_provider_that_nobody_knows_is_named_with_those_that_there_are() {
    refused(
        "[[route]]\npath = \"/notify/{id}\"\nverify = \"alpay\"\n",
        "3:10",
        &[
            "route[0].verify",
            "did you mean \"alipay\"?",
            "\"stripe\"",
            "\"none\"",
        ],
    );
}

#[test]
fn a_redis_url_that_is_none_is_refused_and_not_shown() {
    let text = format!("{ROUTE}[redis]\nurl = \"redis//:hunter2@example\"\n");
    let errors = told("check", &text).errors;
    assert!(errors.contains("redis.url: not a Redis URL"), "{errors}");
    assert!(!errors.contains("hunter2"), "an error shows a password");
}

#[test]
fn a_secret_that_is_too_short_is_refused_and_not_shown() {
    let text = format!("{ROUTE}[tcp]\nsecrets = [\"hunter2\"]\n");
    refused(&text, "5:12", &["tcp.secrets"]);
    assert!(
        !told("check", &text).errors.contains("hunter2"),
        "an error shows a secret"
    );
}

#[test]
fn a_port_in_use_is_named_with_its_key() {
    for section in ["http", "tcp", "admin"] {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("an address").to_string();
        let mut text = String::new();
        for other in ["http", "tcp", "admin"] {
            let listen = if other == section {
                address.as_str()
            } else {
                "127.0.0.1:0"
            };
            text += &format!("[{other}]\nlisten = \"{listen}\"\n");
        }
        let told = told("run", &format!("{text}{ROUTE}"));
        assert_eq!(told.code, Some(78), "{section}: {}", told.errors);
        for word in [
            format!("{section}.listen"),
            address,
            "relay.toml".to_owned(),
        ] {
            assert!(
                told.errors.contains(&word),
                "{word:?} is missing in:\n{}",
                told.errors
            );
        }
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    for verb in ["check", "run"] {
        let (code, _, stderr) = run(&[verb, "-c", "no-such-folder/relay.toml"]);
        assert_eq!(code, Some(78));
        assert!(
            stderr.contains("no-such-folder/relay.toml") && stderr.contains("-c"),
            "{stderr}"
        );
    }
}

#[test]
fn the_shipped_relay_toml_is_right() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/relay.toml");
    let (code, _, stderr) = run(&["check", "-c", file]);
    assert_eq!(code, Some(0), "{stderr}");
}

#[test]
fn two_nodes_are_configured_as_the_document_says() {
    let document = concat!(env!("CARGO_MANIFEST_DIR"), "/doc/cluster.md");
    let document = fs::read_to_string(document).expect("doc/cluster.md");
    let (_, section) = document
        .split_once("Two nodes and a Redis on one machine:")
        .expect("the section");
    let lines = section.lines().filter(|line| line.starts_with("sed "));
    let script: Vec<&str> = lines.take(2).collect();
    let dir = TempDir::with_prefix("payrelay-").expect("a folder");
    let shipped = concat!(env!("CARGO_MANIFEST_DIR"), "/relay.toml");
    fs::copy(shipped, dir.path().join("relay.toml")).expect("copied");
    let shell = Command::new("sh")
        .args(["-ec", &script.join("\n")])
        .current_dir(dir.path())
        .status();
    assert!(shell.expect("a shell").success());
    let tables = ["a.toml", "b.toml"].map(|name| {
        let file = dir.path().join(name);
        let (code, _, stderr) = run(&["check", "-c", file.to_str().expect("UTF-8")]);
        assert_eq!(code, Some(0), "{name}: {stderr}");
        let text = fs::read_to_string(file).expect("it is there");
        text.parse::<toml::Table>().expect("TOML")
    });
    let [a, b] = &tables;
    assert_eq!(a["redis"]["url"].as_str(), Some("redis://127.0.0.1:6379"));
    assert_eq!(a["redis"], b["redis"]);
    for section in ["http", "tcp", "admin"] {
        assert_ne!(a[section]["listen"], b[section]["listen"], "{section}");
    }
    assert_ne!(a["outbox"]["path"], b["outbox"]["path"]);
}
