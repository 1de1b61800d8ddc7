//! `payrelay send`: a provider in the terminal.

mod sign;

use std::io::{self, IsTerminal, Read, Write};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use payrelay::config::{Config, Segment, TlsFiles};
use payrelay::notification::BackendId;
use payrelay::verify::Draft;
use serde_json::json;

use super::text::{one_line, readable};
use super::tls::TlsArgs;
use super::{ConfigFile, Failure, cannot_print, place, print_json, say};
use crate::client::http::{ClientRequest, ClientResponse, HttpError};
use crate::client::tls::Trust;
use crate::client::url::{HttpUrl, parse_target};

pub const HELP: &str = "\
Examples:
  payrelay send game-01 --body hello
  payrelay send game-01 --file callback.json --content-type application/json
  payrelay send game-01 --url https://pay.example.com/notify/{id} < callback.xml
  payrelay send game-01 --sign stripe
  payrelay send game-01 --body hello --json | jq -r .outcome
  payrelay send game-01 --sign epay --body 'trade_no=7&trade_status=TRADE_SUCCESS&money=1.00'

With --sign, what the provider always sends and BODY has not is filled in, the id and a new event too; then it is signed with
the route's secret, or by a test key (payrelay keys test). What WeChat Pay v3 and Apple seal within the body is BODY.

Exit 0 if the outcome is delivered, stored or duplicate, 1 if it is another or there is no answer, whatever the status.
With --json: one object with status, outcome, id, took_ms, body_base64 and why (it is no ok; else null); nothing without an answer.";

/// The relay answers within `delivery.ack_deadline`, 4 s by default.
const DEADLINE: Duration = Duration::from_secs(60);

/// Stands for the backend's id in a path.
pub const ID: &str = "{id}";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backend's id: 1 to 64 of A-Z a-z 0-9 . _ -
    #[arg(value_parser = BackendId::parse)]
    id: BackendId,

    /// The whole address, as a provider would have it; {id} in it becomes the id
    #[arg(long, value_parser = HttpUrl::parse, conflicts_with_all = ["connect", "path"])]
    url: Option<HttpUrl>,

    /// Where the relay listens for providers [default: http.listen of the configuration]
    #[arg(long, value_name = "HOST:PORT")]
    connect: Option<String>,

    /// The path, with {id} where the id goes [default: the first route that has {id} in its path]
    #[arg(long, value_name = "TEMPLATE", value_parser = parse_target)]
    path: Option<String>,

    #[command(flatten)]
    tls: TlsArgs,

    /// The body from this file; - is standard input [default: standard input if it is no terminal]
    #[arg(long, value_name = "FILE", conflicts_with = "body")]
    file: Option<PathBuf>,

    /// The body itself
    #[arg(long, value_name = "TEXT")]
    body: Option<String>,

    /// The body's type [default: application/octet-stream; with --sign as the body is]
    #[arg(long, value_name = "TYPE", value_parser = parse_header_value)]
    content_type: Option<String>,

    /// Sign it as the provider of this route does, with the secret that the configuration has
    #[arg(long, value_name = "ROUTE", conflicts_with = "path")]
    sign: Option<String>,

    /// One more header; may be given several times
    #[arg(long = "header", value_name = "NAME: VALUE", value_parser = parse_header)]
    headers: Vec<(String, String)>,

    /// Print the answer as JSON
    #[arg(long)]
    json: bool,
}

/// Why an argument cannot be a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum HeaderError {
    Name,
    Value,
}

impl std::fmt::Display for HeaderError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Name => {
                "a header is NAME: VALUE, and Host, Content-Length and Connection are given already"
            }
            Self::Value => "a header's value is visible ASCII and spaces",
        })
    }
}

impl std::error::Error for HeaderError {}

fn parse_header(text: &str) -> Result<(String, String), HeaderError> {
    let (name, value) = text.split_once(':').ok_or(HeaderError::Name)?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    let taken = ["host", "content-length", "connection", "transfer-encoding"];
    if name.is_empty()
        || !name.bytes().all(is_token)
        || taken.contains(&name.to_ascii_lowercase().as_str())
    {
        return Err(HeaderError::Name);
    }
    Ok((name.to_owned(), parse_header_value(value)?))
}

fn parse_header_value(text: &str) -> Result<String, HeaderError> {
    let value = text.trim();
    let fits = value
        .bytes()
        .all(|b| b.is_ascii_graphic() || b == b' ' || b == b'\t');
    fits.then(|| value.to_owned()).ok_or(HeaderError::Value)
}

