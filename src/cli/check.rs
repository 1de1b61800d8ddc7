//! `payrelay check`: is this configuration one the relay would run with?

use payrelay::bus::check_redis;
use payrelay::config::Shared;
use payrelay::notification::unix_ms;
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
What each route checks is said in words. Certificates and keys are read. Ports are not opened: whether one is in use is known only at start.
With [redis] it connects to the servers, tries what the relay does there, and warns of what is missing: a right, a primary, a
setting that costs notifications their safety. A Redis that is away is a warning: the relay runs without it.";

pub fn run(config: &ConfigFile) -> Result<(), Failure> {
    let loaded = config.load_or("")?;
    let file = config.path().display();
    let certificates = Certificates::load(&loaded);
    let certificates =
        certificates.map_err(|bad| Failure::config(format_args!("{file}: {bad}")))?;
    print(format_args!("{file}: ok\n"))?;
    for route in &loaded.routes {
        let what = route.verifier.as_ref().map(|verifier| verifier.describe());
        let what = what.as_deref().unwrap_or("nothing is checked");
        print(format_args!("route {}: {what}\n", route.name))?;
    }
    for warning in &loaded.warnings {
        print(format_args!("warning: {warning}\n"))?; // it names its place
    }
    for warning in certificates.warnings(unix_seconds()) {
        print(format_args!("warning: {file}: {warning}\n"))?;
    }
    let shared = loaded.outbox.shared != Shared::Off;
    let redis = loaded.redis.iter();
    for warning in redis.flat_map(|redis| check_redis(redis, shared)) {
        print(format_args!("warning: redis: {warning}\n"))?;
    }
    Ok(())
}
