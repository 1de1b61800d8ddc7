//! The command line as a newcomer types it: check, token, listen and send, and the exit codes.

use std::fs;
use std::process::Command;

use crate::support::{DEADLINE, Process, Redis, Relay, binary, eventually, run, token};

/// Starts `payrelay <args> -c <the relay's own file, with its real ports>`.
pub fn beside(relay: &Relay, args: &[&str]) -> Process {
    let mut command: Command = binary();
    command.args(args).arg("-c").arg(real_ports(relay));
    Process::start(args[0], command)
}

/// The relay's configuration with the ports it really has, for those who connect to it.
fn real_ports(relay: &Relay) -> std::path::PathBuf {
    let text = fs::read_to_string(relay.path("relay.toml")).expect("relay.toml");
    let mut section = "";
    let mut lines = Vec::new();
    for line in text.lines() {
        if line.starts_with('[') {
            section = line;
        }
        let port = match (line.starts_with("listen"), section) {
            (true, "[http]") => Some(relay.ready().http),
            (true, "[tcp]") => Some(relay.ready().tcp),
            (true, "[admin]") => Some(relay.ready().admin),
            _ => None,
        };
        lines.push(port.map_or(line.to_owned(), |port| format!("listen = \"{port}\"")));
    }
    let file = relay.path("clients.toml");
    fs::write(&file, lines.join("\n")).expect("clients.toml is written");
    file
}

fn connected(relay: &Relay) {
    eventually("listen is connected", || {
        relay.metric("payrelay_sessions") == 1.0
    });
}

#[test]
fn listen_in_one_terminal_and_send_in_another() {
    let relay = Relay::start();
    let mut listen = beside(&relay, &["listen", "game-01", "--count", "2"]);
    connected(&relay);
    let mut send = beside(&relay, &["send", "game-01", "--body", "hello"]);
    assert_eq!(send.wait_exit(DEADLINE), Some(0), "{}", send.stderr());
    assert!(
        send.stdout().contains("200") && send.stdout().contains("delivered"),
        "{}",
        send.stdout()
    );
    listen.wait_line(0, |line| line.contains("hello"));

    let file = relay.path("body.bin");
    fs::write(&file, "from a file").expect("written");
    let file = file.to_str().expect("a path in UTF-8").to_owned();
    let mut send = beside(&relay, &["send", "game-01", "--file", &file]);
    assert_eq!(send.wait_exit(DEADLINE), Some(0), "{}", send.stderr());
    listen.wait_line(0, |line| line.contains("from a file"));
    assert_eq!(listen.wait_exit(DEADLINE), Some(0));
}

#[test]
fn send_says_what_became_of_it_and_fails_when_it_failed() {
    let relay = Relay::start();
    let mut send = beside(&relay, &["send", "nobody", "--body", "hello"]);
    assert_eq!(send.wait_exit(DEADLINE), Some(1));
    let said = send.stdout() + &send.stderr();
    assert!(said.contains("503") && said.contains("offline"), "{said}");
}

#[test]
fn listen_exec_acknowledges_by_the_exit_code_of_the_command() {
    let relay = Relay::start();
    let out = relay.path("out");
    let out_text = out.to_str().expect("a path in UTF-8");
    let command = format!(
        "cat > {out_text} && test \"$PAYRELAY_ROUTE\" = '/notify/{{id}}' && ! grep -q bad {out_text}"
    );
    let _listen = beside(&relay, &["listen", "game-01", "--exec", &command]);
    connected(&relay);
    let answer = relay.post("/notify/game-01", b"good\n\xff\0bytes").answer();
    assert_eq!(answer.told(), (200, "delivered"));
    assert_eq!(fs::read(&out).expect("the body"), b"good\n\xff\0bytes");
    assert_eq!(
        relay.post("/notify/game-01", b"bad").answer().told(),
        (503, "refused")
    );
    assert_eq!(
        relay.post("/notify/game-01", b"good again").answer().told(),
        (200, "delivered")
    );
}

#[test]
fn listen_comes_back_after_the_relay_has() {
    let mut relay = Relay::start();
    let to = relay.ready().tcp.to_string();
    let mut listen = binary();
    listen.args(["listen", "game-01", "--connect", &to]);
    let mut listen = Process::start("listen", listen);
    connected(&relay);
    relay.restart_with(&format!("[tcp]\nlisten = \"{to}\""));
    connected(&relay);
    assert_eq!(
        relay.post("/notify/game-01", b"again").answer().told(),
        (200, "delivered")
    );
    listen.signal(rustix::process::Signal::INT);
    assert_eq!(listen.wait_exit(DEADLINE), Some(0));
}

