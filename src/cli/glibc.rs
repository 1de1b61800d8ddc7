//! What glibc does with a thread's memory, set up for thousands of threads.
//!
//! malloc keeps what a thread frees for that thread's next use, seven pieces of every size up to 1,032 bytes. A session's
//! thread frees the notifications that others have allocated, if it reads the ACKs itself, and never needs their like: what it
//! kept was 8 KiB after five small bodies, and could become 200, times thousands of sessions. What is left of a HELLO alone
//! would be 1.5. And every stack begins with room for the variables of libraries that would be loaded later into name spaces of
//! their own: 0.8 KiB, which is what a session may need to stay within two pages. glibc takes these settings only from the
//! environment, when a program starts. So the relay starts itself once more, in the same process.

use std::env;
use std::io;
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::sync::Arc;

use signal_hook::consts::SIGPIPE;
use signal_hook::flag;

/// Where glibc looks for its settings.
const TUNABLES: &str = "GLIBC_TUNABLES";

/// No caches; no list of small free pieces (`mxfast`), which without caches is gone through whenever 1 KiB or more is allocated,
/// so for every notification's body; no name spaces but the program's.
const SETTINGS: &str = "glibc.malloc.tcache_count=0:glibc.malloc.mxfast=0:glibc.rtld.nns=1";

/// Holds the process's id once it has started again. A program with capabilities of its own is not shown the tunables,
/// and would start again for ever.
const STARTED_AGAIN: &str = "PAYRELAY_STARTED_AGAIN";

/// Goes on with glibc as the relay needs it: starts this program again, unless it has been, or runs on another C library.
/// Tunables that an operator has set stay as they are: glibc cuts them off at the first colon as it reads them, so they
/// cannot be added to. What is open should be closed on exec; nothing else of the process changes.
///
/// # Errors
/// It cannot be started again. It can go on all the same, with more memory for each session.
pub fn set_up() -> io::Result<()> {
    let own_id = process::id().to_string();
    let again = env::var_os(STARTED_AGAIN).is_some_and(|id| id == *own_id);
    if !cfg!(target_env = "gnu") || again || env::var_os(TUNABLES).is_some() {
        return Ok(());
    }
    let mut args = env::args_os();
    let program = env::current_exe()?; // not by a link in procfs: its name would become the process's
    let name = args.next().unwrap_or_else(|| program.clone().into());
    let failed = Command::new(program)
        .arg0(name)
        .args(args)
        .env(TUNABLES, SETTINGS)
        .env(STARTED_AGAIN, own_id)
        .exec();
    // What was to be another program has been given SIGPIPE back, which would end this one at the first broken connection.
    flag::register(SIGPIPE, Arc::default())?;
    Err(failed)
}
