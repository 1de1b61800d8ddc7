//! The log, when nobody reads it or its disk is full: it costs lines, which are counted, and nothing else.

use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use super::outbox::{config, stored};
use crate::cli::beside;
use crate::support::{Backend, DEADLINE, Mounted, Relay, Setup, eventually, token};

const LOST: &str = "payrelay_log_lines_lost_total";

/// More notifications than a log that hangs takes lines: 16,384 in the queue, and what a pipe of 64 KiB has room for.
const MORE_THAN_FIT: usize = 25_000;

/// So many lines are to be lost.
const LOST_MIN: f64 = 500.0;

/// How long a relay may take to stop: 10 s for what is in flight (there is nothing), half a second for the log, and a busy machine.
const STOP_MAX: Duration = Duration::from_secs(10);

/// Every answer comes while `relay` loses log lines: genuine notifications, refused ones, and those of a backend that is away.
fn everybody_is_answered_while_lines_are_lost(relay: &Relay) {
    let mut till = relay.backend("till-7");
    let mut provider = relay.http();
    let mut deliver = |n: usize| {
        let body = format!("{n}");
        let length = body.len();
        provider.send(
            format!("POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: {length}\r\n\r\n{body}")
                .as_bytes(),
        );
        till.expect("MSG id=* =*", body.as_bytes()).ack();
        assert_eq!(provider.must_answer().told(), (200, "delivered"));
    };
    let mut done = 0;
    while relay.metric(LOST) < LOST_MIN {
        assert!(done < MORE_THAN_FIT, "few lines were lost");
        for n in done..done + 500 {
            deliver(n);
        }
        done += 500;
    }
    assert_eq!(
        relay.post("/notify/nobody", b"x").answer().told(),
        (503, "offline")
    );
    assert_eq!(
        relay.post("/forged/till-7", b"x").answer().told(),
        (401, "bad-signature")
    );
    assert_eq!(relay.readyz().status, 200, "{}", relay.readyz().text());
    drop(till);
    // A backend that comes and goes is logged at info, and served.
    relay.backend("till-8").settle();
}

/// At level debug every notification has lines; one route refuses forged callbacks, which has a line too.
fn debug_to(file: Option<&str>) -> String {
    let file = file.map_or_else(String::new, |file| format!("file = \"{file}\""));
    format!(
        "[log]\nlevel = \"debug\"\n{file}\n\
         [[route]]\npath = \"/notify/{{id}}\"\nverify = \"none\"\n\
         [[route]]\npath = \"/forged/{{id}}\"\nverify = \"token\"\ntoken = \"query:token\"\nsecrets = [\"0123456789abcdef0123456789abcdef\"]\n"
    )
}

/// The log that `reader` reads tells of every line that `relay` has lost.
///
/// It may do so in several lines: a pipe takes a last piece when the queue is full already, and that makes room for a line.
fn tells_of_every_loss(reader: impl Read, relay: &Relay) {
    let lost = relay.metric(LOST) as u64;
    let mut told = 0;
    for line in BufReader::new(reader).lines() {
        told += told_as_lost(&line.expect("a line of the log"));
        if told >= lost {
            break;
        }
    }
    assert!(told >= lost, "{told} of {lost}");
    assert!(told as f64 <= relay.metric(LOST), "{told} of {lost}");
}

/// The number of lines that `line` says were lost before it.
fn told_as_lost(line: &str) -> u64 {
    let Some((before, _)) = line.split_once(" lines of the log before this one were lost") else {
        return 0;
    };
    assert!(line.contains("[WARN] (log) "), "{line}");
    let (_, number) = before.rsplit_once(' ').expect(line);
    number.parse().expect(line)
}

fn stops(mut relay: Relay) {
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit(STOP_MAX), Some(0));
}

#[test]
fn a_standard_error_that_nobody_reads_costs_lines_and_no_answer() {
    let relay = Setup::with(&debug_to(None)).unread_log().start();
    everybody_is_answered_while_lines_are_lost(&relay);
    let log = File::open(relay.path("log")).expect("the log's other end");
    tells_of_every_loss(log, &relay);
}

#[test]
fn a_log_pipe_whose_reader_hangs_costs_lines_and_no_answer() {
    let relay = Setup::with(&debug_to(Some("pipe"))).pipe("pipe").start();
    let reader = OpenOptions::new().read(true).open(relay.path("pipe"));
    let reader = reader.expect("a reader that does not read");
    everybody_is_answered_while_lines_are_lost(&relay);
    tells_of_every_loss(reader, &relay);
}

#[test]
fn a_log_on_a_full_disk_costs_lines_and_no_answer() {
    let Some(disk) = Mounted::of("64k") else {
        return;
    };
    let file = disk.path().join("relay.log");
    let relay = Relay::with(&debug_to(Some(&file.to_string_lossy())));
    everybody_is_answered_while_lines_are_lost(&relay);
    let size = fs::metadata(&file).expect("the log").len();
    assert!(size <= 64 * 1024, "{size} bytes");
    // With room again the log goes on, and says what is missing.
    disk.remount("size=4m");
    eventually("the log says how many lines are missing", || {
        relay.post("/notify/nobody", b"x").answer();
        text(&file).contains("lines of the log before this one were lost: No space left")
    });
    tells_of_every_loss(File::open(&file).expect("the log"), &relay);
    // What was cut in two by the end of the disk is no part of another line.
    let text = text(&file);
    let lines = text
        .lines()
        .filter(|line| line.contains("lines of the log"));
    assert!(lines.clone().all(|line| line.starts_with("20")), "{text}");
}

