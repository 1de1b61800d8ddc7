//! What an operator must not stumble over on the command line.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::process::Command;
use std::thread;

use tempfile::TempDir;

use super::outbox::{config, stored};
use crate::cli::beside;
use crate::support::{DEADLINE, Process, Relay, Terminal, binary, eventually, run};

#[test]
fn send_fails_when_the_outcome_is_a_refusal_whatever_the_status() {
    let relay = Relay::with(
        "[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\nfail = { status = 200, body = \"fail\" }",
    );
    let mut send = beside(&relay, &["send", "nobody", "--body", "hello"]);
    assert_eq!(send.wait_exit(DEADLINE), Some(1), "{}", send.stdout());
    assert!(
        send.stdout().contains("status   200 OK"),
        "{}",
        send.stdout()
    );
    assert!(send.stderr().contains("no backend \"nobody\" is connected"));
}

#[test]
fn listen_posts_on_to_a_program_whose_status_decides() {
    let relay = Relay::with(
        "[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\nforward_headers = [\"content-type\", \"x-sign\"]",
    );
    let program = TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let url = format!(
        "http://{}/paid?x=1",
        program.local_addr().expect("an address")
    );
    let serves = thread::spawn(move || {
        let mut heads = Vec::new();
        for status in ["200 OK", "500 Oops"] {
            let (stream, _) = program.accept().expect("a connection");
            let mut reader = BufReader::new(stream);
            let (mut head, mut length) = (String::new(), 0);
            loop {
                let mut line = String::new();
                reader.read_line(&mut line).expect("a line");
                if line == "\r\n" {
                    break;
                }
                if let Some(value) = line.to_ascii_lowercase().strip_prefix("content-length:") {
                    length = value.trim().parse().expect("a length");
                }
                head.push_str(&line);
            }
            let mut body = vec![0; length];
            reader.read_exact(&mut body).expect("the body");
            head.push_str(&String::from_utf8_lossy(&body));
            heads.push(head);
            let answer =
                format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
            reader
                .get_mut()
                .write_all(answer.as_bytes())
                .expect("an answer");
        }
        heads
    });
    let listen = beside(&relay, &["listen", "game-01", "--forward", &url]);
    eventually("listen is connected", || {
        relay.metric("payrelay_sessions") == 1.0
    });
    let headers = [("Content-Type", "text/plain"), ("X-Sign", "abc")];
    let answer = relay.post_with("/notify/game-01", &headers, b"first");
    assert_eq!(answer.answer().told(), (200, "delivered"));
    let answer = relay.post_with("/notify/game-01", &headers, b"second");
    assert_eq!(answer.answer().told(), (503, "refused"));
    let heads = serves.join().expect("the program");
    let first = heads[0].to_ascii_lowercase();
    assert!(first.starts_with("post /paid?x=1 http/1.1\r\n"), "{first}");
    for line in [
        "content-type: text/plain",
        "x-sign: abc",
        "x-payrelay-verified: none",
        "x-payrelay-try: 1",
    ] {
        assert!(first.contains(line), "{line} in {first}");
    }
    assert!(first.ends_with("first") && heads[1].ends_with("second"));
    relay.log_contains("HTTP 500");
    drop(listen);
}

#[test]
fn listen_shows_who_verified_and_the_headers_in_a_terminal() {
    let relay = Relay::with(
        "[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\nforward_headers = [\"x-sign\"]",
    );
    let listen = format!(
        "{} listen game-01 --count 1 --connect {}",
        binary().get_program().display(),
        relay.ready().tcp
    );
    let terminal = Terminal::start(&listen, |_| {});
    eventually("listen is connected", || {
        relay.metric("payrelay_sessions") == 1.0
    });
    let answer = relay.post_with("/notify/game-01", &[("X-Sign", "abc")], b"hello");
    assert_eq!(answer.answer().told(), (200, "delivered"));
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("try=1 verified=none 5 bytes"), "{shown}");
    assert!(
        shown.to_ascii_lowercase().contains("> x-sign: abc"),
        "{shown}"
    );
}

