//! How the relay's memory is handed out: by glibc, without a cache of each thread's own.
//!
//! glibc keeps what a thread frees for that thread's next use, seven pieces of every size up to 1,032 bytes. A session's
//! thread frees the notifications that others have allocated, and never needs their like: what it kept was 8 KiB after
//! five small bodies, and could become 200, times thousands of sessions. glibc takes that setting only from the
//! environment, when a program starts. So the relay starts itself once more, in the same process.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};

/// Where glibc looks for its settings.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// The setting.
const NO_CACHES: &str = "glibc.malloc.tcache_count=0";

/// Holds the process's id once it has started again. A program with capabilities of its own is not shown the tunables,
/// and would start again for ever.
const STARTED_AGAIN: &str = "PAYRELAY_STARTED_AGAIN";

/// Goes on with malloc as the relay needs it: starts this program again, unless it has been, or runs on another C library.
/// Tunables that an operator has set stay as they are: glibc cuts them off at the first colon as it reads them, so they
/// cannot be added to. What is open should be closed on exec; nothing else of the process changes.
///
/// # Errors
/// It cannot be started again. It can go on all the same, with more memory for each session.
pub fn without_thread_caches() -> io::Result<()> {
    let own_id = process::id().to_string();
    let again = env::var_os(STARTED_AGAIN).is_some_and(|id| id == *own_id);
    if !cfg!(target_env = "gnu") || again || env::var_os(TUNABLES).is_some() {
        return Ok(());
    }
    let mut args = env::args_os();
    let program = env::current_exe()?; // not by a link in procfs: its name would become the process's
    let name = args.next().unwrap_or_else(|| program.clone().into());
    Err(Command::new(program)
        .arg0(name)
        .args(args)
        .env(TUNABLES, NO_CACHES)
        .env(STARTED_AGAIN, own_id)
        .exec())
}
