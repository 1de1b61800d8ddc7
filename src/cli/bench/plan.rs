//! What a benchmark is going to do: where, for whom, how fast and how long. Everything that can be wrong with it is said
//! before the first byte goes out.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use payrelay::config::{Config, Secret};
use payrelay::notification::{BACKEND_ID_BYTES_MAX, BackendId};
use payrelay::session::token::sign;

use super::Args;
use super::stamp::{BODY_BYTES_MIN, END};
use crate::cli::send::{ID, no_route, routes_with_id};
use crate::cli::{ConfigFile, Failure, place};

/// What every id of a benchmark begins with. Others belong to somebody, and are not taken over.
pub const PREFIX: &str = "bench-";

/// How many posts may be on their way if the arguments do not say: without a rate, and with one.
const CONCURRENCY_CLOSED: u16 = 32;
const CONCURRENCY_OPEN: u16 = 256;

/// How long a benchmark takes if the arguments do not say.
const DURATION: Duration = Duration::from_secs(10);

/// The most relays on either side.
const RELAYS_MAX: usize = 16;

/// A relay, as one side sees it.
#[derive(Clone, Debug)]
pub struct Endpoint {
    /// As it was given: `host:port`.
    pub text: String,
    /// Where that is.
    pub address: SocketAddr,
}

/// When to post no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// So many have been posted.
    Total(u64),
    /// So much time has passed.
    Passed(Duration),
}

/// The whole of it.
#[derive(Debug)]
pub struct Plan {
    /// Where to post; connections take turns.
    pub http: Vec<Endpoint>,
    /// Where backends connect; they take turns.
    pub tcp: Vec<Endpoint>,
    /// The path, with [`ID`] where the id goes.
    pub target: String,
    /// The backends, and the token of each if there is a secret.
    pub backends: Vec<(BackendId, Option<String>)>,
    /// How many MSG a backend takes before it acknowledges one.
    pub credit: u32,
    /// How many posts may be on their way.
    pub concurrency: usize,
    /// So many posts a second, whatever becomes of them; `None`: the next one as soon as another has been answered.
    pub rate: Option<u32>,
    pub until: Until,
    /// How long each body is.
    pub body_bytes: usize,
    /// What follows the stamp in each body.
    pub after_stamp: Vec<u8>,
    /// What tells this run's bodies from another's.
    pub run: u64,
}

impl Plan {
    /// Reads the arguments, and the configuration for what they leave out.
    pub fn new(config: &ConfigFile, args: &Args, run: u64) -> Result<Self, Failure> {
        let needs_config = args.http.is_empty() || args.tcp.is_empty() || args.path.is_none();
        let loaded = match needs_config {
            true => Some(config.load_or(", or the relay with --http, --tcp and --path")?),
            false => config.load_if_there()?,
        };
        let (mut http, mut tcp) = (args.http.clone(), args.tcp.clone());
        if let Some(Config { http: own, .. }) = &loaded
            && http.is_empty()
        {
            if own.tls.is_some() {
                return Err(Failure::usage(format_args!(
                    "http.tls of {} is set, and a benchmark speaks no TLS; measure a relay without it",
                    config.path.display()
                )));
            }
            http.push(place::reachable(own.listen, "http.listen", "--http")?.to_string());
        }
        if let Some(Config { tcp: own, .. }) = &loaded
            && tcp.is_empty()
        {
            tcp.push(place::reachable(own.listen, "tcp.listen", "--tcp")?.to_string());
        }
        let target = match (&args.path, &loaded) {
            (Some(path), _) => path.clone(),
            (None, Some(loaded)) => unsigned_path(loaded, config)?,
            (None, None) => return Err(no_route(config)),
        };
        if !target.contains(ID) {
            return Err(Failure::usage(format_args!(
                "the path {target} has no {ID} in it, so all would go to one backend; a benchmark needs a route that \
                 takes the id from the path or the query"
            )));
        }
        if http.len() > RELAYS_MAX || tcp.len() > RELAYS_MAX {
            return Err(Failure::usage(format_args!(
                "at most {RELAYS_MAX} relays on either side"
            )));
        }
        let secret = loaded
            .as_ref()
            .and_then(|loaded| loaded.tcp.secrets.first());
        let backends = backends(&args.prefix, args.backends, secret)?;
        if backends.len() < tcp.len() {
            return Err(Failure::usage(format_args!(
                "--backends {} are too few for {} relays",
                backends.len(),
                tcp.len()
            )));
        }
        Ok(Self {
            http: http.into_iter().map(resolve).collect::<Result<_, _>>()?,
            tcp: tcp.into_iter().map(resolve).collect::<Result<_, _>>()?,
            target,
            backends,
            credit: args.max,
            concurrency: usize::from(args.concurrency.unwrap_or(match args.rate {
                None => CONCURRENCY_CLOSED,
                Some(_) => CONCURRENCY_OPEN,
            })),
            rate: args.rate,
            until: match args.total {
                Some(total) => Until::Total(total),
                None => Until::Passed(args.duration.unwrap_or(DURATION)),
            },
            body_bytes: args.body,
            after_stamp: [vec![b'x'; args.body - BODY_BYTES_MIN].as_slice(), END].concat(),
            run,
        })
    }