pub fn run(config: &ConfigFile, args: &Args) -> Result<(), Failure> {
    let (url, trust) = destination(config, args)?;
    let template = &url.target;
    let target = template.replace(ID, args.id.as_str());
    let mut request = Draft {
        method: "POST".to_owned(),
        path_id: template.contains(ID).then(|| args.id.to_string()),
        headers: args.headers.clone(),
        body: body(args)?,
        ..Draft::default()
    };
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    (request.path, request.query) = (path.to_owned(), query.to_owned());
    let mut content_type = "application/octet-stream";
    if let Some(name) = &args.sign {
        sign::sign(config, name, &args.id, &mut request)?;
        content_type = sign::content_type(&request.body);
    }
    let target = request.target();
    let mut headers = vec![(
        "User-Agent".into(),
        concat!("payrelay/", env!("CARGO_PKG_VERSION")).into(),
    )];
    let has_type = |(name, _): &(String, String)| name.eq_ignore_ascii_case("content-type");
    if request.method != "GET" && !request.headers.iter().any(has_type) {
        let given = args.content_type.as_deref();
        headers.push(("Content-Type".into(), given.unwrap_or(content_type).into()));
    }
    headers.append(&mut request.headers);
    let sent = Instant::now();
    let answer = ClientRequest {
        method: &request.method,
        place: &url.place,
        trust: trust.as_ref(),
        target: &target,
        headers: &headers,
        body: &request.body,
        deadline: DEADLINE,
    }
    .send()
    .map_err(|error| no_answer(&error, &url.place))?;
    report(args, &answer, sent.elapsed(), &target)
}

/// Shows the answer; a refusal is this command's failure.
fn report(
    args: &Args,
    answer: &ClientResponse,
    took: Duration,
    target: &str,
) -> Result<(), Failure> {
    let took_ms = took.as_secs_f64() * 1000.0;
    let is_ok = is_ok(answer);
    let why = (!is_ok).then(|| explain(answer, &args.id, target));
    if args.json {
        print_json(&json!({
            "status": answer.status,
            "outcome": answer.header("x-payrelay-outcome"),
            "id": answer.header("x-payrelay-id"),
            "took_ms": (took_ms * 10.0).round() / 10.0,
            "body_base64": BASE_64.encode(&answer.body),
            "why": why,
        }))?;
    } else {
        show(answer, took_ms)?;
    }
    if is_ok {
        if answer.header("x-payrelay-outcome") == Some("stored") {
            say(format_args!(
                "it is in the outbox until {} has acknowledged it; look with: payrelay outbox list",
                args.id
            ));
        }
        return Ok(());
    }
    Err(Failure::new(why.unwrap_or_default()))
}

/// Whether the notification is safe. The status alone does not say: to providers that read the body, a refusal is 200 too.
fn is_ok(answer: &ClientResponse) -> bool {
    match answer.header("x-payrelay-outcome") {
        Some(outcome) => matches!(outcome, "delivered" | "stored" | "duplicate"),
        None => (200..300).contains(&answer.status),
    }
}

/// Where to, and whom to believe there; `None`: no TLS.
fn destination(config: &ConfigFile, args: &Args) -> Result<(HttpUrl, Option<Trust>), Failure> {
    let trusting = |url: HttpUrl, own: Option<&TlsFiles>| {
        let trust = url.sealed.then(|| args.tls.trust(&url.place, own));
        Ok((url, trust.transpose()?))
    };
    let sealed = args.tls.wanted();
    if let Some(url) = &args.url {
        let mut url = url.clone();
        url.sealed |= sealed;
        return trusting(url, None);
    }
    if let (Some(place), Some(target)) = (&args.connect, &args.path) {
        let url = HttpUrl {
            sealed,
            place: place.clone(),
            target: target.clone(),
        };
        return trusting(url, None);
    }
    let loaded = config.load_or(", or where to post with --url http://HOST:PORT/PATH")?;
    let own = loaded.http.tls.as_ref().filter(|_| args.connect.is_none());
    let place = match &args.connect {
        Some(place) => place.clone(),
        None => place::reachable(loaded.http.listen, "http.listen", "--connect")?.to_string(),
    };
    let target = match (&args.path, &args.sign) {
        (Some(target), _) => target.clone(),
        (None, Some(name)) => super::verify::route(&loaded, name)?.0.path.text.clone(),
        (None, None) => first_path(&loaded).ok_or_else(|| {
            Failure::usage(format_args!(
                "no route of {} has {ID} in its path; name a path with --path",
                config.path().display()
            ))
        })?,
    };
    let url = HttpUrl {
        sealed: sealed || own.is_some(),
        place,
        target,
    };
    trusting(url, own)
}

/// The path of the first route that takes the id from it.
pub fn first_path(config: &Config) -> Option<String> {
    config
        .routes
        .iter()
        .find(|route| route.path.segments.contains(&Segment::Id))
        .map(|route| route.path.text.clone())
}

