//! `payrelay outbox`: what is stored, for people and for scripts.

mod hand_over;
mod listing;
mod transfer;

use std::io::IsTerminal;
use std::time::{SystemTime, UNIX_EPOCH};

use payrelay::notification::{BackendId, NotificationId};
use payrelay::outbox::State;
use serde_json::{Value, json};

use super::api::{Api, Node, Where, all_answered, escaped};
use super::terminal::{ProgressLine, Tone, out};
use super::{ConfigFile, Failure, print, print_json, say};

pub const HELP: &str = "\
Examples:
  payrelay outbox list --state dead
  payrelay outbox show 01M87NVVDXV24PCJFB00000000 --body
  payrelay outbox retry --state dead --backend game-01
  payrelay outbox drop 01M87NVVDXV24PCJFB00000000
  payrelay outbox forget evt_1PqXyz
  payrelay outbox backup outbox-copy.db
  payrelay outbox hand-over

It asks the running relay, at its admin port; list, show, retry, drop and forget also the nodes of its admin.nodes. States: pending (to be delivered), done (acknowledged, deleted after
outbox.keep), dead (given up; retry it or drop it).";

/// How many notifications are counted at most.
const COUNT_MAX: u64 = 10_000;

/// How many ids one order carries; the admin port takes small requests.
const IDS_AT_ONCE: usize = 100;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    what: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// List what is stored on all nodes of admin.nodes, of each the oldest first
    List {
        #[command(flatten)]
        filter: Filter,
        /// At most so many
        #[arg(long, value_name = "N", default_value_t = 100)]
        limit: usize,
        #[command(flatten)]
        at: Where,
    },
    /// Show one notification and what happened to it
    Show {
        /// Its id
        #[arg(value_parser = parse_id)]
        id: NotificationId,
        /// Its headers and its body too: payment data
        #[arg(long)]
        body: bool,
        #[command(flatten)]
        at: Where,
    },
    /// Deliver again, dead letters too, at once if the backend is there
    Retry(Change),
    /// Delete for good; whoever dropped it answers for it
    ///
    /// Without ids and --state, only dead ones. If pending ones are among them, it says how many and asks first.
    Drop {
        #[command(flatten)]
        change: Change,
        /// Drop pending ones without asking
        #[arg(long)]
        yes: bool,
    },
    /// Have a provider's next request for an event delivered again
    ///
    /// For the "resend" button of a provider, which sends the same event: without this it is answered ok as a duplicate. The nodes of
    /// admin.nodes forget it too. What is stored with the event is delivered all the same.
    Forget {
        /// The event key, as list, trace and the page show it
        event: String,
        #[command(flatten)]
        at: Where,
    },
    /// Write everything that is stored, one JSON object a line
    Export(transfer::ExportArgs),
    /// Add what another relay exported; what is there already is left as it is
    Import(transfer::ImportArgs),
    /// Have other nodes take over everything, before this one is removed
    ///
    /// With outbox.shared. From now on the relay stores and sends nothing, and /readyz is 503; it goes on serving its backends. Ends
    /// when nothing is left, after half of outbox.inherit_after at the earliest. A restart takes it back.
    HandOver {
        #[command(flatten)]
        at: Where,
    },
    /// Make a copy of the database while the relay runs
    Backup(transfer::CopyArgs),
    /// Save what the relay has open, when its files were deleted or damaged
    Rescue(transfer::CopyArgs),
}

/// Which notifications.
#[derive(Debug, Default, clap::Args)]
struct Filter {
    /// Only for this backend
    #[arg(long, value_parser = BackendId::parse)]
    backend: Option<BackendId>,
    /// Only in this state: pending, done or dead
    #[arg(long, value_parser = parse_state)]
    state: Option<State>,
    /// Only those that came in by the route of this name
    #[arg(long, value_name = "NAME")]
    route: Option<String>,
    /// Only with this event key
    #[arg(long)]
    event: Option<String>,
    /// Only those taken within this time: 90s, 30m, 12h, 7d
    #[arg(long, value_name = "TIME", value_parser = parse_since)]
    since: Option<u64>,
}

#[derive(Debug, clap::Args)]
struct Change {
    /// These; or say which with the options
    #[arg(value_parser = parse_id)]
    ids: Vec<NotificationId>,
    #[command(flatten)]
    filter: Filter,
    /// Everything
    #[arg(long, conflicts_with_all = ["ids", "backend", "state", "route", "event", "since"])]
    #[arg(required_unless_present_any = ["ids", "backend", "state", "route", "event", "since"])]
    all: bool,
    #[command(flatten)]
    at: Where,
}

