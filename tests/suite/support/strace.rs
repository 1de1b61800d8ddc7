//! Looking on at the relay's calls to the system, or making some of them fail.

use std::process::Command;

use super::{Process, Relay, eventually};

/// Lets strace at `relay` with `args`, from now until it is dropped; what it sees is in `strace.txt` of the relay's folder.
/// `None`, loudly, where that may not be.
pub fn strace(relay: &Relay, args: &[&str]) -> Option<Process> {
    let mut command = Command::new("strace");
    command
        .arg("-f")
        .args(args)
        .args(["-p", &relay.process().pid().to_string(), "-o"])
        .arg(relay.path("strace.txt"));
    let process = Process::start("strace", command);
    let mut attached = false;
    eventually("strace looks on, or may not", || {
        let said = process.stderr();
        attached = said.contains("attached");
        attached || said.contains("not permitted") || said.contains("Could not attach")
    });
    if !attached {
        eprintln!(
            "NOT TESTED: strace may not look on here: {}",
            process.stderr()
        );
        return None;
    }
    Some(process)
}
