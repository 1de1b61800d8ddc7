//! Reading the file itself: what cannot be read, and who else can.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::super::load::unreadable;
use super::super::{Config, Position};
use super::LEAST;

/// A file with `bytes` in it and `mode`, gone with its directory.
struct Scratch {
    path: PathBuf,
    _directory: tempfile::TempDir,
}

impl Scratch {
    fn new(bytes: &[u8], mode: u32) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("relay.toml");
        let mut file = fs::File::create(&path).unwrap();
        file.write_all(bytes).unwrap();
        file.set_permissions(Permissions::from_mode(mode)).unwrap();
        Self {
            path,
            _directory: directory,
        }
    }

    /// The one error of loading it, without the file's name.
    fn error(&self) -> String {
        let errors = Config::load(&self.path).unwrap_err().to_string();
        errors.replace(&self.path.display().to_string(), "FILE")
    }
}

#[test]
fn a_file_is_taken_and_named_in_its_errors() {
    let file = Scratch::new(LEAST.as_bytes(), 0o644);
    assert_eq!(Config::load(&file.path), Config::parse(LEAST, "x"));
    let file = Scratch::new(b"x = 1\n[[route]]\npath = '/{id}'", 0o644);
    assert_eq!(
        file.error(),
        "FILE:1:1: x: unknown key; known here: node, http, tcp, delivery, outbox, redis, admin, log, route"
    );
}

#[test]
fn what_cannot_be_read_says_what_to_do() {
    let mut file = Scratch::new(b"", 0o644);
    file.path.set_file_name("absent.toml");
    assert_eq!(
        file.error(),
        "FILE: there is no such file; name yours with -c, as in payrelay check -c FILE"
    );
    file.path.pop();
    assert_eq!(
        file.error(),
        "FILE: the file cannot be read (is a directory); name another with -c, as in payrelay check -c FILE"
    );
    // Not by opening one: root, as whom tests may run, may read every file.
    assert_eq!(
        unreadable(io::ErrorKind::PermissionDenied),
        "this user may not read the file; change its owner or mode, or name another with -c FILE"
    );
}

#[test]
fn what_is_no_text_says_where() {
    let file = Scratch::new(b"# caf\xc3\xa9\n# caf\xe9\n", 0o644);
    let errors = Config::load(&file.path).unwrap_err();
    let [error] = &errors.iter().collect::<Vec<_>>()[..] else {
        panic!("{errors}")
    };
    assert_eq!(error.place, Some(Position { line: 2, column: 6 }));
    assert_eq!(
        file.error(),
        "FILE:2:6: the file is not UTF-8 from here on; save it as UTF-8"
    );
}

#[test]
fn what_is_too_big_is_not_read() {
    let file = Scratch::new(b"", 0o644);
    let sparse = fs::OpenOptions::new().write(true).open(&file.path).unwrap();
    sparse.set_len((16 << 20) + 1).unwrap();
    assert_eq!(
        file.error(),
        "FILE: the file is too big; at most 16 MiB are read"
    );
}

#[test]
fn a_secret_in_a_file_of_its_own_is_read_with_care() {
    let route = |path: &Path| {
        let path = path.display();
        format!("[[route]]\npath = \"/{{id}}\"\nverify = \"stripe\"\nsecrets = [\"file:{path}\"]\n")
    };
    let said = |file: &Scratch| match Config::parse(&route(&file.path), "relay.toml") {
        Ok(config) => config.warnings.join("\n"),
        Err(errors) => errors.to_string(),
    };
    for (bytes, mode, words) in [
        (&b"hunter2"[..], 0o600, ""),
        (
            b"hunter2",
            0o644,
            "relay.toml:4:12: route[0].secrets[0]: other users can read \"FILE\"; close it to them with: chmod o= \"FILE\"",
        ),
        (
            b"\xff",
            0o600,
            "relay.toml:4:12: route[0].secrets[0]: the file \"FILE\" is not text",
        ),
        (
            &[b'x'; 65537],
            0o600,
            "relay.toml:4:12: route[0].secrets[0]: the file \"FILE\" is too big for a key; at most 64 KiB",
        ),
    ] {
        let file = Scratch::new(bytes, mode);
        let name = file.path.display().to_string();
        // For root, whose file it may be, and for others the same.
        let said = said(&file).replace("chmod go=", "chmod o=");
        assert_eq!(said.replace(&name, "FILE"), words);
    }
}

#[test]
fn secrets_in_a_file_that_others_can_read_are_warned_of() {
    let secret = format!("tcp.secrets = [\"0123456789abcdef\"]\n{LEAST}");
    let token = format!("admin.token = \"0123456789abcdef\"\n{LEAST}");
    // A file of root may be its group's to read.
    let (for_group, close) = match rustix::process::geteuid().is_root() {
        true => (false, "chmod o="),
        false => (true, "chmod go="),
    };
    for (text, mode, warned) in [
        (secret.as_str(), 0o600, false),
        (secret.as_str(), 0o640, for_group),
        (token.as_str(), 0o604, true),
        (LEAST, 0o644, false),
    ] {
        let file = Scratch::new(text.as_bytes(), mode);
        let warnings = Config::load(&file.path).unwrap().warnings;
        let name = file.path.display();
        let wanted = format!(
            "{name}: holds secrets and other users can read it; close it to them with: {close} {name}"
        );
        assert_eq!(
            warnings,
            if warned { vec![wanted] } else { vec![] },
            "{mode:o}"
        );
    }
}

#[test]
fn the_group_of_a_file_may_read_it_if_root_owns_it() {
    use std::os::unix::fs::chown;
    if !rustix::process::geteuid().is_root() {
        return; // only root gives files away
    }
    let text = format!("tcp.secrets = [\"0123456789abcdef\"]\n{LEAST}");
    let file = Scratch::new(text.as_bytes(), 0o640);
    let warnings = || Config::load(&file.path).unwrap().warnings.len();
    chown(&file.path, None, Some(65_534)).unwrap();
    assert_eq!(warnings(), 0);
    chown(&file.path, Some(65_534), None).unwrap();
    assert_eq!(warnings(), 1);
}
