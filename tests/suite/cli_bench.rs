//! `payrelay bench`: what it counts, what it finds out about a relay that lies, and what it leaves alone.

mod liar;

use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::Value;

use crate::cli::beside;
use crate::support::{DEADLINE, Process, Relay, binary, eventually, pause};

/// Waits for its end: the exit code, the figures, and what it said on standard error.
fn figures(bench: &mut Process) -> (Option<i32>, Value, String) {
    let code = bench.wait_exit(DEADLINE);
    let said = bench.stderr();
    let figures = serde_json::from_str(&bench.stdout())
        .unwrap_or_else(|e| panic!("no JSON: {e}\n{}\n{said}", bench.stdout()));
    (code, figures, said)
}

fn number(figures: &Value, key: &str) -> u64 {
    figures[key]
        .as_u64()
        .unwrap_or_else(|| panic!("no number {key} in {figures:#}"))
}

fn assert_faultless(figures: &Value) {
    for key in [
        "lost",
        "duplicates",
        "damaged",
        "early",
        "unanswered",
        "foreign",
    ] {
        assert_eq!(number(figures, key), 0, "{key} in {figures:#}");
    }
    assert_eq!(figures["faults"], serde_json::json!([]));
}

/// `bench` with `args`, apart from any configuration.
fn bench_at(http: SocketAddr, tcp: SocketAddr, args: &[&str]) -> Process {
    let mut command = binary();
    command.args([
        "bench",
        "--http",
        &http.to_string(),
        "--tcp",
        &tcp.to_string(),
    ]);
    command.args(["--path", "/notify/{id}"]).args(args);
    Process::start("bench", command)
}

#[test]
fn everything_that_was_posted_is_counted_once_on_both_sides() {
    let relay = Relay::start();
    let args = ["bench", "--total", "2000", "--backends", "7", "--json"];
    let (code, figures, said) = figures(&mut beside(&relay, &args));
    assert_eq!(code, Some(0), "{said}");
    for key in ["posted", "arrived"] {
        assert_eq!(number(&figures, key), 2000, "{key}");
    }
    assert_eq!(figures["outcomes"], serde_json::json!({"delivered": 2000}));
    assert_faultless(&figures);
    // And the one that asks whether the way is open.
    let delivered = relay.metric("payrelay_notifications_total{outcome=\"delivered\"}");
    assert_eq!(delivered, 2001.0);
    for latency in ["post_to_backend_ms", "post_to_answer_ms"] {
        let names = ["p50", "p90", "p99", "p99_9", "max"];
        let times = names.map(|name| figures[latency][name].as_f64().expect(name));
        assert!(times[0] > 0.0 && times.is_sorted(), "{latency}: {times:?}");
    }
    assert!(said.contains("bench-1 to bench-7 are taken over"), "{said}");
    eventually("its backends have gone", || {
        relay.metric("payrelay_sessions") == 0.0
    });
}

#[test]
fn people_read_lines_and_large_bodies_arrive_whole() {
    let relay = Relay::start();
    let args = [
        "bench",
        "--total",
        "40",
        "--concurrency",
        "4",
        "--body",
        "700KiB",
    ];
    let mut bench = beside(&relay, &args);
    assert_eq!(bench.wait_exit(DEADLINE), Some(0), "{}", bench.stderr());
    let shown = bench.stdout();
    for words in [
        "posted               40",
        "40  delivered",
        "p99.9",
        "0 lost, 0 duplicates, 0 damaged",
    ] {
        assert!(shown.contains(words), "{words:?} is not in\n{shown}");
    }
}

#[test]
fn a_rate_is_kept_whatever_becomes_of_the_posts_and_a_stall_is_not_hidden() {
    let relay = Relay::start();
    let args = [
        "bench",
        "--rate",
        "200",
        "--duration",
        "3s",
        "--concurrency",
        "2",
        "--json",
    ];
    let mut bench = beside(&relay, &args);
    eventually("it is at work", || {
        relay.metric("payrelay_notifications_total") >= 20.0
    });
    relay.signal(Signal::STOP);
    let stalled = Instant::now();
    while stalled.elapsed() < Duration::from_secs(1) {
        pause();
    }
    relay.signal(Signal::CONT);
    let (_, figures, said) = figures(&mut bench);
    assert_eq!(
        number(&figures, "posted") + number(&figures, "unsent"),
        600,
        "{said}"
    );
    assert_faultless(&figures);
    // A third of all were due while nothing moved, half of them for more than half of it. Whoever counts only from when
    // a connection was free sees two late ones.
    let p90 = figures["post_to_answer_ms"]["p90"]
        .as_f64()
        .expect("a time");
    assert!(p90 > 300.0, "{p90} ms");
}

#[test]
fn a_signal_ends_it_with_what_was_measured_and_threads_are_few() {
    let relay = Relay::start();
    let args = [
        "bench",
        "--duration",
        "1h",
        "--backends",
        "300",
        "--concurrency",
        "50",
        "--json",
    ];
    let mut bench = beside(&relay, &args);
    eventually("it is at work", || {
        relay.metric("payrelay_notifications_total") >= 500.0
    });
    assert!(bench.threads() <= 4, "{} threads", bench.threads());
    bench.signal(Signal::INT);
    let (code, figures, said) = figures(&mut bench);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(figures["interrupted"], true);
    assert!(number(&figures, "posted") >= 500);
    assert_eq!(number(&figures, "posted"), number(&figures, "arrived"));
    assert_faultless(&figures);
}

