//! `payrelay trace`: what became of a notification.

use payrelay::admin::api::{TraceAnswer, Traced};

use super::api::{Api, Where, escaped, name_silent, parsed, text, timeline};
use super::terminal::{Tone, out};
use super::text::one_line;
use super::{ConfigFile, Failure, print, print_json};

pub const HELP: &str = "\
Examples:
  payrelay trace 01M87NVVDXV24PCJFB00000000
  payrelay trace order-4711

The running relay is asked, and through it the nodes of its admin.nodes. Each knows every notification in its outbox, those
under way, and the latest 16,384 of the others.

Exit 0 if it was found, even if a node did not answer; else 1.";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A notification's id (X-Payrelay-Id), or an event key
    key: String,
    #[command(flatten)]
    at: Where,
}

pub fn run(config: &ConfigFile, args: &Args) -> Result<(), Failure> {
    let api = Api::of(config, &args.at)?;
    let mut found: Vec<Traced> = Vec::new();
    let mut asked = 0;
    let target = format!("/trace?key={}", escaped(&args.key));
    let silent = api.each_node(|node| {
        let answer: TraceAnswer = parsed(&api.get(&node.target(&target))?)?;
        asked += 1;
        found.extend(answer.found);
        Ok(())
    })?;
    for traced in &found {
        let message = serde_json::to_value(traced).map_err(Failure::new)?;
        if args.at.json {
            print_json(&message)?;
            continue;
        }
        print(format_args!(
            "{} for {} ({}) event={}\n{}\n",
            text(&message, "id"),
            text(&message, "backend"),
            out(Tone::of_state(&traced.state), one_line(&traced.state)),
            text(&message, "event"),
            timeline(&message),
        ))?;
    }
    name_silent(&silent);
    match found.is_empty() {
        true => Err(Failure::new(format_args!(
            "none of {} nodes that answered knows of one: too long ago, or at a node that is not in admin.nodes",
            asked
        ))),
        false => Ok(()),
    }
}
