//! When the outbox writes to disk, as the kernel sees it.

use crate::outbox_faults::STORE;
use crate::support::{Relay, eventually, strace};
use std::fs::{self};
use std::io::Read;

/// The calls of which an answer or a sync is made.
const WRITES: [&str; 5] = [
    "-y",
    "-s",
    "200",
    "-e",
    "trace=fsync,fdatasync,write,pwrite64,sendto,sendmsg,writev",
];

fn calls(relay: &Relay) -> Vec<String> {
    let mut text = Vec::new();
    let file = fs::File::open(relay.path("strace.txt"));
    file.and_then(|mut file| file.read_to_end(&mut text))
        .expect("strace's words");
    String::from_utf8_lossy(&text)
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn no_answer_of_stored_leaves_before_its_sync() {
    let relay = Relay::with(STORE);
    let Some(watcher) = strace(&relay, &WRITES) else {
        return;
    };
    let mut provider = relay.http();
    for n in 0..30 {
        let told = provider.post("/notify/till-7", format!("{n}").as_bytes());
        assert_eq!(told.told(), (200, "stored"));
    }
    eventually("strace has seen all answers", || {
        calls(&relay)
            .iter()
            .filter(|line| line.contains("X-Payrelay-Outcome: stored"))
            .count()
            >= 30
    });
    drop(watcher);
    // One at a time, so between two answers there must be a sync of the log that has returned.
    let (mut synced, mut answers) = (false, 0);
    for line in calls(&relay) {
        let sync = line.contains("fdatasync") || line.contains("fsync");
        // `fdatasync(…) = 0`, or `<... fdatasync resumed>) = 0` when another thread came in between.
        if sync && line.trim_end().ends_with("= 0") {
            synced = true;
        }
        if line.contains("X-Payrelay-Outcome: stored") {
            assert!(synced, "answer {answers} before a sync: {line}");
            synced = false;
            answers += 1;
        }
    }
    assert_eq!(answers, 30);
}

#[test]
fn what_is_acknowledged_in_time_writes_nothing_to_disk() {
    let relay = Relay::with(STORE);
    let mut till = relay.backend("till-7");
    let mut warm = relay.http();
    let Some(watcher) = strace(&relay, &WRITES) else {
        return;
    };
    for n in 0..50 {
        let body = format!("{n}");
        warm.send(&crate::support::post_request(
            "/notify/till-7",
            &[],
            body.as_bytes(),
        ));
        till.expect("MSG id=* =*", body.as_bytes()).ack();
        assert_eq!(warm.must_answer().told(), (200, "delivered"));
    }
    eventually("strace has seen all answers", || {
        calls(&relay)
            .iter()
            .filter(|line| line.contains("X-Payrelay-Outcome: delivered"))
            .count()
            >= 50
    });
    drop(watcher);
    // Now and then no byte is written, to see whether the file system takes any.
    let is_probe = |line: &String| line.contains(", \"\", 0, 0");
    let on_disk: Vec<String> = calls(&relay)
        .into_iter()
        .filter(|line| line.contains("outbox.db") || line.contains("sync("))
        .filter(|line| !is_probe(line))
        .collect();
    assert!(on_disk.is_empty(), "{on_disk:#?}");
}