    /// The backend that the `n`th notification is for.
    pub fn backend_of(&self, n: u64) -> usize {
        (n % self.backends.len() as u64) as usize
    }

    /// Where a backend connects.
    pub fn tcp_of(&self, backend: usize) -> &Endpoint {
        &self.tcp[backend % self.tcp.len()]
    }

    /// The path to a backend.
    pub fn target_of(&self, backend: usize) -> String {
        self.target.replace(ID, self.backends[backend].0.as_str())
    }

    /// What it will do, in a line or two for people.
    pub fn describe(&self) -> String {
        let list = |places: &[Endpoint]| {
            let texts: Vec<_> = places.iter().map(|place| place.text.as_str()).collect();
            texts.join(", ")
        };
        let concurrency = self.concurrency;
        let load = match self.rate {
            None => format!("{concurrency} posting"),
            Some(rate) => format!("{rate} a second, at most {concurrency} on their way"),
        };
        format!(
            "{load} to {} at {}, bodies of {} bytes; {} backends at {}",
            self.target,
            list(&self.http),
            self.body_bytes,
            self.backends.len(),
            list(&self.tcp)
        )
    }
}

/// The path of the first route that takes the id from it and checks no signature.
fn unsigned_path(loaded: &Config, config: &ConfigFile) -> Result<String, Failure> {
    let mut with_id = routes_with_id(loaded).peekable();
    if with_id.peek().is_none() {
        return Err(no_route(config));
    }
    let unsigned = with_id.find(|route| route.verifier.is_none());
    unsigned.map(|route| route.path.text.clone()).ok_or_else(|| {
        Failure::usage(format_args!(
            "every route of {} checks signatures, and a benchmark has no key to sign with; add one for it, on a loopback address: [[route]], \
             path = \"/bench/{ID}\", verify = \"none\"",
            config.path.display()
        ))
    })
}

fn backends(
    prefix: &str,
    count: u32,
    secret: Option<&Secret>,
) -> Result<Vec<(BackendId, Option<String>)>, Failure> {
    if !prefix.starts_with(PREFIX) {
        return Err(Failure::usage(format_args!(
            "--prefix must begin with {PREFIX}: other ids may be somebody's, and would be taken over"
        )));
    }
    let ids = (1..=count).map(|n| BackendId::parse(&format!("{prefix}{n}")));
    let ids: Vec<_> = ids.collect::<Result<_, _>>().map_err(|bad| {
        Failure::usage(format_args!(
            "--prefix {prefix} makes no ids of at most {BACKEND_ID_BYTES_MAX} bytes: {bad}"
        ))
    })?;
    let with_token = |id| {
        let token = secret.map(|secret| sign(secret, &id));
        (id, token)
    };
    Ok(ids.into_iter().map(with_token).collect())
}

fn resolve(text: String) -> Result<Endpoint, Failure> {
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::usage(format_args!(
            "{text}: not an address such as 127.0.0.1:8080: {error}"
        ))
    };
    let mut found = text.to_socket_addrs().map_err(|error| cannot(&error))?;
    let address = found.next().ok_or_else(|| cannot(&"the name has none"))?;
    Ok(Endpoint { text, address })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_numbered_and_signed_and_never_somebody_elses() {
        let secret = Secret::new("correct horse battery staple");
        let made = backends("bench-", 3, Some(&secret)).expect("ids");
        let ids: Vec<_> = made.iter().map(|(id, _)| id.as_str()).collect();
        assert_eq!(ids, ["bench-1", "bench-2", "bench-3"]);
        assert!(
            made.iter()
                .all(|(id, token)| *token == Some(sign(&secret, id)))
        );
        assert!(backends("bench-a.", 1, None).expect("an id")[0].1.is_none());
        for prefix in [
            "",
            "game-",
            "Bench-",
            "xbench-",
            "bench- ",
            &format!("bench-{}", "x".repeat(60)),
        ] {
            let failure = backends(prefix, 1, None).expect_err(prefix);
            assert_eq!(failure.code, crate::cli::failure::EXIT_USAGE);
        }
    }
}