#[test]
fn a_relay_whose_log_hangs_stops_in_time() {
    let relay = Setup::with(&debug_to(Some("pipe"))).pipe("pipe").start();
    everybody_is_answered_while_lines_are_lost(&relay);
    stops(relay);
    let relay = Setup::with(&debug_to(None)).unread_log().start();
    everybody_is_answered_while_lines_are_lost(&relay);
    stops(relay);
}

#[test]
fn a_log_that_hangs_can_be_led_elsewhere() {
    let relay = Setup::with(&debug_to(Some("pipe"))).pipe("pipe").start();
    everybody_is_answered_while_lines_are_lost(&relay);
    relay.rewrite(&debug_to(Some("relay.log")));
    relay.signal(Signal::HUP);
    let file = relay.path("relay.log");
    eventually("the new file says how many lines are missing", || {
        relay.post("/notify/nobody", b"x").answer();
        text(&file).contains("lines of the log before this one were lost")
    });
    // What had waited for the pipe's reader is in the new file too.
    assert!(text(&file).lines().count() > 1000);
}

#[test]
fn the_last_lines_are_written_before_the_end() {
    let mut relay = Relay::with("[log]\nfile = \"relay.log\"");
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit(DEADLINE), Some(0));
    assert!(
        text(&relay.path("relay.log"))
            .trim_end()
            .ends_with("drained")
    );
}

fn text(file: &Path) -> String {
    String::from_utf8_lossy(&fs::read(file).unwrap_or_default()).into_owned()
}

/// Whoever asks in the night why a payment did not arrive finds it in the log at its usual level: one line a cause, not one for each.
#[test]
fn what_is_refused_or_not_delivered_has_one_line_a_cause() {
    let relay = Relay::with(
        "[log]\nlevel = \"info\"\n[delivery]\nundelivered = \"store\"\n[[route]]\npath = \"/notify/{id}\"\n\
         [[route]]\npath = \"/by-header\"\nid = \"header:X-Game\"\n",
    );
    let mut ids = Vec::new();
    for _ in 0..5 {
        let answer = relay.post("/notify/gmae-01", b"secret-body").answer();
        assert_eq!(answer.told(), (200, "stored"));
        ids.push(answer.id().to_owned());
        assert_eq!(
            relay
                .post("/nowhere?password=hunter2", b"secret-body")
                .answer()
                .status,
            404
        );
        assert_eq!(
            relay.post("/by-header", b"secret-body").answer().status,
            400
        );
    }
    // These the edge refuses, before there is a request to judge.
    for _ in 0..2 {
        for (request, status) in [
            (
                "PUT /notify/till-7?password=hunter2 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
                405,
            ),
            (
                "POST /notify/till-7?password=hunter2 HTTP/1.1\r\nHost: x\r\nContent-Length: 1073741824\r\n\r\n",
                413,
            ),
            (
                "POST /notify/till-7 HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
                400,
            ),
            ("POST /by-header HTTP/1.1\r\nContent-Length: 0\r\n\r\n", 400),
            ("hunter2\r\n\r\n", 400),
        ] {
            assert_eq!(relay.send(request.as_bytes()).answer().status, status);
        }
    }
    let line = |text: &str| {
        relay.log_contains(text);
        let log = relay.log();
        let said = log.lines().filter(|line| line.contains(text));
        // How many more there were is said ten seconds later.
        let said = said.filter(|line| !line.contains(" more in 10 s like: "));
        assert_eq!(said.count(), 1, "{text}");
    };
    line(&format!(
        "{} for gmae-01 by /notify/{{id}}: stored (offline); its provider is told ok",
        ids[0]
    ));
    line("POST \"/nowhere\" from 127.0.0.1 was answered 404 no-route: no route has this path");
    line("POST \"/by-header\" from 127.0.0.1 was answered 400 no-id: no backend id: ");
    line(
        "PUT \"/notify/till-7\" from 127.0.0.1 was answered 405 method: this route takes no such method; allowed: POST",
    );
    line(
        "POST \"/notify/till-7\" from 127.0.0.1 was answered 413 too-big: body of 1073741824 bytes is over http.max_body = ",
    );
    line(
        "POST \"/notify/till-7\" from 127.0.0.1 was answered 400 bad-request: HTTP/1.1 asks for exactly one Host header",
    );
    line("POST \"/by-header\" from 127.0.0.1 was answered 400 bad-request: ");
    line(
        "a request from 127.0.0.1 was answered 400 bad-request: the first line is not METHOD, target and HTTP/1.1",
    );
    let log = relay.log();
    assert!(!log.contains("hunter2") && !log.contains("secret-body"));
    assert!(!log.contains(&ids[1]), "a line for each");
}

