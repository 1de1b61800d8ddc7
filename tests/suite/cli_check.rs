//! What `payrelay check` accepts, `payrelay run` starts; and what it refuses, a start refuses in the same words, with line and column.

use std::fs;

use tempfile::TempDir;

use crate::cli::beside;
use crate::support::{DEADLINE, Relay, binary};

const PORTS: &str =
    "http.listen = \"127.0.0.1:0\"\ntcp.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n";

#[test]
fn what_check_refuses_a_start_refuses_in_the_same_words() {
    let dir = TempDir::new().expect("a folder");
    let path = |name: &str| dir.path().join(name);
    fs::write(path("file"), "no folder").expect("a file");
    fs::write(
        path("text.db"),
        "this is no database, whatever its name says",
    )
    .expect("a file");
    fs::create_dir(path("folder")).expect("a folder");
    for (line, place, words) in [
        (
            "log.file = \"missing/relay.log\"",
            "4:12",
            "log.file = \"missing/relay.log\": cannot be opened for writing: No such file",
        ),
        (
            "log.file = \"folder\"",
            "4:12",
            "log.file = \"folder\": cannot be opened for writing: ",
        ),
        (
            "outbox.path = \"file/outbox.db\"",
            "4:15",
            "outbox.path = \"file/outbox.db\": its directory cannot be used: ",
        ),
        (
            "outbox.path = \"file/below/outbox.db\"",
            "4:15",
            "outbox.path = \"file/below/outbox.db\": its directory cannot be used: ",
        ),
        (
            "outbox.path = \"text.db\"",
            "4:15",
            "outbox.path = \"text.db\": it is no SQLite database",
        ),
        (
            "http.tls = { cert = \"none.pem\", key = \"none.pem\" }",
            "4:21",
            "http.tls.cert = \"none.pem\": there is no such file",
        ),
        (
            "http.tls = { cert = \"file\", key = \"file\" }",
            "4:21",
            "http.tls.cert = \"file\": ",
        ),
        (
            "[tcp.tls]\nlisten = \"127.0.0.1:0\"\nkey = \"none.pem\"\ncert = \"none.pem\"",
            "7:8",
            "tcp.tls.cert = \"none.pem\": there is no such file",
        ),
    ] {
        let text = format!("{PORTS}{line}\n[[route]]\npath = \"/notify/{{id}}\"\n");
        fs::write(path("relay.toml"), text).expect("relay.toml");
        for command in ["check", "run"] {
            let said = binary().arg(command).current_dir(dir.path()).output();
            let said = said.expect("payrelay runs");
            let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
            assert_eq!(
                said.status.code(),
                Some(78),
                "{command} of {line}: {stderr}"
            );
            let wanted = format!("relay.toml:{place}: {words}");
            assert!(
                stderr.lines().any(|said| said.starts_with(&wanted)),
                "{command} of {line}: {stderr}"
            );
        }
    }
}

#[test]
fn all_that_is_wrong_is_said_at_once_and_nothing_is_made() {
    let dir = TempDir::new().expect("a folder");
    let text = format!(
        "{PORTS}log.file = \"missing/relay.log\"\nhttp.tls = {{ cert = \"none.pem\", key = \"none.pem\" }}\n\
         [[route]]\npath = \"/notify/{{id}}\"\n"
    );
    fs::write(dir.path().join("relay.toml"), text).expect("relay.toml");
    let said = binary()
        .arg("check")
        .current_dir(dir.path())
        .output()
        .expect("payrelay runs");
    let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
    assert_eq!(stderr.lines().count(), 2, "{stderr}");
    let entries = fs::read_dir(dir.path()).expect("the folder").count();
    assert_eq!(entries, 1, "only relay.toml");
}

#[test]
fn check_accepts_what_a_relay_runs_with() {
    let relay = Relay::with("[delivery]\nundelivered = \"store\"\n[log]\nfile = \"relay.log\"\n");
    let mut check = beside(&relay, &["check"]);
    assert_eq!(check.wait_exit(DEADLINE), Some(0), "{}", check.stderr());
}