#[test]
fn in_a_terminal_there_is_one_ready_line() {
    let dir = TempDir::new().expect("a folder");
    let text = "[http]\nlisten = \"127.0.0.1:0\"\n[tcp]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
                [[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n";
    fs::write(dir.path().join("relay.toml"), text).expect("relay.toml");
    let run = format!(
        "{} run & until [ -e stop ]; do sleep 0.02; done; kill $!; wait $!",
        binary().get_program().display()
    );
    let terminal = Terminal::start(&run, |script| {
        script.current_dir(dir.path()).env("TMPDIR", dir.path());
    });
    terminal.shows("ready node=");
    fs::write(dir.path().join("stop"), "").expect("a file");
    let (code, shown) = terminal.end();
    assert_eq!(code, Some(0), "{shown}");
    assert_eq!(shown.matches("ready node=").count(), 1, "{shown}");
}

#[test]
fn a_temporary_folder_whose_path_is_too_long_is_said() {
    let dir = TempDir::new().expect("a folder");
    let long = dir.path().join("t".repeat(100));
    fs::create_dir(&long).expect("a folder");
    let text = "[http]\nlisten = \"127.0.0.1:0\"\nworkers = 1\n[tcp]\nlisten = \"127.0.0.1:0\"\n\
                [admin]\nlisten = \"127.0.0.1:0\"\n[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n";
    fs::write(dir.path().join("relay.toml"), text).expect("relay.toml");
    let mut command = binary();
    command
        .arg("run")
        .current_dir(dir.path())
        .env("TMPDIR", &long);
    let mut relay = Process::start("the relay", command);
    assert_eq!(relay.wait_exit(DEADLINE), Some(1));
    let said = relay.stderr();
    assert!(
        said.contains("set TMPDIR to a shorter path") && said.contains("107 bytes at most"),
        "{said}"
    );
}

#[test]
fn what_a_killed_relay_left_in_the_temporary_folder_goes_at_the_next_start() {
    let fragment = "[http]\nworkers = 1";
    let mut relay = Relay::with(fragment);
    let private = |relay: &Relay| {
        let entries = fs::read_dir(relay.path(".")).expect("the folder");
        let paths = entries.map(|entry| entry.expect("an entry").path());
        let mut named: Vec<_> = paths
            .filter(|path| path.is_dir() && path.to_string_lossy().contains("/payrelay-"))
            .filter(|path| {
                path.parent()
                    .is_some_and(|folder| folder.ends_with(".") || path.join("http").exists())
            })
            .collect();
        named.sort();
        named
    };
    let first = private(&relay);
    assert_eq!(first.len(), 1, "{first:?}");
    // Not the relay's: something is in it.
    let stranger = relay.path("payrelay-stranger");
    fs::create_dir(&stranger).expect("a folder");
    fs::write(stranger.join("http"), "a file").expect("a file");
    for folder in [&first[0], &stranger] {
        // A minute old.
        let touched = Command::new("touch")
            .args(["-d", "1 minute ago"])
            .arg(folder)
            .status();
        assert!(touched.is_ok_and(|status| status.success()));
    }
    relay.restart_with(fragment);
    assert!(!first[0].exists(), "it is still there");
    assert!(stranger.join("http").exists());
    relay.log_contains("was left by a relay that was killed");
    // One that runs is left alone by another.
    let running = private(&relay);
    let own: Vec<_> = running.iter().filter(|path| **path != stranger).collect();
    assert_eq!(own.len(), 1, "{running:?}");
}

#[test]
fn check_warns_of_secrets_that_are_plainly_none() {
    let dir = TempDir::new().expect("a folder");
    let file = dir.path().join("relay.toml");
    for (secret, words) in [
        ("${STRIPE_SECRET_FOR_PAYMENTS}", "a variable of a shell"),
        ("STRIPE_SECRET_FOR_PAYMENTS", "the name of a variable"),
        ("/etc/payrelay/stripe.secret", "the path of a file"),
        ("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", ""),
        ("f3a9c41d02b7e6585d1c0f9e8a7b6c5d", ""),
    ] {
        let text = format!(
            "[[route]]\npath = \"/x/{{id}}\"\nverify = \"stripe\"\nsecrets = [\"{secret}\"]\n"
        );
        fs::write(&file, text).expect("relay.toml");
        let (code, said, _) = run(&["check", "-c", file.to_str().expect("UTF-8")]);
        assert_eq!(code, Some(0));
        assert_eq!(
            said.contains("this looks like"),
            !words.is_empty(),
            "{said}"
        );
        assert!(said.contains(words), "{said}");
        assert!(!said.contains(secret), "the secret is shown: {said}");
    }
}

#[test]
fn what_is_missing_on_the_command_line_is_said_with_what_to_write() {
    let dir = TempDir::new().expect("a folder");
    let text = "[[route]]\npath = \"/notify/{id}\"\n";
    fs::write(dir.path().join("mine.toml"), text).expect("a file");
    for (args, code, words) in [
        (
            &["check", "mine.toml"][..],
            2,
            "name the configuration with -c, as in payrelay check -c mine.toml",
        ),
        (
            &["mine.toml"],
            2,
            "name the configuration with -c, as in payrelay check -c mine.toml",
        ),
        (
            &["send", "game-01", "--body", "x"],
            78,
            "name yours with -c FILE, or where to post with --url http://HOST:PORT/PATH",
        ),
        (
            &["listen", "game-01"],
            78,
            "name yours with -c FILE, or the relay with --connect HOST:PORT",
        ),
        (
            &["status"],
            78,
            "name yours with -c FILE, or the relay with --connect HOST:PORT",
        ),
        (
            &["run"],
            78,
            "name yours with -c FILE, or write one with payrelay init",
        ),
    ] {
        let said = binary().args(args).current_dir(dir.path()).output();
        let said = said.expect("payrelay runs");
        let stderr = String::from_utf8_lossy(&said.stderr).into_owned();
        assert_eq!(said.status.code(), Some(code), "{args:?}: {stderr}");
        assert!(stderr.contains(words), "{args:?}: {stderr}");
    }
}

#[test]
fn tail_follows_notifications_and_refusals_as_they_come() {
    let relay = Relay::with(&config("", ""));
    let mut till = relay.backend("till-7");
    let mut deliver = |body: &[u8]| {
        let post = relay.post("/event/till-7", body);
        let id = till.message().ack();
        assert_eq!(post.answer().told(), (200, "delivered"));
        id
    };
    let earlier = deliver(b"{\"n\": \"order-1\"}");
    let tail = beside(&relay, &["tail", "-n", "1"]);
    let mut json = beside(&relay, &["tail", "--json", "--count", "3"]);
    let lines = |process: &Process, words: &str| process.wait_line(0, |line| line.contains(words));
    lines(
        &tail,
        &format!("delivered  {earlier} for till-7 by /event/{{id}} event=order-1 after "),
    );
    let later = deliver(b"{\"n\": \"order-2\"}");
    lines(&tail, &format!("delivered  {later} for till-7"));
    let away = stored(&relay, "/notify/away", b"x");
    lines(
        &tail,
        &format!("pending    {away} for away by /notify/{{id}}: offline"),
    );
    for _ in 0..3 {
        assert_eq!(relay.post("/nowhere", b"x").answer().status, 404);
    }
    lines(&tail, "REFUSED    http: no-route, ");
    let mut there = relay.backend("away");
    assert_eq!(there.message().ack(), away);
    lines(
        &tail,
        &format!("done       {away} for away by /notify/{{id}} after "),
    );
    assert_eq!(json.wait_exit(DEADLINE), Some(0), "{}", json.stderr());
    let said = json.stdout();
    let first: serde_json::Value =
        serde_json::from_str(said.lines().next().expect("a line")).expect("JSON");
    assert_eq!(
        (&first["type"], &first["node"]),
        (
            &"notification".into(),
            &relay.ready().instance.clone().into()
        )
    );
    assert!(
        said.lines()
            .all(|line| serde_json::from_str::<serde_json::Value>(line).is_ok()),
        "{said}"
    );
    let told = tail.stdout();
    for line in [
        format!("delivered  {later} "),
        format!("pending    {away} "),
        format!("done       {away} "),
    ] {
        assert_eq!(told.matches(&line).count(), 1, "once: {told}");
    }
    let (code, _, words) = run(&["tail", "--connect", "127.0.0.1:1"]);
    assert_eq!(code, Some(1));
    assert!(words.contains("is the relay running"), "{words}");
}

#[test]
fn where_people_look_the_time_of_day_here_stands_beside_utc() {
    let relay = Relay::with(&config("", ""));
    let id = stored(&relay, "/notify/away", b"x");
    let admin = relay.ready().admin.to_string();
    let asked = |args: &[&str], zone: &str| {
        let mut command = binary();
        command
            .args(args)
            .args(["--connect", &admin])
            .env("TZ", zone);
        let said = command.output().expect("payrelay runs");
        String::from_utf8_lossy(&said.stdout).into_owned()
    };
    let list = asked(&["outbox", "list"], "CST-8");
    let row = list
        .lines()
        .find(|line| line.starts_with(&id))
        .expect("its row");
    let words: Vec<&str> = row.split_whitespace().collect();
    let hour = |text: &str| text[..2].parse::<u32>().expect("an hour");
    let (utc, here) = (
        words[1].split_once('T').expect("a time").1,
        words[2].trim_start_matches('('),
    );
    assert_eq!((hour(utc) + 8) % 24, hour(here), "{row}");
    assert_eq!(
        (&here[2..], words[3], words[4]),
        (&utc[2..8], "+08:00)", "pending"),
        "{row}"
    );
    for args in [
        &["trace", &id][..],
        &["outbox", "show", &id],
        &["tail", "--count", "1"],
    ] {
        assert!(asked(args, "CST-8").contains(" +08:00)"), "{args:?}");
        let utc = asked(args, "UTC0");
        assert!(
            utc.contains("Z") && !utc.contains("+00:00"),
            "{args:?}: {utc}"
        );
    }
}
