//! `payrelay listen`: a backend in the terminal.
//!
//! One loop hears the relay, the worker, the clock and the signals, and is the only one to write to the socket. What the
//! protocol looks like is the business of `client`, what is done with a notification `worker`'s.

mod acknowledgement;
mod ended;
mod forward;
mod session;
mod worker;

use std::io;
use std::time::Duration;

use payrelay::backoff::Backoff;
use payrelay::notification::BackendId;
use payrelay::session::token::sign;

use self::ended::Ended;
use self::forward::HttpForwarder;
use self::session::ListenSession;
use self::worker::{Form, HandlerThread, Handling};
use super::stop::Stop;
use super::tls::TlsArgs;
use super::{ConfigFile, Failure, place, say};
use crate::client::tls::Trust;
use crate::client::url::HttpUrl;

/// The waits before the first and the later attempts to connect again are at most so long, unless the relay asks for more.
const RECONNECT: Backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(30));

pub const HELP: &str = "\
Examples:
  payrelay listen game-01                        # print and ACK what comes
  payrelay listen game-01 --json | jq -r .event
  payrelay listen game-01 --exec ./credit.sh     # the exit code decides: 0 ACK, else NACK
  payrelay listen game-01 --forward http://127.0.0.1:3000/paid   # the status decides: 2xx ACK, else NACK
  PAYRELAY_TOKEN=… payrelay listen game-01 --connect relay.internal:7000
  PAYRELAY_TOKEN=… payrelay listen game-01 --connect relay.internal:7443 --ca ca.pem

A command finds the body on its standard input, and PAYRELAY_ID, PAYRELAY_ROUTE, PAYRELAY_EVENT, PAYRELAY_TRY,
PAYRELAY_VERIFIED, PAYRELAY_AT (Unix ms) and PAYRELAY_HEAD (forwarded headers) in its environment.
With --json: id, route, verified, event, at (Unix ms), tries, head and body_base64 of each.
It reconnects for ever. Exit 0 after Ctrl-C or --count, 1 if it is refused or another takes its id over.";

/// The variable that holds the token when it is not to be seen in the process list.
const TOKEN_VARIABLE: &str = "PAYRELAY_TOKEN";

/// The most that a session's credit may be.
const CREDIT_MAX: i64 = 1024;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backend's id: 1 to 64 of A-Z a-z 0-9 . _ -
    #[arg(value_parser = BackendId::parse)]
    id: BackendId,

    /// Where the relay listens for backends [default: tcp.listen of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,

    #[command(flatten)]
    tls: TlsArgs,

    /// The backend's token [default: $PAYRELAY_TOKEN, else made from tcp.secrets of the configuration]
    #[arg(long)]
    token: Option<String>,

    /// Run `sh -c CMD` for each notification, its body on standard input
    #[arg(long, value_name = "CMD")]
    exec: Option<String>,

    /// Post each on to an HTTP program, with its headers: 2xx is ACK, else NACK
    #[arg(long, value_name = "URL", value_parser = HttpUrl::parse, conflicts_with_all = ["exec", "nack"])]
    forward: Option<HttpUrl>,

    /// How many notifications may be here unacknowledged
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=CREDIT_MAX))]
    max: u32,

    /// Refuse what comes, after printing it
    #[arg(long, conflicts_with = "exec")]
    nack: bool,

    /// Print bodies only, and nothing about the connection
    #[arg(short, long)]
    quiet: bool,

    /// Print each as JSON, one a line
    #[arg(long, conflicts_with_all = ["exec", "forward", "quiet"])]
    json: bool,

    /// End after N notifications
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

/// Whom to be, and where.
#[derive(Debug)]
struct Identity {
    id: BackendId,
    place: String,
    /// Whom to believe there; `None`: no TLS.
    trust: Option<Trust>,
    token: Option<String>,
}

