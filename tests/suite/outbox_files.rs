//! The outbox loses its files while the relay runs: each way of losing one, for the database, its log and their directory.
//! What is answered `stored` is found after `kill -9` in the files that the relay had open, and `/readyz` says what to do.

mod disks;
mod site;

use std::fs::{self, OpenOptions, Permissions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::time::Duration;

use rusqlite::Connection;
use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use self::site::{Site, beside, config, rename, start, truncate};
use super::outbox::messages;
use crate::support::{DEADLINE, Setup, eventually};

#[test]
fn a_database_that_is_deleted_takes_nothing_and_what_it_had_is_not_lost() {
    let mut site = Site::new();
    fs::remove_file(&site.database).expect("deleted");
    site.refuses(&[
        "outbox.db was deleted or moved away",
        "payrelay outbox rescue",
    ]);
    site.all_is_rescued();
    site.all_is_found();
}

#[test]
fn everything_deleted_at_once_takes_nothing_and_what_it_had_is_not_lost() {
    let mut site = Site::new();
    for ending in ["", "-wal", ".lock"] {
        fs::remove_file(beside(&site.database, ending)).expect("deleted");
    }
    site.refuses(&["outbox.db was deleted or moved away"]);
    site.all_is_found();
}

#[test]
fn a_database_that_is_moved_away_takes_nothing_until_it_is_back() {
    let mut site = Site::new();
    let old = beside(&site.database, ".old");
    rename(&site.database, &old);
    // The first answer after that is right already.
    assert!(!site.post());
    site.refuses(&[
        "outbox.db was deleted or moved away",
        "move the relay's own file back",
    ]);
    // What it has goes on; what came of it is noted when the file is back.
    let mut till = site.relay.backend("till-7");
    for _ in 0..5 {
        till.message().ack();
    }
    till.settle();
    drop(till);
    eventually("the session is gone", || {
        site.relay.metric("payrelay_sessions") == 0.0
    });
    rename(&old, &site.database);
    eventually("what came of them is noted", || {
        messages(&site.relay, "pending") == 0.0
    });
    site.stored.clear();
    site.stores_again();
    site.all_is_found();
}

#[test]
fn another_file_in_the_place_of_the_database_is_not_taken_for_it() {
    let mut site = Site::new();
    let (old, new) = (
        beside(&site.database, ".old"),
        beside(&site.database, ".other"),
    );
    rename(&site.database, &old);
    fs::write(&site.database, b"").expect("written");
    site.refuses(&["outbox.db is not the file that the relay has open"]);
    // One of the same size, with the same content.
    fs::copy(&old, &new).expect("copied");
    rename(&new, &site.database);
    site.refuses(&["outbox.db is not the file that the relay has open"]);
    rename(&old, &site.database);
    site.stores_again();
    site.all_is_found();
}

#[test]
fn a_database_that_is_cut_short_takes_nothing_more() {
    for bytes in [0, 1000, 8192] {
        let mut site = Site::new();
        truncate(&site.database, bytes);
        site.refuses(&["outbox.db was truncated", "payrelay outbox rescue"]);
        // It stays so: nobody can tell what is missing.
        assert_eq!(site.relay.readyz().status, 503);
    }
}

#[test]
fn a_backup_copied_over_the_database_is_not_taken_for_it() {
    let mut site = Site::new();
    let backup = beside(&site.database, ".backup");
    let other = Site::new();
    fs::copy(&other.database, &backup).expect("copied");
    // The same file, with another's content: what `cp backup outbox.db` does.
    let bytes = fs::read(&backup).expect("the backup");
    let file = OpenOptions::new().write(true).open(&site.database);
    let file = file.expect("the database");
    let before = file.metadata().expect("its size").size();
    file.set_len(before.max(bytes.len() as u64))
        .expect("longer");
    let garbage = vec![0xa5; bytes.len()];
    file.write_all_at(&garbage, 0).expect("overwritten");
    site.refuses(&["outbox.db was written by another program"]);
}

#[test]
fn a_database_whose_time_alone_has_changed_is_looked_at_and_goes_on() {
    let mut site = Site::new();
    let file = OpenOptions::new().write(true).open(&site.database);
    let earlier = std::time::SystemTime::now() - Duration::from_secs(3600);
    file.and_then(|file| file.set_modified(earlier))
        .expect("touched");
    assert!(site.post());
    site.relay
        .log_contains("another program has touched the outbox");
    assert_eq!(site.relay.readyz().status, 200);
    site.all_is_found();
}

#[test]
fn a_log_that_is_deleted_takes_nothing_and_a_polite_stop_saves_what_is_in_it() {
    let mut site = Site::new();
    fs::remove_file(site.log()).expect("deleted");
    site.refuses(&["outbox.db-wal was deleted or moved away", "SIGTERM"]);
    site.relay.signal(Signal::TERM);
    assert_eq!(site.relay.wait_exit(DEADLINE), Some(0));
    site.relay.restart_with(&config(&site.database));
    assert_eq!(messages(&site.relay, "pending"), 5.0);
    site.all_is_delivered();
}

#[test]
fn a_log_that_is_deleted_is_missed_at_the_next_start() {
    let mut site = Site::new();
    fs::remove_file(site.log()).expect("deleted");
    site.refuses(&["outbox.db-wal was deleted"]);
    let [database, log] = site.open_files();
    site.relay.process().signal(Signal::KILL);
    assert_eq!(site.relay.wait_exit(DEADLINE), None);
    for found in [None, Some(&b""[..]), Some(&[0; 5000])] {
        if let Some(bytes) = found {
            fs::write(site.log(), bytes).expect("written");
        }
        let (code, words) = start(&site);
        assert_eq!(code, Some(78), "{words}");
        assert!(
            words.contains("its -wal file is missing") && words.contains("answered ok"),
            "{words}"
        );
        assert_eq!(fs::read(&site.database).expect("the database"), database);
    }
    // The other way round: SQLite would delete the log beside an empty database.
    fs::write(site.log(), &log).expect("written");
    truncate(&site.database, 0);
    let (code, words) = start(&site);
    assert_eq!(code, Some(78), "{words}");
    assert!(words.contains("it is missing or empty"), "{words}");
    fs::remove_file(&site.database).expect("deleted");
    let (code, words) = start(&site);
    assert_eq!(code, Some(78), "{words}");
    assert!(words.contains("it is missing or empty"), "{words}");
    assert_eq!(fs::read(site.log()).expect("the log"), log);
    fs::write(&site.database, database).expect("written");
    site.relay.restart_with(&config(&site.database));
    site.all_is_delivered();
}

#[test]
fn a_link_whose_disk_is_not_mounted_is_no_new_outbox() {
    let mut site = Site::new();
    site.relay.process().signal(Signal::TERM);
    assert_eq!(site.relay.wait_exit(DEADLINE), Some(0));
    let (disk, away) = (site.directory().join("disk"), site.directory().join("away"));
    let moved = disk.join("outbox.db");
    fs::create_dir(&disk).expect("a folder");
    rename(&site.database, &moved);
    symlink(&moved, &site.database).expect("a link");
    rename(&disk, &away);
    let (code, words) = start(&site);
    assert_eq!(code, Some(78), "{words}");
    assert!(
        words.contains("a link to a file that is not there"),
        "{words}"
    );
    assert_eq!(fs::read_link(&site.database).expect("the link"), moved);
    rename(&away, &disk);
    site.relay.restart_with(&config(&site.database));
    site.all_is_delivered();
}

#[test]
fn what_is_no_file_is_not_replaced_by_a_database() {
    let mut site = Site::new();
    site.relay.process().signal(Signal::TERM);
    assert_eq!(site.relay.wait_exit(DEADLINE), Some(0));
    fs::remove_file(&site.database).expect("deleted");
    mkfifoat(CWD, &site.database, Mode::RWXU).expect("a FIFO");
    let (code, words) = start(&site);
    assert_eq!(code, Some(78), "{words}");
    let kind = fs::metadata(&site.database)
        .expect("it is there")
        .file_type();
    assert!(kind.is_fifo(), "it was replaced");
}

#[test]
fn a_log_that_is_moved_away_or_replaced_takes_nothing_until_it_is_back() {
    let mut site = Site::new();
    let old = beside(&site.log(), ".old");
    rename(&site.log(), &old);
    site.refuses(&["outbox.db-wal was deleted or moved away"]);
    fs::copy(&old, site.log()).expect("copied");
    site.refuses(&["outbox.db-wal is not the file that the relay has open"]);
    rename(&old, &site.log());
    site.stores_again();
    site.all_is_found();
}

#[test]
fn a_log_that_is_cut_short_takes_nothing_more() {
    for bytes in [0, 32, 5000] {
        let mut site = Site::new();
        truncate(&site.log(), bytes);
        site.refuses(&["outbox.db-wal was truncated"]);
    }
}

#[test]
fn a_log_that_is_overwritten_takes_nothing_more() {
    let mut site = Site::new();
    let file = OpenOptions::new().write(true).open(site.log());
    file.and_then(|file| file.write_all_at(&[0; 4096], 0))
        .expect("overwritten");
    site.refuses(&["outbox.db-wal was written by another program"]);
}

/// There is no index of the log on disk that could be lost.
#[test]
fn what_lies_at_the_place_of_a_shm_file_changes_nothing() {
    let mut site = Site::new();
    let shm = beside(&site.database, "-shm");
    assert!(!shm.exists());
    fs::write(&shm, [0xa5; 32768]).expect("written");
    assert!(site.post());
    truncate(&shm, 0);
    assert!(site.post());
    fs::remove_file(&shm).expect("deleted");
    assert!(site.post());
    site.all_is_found();
}

#[test]
fn a_directory_that_is_moved_away_takes_nothing_until_it_is_back() {
    let mut site = Site::new();
    let (directory, old) = (
        site.directory().to_owned(),
        beside(site.directory(), ".old"),
    );
    rename(&directory, &old);
    site.refuses(&["outbox.db was deleted or moved away"]);
    fs::create_dir(&directory).expect("made");
    for name in ["outbox.db", "outbox.db-wal"] {
        fs::copy(old.join(name), directory.join(name)).expect("copied");
    }
    site.refuses(&["outbox.db is not the file that the relay has open"]);
    fs::remove_dir_all(&directory).expect("deleted");
    rename(&old, &directory);
    site.stores_again();
    site.all_is_found();
}

#[test]
fn a_directory_that_is_deleted_takes_nothing_and_what_it_had_is_not_lost() {
    let mut site = Site::new();
    fs::remove_dir_all(site.directory()).expect("deleted");
    site.refuses(&["outbox.db was deleted or moved away"]);
    site.all_is_found();
}

#[test]
fn files_that_the_relay_could_not_open_again_take_nothing_until_it_may() {
    let folder = TempDir::with_prefix("payrelay-files-").expect("a folder");
    let everybody = Permissions::from_mode(0o777);
    fs::set_permissions(folder.path(), everybody).expect("set");
    // To root every file is open.
    let setup = |config: &str| match geteuid().is_root() {
        true => Setup::with(config).for_nobody(),
        false => Setup::with(config),
    };
    let mut site = Site::with(folder, setup);
    let (database, log, directory) = (
        site.database.clone(),
        site.log(),
        site.directory().to_owned(),
    );
    for (path, mode, usual, words) in [
        (&database, 0o000, 0o600, "outbox.db cannot be opened again"),
        (&database, 0o400, 0o600, "outbox.db cannot be opened again"),
        (&log, 0o000, 0o600, "outbox.db-wal cannot be opened again"),
        (&directory, 0o000, 0o700, "cannot be opened again"),
        (&directory, 0o500, 0o700, "data cannot be opened again"),
    ] {
        fs::set_permissions(path, Permissions::from_mode(mode)).expect("set");
        site.refuses(&[words, "let the relay's user read and write"]);
        fs::set_permissions(path, Permissions::from_mode(usual)).expect("set");
        site.stores_again();
    }
    site.all_is_found();
}

#[test]
fn no_other_program_gets_into_the_database_of_a_running_relay() {
    let mut site = Site::new();
    let other = Connection::open(&site.database).expect("sqlite");
    let error = other
        .execute_batch("BEGIN IMMEDIATE")
        .expect_err("it is locked");
    assert!(error.to_string().contains("locked"), "{error}");
    let read = other.query_row("SELECT count(*) FROM notification", [], |_| Ok(()));
    assert!(
        read.is_err(),
        "a reader would keep the log from being cut back"
    );
    drop(other);
    assert!(site.post());
    site.all_is_found();
}

/// A program that opens the files of a killed relay and closes them moves the log into the database and deletes it.
#[test]
fn a_log_that_sqlite_itself_has_moved_into_the_database_is_not_missed() {
    let mut site = Site::new();
    site.relay.process().signal(Signal::KILL);
    assert_eq!(site.relay.wait_exit(DEADLINE), None);
    let other = Connection::open(&site.database).expect("sqlite");
    let count = other.query_row("SELECT count(*) FROM notification", [], |row| row.get(0));
    assert_eq!(count, Ok(5));
    drop(other);
    assert!(!site.log().exists());
    site.relay.restart_with(&config(&site.database));
    site.all_is_delivered();
}