/// A slip in the address at the provider stores for ever, and is answered ok. It must be seen within a minute, wherever one looks.
#[test]
fn a_typo_in_the_notify_url_is_said_within_a_minute() {
    let relay = Relay::with(&config("", ""));
    let _game = relay.backend("game-01");
    let mut till = relay.backend("till-7");
    let id = stored(&relay, "/notify/gmae-01", b"x");
    // What waits for a backend that was here is another matter.
    let post = relay.post("/notify/till-7", b"y");
    till.message().nack("");
    post.answer();
    drop(till);
    let posted = Instant::now();
    let line = relay.log_contains("has 1 pending");
    assert!(posted.elapsed() < Duration::from_secs(60));
    assert!(
        line.contains(&format!(
            "gmae-01 has 1 pending (the first: {id} by /notify/{{id}}), and no backend of this name has connected since this node started"
        )) && line.contains("game-01 is known. What was meant for another: payrelay outbox list --backend gmae-01"),
        "{line}"
    );
    eventually("it is counted", || {
        relay.metric("payrelay_outbox_unknown_backend") == 1.0
    });
    let mut status = beside(&relay, &["status"]);
    assert_eq!(status.wait_exit(DEADLINE), Some(0), "{}", status.stderr());
    assert!(
        status.stdout().contains(
            "1 pending for gmae-01, a backend that was never here since this node started"
        ),
        "{}",
        status.stdout()
    );
    // It was no slip after all: it comes, and is served.
    let mut gmae = relay.backend("gmae-01");
    assert_eq!(gmae.message().ack(), id);
    eventually("it is known", || {
        relay.metric("payrelay_outbox_unknown_backend") == 0.0
    });
    assert_eq!(
        relay.log().matches("and no backend of this name").count(),
        1
    );
}

#[test]
fn every_try_in_vain_says_why_and_a_refused_token_says_whose() {
    let secret = "correct horse battery staple";
    let relay = Relay::with(&format!(
        "[tcp]\nsecrets = [\"{secret}\"]\n{}",
        config("", "retry_max = \"1s\"")
    ));
    let mut till = relay.backend_with("till-7", &format!("token={}", token(secret, "till-7")));
    let post = relay.post("/notify/till-7", b"x");
    till.message().nack("reason=no%20such%20order");
    let id = post.answer().id().to_owned();
    relay.log_contains(&format!(
        "{id} for till-7 by /notify/{{id}}: stored (refused: no such order); its provider is told ok"
    ));
    till.expect("MSG id=* try=2 =*", b"x")
        .nack("reason=database%20is%20away");
    relay.log_contains(&format!(
        "{id} for till-7 by /notify/{{id}}: refused: database is away (try 2); it is sent again"
    ));
    // The same reason again is counted, not said again at once.
    for _ in 0..3 {
        till.message().nack("reason=database%20is%20away");
    }
    till.message().nack("delay=-1 reason=never");
    relay.log_contains(&format!(
        "{id} for till-7 by /notify/{{id}} is a dead letter: refused for good: never"
    ));
    let log = relay.log();
    let said = log.lines().filter(|line| line.contains("it is sent again"));
    let said = said.filter(|line| !line.contains(" more in 10 s like: "));
    assert_eq!(said.count(), 1);

    let mut stranger = Backend::raw(&relay);
    stranger.send("HELLO 1 id=till-8 token=wrong");
    let told = stranger.next().expect("an ERR");
    assert!(told.line.starts_with("ERR code=bad-token"));
    relay.log_contains(": refused, bad-token by till-8");
}

#[test]
fn a_json_log_is_an_object_a_line_and_a_reload_changes_the_format() {
    let json = "[log]\nformat = \"json\"\nfile = \"relay.log\"";
    let relay = Relay::with(json);
    let file = relay.path("relay.log");
    let lines = || -> Vec<serde_json::Value> {
        let text = text(&file);
        let json = text.lines().take_while(|line| line.starts_with('{'));
        json.map(|line| serde_json::from_str(line).expect("JSON"))
            .collect()
    };
    let _till = relay.backend("till-7");
    eventually("the backend is in the log", || {
        lines().iter().any(|line| {
            line["message"]
                .as_str()
                .is_some_and(|said| said.starts_with("till-7 connected from "))
                && line["level"] == "info"
                && line["thread"]
                    .as_str()
                    .is_some_and(|thread| thread.starts_with("session-"))
        })
    });
    let all = lines();
    assert!(all.iter().all(|line| {
        line["time"]
            .as_str()
            .is_some_and(|time| time.ends_with('Z') && time.len() == 24)
    }));
    assert!(all.iter().any(|line| {
        line["message"]
            .as_str()
            .is_some_and(|said| said.starts_with("ready node="))
    }));
    relay.rewrite(&json.replace("json", "text"));
    relay.signal(Signal::HUP);
    eventually("lines are text again", || {
        text(&file).contains("Z [INFO] (main) ")
    });
}