#[test]
fn a_relay_that_dies_ends_it_and_a_relay_that_is_not_there_too() {
    let relay = Relay::start();
    let mut bench = beside(&relay, &["bench", "--duration", "1h", "--json"]);
    eventually("it is at work", || {
        relay.metric("payrelay_notifications_total") >= 100.0
    });
    relay.signal(Signal::KILL);
    let (code, figures, said) = figures(&mut bench);
    assert_eq!(code, Some(1));
    assert!(
        number(&figures, "posted") >= 100 && said.to_lowercase().contains("connect"),
        "{said}"
    );

    let ready = relay.ready();
    let mut bench = bench_at(ready.http, ready.tcp, &[]);
    assert_eq!(bench.wait_exit(DEADLINE), Some(1));
    assert!(
        bench.stderr().contains("is the relay running there?"),
        "{}",
        bench.stderr()
    );
}

#[test]
fn tokens_come_from_the_configuration() {
    let secrets = "[tcp]\nsecrets = [\"correct horse battery staple\"]";
    let relay = Relay::with(secrets);
    let (code, figures, said) = figures(&mut beside(&relay, &["bench", "--total", "50", "--json"]));
    assert_eq!(code, Some(0), "{said}");
    assert_faultless(&figures);

    let ready = relay.ready();
    let mut without = bench_at(ready.http, ready.tcp, &["--total", "5"]);
    assert_eq!(without.wait_exit(DEADLINE), Some(1));
    let said = without.stderr();
    assert!(
        said.contains("bad-token") && said.contains("name its configuration with -c"),
        "{said}"
    );
}

#[test]
fn ids_of_others_are_left_alone() {
    let relay = Relay::start();
    let mut game = relay.backend("game-1");
    for args in [
        &["bench", "--prefix", "game-"][..],
        &["bench", "--prefix", ""],
        &["bench", "--path", "/notify/game-1"],
    ] {
        let mut bench = beside(&relay, args);
        assert_eq!(bench.wait_exit(DEADLINE), Some(2), "{}", bench.stderr());
    }
    let (code, ..) = figures(&mut beside(&relay, &["bench", "--total", "100", "--json"]));
    assert_eq!(code, Some(0));
    game.settle(); // and nothing had come for it

    let closed = Relay::with("[tcp]\nbackends = [\"game-1\"]");
    let mut bench = beside(&closed, &["bench", "--total", "5"]);
    assert_eq!(bench.wait_exit(DEADLINE), Some(1));
    assert!(
        bench
            .stderr()
            .contains("add the benchmark's ids to tcp.backends"),
        "{}",
        bench.stderr()
    );
}

#[test]
fn a_second_benchmark_of_the_same_ids_ends_the_first() {
    let relay = Relay::start();
    let mut first = beside(&relay, &["bench", "--duration", "1h", "--json"]);
    eventually("it is at work", || {
        relay.metric("payrelay_notifications_total") >= 100.0
    });
    let mut second = beside(&relay, &["bench", "--total", "100", "--json"]);
    let (code, _, said) = figures(&mut first);
    assert_eq!(code, Some(1));
    assert!(said.contains("needs another --prefix"), "{said}");
    assert_eq!(second.wait_exit(DEADLINE), Some(0), "{}", second.stderr());
}

#[test]
fn what_cannot_work_is_said_before_the_load() {
    let (a, b) = (Relay::start(), Relay::start());
    let mut apart = bench_at(a.ready().http, b.ready().tcp, &["--total", "5"]);
    assert_eq!(apart.wait_exit(DEADLINE), Some(1));
    assert!(
        apart.stderr().contains("are they nodes of one bus?"),
        "{}",
        apart.stderr()
    );
    for (args, words) in [
        (&["bench", "--path", "/no/{id}"][..], "has no [[route]]"),
        (&["bench", "--body", "2MiB"], "larger than http.max_body"),
    ] {
        let mut bench = beside(&a, args);
        assert_eq!(bench.wait_exit(DEADLINE), Some(1));
        assert!(bench.stderr().contains(words), "{}", bench.stderr());
    }
    let verified = Relay::with(
        "[[route]]\npath = \"/github/{id}\"\nverify = \"github\"\nsecrets = [\"a-secret-of-enough-length\"]",
    );
    let mut bench = beside(&verified, &["bench"]);
    assert_eq!(bench.wait_exit(DEADLINE), Some(2));
    let said = bench.stderr();
    assert!(
        said.contains("checks signatures, and a benchmark has no key to sign with; add one for it"),
        "{said}"
    );
    let routes = "[[route]]\npath = \"/pay\"\nid = \"query:to\"\nverify = \"none\"";
    let query = Relay::with(routes);
    let args = ["bench", "--path", "/pay?to={id}", "--total", "20", "--json"];
    let (code, _, said) = figures(&mut beside(&query, &args));
    assert_eq!(code, Some(0), "{said}");
}

#[test]
fn posts_to_one_node_reach_backends_on_another() {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("redis");
    let mut redis = Command::new("redis-server");
    redis.args(["--port", "0", "--save", "", "--unixsocket"]);
    redis.arg(&socket).arg("--dir").arg(folder.path());
    let _redis = Process::start("redis-server", redis);
    eventually("Redis listens", || UnixStream::connect(&socket).is_ok());
    let shared = format!("[redis]\nurl = \"unix://{}\"", socket.display());
    let (a, b) = (Relay::with(&shared), Relay::with(&shared));
    for node in [&a, &b] {
        node.wait_green();
    }
    let args = ["--total", "300", "--json"];
    let (code, figures, said) = figures(&mut bench_at(a.ready().http, b.ready().tcp, &args));
    assert_eq!(code, Some(0), "{said}");
    assert_faultless(&figures);
    let delivered = a.metric("payrelay_notifications_total{outcome=\"delivered\"}");
    assert_eq!(delivered, 301.0);
    let sat = |node: &Relay| node.metric("payrelay_sessions_opened_total");
    assert_eq!((sat(&a), sat(&b)), (0.0, 64.0));
}
