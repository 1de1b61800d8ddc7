//! What `payrelay check` accepts, `payrelay run` starts, for a user to whom not every file is open: tried as such a user.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::{Signal, geteuid};
use tempfile::TempDir;

use crate::support::{Authority, DEADLINE, Process, binary, copy_binary};

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
        copy_binary(&program);
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

/// A user of every Debian, other than root, whose home directory is not its own.
const DAEMON: &str = "daemon";

/// A configuration and a secret in a folder that everybody may enter.
struct Shared(TempDir);

impl Shared {
    fn new() -> Self {
        let dir = TempDir::new().expect("a folder");
        fs::set_permissions(dir.path(), Permissions::from_mode(0o755)).expect("a mode");
        fs::write(dir.path().join("secret"), "a-secret-of-enough-length-0123").expect("a file");
        Self(dir)
    }

    fn configure(&self, lines: &str) {
        let text = format!("{PORTS}{lines}\n{ROUTE}");
        fs::write(self.0.path().join("relay.toml"), text).expect("a file");
    }

    /// Root's, and the group may read it.
    fn for_group(&self, name: &str, group: u32) {
        let path = self.0.path().join(name);
        chown(&path, Some(0), Some(group)).expect("root gives files away");
        fs::set_permissions(&path, Permissions::from_mode(0o640)).expect("a mode");
    }

    /// The exit code of `check`, and all that it says.
    fn check(&self, more: &[&str]) -> (Option<i32>, String) {
        let mut check = binary();
        check.args(["check", "-c", "relay.toml"]).args(more);
        let output = check.current_dir(self.0.path()).output().expect("it runs");
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        (output.status.code(), text)
    }

    fn says(&self, user: &str, code: i32, words: &str) {
        let (exit, text) = self.check(&["--user", user]);
        assert_eq!(exit, Some(code), "{text}");
        assert!(text.contains(words), "no {words:?} in {text}");
    }
}

#[test]
fn root_can_check_as_the_user_of_the_service() {
    let shared = Shared::new();
    shared.configure("");
    if !geteuid().is_root() {
        shared.says(DAEMON, 2, "only root can look as another user");
        return;
    }
    let secret = shared.0.path().join("secret");
    let outbox = "outbox.path = \"/tmp/no-such-folder-of-payrelay/outbox.db\"";
    shared.configure(&format!(
        "tcp.secrets = [\"file:{}\"]\n{outbox}",
        secret.display()
    ));
    let group = fs::read_to_string("/etc/group").expect("the groups");
    let group = group
        .lines()
        .find_map(|line| line.strip_prefix("daemon:x:")?.split(':').next());
    let group: u32 = group.expect("its group").parse().expect("a number");

    shared.for_group("relay.toml", group);
    shared.for_group("secret", 0);
    assert_eq!(shared.check(&[]).0, Some(0), "root reads every file");
    shared.says(
        DAEMON,
        78,
        "tcp.secrets[0]: this user may not read the file \"",
    );
    shared.says(DAEMON, 78, "/relay.toml:4:16: tcp.secrets");
    // Its group is enough, for the configuration too.
    shared.for_group("secret", group);
    shared.says(DAEMON, 0, "ok");
    shared.for_group("relay.toml", 0);
    shared.says(DAEMON, 78, "relay.toml: this user may not read the file");

    // A relative path begins at the home directory, as in the unit.
    shared.configure("outbox.path = \"box.db\"");
    shared.for_group("relay.toml", group);
    assert_eq!(shared.check(&[]).0, Some(0), "this folder is root's");
    shared.says(
        DAEMON,
        78,
        "its directory cannot be used: Permission denied",
    );

    shared.says("nobody-of-that-name", 2, "there is no such user");
    shared.says(
        "nobody",
        1,
        "its home directory /nonexistent, where the relay runs, cannot be entered",
    );
}

fn mode_of(path: &Path) -> u32 {
    path.metadata().expect("it is there").permissions().mode()
}
