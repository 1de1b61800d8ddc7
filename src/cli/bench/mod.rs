//! `payrelay bench`: measures a running relay as its providers and its backends see it.
//!
//! Two threads make the load, whatever its size: one posts, one is all the backends. They share a [`RunState`] and nothing
//! else. This file starts them, waits, and tells what came of it.

mod answers;
mod backends;
mod cpu;
mod error;
mod histogram;
mod load_thread;
mod plan;
mod poller;
mod provider_connection;
mod providers;
mod report;
mod run_state;
mod scanner;
mod stamp;

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use crossbeam_channel::{never, select, tick};
use payrelay::config::units;
use payrelay::fds;

use self::backends::BackendStats;
use self::load_thread::LoadThread;
use self::plan::{PREFIX, Plan};
use self::providers::ProviderStats;
use self::report::{Report, grouped};
use self::run_state::RunState;
use self::stamp::{BODY_BYTES_MIN, BodyStamp, NOTIFICATIONS_MAX, PROBE};
use super::send::answer::{explain, is_ok_outcome};
use super::stop::Stop;
use super::terminal::ProgressLine;
use super::{ConfigFile, Failure, print, say};
use crate::client::http::ClientRequest;
use crate::client::url::parse_target;

pub const HELP: &str = "\
Examples:
  payrelay bench                                    # 10 s, 64 backends, 32 posting, the relay of ./relay.toml
  payrelay bench --rate 2000 --duration 1m          # 2,000 a second, whatever becomes of them
  payrelay bench --backends 9000 --body 64KiB --total 100000 --json
  payrelay bench --http node-a:8080 --tcp node-b:7000 -c relay.toml     # from one node to the other

It makes real notifications for the backends bench-1, bench-2 … and is these backends: it takes their ids over from
whoever has them, and the relay's limits are shared with everybody else. Other ids it leaves alone. It posts only to
routes with verify = \"none\": it has no provider's key to sign with. It speaks no TLS.

Latency counts from when a notification was due: with --rate that is its time, even if no connection was free.
lost: answered ok, and never arrived. damaged: other bytes than were posted, or at the wrong backend. early: answered
delivered before the backend had it. unanswered: the connection ended, or 60 s passed, without an answer.

Exit 0 if every notification was answered ok and arrived once, 1 if not. Ctrl-C ends it with what was measured.";

/// The largest body: the largest `http.max_body` there is.
const BODY_BYTES_MAX: u64 = 64 << 20;

/// The longest run.
const DURATION_MAX: Duration = Duration::from_secs(24 * 3600);

/// What was answered ok may take so long to arrive, after the last answer.
const ARRIVAL_DEADLINE: Duration = Duration::from_secs(5);

/// How often the line about progress changes.
const PROGRESS_EVERY: Duration = Duration::from_secs(1);

/// How long a probe may take; the relay answers within `delivery.ack_deadline`.
const PROBE_DEADLINE: Duration = Duration::from_secs(60);

/// Descriptors for what is no connection: the standard three, epoll, bells, signals.
const FDS_RESERVED: usize = 32;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where a relay listens for providers; several: connections take turns [default: http.listen of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    http: Vec<String>,

    /// Where a relay listens for backends; several: backends take turns [default: tcp.listen of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    tcp: Vec<String>,

    /// The path, with {id} where the id goes [default: the first route that has {id} in its path]
    #[arg(long, value_name = "TEMPLATE", value_parser = parse_target)]
    path: Option<String>,

    /// How many backends; tokens are made from tcp.secrets of the configuration
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    backends: u32,

    /// What the backends' ids begin with: bench- and perhaps more
    #[arg(long, value_name = "TEXT", default_value = PREFIX)]
    prefix: String,

    /// How many notifications a backend takes before it acknowledges one: its credit
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=1024))]
    max: u32,

    /// How many posts may be on their way [default: 32, or 256 with --rate]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=4096))]
    concurrency: Option<u16>,

    /// So many posts a second, on time; without it the next follows as soon as one is answered
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    rate: Option<u32>,

    /// The size of each body, such as 1KiB
    #[arg(long, value_name = "SIZE", default_value = "1KiB", value_parser = parse_body)]
    body: usize,

    /// How long to post, such as 30s [default: 10s]
    #[arg(long, value_name = "TIME", value_parser = parse_duration)]
    duration: Option<Duration>,

    /// How many to post, instead of how long
    #[arg(long, value_name = "N", conflicts_with = "duration", value_parser = clap::value_parser!(u64).range(1..=NOTIFICATIONS_MAX))]
    total: Option<u64>,

    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

fn parse_body(text: &str) -> Result<usize, String> {
    let allowed = BODY_BYTES_MIN as u64..=BODY_BYTES_MAX;
    units::SIZE.parse(text, allowed).map(|bytes| bytes as usize)
}

fn parse_duration(text: &str) -> Result<Duration, String> {
    let allowed = 100..=DURATION_MAX.as_millis() as u64;
    units::DURATION
        .parse(text, allowed)
        .map(Duration::from_millis)
}