/// Why an argument is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BadArgument {
    Id,
    State,
    Since,
}

impl std::fmt::Display for BadArgument {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Id => "an id has 26 characters of 0-9 A-Z",
            Self::State => "a state is pending, done or dead",
            Self::Since => "a time is a number and s, m, h or d, such as 12h",
        })
    }
}

impl std::error::Error for BadArgument {}

fn parse_id(word: &str) -> Result<NotificationId, BadArgument> {
    NotificationId::parse(word).ok_or(BadArgument::Id)
}

fn parse_state(word: &str) -> Result<State, BadArgument> {
    State::parse(word).ok_or(BadArgument::State)
}

/// Milliseconds back from now.
fn parse_since(word: &str) -> Result<u64, BadArgument> {
    let at = word.len() - word.chars().next_back().map_or(0, char::len_utf8);
    let (number, unit) = word.split_at(at);
    let unit_ms = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(BadArgument::Since),
    };
    let number: u64 = number.parse().map_err(|_| BadArgument::Since)?;
    number.checked_mul(unit_ms).ok_or(BadArgument::Since)
}

impl Filter {
    fn since_unix_ms(&self) -> Option<u64> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok()?;
        let back = self.since?;
        Some((now.as_millis() as u64).saturating_sub(back))
    }

    fn query(&self) -> String {
        let since = self.since_unix_ms().map(|ms| ms.to_string());
        let pairs = [
            ("backend", self.backend.as_ref().map(BackendId::as_str)),
            ("state", self.state.map(State::as_str)),
            ("route", self.route.as_deref()),
            ("event", self.event.as_deref()),
            ("since", since.as_deref()),
        ];
        let pair = |(key, value): (&str, Option<&str>)| Some(format!("&{key}={}", escaped(value?)));
        pairs.into_iter().filter_map(pair).collect()
    }

    fn order(&self) -> Value {
        json!({
            "backend": self.backend.as_ref().map(BackendId::as_str),
            "state": self.state.map(State::as_str),
            "route": self.route,
            "event": self.event,
            "since": self.since_unix_ms(),
        })
    }
}

pub fn run(config: &ConfigFile, args: Args) -> Result<(), Failure> {
    match args.what {
        Command::List { filter, limit, at } => listing::list(config, &filter, limit, &at),
        Command::Show { id, body, at } => listing::show(config, id, body, &at),
        Command::Retry(change) => order(config, &change, "/outbox/retry", "retried", false),
        Command::Forget { event, at } => forget(config, &event, &at),
        Command::HandOver { at } => hand_over::run(config, &at),
        Command::Export(args) => transfer::export(config, &args),
        Command::Import(args) => transfer::import(config, &args),
        Command::Backup(args) => transfer::backup(config, &args),
        Command::Rescue(args) => transfer::rescue(config, &args),
        Command::Drop { mut change, yes } => {
            let pending = may_drop(config, &mut change, yes)?;
            order(config, &change, "/outbox/drop", "dropped", pending)
        }
    }
}

fn order(
    config: &ConfigFile,
    change: &Change,
    target: &str,
    done: &str,
    pending: bool,
) -> Result<(), Failure> {
    let api = Api::of(config, &change.at)?;
    let (nodes, mut silent) = api.nodes()?;
    let mut sum = Sum::new(done);
    for node in &nodes {
        if let Err(failure) = order_of(&api, node, change, target, pending, &mut sum) {
            silent.push(format!("{}: {}", node.name, failure.words));
        }
    }
    let (changed, in_hand) = sum.end();
    if change.at.json {
        print_json(&json!({ "changed": changed, "in_hand": in_hand }))?;
    } else {
        let tone = if changed > 0 { Tone::Good } else { Tone::Odd };
        print(format_args!(
            "{}\n",
            out(tone, format_args!("{changed} {done}"))
        ))?;
        if in_hand > 0 {
            print(format_args!(
                "{in_hand} left alone: a session has them in hand just now\n"
            ))?;
        }
    }
    all_answered(&silent, "may have others of these")?;
    match changed + in_hand {
        0 => Err(Failure::new("the outbox has none of these")),
        _ => Ok(()),
    }
}

/// What an order came to so far.
struct Sum<'a> {
    changed: u64,
    in_hand: u64,
    /// What is done, in the past.
    done: &'a str,
    progress: ProgressLine,
}

impl<'a> Sum<'a> {
    fn new(done: &'a str) -> Self {
        Self {
            changed: 0,
            in_hand: 0,
            done,
            progress: ProgressLine::new(),
        }
    }

