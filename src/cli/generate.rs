//! `payrelay completions` and `payrelay man`: what shells and `man` know of the command line, made from the command line itself.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use super::{Failure, print_bytes};

pub const COMPLETIONS_HELP: &str = "\
Examples:
  payrelay completions bash > /etc/bash_completion.d/payrelay
  payrelay completions zsh > /usr/local/share/zsh/site-functions/_payrelay
  payrelay completions fish > ~/.config/fish/completions/payrelay.fish

The packages bring them already.";

pub const MAN_HELP: &str = "\
Example:
  payrelay man /usr/local/share/man/man1

It writes payrelay.1, and one for each command, such as payrelay-outbox-list.1. The packages bring them already.";

#[derive(Debug, clap::Args)]
pub struct CompletionsArgs {
    /// The shell
    shell: Shell,
}

#[derive(Debug, clap::Args)]
pub struct ManArgs {
    /// The folder to write to; it must be there
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

pub fn completions(args: &CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    let mut command = super::Args::command();
    clap_complete::generate(args.shell, &mut command, "payrelay", &mut script);
    print_bytes(&script)
}

pub fn man(args: &ManArgs) -> Result<(), Failure> {
    let command = super::Args::command().disable_help_subcommand(true);
    let folder = args.folder.display();
    clap_mangen::generate_to(command, &args.folder)
        .map_err(|error| Failure::new(format_args!("cannot write to {folder}: {error}")))
}
