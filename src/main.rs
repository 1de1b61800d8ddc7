//! The binary: arguments in, exit code out. What it does is in `cli`; what a relay is, is in the library.

mod cli;

use std::process::ExitCode;

fn main() -> ExitCode {
    cli::main()
}
