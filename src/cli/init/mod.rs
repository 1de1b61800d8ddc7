//! `payrelay init`: a configuration for what was asked, and what is left to do.
//!
//! What is asked are the [`Args`], from the command line or a dialogue. `file` makes relay.toml of it, `steps` what a person reads.

mod dialogue;
mod file;
mod steps;

use std::fs::{self, OpenOptions};
use std::io::{self, IsTerminal, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aws_lc_rs::rand;
use payrelay::config::{Config, FILL_IN, meant_preset};
use payrelay::escape::hex;
use payrelay::notification::BackendId;
use payrelay::verify::preset::Preset;
use payrelay::verify::presets::{all, named};

use super::config_file::{DEFAULT_CONFIG, SYSTEM_CONFIG, share};
use super::{ConfigFile, Failure, print};

pub const HELP: &str = "\
Examples:
  payrelay init                                     # asks
  payrelay init --provider alipay --provider stripe --backend game-01 --public https://pay.example.com
  payrelay init --provider github --redis redis://10.0.0.5:6379 -c relay.toml

It writes relay.toml, or /etc/payrelay/relay.toml where that folder is; no file is overwritten, but the package's own
example as it was installed. Secrets that nobody gives you are made. What only you can know is marked FILL IN, and
payrelay check refuses the file until that is filled in.";

/// The package's example: where it lies as it was installed, nobody has written anything yet.
const EXAMPLE: &str = include_str!("../../../relay.toml");

/// Random bytes of a secret that is made here.
const SECRET_BYTES: usize = 32;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A provider, as verify = "…" names it; may be given several times
    #[arg(long = "provider", value_name = "NAME", value_parser = preset)]
    providers: Vec<&'static Preset>,

    /// The id of the first Lua backend
    #[arg(long, value_name = "ID", default_value = "game-01", value_parser = BackendId::parse)]
    backend: BackendId,

    /// Providers come from other machines: listen on all addresses. ADDRESS is how they reach this machine: https://pay.example.com
    #[arg(long, value_name = "ADDRESS", num_args = 0..=1, default_missing_value = "", value_parser = address)]
    public: Option<String>,

    /// Backends come from other machines: listen on all addresses
    #[arg(long)]
    backends_public: bool,

    /// Several nodes: the Redis that they share
    #[arg(long, value_name = "URL")]
    redis: Option<String>,
}

/// The relay's own secrets, made here.
#[derive(Debug)]
struct Secrets {
    tcp: String,
    admin: String,
}

fn preset(name: &str) -> Result<&'static Preset, String> {
    named(name).ok_or_else(|| match meant_preset(name) {
        Some(meant) => format!("no provider is called \"{name}\"; did you mean {meant}?"),
        None => {
            let known: Vec<&str> = all().map(|preset| preset.name).collect();
            format!(
                "no provider is called \"{name}\"; known are {}",
                known.join(", ")
            )
        }
    })
}

fn address(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let host = text
        .strip_prefix("https://")
        .or_else(|| text.strip_prefix("http://"));
    let fits = text.is_empty()
        || host.is_some_and(|host| !host.is_empty())
            && text
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b"\"\\?#".contains(&b));
    match fits {
        true => Ok(text.to_owned()),
        false => Err("an address as the provider is told it: https://pay.example.com".into()),
    }
}

pub fn run(config: &ConfigFile, mut args: Args) -> Result<(), Failure> {
    let path = destination(config);
    refuse_to_overwrite(&path)?;
    let asks = args.providers.is_empty();
    if asks && !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return Err(Failure::usage(
            "no terminal to ask in: name at least one --provider (payrelay init --help has examples)",
        ));
    }
    let secrets = Secrets {
        tcp: secret()?,
        admin: secret()?,
    };
    if asks {
        dialogue::ask(&mut args, &mut io::stdin().lock(), &mut io::stderr())
            .map_err(|error| Failure::new(format_args!("cannot ask: {error}")))?;
    }
    let (text, chosen) = file::write(&args, &secrets)?;
    judge(&text)?;
    save(&path, &text)
        .map_err(|error| Failure::new(format_args!("cannot write {}: {error}", path.display())))?;
    print(steps::tell(&args, &secrets, &path, &text, &chosen))
}

/// Where the file goes.
fn destination(config: &ConfigFile) -> PathBuf {
    let system = Path::new(SYSTEM_CONFIG);
    match (config.named, system.parent()) {
        (true, _) => config.path.clone(),
        (false, Some(folder)) if folder.is_dir() => system.to_owned(),
        (false, _) => DEFAULT_CONFIG.into(),
    }
}

/// Whether `path` is the package's example as it was installed.
fn is_example(path: &Path) -> bool {
    path == Path::new(SYSTEM_CONFIG) && fs::read_to_string(path).is_ok_and(|text| text == EXAMPLE)
}

fn refuse_to_overwrite(path: &Path) -> Result<(), Failure> {
    if path.symlink_metadata().is_err() || is_example(path) {
        return Ok(());
    }
    Err(Failure::new(format_args!(
        "{0} is there already and is not overwritten; name another file with -c, or move that one away",
        path.display()
    )))
}

/// What was written must be what the relay takes, but for what is marked.
fn judge(text: &str) -> Result<(), Failure> {
    let filled = text.replace(FILL_IN, "filled in");
    match Config::parse(text, "relay.toml") {
        Ok(_) => Ok(()),
        Err(_) if filled != text => Ok(()),
        Err(errors) => Err(Failure::new(format_args!(
            "nothing was written, for it would not be right:\n{errors}"
        ))),
    }
}

/// Writes a new file that its owner alone can read; or the package's example anew, which keeps its owner and mode.
fn save(path: &Path, text: &str) -> io::Result<()> {
    let mut file = match is_example(path) {
        true => OpenOptions::new().write(true).truncate(true).open(path)?,
        false => OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o640)
            .open(path)?,
    };
    file.write_all(text.as_bytes())?;
    share(&file, path)?;
    file.sync_all()
}

/// A secret that nobody can guess, in hex.
fn secret() -> Result<String, Failure> {
    let mut bytes = [0; SECRET_BYTES];
    rand::fill(&mut bytes).map_err(|_| Failure::new("the system gives no random bytes"))?;
    Ok(hex(&bytes))
}
