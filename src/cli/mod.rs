//! The command line: arguments, exit codes, and one file for each subcommand.
//!
//! What people read goes to standard output, what went wrong to standard error. Nothing here knows how a relay works.

mod api;
mod bench;
mod check;
mod config_file;
mod failure;
mod generate;
mod glibc;
mod init;
mod keys;
mod listen;
mod outbox;
mod place;
mod run;
mod send;
mod service;
mod status;
mod stop;
mod tail;
mod terminal;
mod text;
mod tls;
mod token;
mod trace;
mod user;
mod verify;

use std::fmt::Display;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use serde::Serialize;

use self::config_file::ConfigFile;
use self::failure::{EXIT_USAGE, Failure};

/// Relays payment callbacks from HTTP to Lua backends on plain TCP, and answers ok only after the backend's ACK.
///
/// Without a subcommand it runs the relay.
#[derive(Debug, Parser)]
#[command(name = "payrelay", version, long_about = None, after_help = EXAMPLES)]
struct Args {
    /// The configuration [default: relay.toml in the current directory, or else /etc/payrelay/relay.toml]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "\
Try it, in three terminals:
  payrelay                             # the relay, with ./relay.toml
  payrelay listen game-01              # a backend that prints what comes
  payrelay send game-01 --body hello   # a provider's callback

Exit codes: 0 ok, 1 failure, 2 usage, 78 configuration.";

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the relay (also without any subcommand)
    #[command(after_help = run::HELP)]
    Run,
    /// Write a configuration for your providers, and say what to do next
    #[command(after_help = init::HELP)]
    Init(init::Args),
    /// Check the configuration and say everything that is wrong with it
    #[command(after_help = check::HELP)]
    Check(check::Args),
    /// Print the token with which a backend connects
    #[command(after_help = token::HELP)]
    Token(token::Args),
    /// Be a backend: print what comes and acknowledge it
    #[command(after_help = listen::HELP)]
    Listen(listen::Args),
    /// Be a provider: post a test callback and print the answer
    #[command(after_help = send::HELP)]
    Send(send::Args),
    /// Tell whether a route would believe a captured callback, and if not, why
    #[command(after_help = verify::HELP)]
    Verify(verify::Args),
    /// Bring the keys with which providers sign
    #[command(subcommand, after_help = keys::HELP)]
    Keys(keys::Args),
    /// Look at what is stored, deliver it again, or drop it
    #[command(after_help = outbox::HELP)]
    Outbox(outbox::Args),
    /// Tell what became of a notification
    #[command(after_help = trace::HELP)]
    Trace(trace::Args),
    /// Tell which backends are connected, on all nodes
    #[command(after_help = status::HELP)]
    Status(status::Args),
    /// Follow notifications and refusals as they come
    #[command(after_help = tail::HELP)]
    Tail(tail::Args),
    /// Measure a running relay: rate, latency, and whether everything arrives once
    #[command(after_help = bench::HELP)]
    Bench(bench::Args),
    /// Print what a shell needs to complete commands and options
    #[command(after_help = generate::COMPLETIONS_HELP)]
    Completions(generate::CompletionsArgs),
    /// Write the manual pages
    #[command(after_help = generate::MAN_HELP)]
    Man(generate::ManArgs),
}

/// Does what the arguments say.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) => {
            // --help and --version come here too. A closed terminal is no reason for another exit code.
            let _ = error.print();
            if let Some(file) = misplaced_file(&error) {
                say(format_args!(
                    "name the configuration with -c, as in payrelay check -c {file}"
                ));
            }
            return ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(EXIT_USAGE));
        }
    };
    let config = ConfigFile::new(args.config);
    let done = match args.command.unwrap_or(Command::Run) {
        Command::Run => run::run(&config),
        Command::Init(args) => init::run(&config, args),
        Command::Check(args) => check::run(&config, &args),
        Command::Token(args) => token::run(&config, &args),
        Command::Listen(args) => listen::run(&config, args),
        Command::Send(args) => send::run(&config, &args),
        Command::Verify(args) => verify::run(&config, &args),
        Command::Keys(args) => keys::run(&args),
        Command::Outbox(args) => outbox::run(&config, args),
        Command::Trace(args) => trace::run(&config, &args),
        Command::Status(args) => status::run(&config, &args),
        Command::Tail(args) => tail::run(&config, &args),
        Command::Bench(args) => bench::run(&config, &args),
        Command::Completions(args) => generate::completions(&args),
        Command::Man(args) => generate::man(&args),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            failure.tell();
            ExitCode::from(failure.code)
        }
    }
}

