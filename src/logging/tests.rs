//! Lines arrive whole, in the right file, whatever happens to the file.

use super::*;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;
use std::time::Instant;

use log::LevelFilter;

/// A log that is not the process's own. Only the level is: every test here sets the same.
struct OwnLog {
    logging: Logging,
    lines: Lines,
    _running: Running,
}

impl OwnLog {
    fn at(path: &Path) -> Self {
        log::set_max_level(LevelFilter::Info);
        let running = Running::start(Some(path.to_owned())).expect("an open log");
        let logging = running.handle(Some(path.to_owned()));
        Self {
            lines: Lines(Arc::clone(&logging.queue)),
            logging,
            _running: running,
        }
    }

    fn say(&self, target: &str, level: Level, message: &str) {
        self.lines.log(
            &Record::builder()
                .target(target)
                .level(level)
                .args(format_args!("{message}"))
                .build(),
        );
    }

    fn error(&self, message: &str) {
        self.say("payrelay", Level::Error, message);
    }

    /// Waits until everything is written, and everything that was to be opened is open.
    fn written(&self) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while self.logging.queue.interrupts() || !self.logging.queue.wait_disposed(FLUSH_MAX) {
            assert!(Instant::now() < deadline, "the log hangs");
            std::thread::yield_now();
        }
    }

    fn reload(&self, file: &Path) {
        self.logging.reload(&config::LogConfig {
            level: LevelFilter::Info,
            file: Some(file.to_owned()),
            format: config::LogFormat::Text,
        });
    }
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).expect("a log file")
}

#[test]
fn a_record_is_one_line_with_time_level_and_thread() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("relay.log");
    let log = OwnLog::at(&path);
    log.say("payrelay::session", Level::Info, "a\nb\u{1b}[31m");
    log.say("tiny_http", Level::Error, "foreign");
    log.say("tiny_http", Level::Info, "unheard");
    log.say("payrelayish", Level::Info, "unheard");
    log.say("payrelay", Level::Debug, "unheard");
    log.written();
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
        fs::metadata(&path).expect("there").permissions().mode() & 0o137,
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
        assert_eq!(line::Utc(ms).to_string(), text);
    }
}

#[test]
fn a_long_message_is_cut() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("relay.log");
    let log = OwnLog::at(&path);
    log.error(&"é".repeat(100_000));
    log.written();
    let text = read(&path);
    assert!(text.len() < line::LINE_BYTES_MAX + 200);
    assert!(text.ends_with("…\n") || text.ends_with("é\n"));
}

#[test]
fn after_a_rotation_lines_go_to_the_new_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("relay.log");
    let moved = folder.path().join("relay.log.1");
    let log = OwnLog::at(&path);
    log.error("before");
    log.written();
    fs::rename(&path, &moved).expect("moved");
    log.error("between");
    log.logging.reopen();
    log.error("after");
    log.written();
    let old = read(&moved);
    assert!(old.contains("before") && old.contains("between"));
    let new = read(&path);
    assert!(new.contains("after") && !new.contains("between"));
}

#[test]
fn a_file_that_cannot_be_reopened_is_kept() {
    let folder = tempfile::tempdir().expect("a folder");
    let logs = folder.path().join("logs");
    fs::create_dir(&logs).expect("a folder");
    let log = OwnLog::at(&logs.join("relay.log"));
    let moved = folder.path().join("moved");
    fs::rename(&logs, &moved).expect("moved");
    log.logging.reopen();
    log.error("still here");
    log.written();
    assert!(read(&moved.join("relay.log")).contains("still here"));
}

#[test]
fn a_full_disk_loses_lines_and_says_how_many() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("relay.log");
    let log = OwnLog::at(Path::new("/dev/full"));
    log.error("one");
    log.error("two");
    log.reload(&path);
    log.error("three");
    log.error("four");
    log.written();
    let text = read(&path);
    let have: Vec<&str> = text.lines().collect();
    assert_eq!(have.len(), 3, "{text}");
    assert!(have[0].contains("2 lines"), "{text}");
    assert!(have[0].contains("No space left"), "{text}");
    assert!(
        have[1].ends_with("three") && have[2].ends_with("four"),
        "{text}"
    );
    assert_eq!(log.logging.queue.lost(), 2);
}

/// A pipe that nobody reads is full after 64 KiB, and the queue after that.
#[test]
fn lines_that_do_not_fit_are_counted_where_they_are_missing() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &path,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .expect("a pipe");
    // A pipe that is full: were some lines written meanwhile, others that come later would have their room.
    let mut full = OpenOptions::new();
    full.read(true).write(true);
    full.custom_flags(rustix::fs::OFlags::NONBLOCK.bits().cast_signed());
    let mut full = full.open(&path).expect("a pipe");
    while full.write(b"full\n").is_ok() {}
    let log = OwnLog::at(&path);
    let mut said = 0_u64;
    while log.logging.queue.lost() < 1000 {
        log.say("payrelay", Level::Info, &format!("line {said}"));
        said += 1;
    }
    // A quarter of the queue is kept for what matters.
    log.error("the error");
    let lost = log.logging.queue.lost();
    assert_eq!(lost, 1000);
    let reader = OpenOptions::new().read(true).open(&path).expect("a reader");
    let mut lines = BufReader::new(reader)
        .lines()
        .map(|line| line.expect("a line"))
        .skip_while(|line| line == "full");
    for n in 0..said - lost {
        let line = lines.next().expect("a line");
        assert!(line.ends_with(&format!(") line {n}")), "{n}: {line}");
    }
    let told = lines.next().expect("a line");
    assert!(
        told.contains("[WARN] (log) 1000 lines of the log before this one were lost"),
        "{told}"
    );
    assert!(lines.next().expect("a line").ends_with("the error"));
}

#[test]
fn lines_that_a_reader_does_not_take_go_to_the_next_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("pipe");
    rustix::fs::mkfifoat(
        rustix::fs::CWD,
        &path,
        rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR,
    )
    .expect("a pipe");
    let log = OwnLog::at(&path);
    let _hanging = File::options()
        .read(true)
        .write(true)
        .open(&path)
        .expect("a reader");
    for n in 0..2000 {
        log.error(&format!("line {n} {}", "x".repeat(100)));
    }
    let fresh = folder.path().join("relay.log");
    log.reload(&fresh);
    log.written();
    let text = read(&fresh);
    assert_eq!(log.logging.queue.lost(), 0);
    assert!(text.lines().count() > 500, "{} lines", text.lines().count());
    assert!(text.lines().all(|line| line.ends_with('x')));
    assert!(
        text.lines()
            .last()
            .is_some_and(|line| line.contains("line 1999 "))
    );
}
