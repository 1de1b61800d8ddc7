//! What `payrelay check` accepts, `payrelay run` starts, for a user to whom not every file is open: tried as such a user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::support::{Authority, DEADLINE, Process, binary};

/// The user that owns nothing but what this test gives away.
const NOBODY: u32 = 65_534;

const PORTS: &str =
    "http.listen = \"127.0.0.1:0\"\ntcp.listen = \"127.0.0.1:0\"\nadmin.listen = \"127.0.0.1:0\"\n";
const ROUTE: &str = "[[route]]\npath = \"/notify/{id}\"\nverify = \"none\"\n";

/// A folder of the user, in which payrelay runs as that user.
struct Home {
    dir: TempDir,
    program: PathBuf,
}

impl Home {
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        let program = dir.path().join("payrelay");
        // The way to the program may be closed to the user.
        fs::copy(binary().get_program(), &program).expect("a copy of the program");
        Authority::get().issue(dir.path());
        let home = Self { dir, program };
        for folder in ["log", "box", "tmp"] {
            fs::create_dir(home.path(folder)).expect("a folder");
        }
        for (file, text) in [
            ("log/old.log", ""),
            ("secret", "a-secret-of-enough-length-0123"),
            ("relay.toml", ""),
        ] {
            fs::write(home.path(file), text).expect("a file");
        }
        fs::copy(home.path("cert.pem"), home.path("ca.pem")).expect("a file");
        for name in [
            "",
            "log",
            "box",
            "tmp",
            "log/old.log",
            "secret",
            "relay.toml",
            "cert.pem",
            "key.pem",
            "ca.pem",
        ] {
            home.give(name);
        }
        home
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn give(&self, name: &str) {
        if geteuid().is_root() {
            chown(self.path(name), Some(NOBODY), Some(NOBODY)).expect("root gives files away");
        }
    }

    fn allow(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).expect("a mode");
    }

    fn start(&self, command: &str) -> Process {
        let mut started = Command::new(&self.program);
        started.arg(command).current_dir(self.dir.path());
        started.env("TMPDIR", self.path("tmp"));
        if geteuid().is_root() {
            started.uid(NOBODY).gid(NOBODY);
        }
        Process::start(command, started)
    }

    fn configure(&self, lines: &str) {
        fs::write(self.path("relay.toml"), format!("{PORTS}{lines}\n{ROUTE}")).expect("relay.toml");
    }

    /// `check` takes it, and `run` starts with it.
    fn accepts(&self, lines: &str) {
        self.configure(lines);
        let mut check = self.start("check");
        assert_eq!(
            check.wait_exit(DEADLINE),
            Some(0),
            "{lines}: {}",
            check.stderr()
        );
        let mut run = self.start("run");
        run.wait_line(0, |line| line.starts_with("ready "));
        run.signal(Signal::TERM);
        assert_eq!(
            run.wait_exit(DEADLINE),
            Some(0),
            "{lines}: {}",
            run.stderr()
        );
    }

    /// `check` refuses it with `words`, and so does a start.
    fn refuses(&self, lines: &str, words: &str) {
        self.configure(lines);
        for command in ["check", "run"] {
            let mut said = self.start(command);
            let code = said.wait_exit(DEADLINE);
            let stderr = said.stderr();
            assert_eq!(code, Some(78), "{command} of {lines}: {stderr}");
            let begins = |line: &str| line.starts_with("relay.toml:4:") && line.contains(words);
            assert!(
                stderr.lines().any(begins),
                "{command} of {lines}: no {words:?} in {stderr}"
            );
        }
    }
}

#[test]
fn what_check_accepts_starts_and_what_it_refuses_does_not_as_another_user() {
    let home = Home::new();
    let store = "outbox.path = \"box/outbox.db\"";
    home.accepts(store);
    assert!(home.path("box/outbox.db").exists());
    let made = |name: &str| {
        fs::write(home.path(name), "").expect("a file");
        home.give(name);
    };
    made("box/outbox.db-wal");
    let own_log = "log.file = \"log/relay.log\"";
    let old_log = "log.file = \"log/old.log\"";
    let tls = "http.tls = { cert = \"cert.pem\", key = \"key.pem\" }";
    let redis = "redis = { url = \"rediss://127.0.0.1:1\", ca = \"ca.pem\" }";
    let secret = "tcp.secrets = [\"file:secret\"]";
    for (closed, mode, lines, words) in [
        (
            "log",
            0o555,
            own_log,
            "cannot be opened for writing: Permission denied",
        ),
        (
            "log",
            0o000,
            old_log,
            "cannot be opened for writing: Permission denied",
        ),
        (
            "log/old.log",
            0o400,
            old_log,
            "cannot be opened for writing: Permission denied",
        ),
        (
            "box",
            0o555,
            "outbox.path = \"box/new/outbox.db\"",
            "its directory cannot be used: Permission denied",
        ),
        ("box/outbox.db", 0o400, store, "it can only be read"),
        (
            "box/outbox.db.lock",
            0o000,
            store,
            "box/outbox.db.lock cannot be used: Permission denied",
        ),
        (
            "box/outbox.db-wal",
            0o400,
            store,
            "box/outbox.db-wal cannot be used: Permission denied",
        ),
        (
            "key.pem",
            0o000,
            tls,
            "http.tls.key = \"key.pem\": this user may not read it",
        ),
        (
            "cert.pem",
            0o000,
            tls,
            "http.tls.cert = \"cert.pem\": this user may not read it",
        ),
        (
            "ca.pem",
            0o000,
            redis,
            "redis.ca = \"ca.pem\" cannot be read: Permission denied",
        ),
        (
            "secret",
            0o000,
            secret,
            "tcp.secrets[0]: this user may not read the file \"secret\"",
        ),
    ] {
        let before = mode_of(&home.path(closed));
        home.allow(closed, mode);
        home.refuses(lines, words);
        home.allow(closed, before);
    }
    // Just enough.
    for (narrow, mode, lines) in [
        ("log", 0o555, old_log),
        ("box", 0o700, "outbox.path = \"box/new/outbox.db\""),
        ("key.pem", 0o400, tls),
        ("ca.pem", 0o400, redis),
        ("secret", 0o400, secret),
        ("box/outbox.db-wal", 0o600, store),
    ] {
        let before = mode_of(&home.path(narrow));
        home.allow(narrow, mode);
        home.accepts(lines);
        if home.path(narrow).exists() {
            home.allow(narrow, before);
        }
    }
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode()
}
