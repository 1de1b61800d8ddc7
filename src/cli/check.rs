//! `payrelay check`: is this configuration one the relay would run with?

use payrelay::relay::Certificates;

use super::{ConfigFile, Failure, print};

pub const HELP: &str = "\
Example:
  payrelay check -c /etc/payrelay/relay.toml && systemctl reload payrelay

Exit 0 if the relay would run with it, warnings or not; 78 if not, with every error as FILE:LINE:COLUMN: KEY: what is
wrong.
Certificates and keys are read. Ports are not opened: whether one is in use is known only at start.";

pub fn run(config: &ConfigFile) -> Result<(), Failure> {
    let loaded = config.load()?;
    let file = config.path().display();
    Certificates::load(&loaded).map_err(|bad| Failure::config(format_args!("{file}: {bad}")))?;
    print(format_args!("{file}: ok\n"))?;
    for warning in &loaded.warnings {
        print(format_args!("warning: {warning}\n"))?; // it names its place
    }
    Ok(())
}
