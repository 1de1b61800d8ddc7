//! `payrelay verify`: would this route believe a captured callback, and if not, why?

use std::fs;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use payrelay::config::{Config, PathTemplate, RouteConfig, Segment};
use payrelay::notification::unix_ms;
use payrelay::verify::{Refused, Request, Verifier};
use serde_json::json;

use super::text::readable;
use super::{ConfigFile, Failure, print, print_json};

pub const HELP: &str = "\
Examples:
  payrelay verify --route epay --file callback.http
  payrelay verify --route stripe --file callback.http --at 1795855399

The file holds the request as it was received: the request line, the headers, an empty line, and the body to its last
byte. Exit 0 if the route believes it, 1 if not; then the reason is printed, and the text that the route built and that
the provider should have signed, the secret left out. Compare it with what the provider's documents say.
With --json: one object with route, checks, signed_base64 (that text), genuine, reason (a word) and why (words; null: genuine).";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The route, by its name (its path, if it has none)
    #[arg(long, value_name = "NAME")]
    route: String,
    /// The captured request
    #[arg(long, value_name = "FILE")]
    file: PathBuf,
    /// When it was received, in seconds since 1970 [default: now]
    #[arg(long, value_name = "SECONDS")]
    at: Option<u64>,
    /// Print the verdict as JSON
    #[arg(long)]
    json: bool,
}

pub fn run(config: &ConfigFile, args: &Args) -> Result<(), Failure> {
    let loaded = config.load_or("")?;
    let name = &args.route;
    let (route, verifier) = route(&loaded, name)?;
    let file = args.file.display();
    let bytes = fs::read(&args.file).map_err(|error| Failure::at(&file, error))?;
    let captured = Captured::read(&bytes).ok_or_else(|| {
        Failure::new(format_args!(
            "{file} is no HTTP request: a request line, headers, an empty line and the body are needed"
        ))
    })?;
    let (path, query) = captured
        .target
        .split_once('?')
        .unwrap_or((captured.target, ""));
    let request = Request {
        method: captured.method,
        target: captured.target,
        headers: &captured.headers,
        path_id: path_id(&route.path, path),
        query,
        body: captured.body,
    };
    let now = unix_ms() / 1000;
    let verdict = verifier.verify(&request, args.at.unwrap_or(now)).err();
    let checks = verifier.describe();
    let signed = verifier.explain(&request);
    if args.json {
        let signed = signed.map(|text| BASE_64.encode(text));
        print_json(&json!({
            "route": name,
            "checks": checks,
            "signed_base64": signed,
            "genuine": verdict.is_none(),
            "reason": verdict.as_ref().map(Refused::word),
            "why": verdict.as_ref().map(Refused::to_string),
        }))?;
    } else {
        print(format_args!("route {name} checks: {checks}\n"))?;
        if let Some(text) = signed {
            print(format_args!(
                "the signed text, as this route reads it:\n{}\n",
                readable(&text)
            ))?;
        }
        if verdict.is_none() {
            print(format_args!("genuine\n"))?;
        }
    }
    match verdict {
        None => Ok(()),
        Some(refused) => Err(Failure::new(format_args!(
            "not genuine ({}): {refused}",
            refused.word()
        ))),
    }
}

/// The route called `name`, which checks something.
pub fn route<'c>(
    config: &'c Config,
    name: &str,
) -> Result<(&'c RouteConfig, &'c Verifier), Failure> {
    let route = config.routes.iter().find(|route| *route.name == *name);
    let route = route.ok_or_else(|| {
        let names: Vec<&str> = config.routes.iter().map(|route| &*route.name).collect();
        Failure::new(format_args!(
            "no route is called {name}; there are: {}",
            names.join(", ")
        ))
    })?;
    match &route.verifier {
        Some(verifier) => Ok((route, verifier)),
        None => Err(Failure::new(format_args!(
            "route {name} checks nothing (verify = \"none\")"
        ))),
    }
}

/// A request in a file.
struct Captured<'f> {
    method: &'f str,
    target: &'f str,
    headers: Vec<(&'f str, &'f str)>,
    body: &'f [u8],
}

impl<'f> Captured<'f> {
    /// Lines may end in CRLF or LF: editors change that, and only the body is signed byte for byte.
    fn read(bytes: &'f [u8]) -> Option<Self> {
        let mut rest = bytes;
        let mut lines = Vec::new();
        loop {
            let end = rest.iter().position(|&b| b == b'\n')?;
            let line = str::from_utf8(&rest[..end]).ok()?.trim_end_matches('\r');
            rest = &rest[end + 1..];
            if line.is_empty() {
                break;
            }
            lines.push(line);
        }
        let (first, headers) = lines.split_first()?;
        let mut words = first.split(' ');
        let (method, target) = (words.next()?, words.next()?);
        let header = |line: &&'f str| {
            let (name, value) = line.split_once(':')?;
            Some((name, value.trim()))
        };
        Some(Self {
            method,
            target,
            headers: headers.iter().map(header).collect::<Option<_>>()?,
            body: rest,
        })
    }
}

/// The segment of `path` where the route has `{id}`.
fn path_id<'p>(template: &PathTemplate, path: &'p str) -> Option<&'p str> {
    let at = template
        .segments
        .iter()
        .position(|segment| *segment == Segment::Id)?;
    path.strip_prefix('/')?.split('/').nth(at)
}
