//! `payrelay tail`: notifications and refusals as they come, of all nodes.
//!
//! It asks for `GET /notifications`, whose answer is short while nothing is new, and for the counts of `GET /health`; so it costs a relay as
//! much as an open page does.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::time::Duration;

use payrelay::admin::api::{HealthAnswer, Listed, RefusalCount, Summary};
use payrelay::notification::BackendId;
use serde_json::json;

use super::api::{self, Api, Where, escaped, parsed, time};
use super::terminal::{Tone, out};
use super::text::{one_line, one_line_after};
use super::{ConfigFile, Failure, print, say};

pub const HELP: &str = "\
Examples:
  payrelay tail
  payrelay tail --backend game-01 -n 0
  payrelay tail --json | jq .

A line is written when a notification is concluded (delivered, stored as pending, refused …), again when a stored one is acknowledged
or given up, and when requests, signatures or backends are refused: one line a reason and second, with how many there were. The running
relay is asked, and through it the nodes of its admin.nodes. It goes on until it is ended (Ctrl-C), or --count lines are written.

Exit 0 after --count lines, 1 if the relay does not answer at the start.";

/// How often each node is asked.
const EVERY: Duration = Duration::from_secs(1);

/// The most in one answer.
const PAGE: usize = 500;

/// The most pages that are asked for in one round: a relay that takes more in a second is not for reading along.
const PAGES_MAX: usize = 20;

/// The latest notifications of each node whose states are remembered.
const KNOWN_MAX: usize = 2 * PAGE * PAGES_MAX;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only notifications for this backend, and no refusals
    #[arg(long, value_name = "ID", value_parser = BackendId::parse)]
    backend: Option<BackendId>,

    /// Only notifications of the route of this name, and no refusals
    #[arg(long, value_name = "NAME")]
    route: Option<String>,

    /// So many of the latest notifications first
    #[arg(short = 'n', long, value_name = "N", default_value_t = 10)]
    lines: usize,

    /// End after so many lines
    #[arg(long, value_name = "N")]
    count: Option<NonZeroU64>,

    #[command(flatten)]
    at: Where,
}

pub fn run(config: &ConfigFile, args: &Args) -> Result<(), Failure> {
    let api = Api::of(config, &args.at)?;
    let mut nodes: Vec<Node> = api.known_nodes()?.into_iter().map(Node::new).collect();
    let mut left = args.count.map(NonZeroU64::get);
    let mut is_first = true;
    loop {
        let mut lines = Vec::new();
        for node in &mut nodes {
            match node.news(&api, args) {
                Ok(news) => {
                    node.silent = false;
                    lines.extend(news);
                }
                Err(failure) if is_first && node.at.is_own() => return Err(failure),
                Err(failure) => node.is_silent(&failure),
            }
        }
        lines.sort_by_key(|line| line.at);
        // What is there already: the latest of all nodes together.
        let skip = match is_first {
            true => lines.len().saturating_sub(args.lines),
            false => 0,
        };
        for line in &lines[skip..] {
            let text = match args.at.json {
                true => line.to_json(),
                false => line.for_people(),
            };
            print(format_args!("{text}\n"))?;
            left = left.map(|left| left - 1);
            if left == Some(0) {
                return Ok(());
            }
        }
        is_first = false;
        #[expect(
            clippy::disallowed_methods,
            reason = "nodes are asked at intervals; a signal ends the process"
        )]
        std::thread::sleep(EVERY);
    }
}

/// What is known of one node.
struct Node {
    at: api::Node,
    version: String,
    /// The state of each notification that was seen last, by its id; ids sort by time.
    states: BTreeMap<String, String>,
    /// The refusals that there were; `None`: not asked yet.
    refusals: Option<Vec<RefusalCount>>,
    silent: bool,
}

/// One line.
struct Line {
    /// In Unix milliseconds.
    at: u64,
    node: String,
    what: What,
}

enum What {
    Notification(Summary),
    /// And how many more there are of it.
    Refusal(RefusalCount, u64),
}

impl Node {
    fn new(at: api::Node) -> Self {
        Self {
            at,
            version: String::new(),
            states: BTreeMap::new(),
            refusals: None,
            silent: false,
        }
    }

    fn is_silent(&mut self, failure: &Failure) {
        if !std::mem::replace(&mut self.silent, true) {
            let words = failure.words.trim_start_matches("payrelay: ");
            say(format_args!("{words}; trying again"));
        }
    }

