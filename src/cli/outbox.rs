//! `payrelay outbox`: what is stored, for people and for scripts.

mod hand_over;
mod listing;
mod orders;
mod transfer;

use payrelay::notification::{BackendId, NotificationId, unix_ms};
use payrelay::outbox::State;
use serde_json::{Value, json};

use super::api::{Where, escaped};
use super::{ConfigFile, Failure};

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

const BAD_ID: &str = "an id has 26 characters of 0-9 A-Z";
const BAD_STATE: &str = "a state is pending, done or dead";
const BAD_SINCE: &str = "a time is a number and s, m, h or d, such as 12h";

fn parse_id(word: &str) -> Result<NotificationId, &'static str> {
    NotificationId::parse(word).ok_or(BAD_ID)
}

fn parse_state(word: &str) -> Result<State, &'static str> {
    State::parse(word).ok_or(BAD_STATE)
}

/// Milliseconds back from now.
fn parse_since(word: &str) -> Result<u64, &'static str> {
    let at = word.len() - word.chars().next_back().map_or(0, char::len_utf8);
    let (number, unit) = word.split_at(at);
    let unit_ms = match unit {
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return Err(BAD_SINCE),
    };
    let number: u64 = number.parse().map_err(|_| BAD_SINCE)?;
    number.checked_mul(unit_ms).ok_or(BAD_SINCE)
}

impl Filter {
    fn since_unix_ms(&self) -> Option<u64> {
        Some(unix_ms().saturating_sub(self.since?))
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
        Command::Retry(change) => orders::order(config, &change, "/outbox/retry", "retried", false),
        Command::Forget { event, at } => orders::forget(config, &event, &at),
        Command::HandOver { at } => hand_over::run(config, &at),
        Command::Export(args) => transfer::export(config, &args),
        Command::Import(args) => transfer::import(config, &args),
        Command::Backup(args) => transfer::backup(config, &args),
        Command::Rescue(args) => transfer::rescue(config, &args),
        Command::Drop { mut change, yes } => {
            let pending = orders::may_drop(config, &mut change, yes)?;
            orders::order(config, &change, "/outbox/drop", "dropped", pending)
        }
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
            assert_eq!(parse_since(bad), Err(BAD_SINCE), "{bad}");
        }
    }
}
