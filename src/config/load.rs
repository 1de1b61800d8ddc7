//! From a file, or its text, to a [`Config`]: the order in which the sections are read, and the file itself.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::net::SocketAddr;
use std::path::Path;

use toml::de::DeTable;

use super::address::collide;
use super::diagnostics::Diagnostics;
use super::error::{ConfigErrors, Lines};
use super::places::KeyPositions;
use super::reader::Section;
use super::secret::closing;
use super::slip;
use super::values::{node, node_of_host};
use super::{Config, admin, http, redis, route, sections, tcp};

/// The largest file that is read, in bytes: a thousand routes with long answers fit, a mistaken disk image does not.
const FILE_BYTES_MAX: u64 = 16 << 20;

impl Config {
    /// Takes `text` as a configuration; errors and warnings call it `name_of_file`.
    ///
    /// # Errors
    /// Everything that is wrong, in the file's order. A text that is not TOML is judged no further than that.
    pub fn parse(text: &str, name_of_file: &str) -> Result<Self, ConfigErrors> {
        Self::parse_noting_secrets(text, name_of_file).map(|(config, _)| config)
    }

    /// The same; says besides whether `text` itself has secrets in it.
    fn parse_noting_secrets(text: &str, name_of_file: &str) -> Result<(Self, bool), ConfigErrors> {
        let report = Diagnostics::new(name_of_file, text);
        let (document, syntax) = DeTable::parse_recoverable(text);
        if !syntax.is_empty() {
            note_syntax(&report, text, &syntax);
            return Err(report.into_errors());
        }
        let config = read(Section::root(&report, document.get_ref()));
        if report.is_bad() {
            return Err(report.into_errors());
        }
        let has_secret = report.has_secret();
        let warnings = report.into_warnings();
        Ok((Self { warnings, ..config }, has_secret))
    }

    /// Reads and takes the file at `path`; reads at most 16 MiB.
    ///
    /// # Errors
    /// The file cannot be read (then that is the one error), or everything that is wrong in it.
    pub fn load(path: &Path) -> Result<Self, ConfigErrors> {
        let name = path.display().to_string();
        let of_file = |place, problem| ConfigErrors::of_file(&name, place, problem);
        let contents = contents(path).map_err(|error| of_file(None, unreadable(error.kind())));
        let (bytes, metadata) = contents?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            let most = FILE_BYTES_MAX >> 20;
            let problem = format!("the file is too big; at most {most} MiB are read");
            return Err(of_file(None, problem));
        }
        let text = str::from_utf8(&bytes).map_err(|error| {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let place = Lines::new(&before).place(before.len());
            let problem = "the file is not UTF-8 from here on; save it as UTF-8";
            of_file(Some(place), problem.to_owned())
        })?;
        let (mut config, has_secret) = Self::parse_noting_secrets(text, &name)?;
        if let (true, Some(close)) = (has_secret, closing(&metadata)) {
            config.warnings.push(format!(
                "{name}: holds secrets and other users can read it; close it to them with: {close} {name}"
            ));
        }
        Ok(config)
    }
}

/// Notes the first syntax error of each line: the parser's guesses after it are seldom right.
fn note_syntax(report: &Diagnostics<'_>, text: &str, errors: &[toml::de::Error]) {
    let place = |error: &toml::de::Error| error.span().map_or(report.end(), |span| span.start);
    let mut found: Vec<_> = errors
        .iter()
        .map(|error| (place(error), error.message()))
        .collect();
    found.sort_by_key(|(at, _)| *at);
    found.dedup_by_key(|(at, _)| report.line(*at));
    for (at, message) in found {
        let start = text[..at].rfind('\n').map_or(0, |end| end + 1);
        let line = text[start..].lines().next().unwrap_or_default();
        let problem = match slip::in_line(line) {
            Some(advice) => format!("not valid TOML: {advice}"),
            None => format!("not valid TOML: {message}"),
        };
        report.add(at, "", None, problem);
    }
}

/// What a person can do about a file that cannot be read.
pub fn unreadable(kind: io::ErrorKind) -> String {
    match kind {
        io::ErrorKind::NotFound => {
            "there is no such file; name yours with -c, as in payrelay check -c FILE".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "this user may not read the file; change its owner or mode, or name another with -c FILE"
                .to_owned()
        }
        kind => format!(
            "the file cannot be read ({kind}); name another with -c, as in payrelay check -c FILE"
        ),
    }
}

/// The file's bytes, up to one more than are allowed, and what there is to know of it.
fn contents(path: &Path) -> io::Result<(Vec<u8>, Metadata)> {
    let file = File::open(path)?;
    // Of the open file, not of the path: that might be another by now.
    let metadata = file.metadata()?;
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes, metadata))
}

fn read(mut root: Section<'_>) -> Config {
    let places = KeyPositions::of(&root);
    let node = root.read("node", node).unwrap_or_else(node_of_host);
    let has_redis = root.find("redis").is_some();
    let http = http::http(root.section("http"), has_redis);
    let tcp = tcp::tcp(root.section("tcp"));
    let delivery = sections::delivery(root.section("delivery"));
    let outbox = sections::outbox(root.section("outbox"), has_redis);
    let redis = redis::redis(&mut root);
    let admin = admin::admin(root.section("admin"));
    let log = sections::log(root.section("log"));
    let routes = route::routes(
        &mut root,
        http.listen,
        delivery.undelivered == super::UndeliveredPolicy::Store,
    );
    let listeners = [
        ("http.listen", Some(http.listen)),
        ("tcp.listen", Some(tcp.listen)),
        ("tcp.tls.listen", tcp.tls.as_ref().map(|tls| tls.listen)),
        ("admin.listen", Some(admin.listen)),
    ];
    listeners_apart(&root, &listeners);
    root.close();
    Config {
        node,
        http,
        tcp,
        delivery,
        outbox,
        redis,
        admin,
        log,
        routes,
        warnings: Vec::new(),
        places,
    }
}

/// Notes every listener whose address one before it has already.
fn listeners_apart(root: &Section<'_>, listeners: &[(&str, Option<SocketAddr>)]) {
    const ELSEWHERE: &str = "listens there already; give each its own port";
    for (n, &(later, address)) in listeners.iter().enumerate() {
        let taken = |(_, other): &&(_, Option<SocketAddr>)| {
            address.zip(*other).is_some_and(|(a, b)| collide(a, b))
        };
        let Some(&(earlier, _)) = listeners[..n].iter().find(taken) else {
            continue;
        };
        // The defaults do not collide, so at least one of the two is in the file.
        match (root.find(later), root.find(earlier)) {
            (Some(here), Some(there)) => {
                let line = there.line();
                here.refuse(format!("{earlier} in line {line} {ELSEWHERE}"));
            }
            (Some(here), None) => here.refuse(format!("{earlier} by default {ELSEWHERE}")),
            (None, Some(there)) => there.refuse(format!("{later} by default {ELSEWHERE}")),
            (None, None) => {}
        }
    }
}