    /// What has come since the last time, in no order.
    fn news(&mut self, api: &Api, args: &Args) -> Result<Vec<Line>, Failure> {
        let mut news = Vec::new();
        self.notifications(api, args, &mut news)?;
        if args.backend.is_none() && args.route.is_none() {
            self.new_refusals(api, &mut news)?;
        }
        Ok(news)
    }

    fn notifications(
        &mut self,
        api: &Api,
        args: &Args,
        news: &mut Vec<Line>,
    ) -> Result<(), Failure> {
        let is_first = self.version.is_empty();
        let mut filter = String::new();
        for (key, value) in [
            ("backend", args.backend.as_ref().map(BackendId::as_str)),
            ("route", args.route.as_deref()),
        ] {
            if let Some(value) = value {
                filter.push_str(&format!("&{key}={}", escaped(value)));
            }
        }
        let mut before = format!("&since={}", escaped(&self.version));
        for page in 0..PAGES_MAX {
            let target = format!("/notifications?limit={PAGE}{before}{filter}");
            let listed: Listed = parsed(&api.get(&self.at.target(&target))?)?;
            if page == 0 {
                self.version = listed.version;
            }
            let mut knows_all = listed.notifications.is_empty();
            for summary in listed.notifications {
                if summary.state == "waiting" {
                    continue;
                }
                let known = self
                    .states
                    .insert(summary.id.clone(), summary.state.clone());
                // A stored one that is not in the outbox any more was told of when it was acknowledged.
                knows_all |= known.is_some();
                if known.as_ref() == Some(&summary.state)
                    || known.is_some() && summary.state == "stored"
                {
                    continue;
                }
                news.push(Line {
                    at: summary.at + summary.took_ms.unwrap_or(0),
                    node: listed.node.clone(),
                    what: What::Notification(summary),
                });
            }
            match listed.next {
                Some(next) if !knows_all && !is_first => before = format!("&before={next}"),
                _ => break,
            }
        }
        while self.states.len() > KNOWN_MAX {
            self.states.pop_first();
        }
        Ok(())
    }

    fn new_refusals(&mut self, api: &Api, news: &mut Vec<Line>) -> Result<(), Failure> {
        let health: HealthAnswer = parsed(&api.get(&self.at.target("/health"))?)?;
        // What was refused before the first look is not told.
        let before = self.refusals.as_ref().unwrap_or(&health.refusals);
        for refusal in &health.refusals {
            let known = before.iter().find(|old| {
                (&old.kind, &old.route, &old.reason)
                    == (&refusal.kind, &refusal.route, &refusal.reason)
            });
            let known = known.map_or(0, |old| old.count);
            // After a restart of the relay the counts begin anew.
            let more = refusal.count.checked_sub(known).unwrap_or(refusal.count);
            if more > 0 {
                news.push(Line {
                    at: refusal.last_unix_ms,
                    node: health.node.clone(),
                    what: What::Refusal(refusal.clone(), more),
                });
            }
        }
        self.refusals = Some(health.refusals);
        Ok(())
    }
}

impl Line {
    fn to_json(&self) -> String {
        let (kind, mut value) = match &self.what {
            What::Notification(summary) => ("notification", json!(summary)),
            What::Refusal(refusal, more) => {
                let mut value = json!(refusal);
                value["more"] = (*more).into();
                ("refusal", value)
            }
        };
        value["type"] = kind.into();
        value["node"] = self.node.as_str().into();
        value.to_string()
    }

    fn for_people(&self) -> String {
        let at = time(self.at);
        match &self.what {
            What::Notification(one) => {
                let event = one_line_after(" event=", one.event.as_deref(), "");
                let took = one
                    .took_ms
                    .map_or_else(String::new, |ms| format!(" after {ms} ms"));
                let is_good = matches!(&*one.state, "delivered" | "done" | "duplicate");
                let why = one_line_after(": ", one.why.as_deref().filter(|_| !is_good), "");
                let state = format!("{:<10}", one_line(&one.state));
                format!(
                    "{at}  {} {} for {} by {}{event}{took}{why}",
                    out(Tone::of_state(&one.state), state),
                    one_line(&one.id),
                    one_line(&one.backend),
                    one_line(&one.route)
                )
            }
            What::Refusal(refusal, more) => {
                let route = one_line_after(" by ", refusal.route.as_deref(), "");
                let (kind, reason) = (one_line(&refusal.kind), one_line(&refusal.reason));
                let refused = out(Tone::Bad, "REFUSED   ");
                format!("{at}  {refused} {kind}{route}: {reason}, {more} times")
            }
        }
    }
}