pub fn run(config: &ConfigFile, args: Args) -> Result<(), Failure> {
    let identity = identify(config, &args)?;
    let stop = Stop::listen().map_err(Failure::cannot_start)?;
    let announce = (args.exec.is_some() || args.forward.is_some()) && !args.quiet;
    let handling = match (args.exec, args.forward) {
        (Some(command), _) => Handling::Exec(command),
        (None, Some(url)) => Handling::Forward(HttpForwarder::to(url)?),
        (None, None) => Handling::Print {
            form: match (args.json, args.quiet) {
                (true, _) => Form::Json,
                (false, true) => Form::Body,
                (false, false) => Form::Whole,
            },
            nack: args.nack,
        },
    };
    let talkative = !args.quiet;
    let mut state = ListenState {
        worker: HandlerThread::start(handling).map_err(Failure::cannot_start)?,
        working: None,
        connections: 0,
        left: args.count,
        max: args.max,
        talkative,
        announce,
    };
    let mut backoff = RECONNECT;
    let ended = loop {
        let ended = ListenSession::run(&identity, &mut state, &stop, &mut backoff);
        let Ended::Lost { why, retry } = ended else {
            break ended;
        };
        let wait = backoff.next_wait_asked(retry);
        if talkative {
            say(format_args!(
                "{why}; trying again in {:.1} s",
                wait.as_secs_f64()
            ));
        }
        if stop.asked().recv_timeout(wait).is_ok() {
            break Ended::Finished;
        }
    };
    let result = verdict(ended, &identity);
    if state.working.is_some() {
        state.worker.abandon();
    }
    result
}

/// What outlives a connection.
#[derive(Debug)]
struct ListenState {
    worker: HandlerThread,
    /// The connection by which what the worker is at came.
    working: Option<u64>,
    /// How many connections there have been: the number of the present one.
    connections: u64,
    /// How many more notifications to handle; `None`: no end.
    left: Option<u64>,
    /// The credit that the arguments allow.
    max: u32,
    /// Whether the person wants to hear about the connection.
    talkative: bool,
    /// Whether to say what is handed to the command.
    announce: bool,
}

fn verdict(ended: Ended, identity: &Identity) -> Result<(), Failure> {
    let Identity { id, place, .. } = identity;
    match ended {
        Ended::Finished | Ended::Lost { .. } => Ok(()),
        Ended::TakenOver => Err(Failure::new(format_args!(
            "another backend has connected as {id} and taken over; not fighting it"
        ))),
        Ended::Refused(refusal) => {
            let hint = match refusal.code.as_str() {
                "bad-token" => "; give the right token with --token or PAYRELAY_TOKEN",
                "not-allowed" => "; add the id to tcp.backends of the relay",
                _ => "",
            };
            Err(Failure::new(format_args!(
                "{place} refuses {id}: {} ({}){hint}",
                super::text::one_line(&refusal.code),
                super::text::one_line(&refusal.msg)
            )))
        }
        // Whoever read has gone: `payrelay listen … | head -1` is no failure to complain about.
        Ended::CannotPrint(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Ended::CannotPrint(error) => Err(Failure::cannot_print(error)),
    }
}

/// The arguments first, then the environment, then the configuration, which need not be there if nothing asks for it.
fn identify(config: &ConfigFile, args: &Args) -> Result<Identity, Failure> {
    let shown = args
        .token
        .clone()
        .or_else(|| std::env::var(TOKEN_VARIABLE).ok())
        .filter(|token| !token.is_empty());
    let mut own = None;
    let (place, secrets) = match (&args.connect, &shown) {
        (Some(place), Some(_)) => (place.clone(), Vec::new()),
        (Some(place), None) => {
            let loaded = config.load_if_there()?;
            (
                place.clone(),
                loaded.map_or_else(Vec::new, |loaded| loaded.tcp.secrets),
            )
        }
        (None, _) => {
            let tcp = config
                .load_or(", or the relay with --connect HOST:PORT")?
                .tcp;
            // The listener in the clear, unless TLS is asked for.
            own = tcp.tls.filter(|_| args.tls.wanted());
            let place = match &own {
                Some(tls) => place::reachable(tls.listen, "tcp.tls.listen", "--connect")?,
                None => place::reachable(tcp.listen, "tcp.listen", "--connect")?,
            };
            (place.to_string(), tcp.secrets)
        }
    };
    let files = own.as_ref().map(|tls| &tls.files);
    let trust = args.tls.wanted().then(|| args.tls.trust(&place, files));
    Ok(Identity {
        id: args.id.clone(),
        place,
        trust: trust.transpose()?,
        token: shown.or_else(|| Some(sign(secrets.first()?, &args.id))),
    })
}
