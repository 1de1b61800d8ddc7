//! The system's clock jumps between two runs of a relay or while it runs, by days or by an hour: nothing expires for it, and the log says so.
//!
//! The clock of this machine is not to be touched, so the file is: it says that the last run saw another time. While the relay
//! runs, a library that is loaded before all others shows it another time.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::Connection;
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use super::outbox::{config, messages, stored, storing};
use crate::support::{DEADLINE, Relay, Setup, eventually};

const HOUR_MS: i64 = 3_600_000;
const DAY_MS: i64 = 24 * HOUR_MS;

/// Pending ones and a dead one, of a relay that has ended in good order; or was killed.
fn filled(killed: bool) -> Relay {
    let mut relay = storing("", "keep = \"1s\"");
    fill(&relay);
    let (signal, code) = match killed {
        true => (Signal::KILL, None),
        false => (Signal::TERM, Some(0)),
    };
    relay.signal(signal);
    assert_eq!(relay.wait_exit(DEADLINE), code);
    relay
}

/// Gives it pending ones and a dead one.
fn fill(relay: &Relay) {
    for n in 0..3 {
        stored(
            relay,
            "/event/till-7",
            format!("{{\"n\": \"{n}\"}}").as_bytes(),
        );
    }
    let mut till = relay.backend("till-8");
    let dead = relay.post("/notify/till-8", b"dead");
    till.message().nack("delay=-1");
    assert_eq!(dead.answer().told(), (200, "stored"));
}

/// Waits until the relay has looked for what is too old: then what was acknowledged is gone as well.
fn swept(relay: &Relay) {
    stored(relay, "/notify/till-9", b"swept");
    relay.backend("till-9").message().ack();
    eventually("it is acknowledged", || messages(relay, "pending") == 3.0);
    eventually("it is deleted", || {
        relay.metric("payrelay_outbox_done") == 0.0
    });
}

/// Nothing has become older than it is, or been forgotten.
fn all_is_as_it_was(relay: &Relay) {
    swept(relay);
    assert_eq!(
        (messages(relay, "pending"), messages(relay, "dead")),
        (3.0, 1.0)
    );
    assert_eq!(
        relay.metric("payrelay_outbox_dead_letters_total{reason=\"expired\"}"),
        0.0
    );
    let oldest = relay.metric("payrelay_outbox_oldest_seconds");
    assert!(oldest < 60.0, "{oldest}");
    let retry = relay.post("/event/till-7", b"{\"n\": \"1\"}").answer();
    assert_eq!(retry.told(), (200, "duplicate"));
    let mut till = relay.backend("till-7");
    for _ in 0..3 {
        till.message().ack();
    }
    eventually("all are delivered", || messages(relay, "pending") == 0.0);
}

#[test]
fn a_jump_of_the_clock_between_two_runs_ages_nothing() {
    for (jump_ms, words) in [
        (-10 * DAY_MS, "the system's clock was set back by 10 d 0 h"),
        (-HOUR_MS, "the system's clock was set back by 1 h 0 min"),
        (HOUR_MS, "the system's clock was set forward by 1 h 0 min"),
        (8 * DAY_MS, "the system's clock was set forward by 8 d 0 h"),
    ] {
        let mut relay = filled(jump_ms > 0);
        let file = Connection::open(relay.path("data/outbox.db")).expect("sqlite");
        // The last run saw a clock that was so much behind this one's.
        let sql = "UPDATE total SET wall_ms = wall_ms - ?1";
        assert_eq!(file.execute(sql, [jump_ms]), Ok(1));
        drop(file);
        relay.restart_with(&config("", "keep = \"1s\""));
        relay.log_contains(words);
        all_is_as_it_was(&relay);
    }
}

/// What stands between the relay and the system's clock: it adds as many seconds as the file of `CLOCK_OFFSET_FILE` begins with.
const OTHER_CLOCK: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
int clock_gettime(clockid_t clock, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    static volatile int64_t *offset;
    if (!real) {
        int file = open(getenv("CLOCK_OFFSET_FILE"), O_RDONLY);
        offset = mmap(0, sizeof *offset, PROT_READ, MAP_SHARED, file, 0);
        real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    }
    int done = real(clock, now);
    if (clock == CLOCK_REALTIME && offset != MAP_FAILED) now->tv_sec += *offset;
    return done;
}
"#;

