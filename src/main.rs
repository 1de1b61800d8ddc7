//! The binary: arguments in, exit code out. What it does is in `cli`; how to talk to a relay, in `client`; what a relay is, is in the library.

#![cfg_attr(
    not(test),
    warn(
        clippy::expect_used,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod cli;
mod client;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
