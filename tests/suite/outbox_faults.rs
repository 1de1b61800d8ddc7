//! The outbox on bad days: another relay, another program, damage, a full disk, a clock that goes back. And on every day:
//! what has been synced before it is answered, and what is not written at all.

use std::collections::HashMap;
use std::fs::{self, OpenOptions};
use std::io::{Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rusqlite::Connection;

use crate::support::{DEADLINE, Mounted, Process, Random, Relay, binary, eventually};

pub const STORE: &str = "[delivery]\nundelivered = \"store\"\n[outbox]\nretry_first = \"100ms\"\n";

/// Stores `count` notifications for till-7, and ends the relay in good order.
fn filled(count: usize) -> (Relay, PathBuf) {
    let mut relay = Relay::with(STORE);
    let mut provider = relay.http();
    for n in 0..count {
        let body = format!("{n} {}", "x".repeat(500));
        assert_eq!(
            provider.post("/notify/till-7", body.as_bytes()).told(),
            (200, "stored")
        );
    }
    drop(provider);
    relay.signal(rustix::process::Signal::TERM);
    assert_eq!(relay.wait_exit(Duration::from_secs(20)), Some(0));
    let path = relay.path("data/outbox.db");
    (relay, path)
}

/// Starts the relay of this folder, which must refuse: its exit code and what it says.
fn refused(relay: &Relay) -> (Option<i32>, String) {
    let mut command = binary();
    let file = relay.path("relay.toml");
    let folder = file.parent().expect("a folder");
    command
        .arg("run")
        .arg("-c")
        .arg(&file)
        .current_dir(folder)
        .env("TMPDIR", folder);
    let mut process = Process::start("the second relay", command);
    let code = process.wait_exit(DEADLINE);
    (code, process.stderr())
}

/// Every file of the outbox but the lock and the index of the log, with its bytes.
fn files(path: &Path) -> HashMap<PathBuf, Vec<u8>> {
    let folder = path.parent().expect("a folder");
    let entries = fs::read_dir(folder).expect("a folder").flatten();
    let paths = entries.map(|entry| entry.path());
    let kept = paths.filter(|path| {
        let name = path.to_string_lossy();
        !name.ends_with(".lock") && !name.ends_with("-shm")
    });
    kept.map(|path| (path.clone(), fs::read(&path).expect("readable")))
        .filter(|(_, bytes)| !bytes.is_empty())
        .collect()
}

fn overwrite(path: &Path, at: u64, bytes: &[u8]) {
    let mut file = OpenOptions::new().write(true).open(path).expect("the file");
    file.seek(SeekFrom::Start(at)).expect("its middle");
    file.write_all(bytes).expect("written");
}

#[test]
fn a_second_relay_on_the_same_file_does_not_start() {
    let relay = Relay::with(STORE);
    let (code, words) = refused(&relay);
    assert_eq!(code, Some(78), "{words}");
    assert!(
        words.contains("outbox.path") && words.contains("another payrelay has it"),
        "{words}"
    );
    assert_eq!(
        relay.post("/notify/till-7", b"x").answer().told(),
        (200, "stored")
    );
}

#[test]
fn a_file_that_another_program_has_locked_stops_the_start() {
    let (relay, path) = filled(3);
    let other = Connection::open(&path).expect("sqlite");
    other
        .execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE")
        .expect("locked");
    let (code, words) = refused(&relay);
    assert_eq!(code, Some(1), "{words}");
    assert!(words.contains("another program holds it locked"), "{words}");
    drop(other);
}

#[test]
fn a_damaged_file_stops_the_start_and_is_left_as_it_is() {
    let mut random = Random::new();
    let (relay, path) = filled(300);
    let sound = fs::read(&path).expect("the file");
    for round in 0..6 {
        fs::write(&path, &sound).expect("as it was");
        let at = sound.len() / 4 + random.below(sound.len() / 2);
        let garbage = random.bytes(8192);
        overwrite(&path, at as u64, &garbage[..8192.min(sound.len() - at)]);
        let before = files(&path);
        let (code, words) = refused(&relay);
        assert_eq!(code, Some(78), "round {round}, at {at}: {words}");
        assert!(
            words.contains("damaged") && words.contains(".recover"),
            "{words}"
        );
        assert!(
            before == files(&path),
            "round {round}: the files have changed"
        );
    }
    // As it was, it starts.
    fs::write(&path, &sound).expect("as it was");
    let mut relay = relay;
    relay.restart_with(STORE);
    assert_eq!(
        relay.metric("payrelay_outbox_messages{state=\"pending\"}"),
        300.0
    );
}

#[test]
fn one_changed_byte_of_a_body_is_not_delivered() {
    let (relay, path) = filled(5);
    let mut bytes = fs::read(&path).expect("the file");
    let at = bytes
        .windows(12)
        .position(|window| window == b"3 xxxxxxxxxx")
        .expect("a body");
    bytes[at + 100] = b'y';
    fs::write(&path, &bytes).expect("written");
    let (code, words) = refused(&relay);
    assert_eq!(code, Some(78), "{words}");
    assert!(words.contains("has changed"), "{words}");
}

#[test]
fn what_is_no_outbox_is_left_alone() {
    let (relay, path) = filled(1);
    let set = |pragma: &str| {
        let other = Connection::open(&path).expect("sqlite");
        other.execute_batch(pragma).expect("set");
    };
    set("PRAGMA user_version = 99");
    let (code, words) = refused(&relay);
    assert_eq!(code, Some(78), "{words}");
    assert!(
        words.contains("a later payrelay made it (schema 99)"),
        "{words}"
    );
    set("PRAGMA application_id = 7");
    let (code, words) = refused(&relay);
    assert_eq!(code, Some(78), "{words}");
    assert!(words.contains("of another program"), "{words}");
    fs::write(
        &path,
        "just a text, and longer than a header of a database would be ".repeat(20),
    )
    .expect("written");
    let before = files(&path);
    let (code, words) = refused(&relay);
    assert_eq!(code, Some(78), "{words}");
    assert!(words.contains("is no SQLite database"), "{words}");
    assert!(before == files(&path));
}

#[test]
fn its_files_are_for_its_user_alone() {
    use std::os::unix::fs::PermissionsExt;
    let relay = Relay::with(STORE);
    assert_eq!(
        relay.post("/notify/till-7", b"x").answer().told(),
        (200, "stored")
    );
    let mode = |name: &str| {
        fs::metadata(relay.path(name))
            .expect(name)
            .permissions()
            .mode()
            & 0o777
    };
    assert_eq!(mode("data"), 0o700);
    for name in [
        "data/outbox.db",
        "data/outbox.db-wal",
        "data/outbox.db.lock",
    ] {
        assert_eq!(mode(name), 0o600, "{name}");
    }
}

/// As if the relay's last run had seen a clock that was an hour ahead: everything it wrote lies in the future.
#[test]
fn a_clock_that_goes_back_an_hour_holds_nothing_up() {
    let (mut relay, path) = filled(3);
    let hour = 3_600_000;
    let other = Connection::open(&path).expect("sqlite");
    other
        .execute_batch(&format!(
            "UPDATE total SET clock_ms = clock_ms + {hour};
             UPDATE notification SET due = (SELECT clock_ms FROM total) + 300, stored_ms = stored_ms + {hour},
               turn_ms = turn_ms + {hour}"
        ))
        .expect("moved");
    drop(other);
    relay.restart_with(STORE);
    let began = Instant::now();
    let mut till = relay.backend("till-7");
    for _ in 0..3 {
        till.message().ack();
    }
    assert!(
        began.elapsed() < Duration::from_secs(15),
        "{:?}",
        began.elapsed()
    );
    drop(till);
    eventually("the session is gone", || {
        relay.metric("payrelay_sessions") == 0.0
    });
    // What is stored now is no older than it is, and does not expire.
    assert_eq!(
        relay.post("/notify/till-7", b"new").answer().told(),
        (200, "stored")
    );
    assert!(relay.metric("payrelay_outbox_oldest_seconds") < 20.0);
    assert_eq!(
        relay.metric("payrelay_outbox_messages{state=\"dead\"}"),
        0.0
    );
}

#[test]
fn a_full_disk_refuses_and_loses_nothing() {
    let Some(disk) = Mounted::of("3m") else {
        return;
    };
    let path = disk.path().join("outbox.db");
    let config = format!("{STORE}path = \"{}\"\n", path.display());
    let mut relay = Relay::with(&config);
    let body = vec![b'x'; 20_000];
    let (mut ids, mut refusals) = (Vec::new(), 0);
    let mut provider = relay.http();
    while refusals < 10 {
        let answer = provider.post("/notify/till-7", &body);
        match answer.told() {
            (200, "stored") => ids.push(answer.id().to_owned()),
            (503, "offline") => refusals += 1,
            told => panic!("{told:?}"),
        }
        let bytes = ids.len() * body.len();
        assert!(bytes < 3 << 20, "{bytes} bytes stored where 3 MiB fit");
    }
    assert!(ids.len() > 20, "{} stored", ids.len());
    assert!(relay.metric("payrelay_outbox_refusals_total") >= 10.0);
    relay.log_contains("cannot write");
    relay.log_contains("the disk of the outbox");
    let free = relay.metric("payrelay_outbox_disk_free_bytes");
    assert!(free < 256e6, "{free}");
    assert!(relay.metric("payrelay_outbox_log_bytes") > 0.0);
    // A crash with a full disk, and with room again everything is there.
    relay.process().signal(rustix::process::Signal::KILL);
    assert_eq!(relay.wait_exit(DEADLINE), None);
    disk.remount("size=12m");
    relay.restart_with(&config);
    let mut till = relay.backend("till-7");
    for id in &ids {
        let got = till.expect("MSG id=* =*", &body);
        assert_eq!(&got.ack(), id);
    }
    till.settle();
    // While it runs, too: what did not fit fits again.
    drop(till);
    eventually("the session is gone", || {
        relay.metric("payrelay_sessions") == 0.0
    });
    assert_eq!(
        relay.post("/notify/till-7", b"x").answer().told(),
        (200, "stored")
    );
    eventually("it is ready", || relay.readyz().status == 200);
}

#[test]
fn a_disk_that_may_only_be_read_stops_the_start() {
    let Some(disk) = Mounted::of("3m") else {
        return;
    };
    let path = disk.path().join("data/outbox.db");
    let config = format!("{STORE}path = \"{}\"\n", path.display());
    let mut relay = Relay::with(&config);
    relay.signal(rustix::process::Signal::TERM);
    assert_eq!(relay.wait_exit(Duration::from_secs(20)), Some(0));
    disk.remount("ro");
    let (code, words) = refused(&relay);
    assert_eq!(code, Some(78), "{words}");
    assert!(
        words.contains("outbox.path") && words.contains("only be read"),
        "{words}"
    );
}
