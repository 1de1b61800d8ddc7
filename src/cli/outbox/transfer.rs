//! `payrelay outbox export`, `import`, `backup` and `rescue`: everything that the relay has, to a file and back.
//!
//! It comes page by page through the admin port, so the file belongs to the user who asks, it may be on another machine, and
//! nothing is held up meanwhile. What the relay has open is what is saved, whatever became of its files.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use payrelay::outbox::{DatabaseCopy, Exported, Parsed};
use serde_json::{Value, json};

use super::super::api::{Api, Where};
use super::super::terminal::ProgressLine;
use super::super::{ConfigFile, Failure, print, say};

/// Where to.
#[derive(Debug, clap::Args)]
pub struct ExportArgs {
    /// The new file; standard output if none is named
    file: Option<PathBuf>,
    #[command(flatten)]
    at: Where,
}

/// Where to.
#[derive(Debug, clap::Args)]
pub struct CopyArgs {
    /// The new file
    file: PathBuf,
    #[command(flatten)]
    at: Where,
}

/// Where from.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// What `export` wrote; - for standard input
    file: PathBuf,
    #[command(flatten)]
    at: Where,
}

/// How much one request of an import has; one notification may have more.
const IMPORT_BYTES: usize = 256 * 1024;

/// How many there were.
#[derive(Debug, Default)]
struct Count {
    states: [u64; 3],
    damaged: u64,
}

impl Count {
    fn add(&mut self, one: &Exported) {
        let state = ["pending", "done", "dead"];
        if let Some(at) = state.iter().position(|state| *state == one.state) {
            self.states[at] += 1;
        }
        self.damaged += u64::from(one.body.is_none());
    }

    fn all(&self) -> u64 {
        self.states.iter().sum()
    }

    fn words(&self) -> String {
        let ([pending, done, dead], all) = (self.states, self.all());
        format!("{all} notifications: {pending} pending, {done} done, {dead} dead")
    }
}

/// Writes one line for each notification.
pub fn export(config: &ConfigFile, args: &ExportArgs) -> Result<(), Failure> {
    let api = Api::of(config, &args.at)?;
    let mut to: Box<dyn Write> = match &args.file {
        Some(path) => Box::new(BufWriter::new(new_file(path)?)),
        None => Box::new(BufWriter::new(io::stdout().lock())),
    };
    let mut count = Count::default();
    let cannot = |error: io::Error| Failure::new(format_args!("cannot write: {error}"));
    // Where the lines themselves may go to the terminal, none comes between them.
    let progress = args.file.as_ref().map(|_| ProgressLine::new());
    pages(&api, |page| {
        for one in page {
            count.add(&one);
            let line = serde_json::to_string(&one).map_err(|error| cannot(error.into()))?;
            writeln!(to, "{line}").map_err(cannot)?;
        }
        if let Some(progress) = &progress {
            progress.show(format_args!("{} exported so far", count.all()));
        }
        Ok(())
    })?;
    drop(progress);
    to.flush().map_err(cannot)?;
    drop(to);
    if let Some(path) = &args.file {
        File::open(path)
            .and_then(|file| file.sync_all())
            .map_err(cannot)?;
    }
    say(format_args!("exported {}", count.words()));
    Ok(())
}

/// Makes a database that a relay can be started on.
pub fn backup(config: &ConfigFile, args: &CopyArgs) -> Result<(), Failure> {
    let words = copy(config, args)?;
    print(format_args!("saved {words} in {}\n", args.file.display()))
}

/// The same, and says how to go on.
pub fn rescue(config: &ConfigFile, args: &CopyArgs) -> Result<(), Failure> {
    let words = copy(config, args)?;
    print(format_args!(
        "saved {words} in {file}\n\
         Now stop the relay, move what lies at outbox.path and its -wal file away, put {file} there, let it belong to the\n\
         relay's user, and start the relay. What is acknowledged until then is delivered once more.\n",
        file = args.file.display()
    ))
}