/// A relay whose clock can be set, and what sets it: seconds ahead of this machine's.
fn with_a_clock_of_its_own() -> (Relay, TempDir, impl Fn(i64)) {
    let folder = TempDir::with_prefix("payrelay-clock-").expect("a folder");
    let at = |name: &str| folder.path().join(name);
    fs::write(at("clock.c"), OTHER_CLOCK).expect("written");
    let built = Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .args([at("clock.so"), at("clock.c")])
        .args(["-ldl"])
        .status();
    assert!(built.expect("a C compiler").success());
    let offset = at("offset");
    fs::write(&offset, 0i64.to_ne_bytes()).expect("written");
    let text = |path: &Path| path.to_str().expect("UTF-8").to_owned();
    let relay = Setup::with(&config("", "keep = \"1s\""))
        .env("LD_PRELOAD", &text(&at("clock.so")))
        .env("CLOCK_OFFSET_FILE", &text(&offset))
        .start();
    let set = move |seconds: i64| {
        let file = OpenOptions::new().write(true).open(&offset);
        let written = file.and_then(|file| file.write_all_at(&seconds.to_ne_bytes(), 0));
        written.expect("the clock is set");
    };
    (relay, folder, set)
}

#[test]
fn a_jump_of_the_clock_while_the_relay_runs_ages_nothing() {
    for jump_ms in [-10 * DAY_MS, -HOUR_MS, HOUR_MS, 8 * DAY_MS] {
        let (relay, _folder, set) = with_a_clock_of_its_own();
        fill(&relay);
        set(jump_ms / 1000);
        // It is the relay's clock: what is taken now has another time.
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.expect("a time").as_millis() as i64;
        let id = stored(&relay, "/notify/till-9", b"later");
        let shown = relay.admin(&format!("/outbox/{id}")).text();
        let shown: Value = serde_json::from_str(&shown).expect("JSON");
        let at = shown["at"].as_i64().expect("a time");
        assert!((at - now - jump_ms).abs() < HOUR_MS / 2, "{at} {now}");
        relay.backend("till-9").message().ack();
        all_is_as_it_was(&relay);
    }
}

#[test]
fn a_first_run_with_a_wrong_clock_does_no_harm_once_it_is_right() {
    for behind_ms in [10 * DAY_MS, HOUR_MS, -HOUR_MS, -8 * DAY_MS] {
        let mut relay = filled(false);
        let file = Connection::open(relay.path("data/outbox.db")).expect("sqlite");
        // All of its times are those of the wrong clock, its own time too.
        file.execute_batch(&format!(
            "UPDATE total SET clock_ms = clock_ms - {behind_ms}, wall_ms = wall_ms - {behind_ms};
             UPDATE notification SET stored_ms = stored_ms - {behind_ms}, turn_ms = turn_ms - {behind_ms}"
        ))
        .expect("moved");
        drop(file);
        relay.restart_with(&config("", "keep = \"1s\""));
        all_is_as_it_was(&relay);
    }
}

#[test]
fn after_a_restart_of_the_machine_time_that_nothing_proves_is_told_and_not_counted() {
    let mut relay = filled(true);
    let file = Connection::open(relay.path("data/outbox.db")).expect("sqlite");
    file.execute_batch(&format!(
        "UPDATE total SET boot_id = 'another start', wall_ms = wall_ms - {}",
        8 * DAY_MS
    ))
    .expect("changed");
    drop(file);
    relay.restart_with(&config("", "keep = \"1s\""));
    let line = relay.log_contains("by the system's clock 8 d 0 h have passed");
    assert!(
        line.contains("3 pending would be expired by it and are kept"),
        "{line}"
    );
    all_is_as_it_was(&relay);
}

#[test]
fn what_is_too_old_by_the_time_that_the_machine_was_up_expires() {
    let mut relay = filled(false);
    let file = Connection::open(relay.path("data/outbox.db")).expect("sqlite");
    // The relay was down for eight days of its uptime.
    file.execute_batch(&format!(
        "UPDATE total SET boot_ms = boot_ms - {}",
        8 * DAY_MS
    ))
    .expect("changed");
    drop(file);
    relay.restart_with(&config("", ""));
    eventually("they are expired", || messages(&relay, "dead") == 4.0);
    assert_eq!(messages(&relay, "pending"), 0.0);
    let deadline = Duration::from_secs(1);
    let mut till = relay.backend("till-7");
    assert!(!till.comes(deadline));
}
