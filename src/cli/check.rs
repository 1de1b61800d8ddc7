//! `payrelay check`: is this configuration one the relay would run with?

use payrelay::bus::check_redis;
use payrelay::config::{Config, Shared, Undelivered};
use payrelay::logging;
use payrelay::notification::unix_ms;
use payrelay::outbox;
use payrelay::relay::Certificates;

use super::{ConfigFile, Failure, print};

fn unix_seconds() -> i64 {
    i64::try_from(unix_ms() / 1000).unwrap_or(i64::MAX)
}

pub const HELP: &str = "\
Example:
  payrelay check -c /etc/payrelay/relay.toml && systemctl reload payrelay

Exit 0 if the relay would run with it, warnings or not; 78 if not, with every error as FILE:LINE:COLUMN: KEY: what is
wrong.
What each route checks is said in words. Certificates and keys are read; the folders of log and outbox are tried, as the user
who runs this. Ports are not opened: whether one is in use is known only at start.
With [redis] it connects to the servers, tries what the relay does there, and warns of what is missing: a right, a primary, a
setting that costs notifications their safety. A Redis that is away is a warning: the relay runs without it.";

pub fn run(config: &ConfigFile) -> Result<(), Failure> {
    let loaded = config.load_or("")?;
    let file = config.path().display();
    let (certificates, wrong) = tried(&loaded);
    if !wrong.is_empty() {
        let place = |words: &String| loaded.places.with_place(&file, words);
        let lines: Vec<String> = wrong.iter().map(place).collect();
        return Err(Failure::config_lines(lines.join("\n")));
    }
    print(format_args!("{file}: ok\n"))?;
    for route in &loaded.routes {
        let what = route.verifier.as_ref().map(|verifier| verifier.describe());
        let what = what.as_deref().unwrap_or("nothing is checked");
        print(format_args!("route {}: {what}\n", route.name))?;
    }
    for warning in &loaded.warnings {
        print(format_args!("warning: {warning}\n"))?; // it names its place
    }
    let certificates = certificates.iter();
    for warning in certificates.flat_map(|all| all.warnings(unix_seconds())) {
        let warning = loaded.places.with_place(&file, &warning);
        print(format_args!("warning: {warning}\n"))?;
    }
    let shared = loaded.outbox.shared != Shared::Off;
    let redis = loaded.redis.iter();
    for warning in redis.flat_map(|redis| check_redis(redis, shared)) {
        print(format_args!("warning: redis: {warning}\n"))?;
    }
    Ok(())
}

/// The certificates, and what a start would find wrong beyond the file itself.
fn tried(config: &Config) -> (Option<Certificates>, Vec<String>) {
    let mut wrong = Vec::new();
    let certificates = Certificates::load(config)
        .map_err(|bad| wrong.push(bad.to_string()))
        .ok();
    if config.delivery.undelivered == Undelivered::Store
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
