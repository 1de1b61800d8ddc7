//! Files that are damaged, gone, or longer than they may be.

use std::time::Duration;

use rusqlite::Connection;

use super::{PATIENCE, Setup};
use crate::notification::Again;
use crate::outbox::ops::{MirrorOp, Op};
use crate::outbox::{NotStored, State};

#[test]
fn what_the_disk_has_changed_is_a_dead_letter_and_not_a_payment() {
    let setup = Setup::open(|_| {});
    assert!(setup.store("a", true, None).is_ok());
    let seq = setup
        .store("a", false, Some(Again::After(PATIENCE)))
        .expect("room");
    let other = Connection::open(&setup.path).expect("sqlite");
    other
        .execute("UPDATE payload SET body = x'00' WHERE seq = ?1", [seq])
        .expect("changed");
    other
        .execute("UPDATE notification SET due = 0 WHERE seq = ?1", [seq])
        .expect("changed");
    setup.here("a");
    let rows = setup.states(&[State::Pending, State::Dead]);
    assert!(rows[1].why.starts_with("damaged"), "{}", rows[1].why);
    assert!(setup.envelopes.is_empty());
}

/// The files are looked at before a commit too; here they are lost while the writer is at it.
#[test]
fn what_is_committed_to_a_file_that_is_gone_by_then_is_not_stored() {
    let setup = Setup::open(|_| {});
    assert!(setup.store("a", true, None).is_ok());
    let other = Connection::open(&setup.path).expect("sqlite");
    other.execute_batch("BEGIN IMMEDIATE").expect("locked");
    std::thread::scope(|scope| {
        let storing = scope.spawn(|| setup.store("a", true, None));
        // By then the writer has looked at the files, and waits for the lock. Were it slower, it would refuse all the same.
        let early = setup.envelopes.recv_timeout(Duration::from_millis(200));
        assert!(early.is_err());
        std::fs::rename(&setup.path, setup.path.with_extension("old")).expect("moved");
        other.execute_batch("ROLLBACK").expect("free");
        assert_eq!(storing.join().expect("an end"), Err(NotStored::File));
    });
    let unwell = setup.outbox.unwell().unwrap_or_default();
    assert!(unwell.contains("was deleted or moved away"), "{unwell}");
}

/// What the mirror's thread asks for is no commit, and leaves the writer no idle second.
#[test]
fn a_file_that_is_lost_while_the_mirror_is_busy_is_said_within_two_seconds() {
    let setup = Setup::open(|_| {});
    assert!(setup.store("a", true, None).is_ok());
    std::fs::rename(&setup.path, setup.path.with_extension("old")).expect("moved");
    let look_every = Duration::from_millis(20);
    let is_said = (0..100).any(|_| {
        let put = MirrorOp::Put(Vec::new());
        setup
            .outbox
            .ops
            .send(Op::Mirror(Box::new(put)))
            .expect("the writer works");
        #[expect(
            clippy::disallowed_methods,
            reason = "what is looked at gives no sign by itself"
        )]
        std::thread::park_timeout(look_every);
        setup.outbox.unwell().is_some()
    });
    assert!(is_said, "nothing is said of a file that is gone");
    let unwell = setup.outbox.unwell().unwrap_or_default();
    assert!(unwell.contains("was deleted or moved away"), "{unwell}");
}

#[test]
fn a_reader_that_does_not_end_lets_the_log_grow_to_its_bound_and_no_further() {
    let setup = Setup::open(|config| config.max_log_bytes = 2 << 20);
    let reader = Connection::open(&setup.path).expect("sqlite");
    let begin = "BEGIN; SELECT count(*) FROM notification";
    reader.execute_batch(begin).expect("a reader");
    let mut stored = 0;
    let refused = loop {
        match setup.store("a", true, None) {
            Ok(_) => stored += 1,
            Err(refused) => break refused,
        }
        assert!(stored < 2000, "the log has no bound");
    };
    assert_eq!(refused, NotStored::Log);
    let log = setup.path.with_extension("db-wal");
    let bytes = std::fs::metadata(&log).expect("a log").len();
    assert!(bytes > 2 << 20 && bytes < 3 << 20, "{bytes}");
    let unwell = setup.outbox.unwell().unwrap_or_default();
    assert!(
        unwell.contains("outbox.max_log_bytes is 2 MiB") && unwell.contains("reading"),
        "{unwell}"
    );
    // When it ends, everything goes on by itself.
    reader.execute_batch("COMMIT").expect("an end");
    assert!(setup.store("a", true, None).is_ok());
    assert_eq!(setup.outbox.unwell(), None);
    assert_eq!(setup.outbox.readings().pending, stored + 1);
}
