//! Being another user, as root can: the files of the relay are looked at as the relay's own user sees them.

use std::env;
use std::process::Command;

use rustix::process::{Gid, Uid, geteuid};
use rustix::thread::{set_thread_gid, set_thread_groups, set_thread_uid};

use super::Failure;

/// Makes this process one of the user `name`, with the groups of that user and in its home directory, for good.
///
/// The system's own programs are asked who that is, so that users of a directory service are found too.
///
/// # Errors
/// This process is not root's, there is no such user, or its home directory cannot be entered.
pub fn switch_to(name: &str) -> Result<(), Failure> {
    if !geteuid().is_root() {
        return Err(Failure::usage(format_args!(
            "--user {name}: only root can look as another user; put sudo before it"
        )));
    }
    let unknown = || Failure::usage(format_args!("--user {name}: there is no such user"));
    let entry = answer("getent", &["passwd", name])?.ok_or_else(unknown)?;
    let fields: Vec<&str> = entry.trim_end().split(':').collect();
    let &[_, _, uid, gid, _, home, _] = fields.as_slice() else {
        return Err(unknown());
    };
    let (Ok(uid), Ok(gid)) = (uid.parse(), gid.parse()) else {
        return Err(unknown());
    };
    let groups = answer("id", &["-G", name])?.ok_or_else(unknown)?;
    let groups: Vec<Gid> = groups
        .split_whitespace()
        .filter_map(|group| group.parse().ok().map(Gid::from_raw))
        .collect();
    // Of a thread alone, but there is no other yet, and those to come take it from this one.
    set_thread_groups(&groups)
        .and_then(|()| set_thread_gid(Gid::from_raw(gid)))
        .and_then(|()| set_thread_uid(Uid::from_raw(uid)))
        .map_err(|error| Failure::new(format_args!("--user {name}: {error}")))?;
    env::set_current_dir(home).map_err(|error| {
        Failure::new(format_args!(
            "--user {name}: its home directory {home}, where the relay runs, cannot be entered: {error}"
        ))
    })
}

/// What a program of the system prints; `None` if it knows nothing of what is asked.
fn answer(program: &str, args: &[&str]) -> Result<Option<String>, Failure> {
    let output = Command::new(program)
        .args(args)
        .output()
        .map_err(|error| Failure::new(format_args!("--user: cannot run {program}: {error}")))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    Ok(output.status.success().then_some(text))
}
