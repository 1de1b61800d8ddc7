//! `payrelay send`: a provider in the terminal.

pub mod answer;
mod sign;

use std::io::{self, IsTerminal, Read};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use payrelay::config::{Config, RouteConfig, Segment, TlsFiles};
use payrelay::notification::BackendId;
use payrelay::verify::Draft;

use self::answer::report;
use super::tls::TlsArgs;
use super::{ConfigFile, Failure, place};
use crate::client::http::{ClientRequest, OWN_HEADERS};
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

const BAD_HEADER: &str =
    "a header is NAME: VALUE, and Host, Content-Length and Connection are given already";
const BAD_HEADER_VALUE: &str = "a header's value is visible ASCII and spaces";

fn parse_header(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once(':').ok_or(BAD_HEADER)?;
    let is_token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    if name.is_empty()
        || !name.bytes().all(is_token)
        || OWN_HEADERS.contains(&name.to_ascii_lowercase().as_str())
    {
        return Err(BAD_HEADER);
    }
    Ok((name.to_owned(), parse_header_value(value)?))
}

fn parse_header_value(text: &str) -> Result<String, &'static str> {
    let value = text.trim();
    let fits = value
        .bytes()
        .all(|b| b.is_ascii_graphic() || b == b' ' || b == b'\t');
    fits.then(|| value.to_owned()).ok_or(BAD_HEADER_VALUE)
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
    .map_err(|error| Failure::no_answer(&error, "", &url.place))?;
    report(args, &answer, sent.elapsed(), &target)
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
        (None, None) => {
            let first = routes_with_id(&loaded).next();
            first.ok_or_else(|| no_route(config))?.path.text.clone()
        }
    };
    let url = HttpUrl {
        sealed: sealed || own.is_some(),
        place,
        target,
    };
    trusting(url, own)
}

/// The routes that take the id from their path.
pub fn routes_with_id(config: &Config) -> impl Iterator<Item = &RouteConfig> {
    let routes = config.routes.iter();
    routes.filter(|route| route.path.segments.contains(&Segment::Id))
}

/// There is none.
pub fn no_route(config: &ConfigFile) -> Failure {
    Failure::usage(format_args!(
        "no route of {} has {ID} in its path; name a path with --path",
        config.path.display()
    ))
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
            ("no colon", BAD_HEADER),
            (": v", BAD_HEADER),
            ("a b: v", BAD_HEADER),
            ("content-LENGTH: 3", BAD_HEADER),
            ("a: b\r\nc: d", BAD_HEADER_VALUE),
            ("a: \u{e9}", BAD_HEADER_VALUE),
        ] {
            assert_eq!(parse_header(text), Err(bad), "{text}");
        }
    }
}