pub fn run(config: &ConfigFile, args: &Args) -> Result<(), Failure> {
    // The keys of RandomState are random, and so is the hash of nothing under them.
    let plan = Arc::new(Plan::new(config, args, RandomState::new().hash_one(()))?);
    make_room(&plan)?;
    let stop = Stop::listen().map_err(Failure::cannot_start)?;
    say(plan.describe());
    let (first, last) = (
        &plan.backends[0].0,
        &plan.backends[plan.backends.len() - 1].0,
    );
    say(format_args!(
        "these are real notifications, and {first} to {last} are taken over from whoever has these ids"
    ));
    let state = Arc::new(RunState::open());
    let backends = backends::connect(&plan, &state, &stop)?;
    probe(&plan)?;
    let providers = providers::start(&plan, &state)
        .map_err(|error| Failure::new(format_args!("cannot connect to {error}")))?;
    let measured = watch(&backends, &providers, &state, &stop);
    let Some((posted, received, interrupted)) = measured else {
        return Err(Failure::new("a thread of the load generator has failed"));
    };
    let report = Report {
        plan: &plan,
        posted,
        received,
        sent: state.posted.load(Ordering::SeqCst),
        arrived: state.received.load(Ordering::SeqCst),
        lost: state.missing(),
        interrupted,
    };
    print(match args.json {
        true => report.json(),
        false => report.text(),
    })?;
    match report.faults() {
        none if none.is_empty() => Ok(()),
        faults => Err(Failure::new(faults.join("; "))),
    }
}

/// Raises the limit of open files as far as the plan needs.
fn make_room(plan: &Plan) -> Result<(), Failure> {
    let wanted = (plan.backends.len() + plan.concurrency + FDS_RESERVED) as u64;
    let granted = fds::raise_limit(wanted);
    if granted >= wanted {
        return Ok(());
    }
    Err(Failure::new(format_args!(
        "this process may open {granted} files, and so many --backends and --concurrency need {wanted}; \
         raise the limit (ulimit -n) or ask for less"
    )))
}

/// One notification from every relay to every other, so that what cannot work is said once and clearly.
fn probe(plan: &Plan) -> Result<(), Failure> {
    let mut body = Vec::with_capacity(plan.body_bytes);
    let stamp = BodyStamp {
        run: plan.run,
        n: PROBE,
        at_ns: 0,
    };
    stamp.write(&mut body);
    body.extend_from_slice(&plan.after_stamp);
    let headers = [("Content-Type".to_owned(), "application/json".to_owned())];
    for from in &plan.http {
        // The first backends sit on one relay each.
        for (backend, to) in plan.tcp.iter().enumerate() {
            let id = &plan.backends[backend].0;
            let target = plan.target_of(backend);
            let answer = ClientRequest {
                method: "POST",
                place: &from.text,
                trust: None,
                target: &target,
                headers: &headers,
                body: &body,
                deadline: PROBE_DEADLINE,
            }
            .send()
            .map_err(|error| Failure::at(&from.text, error))?;
            let outcome = answer.header("x-payrelay-outcome").unwrap_or_default();
            if is_ok_outcome(outcome) {
                continue;
            }
            let why = match (answer.status, outcome) {
                (401 | 403, _) | (_, "bad-signature") => format!(
                    "the route of {target} checks signatures, and a benchmark has no key to sign with; \
                     name a route with verify = \"none\" by --path"
                ),
                (_, "offline") => format!(
                    "{} does not reach {id}, which is connected to {}: are they nodes of one bus?",
                    from.text, to.text
                ),
                _ => explain(&answer, id, &target),
            };
            return Err(Failure::new(format_args!(
                "a first notification failed: {why}"
            )));
        }
    }
    Ok(())
}

/// Waits until both sides have ended, by themselves or by a signal; `None`: one of them has died.
fn watch(
    backends: &LoadThread<BackendStats>,
    providers: &LoadThread<ProviderStats>,
    state: &RunState,
    stop: &Stop,
) -> Option<(ProviderStats, BackendStats, bool)> {
    let mut rate = Rate::new();
    let mut received = None;
    let mut interrupted = false;
    let mut gone = backends.done().clone();
    let clock = tick(PROGRESS_EVERY);
    let posted = loop {
        select! {
            recv(providers.done()) -> posted => break posted.ok()?,
            recv(gone) -> early => {
                // Without backends there is nothing to measure.
                received = Some(early.ok()?);
                gone = never();
                providers.finish();
            }
            recv(stop.asked()) -> _ => {
                interrupted = true;
                providers.finish();
            }
            recv(clock) -> _ => rate.show(state),
        }
    };
    drop(rate);
    let received = match received {
        Some(received) => received,
        None => {
            let until = Instant::now() + ARRIVAL_DEADLINE;
            while state.missing() > 0 && !interrupted && Instant::now() < until {
                let look_again = Duration::from_millis(20);
                interrupted = stop.asked().recv_timeout(look_again).is_ok();
            }
            backends.finish();
            backends.done().recv().ok()?
        }
    };
    Some((posted, received, interrupted))
}

/// How far the run is, for a person at a terminal.
struct Rate {
    progress: ProgressLine,
    began: Instant,
    answered: u64,
}

impl Rate {
    fn new() -> Self {
        Self {
            progress: ProgressLine::new(),
            began: Instant::now(),
            answered: 0,
        }
    }

    fn show(&mut self, state: &RunState) {
        let answered = state.answered.load(Ordering::Relaxed);
        let posted = state.posted.load(Ordering::Relaxed);
        self.progress.show(format_args!(
            "{:>4.0} s  {} answered  {}/s  {} on their way",
            self.began.elapsed().as_secs_f64(),
            grouped(answered),
            grouped((answered - self.answered) / PROGRESS_EVERY.as_secs()),
            posted.saturating_sub(answered)
        ));
        self.answered = answered;
    }
}