#[test]
fn token_prints_what_hello_asks_for() {
    let secret = "correct horse battery staple";
    let relay = Relay::with(&format!(
        "[tcp]\nsecrets = [\"{secret}\", \"an older one 0123456789\"]"
    ));
    let mut printed = beside(&relay, &["token", "game-01"]);
    assert_eq!(printed.wait_exit(DEADLINE), Some(0), "{}", printed.stderr());
    let printed = printed.stdout();
    assert_eq!(
        printed,
        "de023237f3126b5b649249082b6250462f8429cb4ba4f1a2cb56cc36babf1079"
    );
    assert_eq!(printed, token(secret, "game-01"));
    relay.backend_with("game-01", &format!("token={printed}"));

    let without = Relay::start();
    let mut printed = beside(&without, &["token", "game-01"]);
    assert_eq!(
        printed.wait_exit(DEADLINE),
        Some(78),
        "without secrets there is no token"
    );
}

#[test]
fn exit_codes_are_those_of_the_manual() {
    assert_eq!(run(&["--help"]).0, Some(0));
    assert_eq!(run(&["--version"]).0, Some(0));
    assert_eq!(run(&["no-such-verb"]).0, Some(2));
    assert_eq!(run(&["check", "--no-such-flag"]).0, Some(2));
    assert_eq!(run(&["token", "not an id"]).0, Some(2));
    let (code, stdout, _) = run(&["--help"]);
    assert_eq!(code, Some(0));
    for verb in ["run", "check", "token", "listen", "send", "status", "bench"] {
        assert!(stdout.contains(verb), "--help says nothing of {verb}");
    }
}

#[test]
fn status_prints_who_is_connected_on_every_node() {
    let mut redis = Redis::start();
    let token = "[admin]\ntoken = \"an-admin-token-0123456789\"";
    let (a, b) = (redis.node("a", token), redis.node("b", token));
    let _here = a.backend("till-1");
    let _there = b.backend("game-01");
    let status = |args: &[&str]| {
        let mut said = (None, String::new(), String::new());
        // On a busy machine the other node may not answer in time, which is told.
        eventually("every node answers", || {
            let mut status = beside(&a, &[&["status"], args].concat());
            let code = status.wait_exit(DEADLINE);
            said = (code, status.stdout(), status.stderr());
            !said.2.contains("did not answer")
        });
        said
    };
    let (code, shown, words) = status(&[]);
    assert_eq!((code, &*words), (Some(0), ""));
    let lines: Vec<&str> = shown.lines().collect();
    let node = |relay: &Relay| relay.ready().instance.clone();
    assert_eq!(lines[0], format!("node     {}", node(&a)));
    let version = concat!("relay    payrelay ", env!("CARGO_PKG_VERSION"), ", up for ");
    assert!(
        lines[1].starts_with(version) && lines[1].ends_with("s, ready"),
        "{shown}"
    );
    assert!(
        lines[2].starts_with("bus      redis: up; heard itself "),
        "{shown}"
    );
    assert_eq!(lines[3], "route    /notify/{id}: nothing is checked");
    assert_eq!(
        lines[4],
        "outbox   none: delivery.undelivered is \"refuse\""
    );
    for (at, (id, relay)) in [("game-01", &b), ("till-1", &a)].into_iter().enumerate() {
        let words: Vec<&str> = lines[7 + at].split_whitespace().collect();
        assert_eq!(words[..2], [id, &*node(relay)], "{shown}");
    }
    assert_eq!(lines[10], "2 backends on 2 nodes");

    // The other node, by its address.
    let (code, shown, words) = status(&["--admin", &b.ready().admin.to_string(), "--json"]);
    assert_eq!(code, Some(0), "{words}");
    let json: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(json["node"], node(&b));
    assert_eq!(json["health"]["ready"], true);

    let (code, shown, _) = status(&["--backend", "game-01"]);
    assert_eq!(code, Some(0));
    assert!(
        shown.contains("1 backend on 2 nodes") && !shown.contains("till-1"),
        "{shown}"
    );
    let (code, _, words) = status(&["--backend", "nobody"]);
    assert_eq!(
        (code, words.contains("nobody is not connected")),
        (Some(1), true)
    );

    redis.kill();
    eventually("it has noticed", || a.readyz().status == 503);
    let (code, shown, words) = status(&[]);
    assert_eq!(code, Some(1));
    assert!(
        shown.contains("till-1") && shown.contains("redis: DOWN"),
        "{shown}"
    );
    assert!(words.contains("only a part is known"), "{words}");
}

#[test]
fn status_says_what_it_needs() {
    let (code, _, words) = run(&["status", "--connect", "127.0.0.1:1"]);
    assert_eq!(code, Some(1));
    assert!(words.contains("is the relay running"), "{words}");
    let relay = Relay::with("[admin]\ntoken = \"an-admin-token-0123456789\"");
    let admin = relay.ready().admin.to_string();
    let (code, _, words) = run(&["status", "--connect", &admin]);
    assert_eq!(code, Some(1));
    assert!(words.contains("asks for the admin token"), "{words}");
}
