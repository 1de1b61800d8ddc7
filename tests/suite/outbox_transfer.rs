//! What is stored, on its way to another file or machine while the relay runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::outbox::{config, messages, stored, storing};
use super::outbox_operator::{ask, json};
use crate::support::{Relay, eventually};

/// Pending, done and dead ones, with an event and without.
fn filled() -> Relay {
    let relay = storing("", "");
    let mut till = relay.backend("till-7");
    let dead = relay.post("/event/till-7", b"{\"n\": \"1\"}");
    till.message().nack("delay=-1 reason=closed");
    assert_eq!(dead.answer().told(), (200, "stored"));
    let later = relay.post("/notify/till-7", b"later");
    till.message().nack("delay=3600");
    assert_eq!(later.answer().told(), (200, "stored"));
    drop(till);
    eventually("the session is gone", || {
        relay.metric("payrelay_sessions") == 0.0
    });
    stored(&relay, "/notify/till-8", b"\xff\0\r\nbytes");
    relay.backend("till-8").message().ack();
    eventually("one is done", || {
        relay.metric("payrelay_outbox_done") == 1.0
    });
    for n in 0..600 {
        let body = format!("{{\"n\": \"{n}\", \"x\": \"{}\"}}", "y".repeat(3000));
        stored(&relay, "/event/till-9", body.as_bytes());
    }
    relay
}

/// All rows, but their numbers and the name of the node, which is another after a restart.
fn rows(relay: &Relay) -> Vec<String> {
    let rows = json(relay, &["outbox", "list", "--limit", "100000"]);
    rows.into_iter()
        .map(|mut row| {
            row["seq"].take();
            row["node"].take();
            row.to_string()
        })
        .collect()
}

#[test]
fn a_backup_of_a_running_relay_is_an_outbox_to_start_on() {
    let mut relay = filled();
    let path = relay.path("copy.db");
    let name = path.to_string_lossy();
    let (code, words) = ask(&relay, &["outbox", "backup", &name]);
    assert_eq!(code, Some(0), "{words}");
    assert!(
        words.contains("saved 603 notifications: 601 pending, 1 done, 1 dead"),
        "{words}"
    );
    let mode = fs::metadata(&path).expect("a file").permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    // Never over something.
    let (code, words) = ask(&relay, &["outbox", "backup", &name]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("nothing is overwritten"), "{words}");
    let before = rows(&relay);
    relay.restart_with(&config("", "path = \"copy.db\""));
    assert_eq!(rows(&relay), before);
    assert_eq!(messages(&relay, "pending"), 601.0);
    // A provider's retry is still known, and a delay that a backend asked for is kept.
    let retry = format!("{{\"n\": \"5\", \"x\": \"{}\"}}", "y".repeat(3000));
    let retry = relay.post("/event/till-9", retry.as_bytes()).answer();
    assert_eq!(retry.told(), (200, "duplicate"));
    let mut till = relay.backend("till-9");
    let body = format!("{{\"n\": \"0\", \"x\": \"{}\"}}", "y".repeat(3000));
    till.expect("MSG id=* try=1 event=0 =*", body.as_bytes())
        .ack();
    let mut till = relay.backend("till-7");
    till.settle();
}

#[test]
fn an_export_has_a_line_for_each() {
    let relay = filled();
    let path = relay.path("all.jsonl");
    let (code, words) = ask(&relay, &["outbox", "export", &path.to_string_lossy()]);
    assert_eq!(code, Some(0), "{words}");
    assert!(words.contains("exported 603 notifications"), "{words}");
    let lines = fs::read_to_string(&path).expect("lines");
    assert_eq!(lines.lines().count(), 603);
    for line in lines.lines() {
        let one: serde_json::Value = serde_json::from_str(line).expect("JSON");
        assert_eq!(one["format"], 1);
        assert!(one["body"].is_string() && one["id"].is_string(), "{line}");
    }
    let (code, words) = ask(&relay, &["outbox", "export", &path.to_string_lossy()]);
    assert_eq!(code, Some(1), "{words}");
}

#[test]
fn what_one_relay_exported_another_imports_once_and_delivers() {
    let relay = filled();
    let path = relay.path("all.jsonl");
    let (code, words) = ask(&relay, &["outbox", "export", &path.to_string_lossy()]);
    assert_eq!(code, Some(0), "{words}");
    let other = storing("", "");
    let mut till = other.backend("till-9");
    let import = ["outbox", "import", &path.to_string_lossy()];
    let (code, words) = ask(&other, &import);
    assert_eq!(
        (code, words.as_str()),
        (Some(0), "603 imported, 0 were there already")
    );
    // They are delivered at once, in their order, to a backend that is there.
    for n in 0..600 {
        let body = format!("{{\"n\": \"{n}\", \"x\": \"{}\"}}", "y".repeat(3000));
        till.expect("MSG id=* try=1 event=* =*", body.as_bytes())
            .ack();
    }
    eventually("all are delivered", || messages(&other, "pending") == 1.0);
    assert_eq!(messages(&other, "dead"), 1.0);
    // Their providers' retries are known.
    let retry = format!("{{\"n\": \"5\", \"x\": \"{}\"}}", "y".repeat(3000));
    let retry = other.post("/event/till-9", retry.as_bytes()).answer();
    assert_eq!(retry.told(), (200, "duplicate"));
    // Nothing comes twice.
    let (code, words) = ask(&other, &import);
    assert_eq!(
        (code, words.as_str()),
        (Some(0), "0 imported, 603 were there already")
    );
    till.settle();
}

#[test]
fn an_import_says_what_it_cannot_take() {
    let relay = filled();
    let path = relay.path("all.jsonl");
    let (code, words) = ask(&relay, &["outbox", "export", &path.to_string_lossy()]);
    assert_eq!(code, Some(0), "{words}");
    let full = storing("", "max_messages = 100");
    let (code, words) = ask(&full, &["outbox", "import", &path.to_string_lossy()]);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("outbox.max_messages"), "{words}");
    let lines = fs::read_to_string(&path).expect("lines");
    let first = lines.lines().next().expect("a line");
    for (line, said) in [
        (
            first.replace("\"format\":1", "\"format\":2"),
            "format 2 is not known here",
        ),
        (
            first.replace("\"state\":\"", "\"state\":\"x"),
            "state does not hold what it should",
        ),
        ("{".to_owned(), "line 1 is no JSON"),
    ] {
        fs::write(&path, line).expect("written");
        let (code, words) = ask(&relay, &["outbox", "import", &path.to_string_lossy()]);
        assert_eq!(code, Some(1), "{words}");
        assert!(words.contains(said), "{words}");
    }
}
