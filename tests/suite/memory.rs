//! What a session keeps in memory: nothing of what went through it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use payrelay::config::Secret;
use payrelay::notification::BackendId;
use payrelay::session::token::sign;
use tempfile::TempDir;

use crate::support::{Backend, Relay, Setup, copy_binary, heavy};

/// Enough that what the process keeps in any case does not count.
const SESSIONS: usize = 400;

/// Notifications to each, beyond the first: more than malloc keeps of one size for a thread.
const EACH: usize = 8;

/// Small enough for malloc to keep them, had it caches.
const BODY_BYTES: usize = 900;

/// What a session may keep after them, in bytes. Measured: 2,100, which is the trace of the latest notifications, bounded for
/// all sessions together; with malloc's caches 9,200.
const KEPT_BYTES_MAX: usize = 4000;

/// The number of the signal that a write to a closed socket raises.
const SIGPIPE: u32 = 13;

/// For a relay that the suite's own way of starting one does not fit.
const RELAY_TOML: &str = "[http]\nlisten = \"127.0.0.1:0\"\n[tcp]\nlisten = \"127.0.0.1:0\"\n\
    [admin]\nlisten = \"127.0.0.1:0\"\n[delivery]\nundelivered = \"refuse\"\n\
    [[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n";

/// The bodies that are kept to be looked at are bounded for all sessions together.
const NO_BODIES: &str = "[admin]\nkeep_bodies = \"0B\"\n[log]\nlevel = \"warn\"";

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
    let relay = Relay::with(NO_BODIES);
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

/// What a session may take in all, idle as after traffic, in bytes. Measured over 1,000 in a release build: 11,200 idle, of
/// which two pages are stack, and 11,800 after traffic, with the trace; in a debug build, whose stacks are a page deeper,
/// 15,500.
const SESSION_BYTES_MAX: usize = if cfg!(debug_assertions) {
    17_500
} else {
    12 * 1024
};

/// With tokens: checking one on the session's own stack would add a page, as a malloc with caches would add two.
#[test]
fn a_session_takes_two_pages_of_stack_and_little_else() {
    const CROWD: usize = 1000;
    let _alone = heavy();
    let secret = "0123456789abcdef0123456789abcdef";
    let relay = Relay::with(&format!(
        "{NO_BODIES}\n[tcp]\nheartbeat = \"10m\"\nsecrets = [\"{secret}\"]"
    ));
    let before = relay.process().rss_kib();
    let mut backends: Vec<Backend> = (0..CROWD)
        .map(|n| {
            let id = format!("till-{n}");
            let secret = Secret::new(secret);
            let token = sign(&secret, &BackendId::parse(&id).expect("an id"));
            relay.backend_with(&id, &format!("token={token}"))
        })
        .collect();
    let each = || relay.process().rss_kib().saturating_sub(before) * 1024 / CROWD;
    let idle = each();
    traffic(&relay, &mut backends, 3);
    let used = each();
    eprintln!("a session takes {idle} bytes, and {used} after traffic");
    assert!(idle <= SESSION_BYTES_MAX, "{idle} bytes each, idle");
    assert!(
        used <= SESSION_BYTES_MAX,
        "{used} bytes each, after traffic"
    );
}

/// What a provider's connection may take while it is idle, in bytes. Measured over 1,000 in a debug build, whose stacks
/// are a page deeper: 26,600.
const HTTP_CONNECTION_BYTES_MAX: usize = if cfg!(debug_assertions) {
    32 * 1024
} else {
    24 * 1024
};

#[test]
fn an_idle_http_connection_takes_little_although_it_was_used() {
    const CROWD: usize = 1000;
    let _alone = heavy();
    // The last is used long after it has come, the first is idle until then.
    let relay = Relay::with(&format!(
        "{NO_BODIES}\n[http]\nrequest_deadline = \"5m\"\nidle = \"1h\""
    ));
    let mut backend = relay.backend("till-0");
    let before = relay.process().rss_kib();
    let mut crowd: Vec<_> = (0..CROWD).map(|_| relay.http()).collect();
    for connection in &mut crowd {
        connection.send(
            format!("POST /notify/till-0 HTTP/1.1\r\nHost: relay\r\nContent-Length: {BODY_BYTES}\r\n\r\n")
                .as_bytes(),
        );
        connection.send(&[b'x'; BODY_BYTES]);
        backend
            .expect(&format!("MSG id=* ={BODY_BYTES}"), &[b'x'; BODY_BYTES])
            .ack();
        assert_eq!(connection.must_answer().told(), (200, "delivered"));
    }
    let each = relay.process().rss_kib().saturating_sub(before) * 1024 / CROWD;
    eprintln!("an idle HTTP connection takes {each} bytes");
    let open = relay.process().threads();
    assert!(open >= CROWD, "{open} threads: not all are open any more");
    assert!(each <= HTTP_CONNECTION_BYTES_MAX, "{each} bytes each");
}