/// The configuration's file that was given without `-c`, if that is what is wrong with the arguments.
fn misplaced_file(error: &clap::Error) -> Option<&str> {
    use clap::error::{ContextKind, ContextValue};
    [ContextKind::InvalidArg, ContextKind::InvalidSubcommand]
        .into_iter()
        .find_map(|kind| match error.get(kind) {
            Some(ContextValue::String(text)) => Some(text.as_str()),
            _ => None,
        })
        .filter(|text| text.ends_with(".toml"))
}

/// Writes `text` to standard output, now.
fn print(text: impl Display) -> Result<(), Failure> {
    print_bytes(text.to_string().as_bytes())
}

/// Writes `bytes` to standard output, now.
fn print_bytes(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    out.write_all(bytes)
        .and_then(|()| out.flush())
        .map_err(Failure::cannot_print)
}

/// Writes `value` to standard output as JSON, on one line.
fn print_json(value: &impl Serialize) -> Result<(), Failure> {
    let line = serde_json::to_string(value).map_err(|error| Failure::cannot_print(error.into()))?;
    print(format_args!("{line}\n"))
}

/// Says something to the person at the terminal, on standard error. With that closed there is nobody to tell.
fn say(words: impl Display) {
    let _ = writeln!(io::stderr(), "payrelay: {words}");
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use std::path::Path;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn run_is_the_default_and_the_file_may_stand_anywhere() {
        for line in [
            &["payrelay", "-c", "x.toml"][..],
            &["payrelay", "run", "-c", "x.toml"],
            &["payrelay", "-c", "x.toml", "run"],
        ] {
            let args = Args::try_parse_from(line).expect("valid");
            assert_eq!(args.config.as_deref(), Some(Path::new("x.toml")));
            assert!(matches!(args.command, None | Some(Command::Run)));
        }
    }

    #[test]
    fn every_subcommand_shows_an_example() {
        for command in Args::command().get_subcommands() {
            if command.get_name() == "help" {
                continue;
            }
            let help = command.get_after_help().map(ToString::to_string);
            let example = format!("  payrelay {}", command.get_name());
            assert!(
                help.is_some_and(|help| help.contains(&example)),
                "{}",
                command.get_name()
            );
        }
    }

    #[test]
    fn wrong_arguments_are_usage_errors() {
        for line in [
            &["payrelay", "nothing"][..],
            &["payrelay", "token"],
            &["payrelay", "token", "no spaces"],
            &["payrelay", "token", ""],
            &["payrelay", "listen", "a", "--max", "0"],
            &["payrelay", "listen", "a", "--max", "1025"],
            &["payrelay", "listen", "a", "--count", "0"],
            &["payrelay", "listen", "a", "--nack", "--exec", "true"],
            &["payrelay", "send", "a", "--body", "x", "--file", "y"],
            &[
                "payrelay",
                "send",
                "a",
                "--url",
                "http://x/",
                "--connect",
                "y:1",
            ],
            &["payrelay", "send", "a", "--header", "no colon"],
            &["payrelay", "outbox"],
            &["payrelay", "outbox", "list", "--state", "lost"],
            &["payrelay", "outbox", "list", "--since", "soon"],
            &["payrelay", "outbox", "show", "42"],
            &["payrelay", "outbox", "drop"],
            &["payrelay", "outbox", "retry", "--all", "--state", "dead"],
            &["payrelay", "trace"],
            &["payrelay", "status", "game-01"],
            &["payrelay", "status", "--backend", "no spaces"],
            &["payrelay", "send", "a", "--header", "a: b\r\nc: d"],
            &["payrelay", "bench", "--total", "5", "--duration", "5s"],
            &["payrelay", "bench", "--duration", "5"],
            &["payrelay", "bench", "--body", "79B"],
            &["payrelay", "bench", "--backends", "0"],
            &["payrelay", "bench", "--rate", "0"],
            &["payrelay", "bench", "--concurrency", "4097"],
        ] {
            let error = Args::try_parse_from(line).expect_err("a usage error");
            assert_eq!(error.exit_code(), i32::from(EXIT_USAGE), "{line:?}");
        }
    }
}
