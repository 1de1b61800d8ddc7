//! Lines arrive whole, in the right file, whatever happens to the file.

use super::*;
use std::os::unix::fs::PermissionsExt;

fn record(lines: &Lines, target: &str, level: Level, message: &str) {
    lines.log(
        &Record::builder()
            .target(target)
            .level(level)
            .args(format_args!("{message}"))
            .build(),
    );
}

/// A log that is not the process's own. Only the level is: every test here sets the same.
fn in_file(path: &Path) -> (Logging, Lines) {
    log::set_max_level(LevelFilter::Info);
    let output = Arc::new(Mutex::new(Output::open(Some(path)).expect("an open log")));
    let lines = Lines::to(Arc::clone(&output));
    (Logging { output }, lines)
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).expect("a log file")
}

#[test]
fn a_record_is_one_line_with_time_level_and_thread() {
    let room = tempfile::tempdir().expect("a folder");
    let path = room.path().join("relay.log");
    let (_logging, lines) = in_file(&path);
    record(&lines, "payrelay::session", Level::Info, "a\nb\u{1b}[31m");
    record(&lines, "tiny_http", Level::Error, "foreign");
    record(&lines, "tiny_http", Level::Info, "unheard");
    record(&lines, "payrelayish", Level::Info, "unheard");
    record(&lines, "payrelay", Level::Debug, "unheard");
    let text = read(&path);
    let have: Vec<&str> = text.lines().collect();
    assert_eq!(have.len(), 2, "{text}");
    let (time, rest) = have[0].split_once(' ').expect("a time");
    assert_eq!(time.len(), "2026-03-01T12:00:00.123Z".len(), "{time}");
    let thread = std::thread::current();
    let name = thread.name().expect("a name");
    assert_eq!(rest, format!(r"[INFO] ({name}) a\nb\u{{1b}}[31m"));
    assert!(have[1].ends_with("tiny_http: foreign"), "{text}");
    assert_eq!(
        std::fs::metadata(&path)
            .expect("there")
            .permissions()
            .mode()
            & 0o137,
        0
    );
}

#[test]
fn times_are_utc_in_rfc_3339() {
    for (ms, text) in [
        (0, "1970-01-01T00:00:00.000Z"),
        (951_782_399_999, "2000-02-28T23:59:59.999Z"),
        (951_782_400_000, "2000-02-29T00:00:00.000Z"),
        (1_735_689_599_001, "2024-12-31T23:59:59.001Z"),
        (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
    ] {
        assert_eq!(Utc(ms).to_string(), text);
    }
}

#[test]
fn a_long_message_is_cut() {
    let room = tempfile::tempdir().expect("a folder");
    let path = room.path().join("relay.log");
    let (_logging, lines) = in_file(&path);
    record(&lines, "payrelay", Level::Error, &"é".repeat(100_000));
    let text = read(&path);
    assert!(text.len() < LINE_BYTES_MAX + 200);
    assert!(text.ends_with("…\n") || text.ends_with("é\n"));
}

#[test]
fn after_a_rotation_lines_go_to_the_new_file() {
    let room = tempfile::tempdir().expect("a folder");
    let path = room.path().join("relay.log");
    let moved = room.path().join("relay.log.1");
    let (logging, lines) = in_file(&path);
    record(&lines, "payrelay", Level::Error, "before");
    std::fs::rename(&path, &moved).expect("moved");
    record(&lines, "payrelay", Level::Error, "between");
    logging.reopen().expect("reopened");
    record(&lines, "payrelay", Level::Error, "after");
    let old = read(&moved);
    assert!(old.contains("before") && old.contains("between"));
    let new = read(&path);
    assert!(new.contains("after") && !new.contains("between"));
}

#[test]
fn a_file_that_cannot_be_reopened_is_kept() {
    let room = tempfile::tempdir().expect("a folder");
    let folder = room.path().join("logs");
    std::fs::create_dir(&folder).expect("a folder");
    let path = folder.join("relay.log");
    let (logging, lines) = in_file(&path);
    let moved = room.path().join("moved");
    std::fs::rename(&folder, &moved).expect("moved");
    let error = logging.reopen().expect_err("its folder is gone");
    assert!(error.to_string().contains("relay.log"), "{error}");
    record(&lines, "payrelay", Level::Error, "still here");
    assert!(read(&moved.join("relay.log")).contains("still here"));
}

#[test]
fn a_full_disk_loses_lines_and_says_how_many() {
    let room = tempfile::tempdir().expect("a folder");
    let path = room.path().join("relay.log");
    let (logging, lines) = in_file(Path::new("/dev/full"));
    record(&lines, "payrelay", Level::Error, "one");
    record(&lines, "payrelay", Level::Error, "two");
    logging
        .reload(&config::Log {
            level: LevelFilter::Info,
            file: Some(path.clone()),
        })
        .expect("the new file opens");
    record(&lines, "payrelay", Level::Error, "three");
    record(&lines, "payrelay", Level::Error, "four");
    let text = read(&path);
    let have: Vec<&str> = text.lines().collect();
    assert_eq!(have.len(), 3, "{text}");
    assert!(have[0].contains("2 lines"), "{text}");
    assert!(
        have[1].ends_with("three") && have[2].ends_with("four"),
        "{text}"
    );
}