/// The environment or the arguments of a process, as the system shows them.
fn shown(pid: u32, what: &str) -> String {
    let path = format!("/proc/{pid}/{what}");
    let bytes = fs::read(path).expect("procfs");
    String::from_utf8_lossy(&bytes).replace('\0', "\n")
}

#[test]
fn it_starts_again_with_malloc_set_up_and_is_the_same_process_by_the_same_name() {
    let relay = Relay::start(); // its process is the one that was started, or it could not be ended
    let environment = shown(relay.process().pid(), "environ");
    assert!(
        environment.contains("GLIBC_TUNABLES=glibc.malloc.tcache_count=0\n"),
        "malloc is not set up"
    );
    let program = shown(relay.process().pid(), "cmdline");
    assert!(
        program
            .lines()
            .next()
            .is_some_and(|name| name == env!("CARGO_BIN_EXE_payrelay"))
    );
    assert_eq!(shown(relay.process().pid(), "comm").trim_end(), "payrelay");
}

#[test]
fn what_an_operator_has_set_for_malloc_stays() {
    let theirs = "glibc.malloc.arena_max=2";
    let relay = Setup::default().env("GLIBC_TUNABLES", theirs).start();
    let environment = shown(relay.process().pid(), "environ");
    assert!(environment.contains(&format!("GLIBC_TUNABLES={theirs}\n")));
    assert!(!environment.contains("PAYRELAY_STARTED_AGAIN"));
}

/// A relay that a shell becomes, by `script`, with the binary as `$0` and relay.toml as `$1`.
struct Became {
    child: Child,
    ready: String,
    _folder: TempDir,
}

impl Became {
    fn by(script: &str) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let (binary, toml) = (
            folder.path().join("payrelay"),
            folder.path().join("relay.toml"),
        );
        copy_binary(&binary);
        fs::write(&toml, RELAY_TOML).expect("a file");
        let mut child = Command::new("sh")
            .args(["-c", script])
            .args([&binary, &toml])
            .env_remove("GLIBC_TUNABLES")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a shell");
        let mut ready = String::new();
        let stdout = child.stdout.take().expect("a pipe");
        BufReader::new(stdout)
            .read_line(&mut ready)
            .expect("a line");
        Self {
            child,
            ready,
            _folder: folder,
        }
    }

    fn shown(&self, what: &str) -> String {
        shown(self.child.id(), what)
    }
}

impl Drop for Became {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_program_that_is_not_shown_the_setting_starts_again_once_only() {
    // As with file capabilities: it has started again, and GLIBC_TUNABLES is gone.
    let relay = Became::by("PAYRELAY_STARTED_AGAIN=$$ exec \"$0\" run -c \"$1\"");
    assert!(relay.ready.starts_with("ready "), "{:?}", relay.ready);
    assert!(!relay.shown("environ").contains("GLIBC_TUNABLES"));
}

#[test]
fn one_that_cannot_start_again_runs_all_the_same_and_no_broken_connection_ends_it() {
    // Its file is gone by the time it would.
    let relay = Became::by("exec 3<\"$0\"; rm \"$0\"; exec /proc/self/fd/3 run -c \"$1\"");
    assert!(relay.ready.starts_with("ready "), "{:?}", relay.ready);
    assert!(!relay.shown("environ").contains("PAYRELAY_STARTED_AGAIN"));
    let status = relay.shown("status");
    let spared = |set: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(set));
        let bits = line.and_then(|bits| u64::from_str_radix(bits.trim(), 16).ok());
        bits.is_some_and(|bits| bits & 1 << (SIGPIPE - 1) != 0)
    };
    assert!(spared("SigIgn:") || spared("SigCgt:"), "{status}");
}
