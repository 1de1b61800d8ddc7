//! From a file, or its text, to a [`Config`]: the order in which the sections are read, and the file itself.

use std::fs::File;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use toml::de::DeTable;

use super::errors::ConfigErrors;
use super::place::Lines;
use super::problem::{FILE_BYTES_MAX, Problem};
use super::reader::{Report, Section};
use super::{Config, address, node, redis, route, sections};

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
        let report = Report::new(name_of_file, text);
        let (document, syntax) = DeTable::parse_recoverable(text);
        if !syntax.is_empty() {
            note_syntax(&report, &syntax);
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
        let unreadable = |problem| ConfigErrors::of_file(&name, None, problem);
        let (bytes, mode) =
            contents(path).map_err(|error| unreadable(Problem::Unreadable(error.kind())))?;
        if bytes.len() as u64 > FILE_BYTES_MAX {
            return Err(unreadable(Problem::FileTooBig));
        }
        let text = str::from_utf8(&bytes).map_err(|error| {
            let before = String::from_utf8_lossy(&bytes[..error.valid_up_to()]);
            let place = Lines::new(&before).place(before.len());
            ConfigErrors::of_file(&name, Some(place), Problem::NotUtf8)
        })?;
        let (mut config, has_secret) = Self::parse_noting_secrets(text, &name)?;
        if has_secret && mode & 0o044 != 0 {
            config.warnings.push(format!(
                "{name}: holds secrets and other users can read it; make it yours alone with: chmod 600 {name}"
            ));
        }
        Ok(config)
    }
}

/// Notes the first syntax error of each line: the parser's guesses after it are seldom right.
fn note_syntax(report: &Report<'_>, errors: &[toml::de::Error]) {
    let place = |error: &toml::de::Error| error.span().map_or(report.end(), |span| span.start);
    let mut found: Vec<_> = errors
        .iter()
        .map(|error| (place(error), error.message()))
        .collect();
    found.sort_by_key(|(at, _)| *at);
    found.dedup_by_key(|(at, _)| report.line(*at));
    for (at, message) in found {
        report.add(at, "", None, Problem::Syntax(message.to_owned()));
    }
}

/// The file's bytes, up to one more than are allowed, and its mode bits.
fn contents(path: &Path) -> io::Result<(Vec<u8>, u32)> {
    let file = File::open(path)?;
    // Of the open file, not of the path: that might be another by now.
    let mode = file.metadata()?.mode();
    let mut bytes = Vec::new();
    file.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes)?;
    Ok((bytes, mode))
}

fn read(mut root: Section<'_>) -> Config {
    let node = root.read("node", node::name).unwrap_or_else(node::of_host);
    let has_redis = root.find(&[], "redis").is_some();
    let http = sections::http(root.section("http"), has_redis);
    let tcp = sections::tcp(root.section("tcp"));
    let delivery = sections::delivery(root.section("delivery"));
    let outbox = sections::outbox(root.section("outbox"));
    let redis = redis::redis(&mut root);
    let admin = sections::admin(root.section("admin"));
    let log = sections::log(root.section("log"));
    let routes = route::routes(
        &mut root,
        http.listen,
        delivery.undelivered == super::Undelivered::Store,
    );
    let sealed = tcp.tls.as_ref().map(|tls| tls.listen);
    let addresses = [
        Some(http.listen),
        Some(tcp.listen),
        sealed,
        Some(admin.listen),
    ];
    listeners_apart(&root, &addresses);
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
    }
}

/// Notes every listener whose address one before it in `[http]`, `[tcp]`, `[tcp.tls]`, `[admin]` has already.
fn listeners_apart(root: &Section<'_>, addresses: &[Option<SocketAddr>; 4]) {
    const SECTIONS: [(&[&str], &str); 4] = [
        (&["http"], "http.listen"),
        (&["tcp"], "tcp.listen"),
        (&["tcp", "tls"], "tcp.tls.listen"),
        (&["admin"], "admin.listen"),
    ];
    for later in 1..SECTIONS.len() {
        let collide = |&n: &usize| match (addresses[n], addresses[later]) {
            (Some(one), Some(other)) => address::collide(one, other),
            _ => false,
        };
        let Some(earlier) = (0..later).find(collide) else {
            continue;
        };
        // The defaults do not collide, so at least one of the two is in the file.
        let here = root.find(SECTIONS[later].0, "listen");
        let there = root.find(SECTIONS[earlier].0, "listen");
        match (here, there) {
            (Some(here), there) => here.refuse(here.taken(SECTIONS[earlier].1, there.as_ref())),
            (None, Some(there)) => there.refuse(there.taken(SECTIONS[later].1, None)),
            (None, None) => {}
        }
    }
}