fn body(args: &Args) -> Result<Vec<u8>, Failure> {
    if let Some(body) = &args.body {
        return Ok(body.clone().into_bytes());
    }
    let from_stdin = match &args.file {
        Some(file) if file.as_os_str() == "-" => true,
        Some(file) => {
            return std::fs::read(file).map_err(|error| {
                Failure::new(format_args!("cannot read {}: {error}", file.display()))
            });
        }
        None => !io::stdin().is_terminal(),
    };
    let mut body = Vec::new();
    if from_stdin {
        io::stdin()
            .read_to_end(&mut body)
            .map_err(|error| Failure::new(format_args!("cannot read standard input: {error}")))?;
    }
    Ok(body)
}

fn show(answer: &ClientResponse, took_ms: f64) -> Result<(), Failure> {
    let or_none = |name| answer.header(name).map_or("-".into(), one_line);
    let stdout = io::stdout();
    let readably = stdout.is_terminal();
    let mut shown = format!(
        "status   {} {}\noutcome  {}\nid       {}\ntook     {took_ms:.1} ms\n\n",
        answer.status,
        one_line(&answer.reason),
        or_none("x-payrelay-outcome"),
        or_none("x-payrelay-id"),
    )
    .into_bytes();
    if readably {
        shown.extend_from_slice(readable(&answer.body).as_bytes());
    } else {
        shown.extend_from_slice(&answer.body);
    }
    if !shown.ends_with(b"\n") {
        shown.push(b'\n');
    }
    let mut out = stdout.lock();
    out.write_all(&shown)
        .and_then(|()| out.flush())
        .map_err(cannot_print)
}

fn no_answer(error: &HttpError, place: &str) -> Failure {
    match error {
        HttpError::Connect(cause) if cause.kind() == io::ErrorKind::ConnectionRefused => {
            Failure::new(format_args!("{error}; is the relay running at {place}?"))
        }
        error => Failure::new(format_args!("{place}: {error}")),
    }
}

/// Why it is not ok, and what to do about it.
pub fn explain(answer: &ClientResponse, id: &BackendId, target: &str) -> String {
    match answer.header("x-payrelay-outcome") {
        Some("bad-signature") => format!(
            "the relay does not believe it: the route of {target} checks a signature, and this is not signed so"
        ),
        Some("unreachable") => format!(
            "\"{id}\" is not connected to this node, and the bus to the others is down; see: payrelay status"
        ),
        Some("offline") => format!("no backend \"{id}\" is connected; try: payrelay listen {id}"),
        Some("refused") => format!("{id} refused it (NACK)"),
        Some("timeout") => {
            format!("{id} did not acknowledge it in time (delivery.ack_deadline)")
        }
        Some("busy") => format!(
            "too much waits for {id} or for all backends already (tcp.queue, http.max_in_flight); try again in a moment"
        ),
        Some("draining") => "the relay is stopping; try another node, or again in a moment".into(),
        Some("no-route") => format!("the relay has no [[route]] for {target}"),
        Some("not-allowed") => format!("{id} is not in tcp.backends of the relay"),
        Some("no-id") => {
            "the route found no backend id in this request; see id = … of its [[route]]".into()
        }
        Some("not-opened") => {
            "the relay could not open the resource; see api_v3_key and deliver of the [[route]]"
                .into()
        }
        Some("too-big") => "the body is larger than http.max_body of the relay".into(),
        Some(_) => format!("the relay answered {}", answer.status),
        None => format!(
            "the answer is {}, and not from a relay: it has no X-Payrelay-Outcome",
            answer.status
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_cannot_smuggle() {
        assert_eq!(
            parse_header("X-Sign:  a b "),
            Ok(("X-Sign".into(), "a b".into()))
        );
        for (text, bad) in [
            ("no colon", HeaderError::Name),
            (": v", HeaderError::Name),
            ("a b: v", HeaderError::Name),
            ("content-LENGTH: 3", HeaderError::Name),
            ("a: b\r\nc: d", HeaderError::Value),
            ("a: \u{e9}", HeaderError::Value),
        ] {
            assert_eq!(parse_header(text), Err(bad), "{text}");
        }
    }

    #[test]
    fn an_offline_backend_comes_with_the_command_that_helps() {
        let id = BackendId::parse("game-01").expect("an id");
        let answer = |outcome: &str| ClientResponse {
            status: 503,
            headers: vec![("x-payrelay-outcome".into(), outcome.into())],
            ..ClientResponse::default()
        };
        assert_eq!(
            explain(&answer("offline"), &id, "/"),
            "no backend \"game-01\" is connected; try: payrelay listen game-01"
        );
        assert!(explain(&ClientResponse::default(), &id, "/").contains("not from a relay"));
    }

    #[test]
    fn a_closed_port_asks_whether_the_relay_runs() {
        let refused = HttpError::Connect(io::ErrorKind::ConnectionRefused.into());
        let words = no_answer(&refused, "127.0.0.1:8080").words;
        assert!(
            words.ends_with("is the relay running at 127.0.0.1:8080?"),
            "{words}"
        );
    }
}
