//! `payrelay trace`: what became of a notification.

use super::api::{Api, Where, escaped, text, timeline};
use super::{ConfigFile, Failure, print};

pub const HELP: &str = "\
Examples:
  payrelay trace 01M87NVVDXV24PCJFB00000000
  payrelay trace order-4711

The running relay is asked. It knows every notification in its outbox, those under way, and the latest 16,384 of the
others; other nodes have their own.";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A notification's id (X-Payrelay-Id), or an event key
    key: String,
    #[command(flatten)]
    at: Where,
}

pub fn run(config: &ConfigFile, args: &Args) -> Result<(), Failure> {
    let api = Api::of(config, &args.at)?;
    let answer = api.get(&format!("/trace?key={}", escaped(&args.key)))?;
    let found = answer["found"].as_array().cloned().unwrap_or_default();
    for message in &found {
        if args.at.json {
            print(format_args!("{message}\n"))?;
            continue;
        }
        print(format_args!(
            "{} for {} ({}) event={}\n{}\n",
            text(message, "id"),
            text(message, "backend"),
            text(message, "state"),
            text(message, "event"),
            timeline(message),
        ))?;
    }
    if found.is_empty() {
        return Err(Failure::new(
            "this relay knows of none: too long ago, or at another node",
        ));
    }
    Ok(())
}
