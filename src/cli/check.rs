//! `payrelay check`: is this configuration one the relay would run with?

use payrelay::admin::api::RouteInfo;
use payrelay::bus::check_redis;
use payrelay::config::{Config, SharedOutbox, UndeliveredPolicy};
use payrelay::logging;
use payrelay::notification::unix_ms;
use payrelay::outbox;
use payrelay::relay::Certificates;
use rustix::process::geteuid;
use serde::Serialize;

use super::config_file::system_folder_of;
use super::terminal::{Tone, out};
use super::{ConfigFile, Failure, print, print_json, user};

fn unix_seconds() -> i64 {
    i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX)
}

pub const HELP: &str = "\
Examples:
  payrelay check -c /etc/payrelay/relay.toml && systemctl reload payrelay
  sudo payrelay check --user payrelay     # before a start of the service: root reads what its user may not
  payrelay check --json | jq -r '.warnings[]'

Exit 0 if the relay would run with it, warnings or not; 78 if not, with every error as FILE:LINE:COLUMN: KEY: what is
wrong.
What each route checks is said in words. Certificates and keys are read; the folders of log and outbox are tried, as the user
who runs this, or with --user (as root) as that user and in its home directory, as the packages' unit runs the relay. Ports are not opened: whether one is in use is known only at start.
With [redis] it connects to the servers, tries what the relay does there, and warns of what is missing: a right, a primary, a
setting that costs notifications their safety. A Redis that is away is a warning: the relay runs without it.

With --json: one object with file, ok, errors, routes (name, path, checks) and warnings, whatever the exit code.";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print what was found as JSON
    #[arg(long)]
    json: bool,

    /// As root: look as this user, in its home directory
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// What was found, for programs.
#[derive(Debug, Default, Serialize)]
struct Report {
    file: String,
    /// A relay would run with it.
    ok: bool,
    /// With their places, as standard error has them.
    errors: Vec<String>,
    routes: Vec<RouteInfo>,
    /// With their places.
    warnings: Vec<String>,
}

pub fn run(config: &ConfigFile, args: &Args) -> Result<(), Failure> {
    let config = match &args.user {
        Some(name) => &as_user(config, name)?,
        None => config,
    };
    let file = config.path.display().to_string();
    let found = examine(config, file.clone());
    if args.json {
        return match found {
            Ok(report) => print_json(&report),
            Err(failure) => {
                let errors = failure.words.lines().map(str::to_owned);
                print_json(&Report {
                    file,
                    errors: errors.collect(),
                    ..Report::default()
                })?;
                Err(failure)
            }
        };
    }
    let report = found?;
    print(format_args!("{file}: {}\n", out(Tone::Good, "ok")))?;
    for RouteInfo { name, checks, .. } in report.routes {
        let checks = checks.as_deref().unwrap_or("nothing is checked");
        print(format_args!(
            "{}: {checks}\n",
            out(Tone::Head, format_args!("route {name}"))
        ))?;
    }
    for warning in report.warnings {
        print(format_args!("{}: {warning}\n", out(Tone::Odd, "warning")))?;
    }
    Ok(())
}

/// The same file, from now on read as the user `name`.
fn as_user(config: &ConfigFile, name: &str) -> Result<ConfigFile, Failure> {
    let path = std::path::absolute(&config.path).map_err(Failure::new)?;
    user::switch_to(name)?;
    Ok(ConfigFile {
        path,
        named: config.named,
    })
}

/// What there is to say of a configuration that a relay would run with.
fn examine(config: &ConfigFile, file: String) -> Result<Report, Failure> {
    let loaded = config.load_or("")?;
    let (certificates, mut wrong) = tried(&loaded);
    let shared = loaded.outbox.shared != SharedOutbox::Off;
    let redis = loaded.redis.iter().map(|redis| check_redis(redis, shared));
    let redis: Result<Vec<_>, _> = redis.collect();
    let redis = redis.map_err(|error| wrong.push(error.to_string()));
    if !wrong.is_empty() {
        let place = |words: &String| loaded.places.with_place(&file, words);
        let lines: Vec<String> = wrong.iter().map(place).collect();
        return Err(Failure::config_lines(lines.join("\n")));
    }
    let routes = loaded.routes.iter().map(RouteInfo::of).collect();
    let mut warnings = loaded.warnings; // each names its place
    let certificates = certificates.iter();
    let expiring = certificates.flat_map(|all| all.warnings(unix_seconds()));
    warnings.extend(expiring.map(|warning| loaded.places.with_place(&file, &warning)));
    if geteuid().is_root() && system_folder_of(&config.path).is_some() {
        warnings.push(
            "root reads every file, and the user of the service may not: payrelay check --user payrelay looks as that user"
                .to_owned(),
        );
    }
    let redis = redis.into_iter().flatten().flatten();
    warnings.extend(redis.map(|warning| format!("redis: {warning}")));
    Ok(Report {
        file,
        ok: true,
        errors: Vec::new(),
        routes,
        warnings,
    })
}

/// The certificates, and what a start would find wrong beyond the file itself.
fn tried(config: &Config) -> (Option<Certificates>, Vec<String>) {
    let mut wrong = Vec::new();
    let certificates = Certificates::load(config)
        .map_err(|bad| wrong.push(bad.to_string()))
        .ok();
    if config.delivery.undelivered == UndeliveredPolicy::Store
        && let Err(error) = outbox::check_path(&config.outbox.path)
    {
        wrong.push(error.to_string());
    }
    if let Some(file) = &config.log.file
        && let Err(error) = logging::check_file(file)
    {
        wrong.push(error.to_string());
    }
    (certificates, wrong)
}
