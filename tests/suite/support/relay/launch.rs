//! How the binary is started.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::{env, fs};

use super::super::overlay::overlay;
use super::super::{DEADLINE, Process};
use super::{BASE, NOBODY, Ready, Setup};

/// Names a program and its options, under which every relay is started that has none of its own.
pub const UNDER: &str = "PAYRELAY_TEST_UNDER";

/// Starts the binary in `dir` and waits for its ready line.
pub(super) fn launch(dir: &Path, setup: &Setup) -> (Process, Ready) {
    let file = dir.join("relay.toml");
    fs::write(&file, overlay(BASE, &setup.toml)).expect("relay.toml is written");
    if let Some(name) = setup.pipe {
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mkfifoat(rustix::fs::CWD, dir.join(name), mode).expect("a pipe");
    }
    let of_all = env::var(UNDER).ok();
    let under = setup.under.as_deref().or(of_all.as_deref());
    // exec keeps the process id, so signals and /proc still mean the relay.
    let script = match (setup.nofile, setup.unread_log, under) {
        (Some(files), ..) => Some(format!("ulimit -n {files} && exec \"$0\" \"$@\"")),
        (None, true, _) => Some("mkfifo log && exec \"$0\" \"$@\" 2<>log".to_owned()),
        (None, false, Some(program)) => Some(format!("exec {program} \"$0\" \"$@\"")),
        (None, false, None) => None,
    };
    let mut command = match script {
        None => binary(),
        Some(script) => {
            let mut shell = Command::new("sh");
            shell.arg("-c").arg(script);
            shell.arg(env!("CARGO_BIN_EXE_payrelay"));
            shell
        }
    };
    // What a killed relay leaves in its temporary folder goes with the test's own.
    command.env("TMPDIR", dir);
    if setup.nobody {
        chown(dir, Some(NOBODY), Some(NOBODY)).expect("root gives folders away");
        chown(&file, Some(NOBODY), Some(NOBODY)).expect("root gives files away");
        command = Command::new(dir.join("payrelay"));
        // The way to the program may be closed to him.
        copy_binary(&dir.join("payrelay"));
        command.env("TMPDIR", dir).uid(NOBODY).gid(NOBODY);
    }
    if setup.panics {
        fs::create_dir(dir.join("faults")).expect("a folder for faults");
        command.env("PAYRELAY_TEST_FAULTS", dir.join("faults"));
    }
    command.envs(setup.env.iter().map(|(name, value)| (name, value)));
    command.arg("run").arg("-c").arg(&file).current_dir(dir);
    let process = Process::start("the relay", command);
    let (_, line) = process.wait_line(0, |_| true);
    (process, Ready::parse(&line))
}

/// The relay's binary, to be given arguments.
pub fn binary() -> Command {
    Command::new(env!("CARGO_BIN_EXE_payrelay"))
}

/// Makes a copy of the binary that can be run at once: a file open for writing here would be open in what another thread starts
/// meanwhile, too, and could not be run until that is another program.
pub fn copy_binary(to: &Path) {
    let mut copy = Command::new("cp");
    copy.arg(env!("CARGO_BIN_EXE_payrelay")).arg(to);
    let done = copy.status().expect("cp runs");
    assert!(done.success(), "no copy of the program: {done}");
}

/// Runs the binary to its end: exit code, standard output, standard error.
pub fn run(args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = binary();
    command.args(args);
    let mut process = Process::start("payrelay", command);
    let code = process.wait_exit(DEADLINE);
    (code, process.stdout(), process.stderr())
}
