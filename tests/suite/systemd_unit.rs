//! The unit in packaging: closed as it can be, and open as it must be.

use crate::support::{DEADLINE, Setup, eventually};
use rustix::process::Signal;
use std::fs;
use std::process::Command;
use tempfile::TempDir;

fn packaging(name: &str) -> String {
    format!("{}/packaging/{name}", env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn the_unit_needs_no_program_that_a_small_system_lacks() {
    let unit = fs::read_to_string(packaging("payrelay.service")).expect("the unit");
    let run = unit.lines().filter_map(|line| line.strip_prefix("Exec"));
    let run = run.filter_map(|line| line.split_once('=')?.1.split(' ').next());
    let programs: Vec<&str> = run.collect();
    assert!(programs.len() >= 3, "{programs:?}");
    for program in programs {
        assert!(
            ["/usr/bin/payrelay", "/bin/sh"].contains(&program),
            "{program}"
        );
    }
}

#[test]
fn the_unit_is_as_closed_as_it_can_be() {
    let output = Command::new("systemd-analyze")
        .args(["security", "--offline=true", "--no-pager", "--threshold=20"])
        .arg(packaging("payrelay.service"))
        .output()
        .expect("systemd-analyze");
    let shown = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{shown}");

    // And its words are systemd's. Only the program, its manual and its user are missing here.
    let dir = TempDir::new().expect("a folder");
    let mut verify = Command::new("systemd-analyze");
    verify.arg("verify");
    for name in ["payrelay.service", "payrelay.socket"] {
        let unit = fs::read_to_string(packaging(name)).expect("the unit");
        let unit = unit.replace("/usr/bin/payrelay", env!("CARGO_BIN_EXE_payrelay"));
        let unit: String = unit
            .lines()
            .filter(|line| !line.starts_with("Documentation="))
            .map(|line| format!("{line}\n"))
            .collect();
        fs::write(dir.path().join(name), unit).expect("the unit");
        verify.arg(dir.path().join(name));
    }
    let output = verify.output().expect("systemd-analyze");
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The calls in `set` of systemd, those of the sets within it included.
fn calls(set: &str) -> Vec<String> {
    let output = Command::new("systemd-analyze")
        .args(["syscall-filter", "--no-pager", set])
        .output()
        .expect("systemd-analyze");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    let mut calls = Vec::new();
    for word in text.lines().skip(1).map(str::trim) {
        match word {
            set if set.starts_with('@') => calls.extend(self::calls(set)),
            call if call.starts_with('#') => {}
            call => calls.push(call.to_owned()),
        }
    }
    calls
}

#[test]
fn the_unit_allows_every_call_to_the_system() {
    let unit = fs::read_to_string(packaging("payrelay.service")).expect("the unit");
    let filters = unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="));
    let mut allowed: Vec<String> = Vec::new();
    for filter in filters {
        let (takes, sets) = match filter.strip_prefix('~') {
            Some(sets) => (false, sets),
            None => (true, filter),
        };
        for set in sets.split_whitespace() {
            let named = match set.starts_with('@') {
                true => calls(set),
                false => vec![set.to_owned()],
            };
            match takes {
                true => allowed.extend(named),
                false => allowed.retain(|call| !named.contains(call)),
            }
        }
    }
    assert!(allowed.len() > 100, "{allowed:?}");

    // The whole life of a relay: start, callbacks delivered and stored, an ACK, a reload, metrics, a stop.
    let mut relay = Setup::with("[delivery]\nundelivered = \"store\"")
        .under("strace -D -f -q -o strace.txt")
        .start();
    let mut till = relay.backend("till-7");
    let answer = relay.post("/notify/till-7", b"one");
    till.message().ack();
    assert_eq!(answer.answer().outcome(), "delivered");
    assert_eq!(
        relay.post("/notify/away", b"x").answer().outcome(),
        "stored"
    );
    relay.signal(Signal::HUP);
    relay.log_contains("reloaded");
    assert!(relay.metric("payrelay_sessions") > 0.0);
    relay.signal(Signal::TERM);
    assert_eq!(relay.wait_exit(DEADLINE), Some(0));
    let mut seen = String::new();
    eventually("strace has written what it saw", || {
        seen = fs::read_to_string(relay.path("strace.txt")).unwrap_or_default();
        seen.contains("+++ exited with 0 +++")
    });
    // `1234  write(2, …`
    let mut used: Vec<&str> = seen
        .lines()
        .filter_map(|line| line.split_whitespace().nth(1)?.split_once('('))
        .map(|(name, _)| name)
        .collect();
    used.sort_unstable();
    used.dedup();
    assert!(
        used.contains(&"fsync") && used.contains(&"execve"),
        "{used:?}"
    );
    // SQLite gives its files back to the folder's owner if it is root; the unit's user is not.
    let forbidden: Vec<&&str> = used
        .iter()
        .filter(|name| **name != "fchown")
        .filter(|name| name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_'))
        .filter(|name| !allowed.iter().any(|call| call == *name))
        .collect();
    assert!(forbidden.is_empty(), "{forbidden:?} of {used:?}");
}
