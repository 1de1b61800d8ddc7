//! A program in a terminal, as `script` gives it one.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use tempfile::TempDir;

use super::{DEADLINE, Process};

/// What is shown when the program has ended.
const SAID: &str = "ALL-IS-SAID";

/// A shell's command line that runs in a terminal.
pub struct Terminal {
    script: Process,
    dir: TempDir,
}

impl Terminal {
    /// Starts `line`; `set` says where, and with which variables.
    pub fn start(line: &str, set: impl FnOnce(&mut Command)) -> Self {
        let dir = TempDir::new().expect("a folder");
        let seen = seen(&dir);
        // `script` ends soon after the shell, and may lose what was said last: the shell waits until it was seen.
        let run = format!(
            "{line}; code=$?; echo; echo {SAID}; until [ -e {} ]; do sleep 0.02; done; exit $code",
            seen.display()
        );
        let mut script = Command::new("script");
        script.args(["-qefc", &run, "/dev/null"]);
        set(&mut script);
        let script = Process::start("script", script);
        Self { script, dir }
    }

    /// Waits until a line with `words` is shown.
    pub fn shows(&self, words: &str) {
        self.script.wait_line(0, |line| line.contains(words));
    }

    /// Waits for the end: the exit code, and all that was shown.
    pub fn end(mut self) -> (Option<i32>, String) {
        self.shows(SAID);
        fs::write(seen(&self.dir), "").expect("a file");
        let code = self.script.wait_exit(DEADLINE);
        let shown = self.script.stdout();
        let (shown, _) = shown.rsplit_once(SAID).expect("it was shown");
        (code, shown.trim_end_matches(['\r', '\n']).to_owned())
    }
}

fn seen(dir: &TempDir) -> PathBuf {
    dir.path().join("seen")
}
