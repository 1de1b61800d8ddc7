//! What a session keeps in memory: nothing of what went through it.

use std::fs;

use crate::support::{Backend, Relay, Setup, heavy};

/// Enough that what the process keeps in any case does not count.
const SESSIONS: usize = 400;

/// Notifications to each, beyond the first: more than malloc keeps of one size for a thread.
const EACH: usize = 8;

/// Small enough for malloc to keep them, had it caches.
const BODY_BYTES: usize = 900;

/// What a session may keep after them, in bytes. Measured: 2,100, which is the trace of the latest notifications, bounded for
/// all sessions together; with malloc's caches 9,200.
const KEPT_BYTES_MAX: usize = 4000;

/// Delivers `rounds` notifications to every one of `backends`, one at a time.
fn traffic(relay: &Relay, backends: &mut [Backend], rounds: usize) {
    let body = [b'x'; BODY_BYTES];
    let mut provider = relay.http();
    for _ in 0..rounds {
        for (n, backend) in backends.iter_mut().enumerate() {
            provider.send(
                format!(
                    "POST /notify/till-{n} HTTP/1.1\r\nHost: relay\r\nContent-Length: {BODY_BYTES}\r\n\r\n"
                )
                .as_bytes(),
            );
            provider.send(&body);
            backend
                .expect(&format!("MSG id=* ={BODY_BYTES}"), &body)
                .ack();
            assert_eq!(provider.must_answer().told(), (200, "delivered"));
        }
    }
}

#[test]
fn a_session_keeps_nothing_of_the_traffic_it_had() {
    let _alone = heavy();
    let relay = Relay::with("[log]\nlevel = \"warn\"");
    let mut backends: Vec<Backend> = (0..SESSIONS)
        .map(|n| relay.backend(&format!("till-{n}")))
        .collect();
    // Stacks and tables have grown by then as far as they will.
    traffic(&relay, &mut backends, 1);
    let before = relay.process().rss_kib();
    traffic(&relay, &mut backends, EACH);
    let grown = relay.process().rss_kib().saturating_sub(before);
    let each = grown * 1024 / SESSIONS;
    eprintln!("after {EACH} notifications a session keeps {each} bytes");
    assert!(each <= KEPT_BYTES_MAX, "{each} bytes each");
}

/// The relay's environment and arguments, as the system shows them.
fn shown(relay: &Relay, what: &str) -> String {
    let path = format!("/proc/{}/{what}", relay.process().pid());
    let bytes = fs::read(path).expect("procfs");
    String::from_utf8_lossy(&bytes).replace('\0', "\n")
}

#[test]
fn it_starts_again_with_malloc_set_up_and_is_the_same_process_by_the_same_name() {
    let relay = Relay::start(); // its process is the one that was started, or it could not be ended
    let environment = shown(&relay, "environ");
    assert!(
        environment.contains("GLIBC_TUNABLES=glibc.malloc.tcache_count=0\n"),
        "malloc is not set up"
    );
    let program = shown(&relay, "cmdline");
    assert!(
        program
            .lines()
            .next()
            .is_some_and(|name| name == env!("CARGO_BIN_EXE_payrelay"))
    );
    assert_eq!(shown(&relay, "comm").trim_end(), "payrelay");
}

#[test]
fn what_an_operator_has_set_for_malloc_stays() {
    let theirs = "glibc.malloc.arena_max=2";
    let relay = Setup::default().env("GLIBC_TUNABLES", theirs).start();
    let environment = shown(&relay, "environ");
    assert!(environment.contains(&format!("GLIBC_TUNABLES={theirs}\n")));
    assert!(!environment.contains("PAYRELAY_STARTED_AGAIN"));
}

#[test]
fn a_program_that_is_not_shown_the_setting_starts_again_once_only() {
    // As with file capabilities: it has started again, and GLIBC_TUNABLES is gone. Its own id cannot be known before, so
    // a shell puts it there and becomes the relay.
    let folder = tempfile::tempdir().expect("a folder");
    let relay_toml = folder.path().join("relay.toml");
    fs::write(
        &relay_toml,
        "[http]\nlisten = \"127.0.0.1:0\"\n[tcp]\nlisten = \"127.0.0.1:0\"\n[admin]\nlisten = \"127.0.0.1:0\"\n\
         [delivery]\nundelivered = \"refuse\"\n[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n",
    )
    .expect("a file");
    let mut child = std::process::Command::new("sh")
        .args(["-c", "PAYRELAY_STARTED_AGAIN=$$ exec \"$0\" run -c \"$1\""])
        .arg(env!("CARGO_BIN_EXE_payrelay"))
        .arg(&relay_toml)
        .env_remove("GLIBC_TUNABLES")
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::null())
        .spawn()
        .expect("a shell");
    let mut ready = String::new();
    let stdout = child.stdout.take().expect("a pipe");
    std::io::BufRead::read_line(&mut std::io::BufReader::new(stdout), &mut ready).expect("a line");
    let environment = fs::read(format!("/proc/{}/environ", child.id())).expect("procfs");
    child.kill().expect("a child can be killed");
    child.wait().expect("a child can be waited for");
    assert!(ready.starts_with("ready "), "{ready:?}");
    assert!(!String::from_utf8_lossy(&environment).contains("GLIBC_TUNABLES"));
}