fn copy(config: &ConfigFile, args: &CopyArgs) -> Result<String, Failure> {
    let api = Api::of(config, &args.at)?;
    let mut copy = DatabaseCopy::begin(&args.file)
        .map_err(|error| Failure::at(args.file.display(), error.cause))?;
    let mut count = Count::default();
    let progress = ProgressLine::new();
    let copied = pages(&api, |page| {
        let mut some: Vec<Parsed> = Vec::with_capacity(page.len());
        for one in page {
            count.add(&one);
            let id = one.id.clone();
            match one.parse() {
                Ok(parsed) => some.push(parsed),
                Err(bad) => progress.say(format_args!("{id} is left out: {bad}")),
            }
        }
        progress.show(format_args!("{} saved so far", count.all()));
        copy.add(&some)
            .map_err(|error| Failure::new(format_args!("cannot write: {error}")))
    });
    drop(progress);
    if let Err(failure) = copied {
        copy.discard();
        return Err(failure);
    }
    copy.finish()
        .map_err(|error| Failure::at(args.file.display(), error.cause))?;
    if count.damaged > 0 {
        return Err(Failure::new(format_args!(
            "saved {} in {}, but {} of these were damaged and left out",
            count.words(),
            args.file.display(),
            count.damaged
        )));
    }
    Ok(count.words())
}

/// Adds what was exported, some at a time.
pub fn import(config: &ConfigFile, args: &ImportArgs) -> Result<(), Failure> {
    let api = Api::of(config, &args.at)?;
    let from: Box<dyn BufRead> = match &args.file {
        path if path.as_os_str() == "-" => Box::new(io::stdin().lock()),
        path => {
            let file = File::open(path).map_err(|error| Failure::at(path.display(), error))?;
            Box::new(BufReader::new(file))
        }
    };
    let (mut some, mut bytes) = (Vec::new(), 0);
    let (mut imported, mut known) = (0, 0);
    let progress = ProgressLine::new();
    let mut send = |some: &mut Vec<Value>| -> Result<(), Failure> {
        if some.is_empty() {
            return Ok(());
        }
        let answer = api.order(
            "/outbox/import",
            &json!({ "messages": std::mem::take(some) }),
        )?;
        imported += answer["imported"].as_u64().unwrap_or(0);
        known += answer["known"].as_u64().unwrap_or(0);
        progress.show(format_args!("{imported} imported so far"));
        match answer["full"].as_bool() {
            Some(true) => Err(Failure::new(format_args!(
                "the outbox is full (outbox.max_messages, outbox.max_bytes): {imported} imported, the rest was not; make \
                 room and import the same file again"
            ))),
            _ => Ok(()),
        }
    };
    for (at, line) in from.lines().enumerate() {
        let number = at + 1;
        let line = line.map_err(|error| Failure::at(format_args!("line {number}"), error))?;
        if line.trim().is_empty() {
            continue;
        }
        let one: Value = serde_json::from_str(&line)
            .map_err(|error| Failure::new(format_args!("line {number} is no JSON: {error}")))?;
        if one["body"].is_null() {
            progress.say(format_args!(
                "line {number} is left out: its content was damaged on disk"
            ));
            continue;
        }
        if bytes + line.len() > IMPORT_BYTES {
            send(&mut some)?;
            bytes = 0;
        }
        bytes += line.len();
        some.push(one);
    }
    send(&mut some)?;
    drop(progress);
    print(format_args!(
        "{imported} imported, {known} were there already\n"
    ))
}

/// Takes everything that the relay has, a page at a time.
fn pages(
    api: &Api,
    mut take: impl FnMut(Vec<Exported>) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let mut after = 0;
    loop {
        let mut answer = api.get(&format!("/outbox/export?after={after}"))?;
        let messages: Value = answer["messages"].take();
        let page = serde_json::from_value(messages).map_err(|error| {
            Failure::new(format_args!(
                "the relay's answer is not understood: {error}"
            ))
        })?;
        take(page)?;
        match answer["next"].as_i64() {
            Some(next) => after = next,
            None => return Ok(()),
        }
    }
}

/// A file for its user alone, which must not be there yet.
fn new_file(path: &Path) -> Result<File, Failure> {
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| Failure::at(path.display(), error))
}