    /// Adds what one round came to, and says so: a backlog takes many.
    fn add(&mut self, answer: &Value) {
        self.changed += answer["changed"].as_u64().unwrap_or(0);
        self.in_hand += answer["in_hand"].as_u64().unwrap_or(0);
        let Self { changed, done, .. } = self;
        self.progress.show(format_args!("{changed} {done} so far"));
    }

    /// How many were changed, and how many a session has in hand.
    fn end(self) -> (u64, u64) {
        (self.changed, self.in_hand)
    }
}

/// Has one node do it.
fn order_of(
    api: &Api,
    node: &Node,
    change: &Change,
    target: &str,
    pending: bool,
    sum: &mut Sum<'_>,
) -> Result<(), Failure> {
    let ids: Vec<String> = change.ids.iter().map(ToString::to_string).collect();
    // Without ids there is one order, which may take several rounds.
    let mut chunks: Vec<&[String]> = ids.chunks(IDS_AT_ONCE).collect();
    if chunks.is_empty() {
        chunks.push(&[]);
    }
    for chunk in chunks {
        let mut after = 0;
        loop {
            let mut order = change.filter.order();
            order["ids"] = json!(chunk);
            order["all"] = change.all.into();
            order["after"] = after.into();
            order["pending"] = pending.into();
            let answer = api.order(&node.target(target), &order)?;
            sum.add(&answer);
            match answer["next"].as_i64() {
                Some(next) => after = next,
                None => break,
            }
        }
    }
    Ok(())
}

fn forget(config: &ConfigFile, event: &str, at: &Where) -> Result<(), Failure> {
    let api = Api::of(config, at)?;
    let order = json!({ "event": event });
    let (nodes, mut silent) = api.nodes()?;
    let (mut forgotten, mut asked) = (0_u64, Vec::new());
    for node in &nodes {
        match api.order(&node.target("/outbox/forget"), &order) {
            Ok(answer) => {
                forgotten += answer["forgotten"].as_u64().unwrap_or(0);
                asked.push(&node.name);
            }
            Err(failure) => silent.push(format!("{}: {}", node.name, failure.words)),
        }
    }
    if at.json {
        print_json(&json!({ "forgotten": forgotten, "nodes": asked, "silent": silent.len() }))?;
    } else if forgotten > 0 {
        print(format_args!("{forgotten} forgotten\n"))?;
    }
    all_answered(
        &silent,
        "may still know this event: ask again when they answer",
    )?;
    match forgotten {
        0 => Err(Failure::new(format_args!(
            "none of {} nodes knows this event as delivered or stored; if it is answered as a duplicate, ask again right after that",
            asked.len()
        ))),
        _ => Ok(()),
    }
}

/// Whether pending ones may be among what is deleted. Their providers were told ok, so that needs a question, if there are any.
fn may_drop(config: &ConfigFile, change: &mut Change, yes: bool) -> Result<bool, Failure> {
    if change.ids.is_empty() && change.filter.state.is_none() {
        change.filter.state = Some(State::Dead);
        change.all = false;
    }
    if yes || matches!(change.filter.state, Some(State::Dead | State::Done)) {
        return Ok(yes);
    }
    let api = Api::of(config, &change.at)?;
    let mut pending = 0;
    // One that does not answer, or has none of these, is the order's to tell of.
    for node in &api.nodes()?.0 {
        if change.ids.is_empty() {
            pending += listing::count(&api, node, &change.filter.query(), 0)?;
        }
        for id in &change.ids {
            let row = api.get(&node.target(&format!("/outbox/{id}")));
            pending += u64::from(row.is_ok_and(|row| row["state"] == "pending"));
        }
    }
    if pending == 0 {
        return Ok(false);
    }
    let words = format!(
        "{pending}{} of these are pending: their providers were told ok and will not send them again",
        if pending >= COUNT_MAX { " or more" } else { "" }
    );
    if !std::io::stdin().is_terminal() {
        return Err(Failure::new(format_args!(
            "{words}; nothing was dropped. To delete them all the same: --yes"
        )));
    }
    say(format_args!("{words}. Delete them for good? [y/N]"));
    let mut answer = String::new();
    let read = std::io::stdin().read_line(&mut answer);
    match read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes") {
        true => Ok(true),
        false => Err(Failure::new("nothing was dropped")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_back_have_a_unit() {
        assert_eq!(parse_since("90s"), Ok(90_000));
        assert_eq!(parse_since("7d"), Ok(604_800_000));
        for bad in [
            "",
            "s",
            "9",
            "9w",
            "-1h",
            "1.5h",
            "99999999999999999d",
            "9ä",
        ] {
            assert_eq!(parse_since(bad), Err(BadArgument::Since), "{bad}");
        }
    }
}
