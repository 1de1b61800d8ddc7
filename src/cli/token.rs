//! `payrelay token`: what a backend shows in its HELLO.

use payrelay::notification::BackendId;
use payrelay::session::token::sign;

use super::{ConfigFile, Failure, print, say};

pub const HELP: &str = "\
Example:
  payrelay token game-01 -c /etc/payrelay/relay.toml

The token is the hex HMAC-SHA256 of the id under the first of tcp.secrets. Whoever has it can be that backend.";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// The backend's id: 1 to 64 of A-Z a-z 0-9 . _ -
    #[arg(value_parser = BackendId::parse)]
    id: BackendId,
}

pub fn run(config: &ConfigFile, args: &Args) -> Result<(), Failure> {
    let loaded = config.load_or("")?;
    let Some(secret) = loaded.tcp.secrets.first() else {
        return Err(Failure::config(format_args!(
            "{}: tcp.secrets is empty, so tokens are ignored and none is needed; \
             to ask for them add secrets = [\"…\"] to [tcp] (make one with: openssl rand -hex 32)",
            config.path.display()
        )));
    };
    print(format_args!("{}\n", sign(secret, &args.id)))?;
    if !loaded.tcp.backends.is_empty() && !loaded.tcp.backends.contains(&args.id) {
        // On standard error, so that $(payrelay token …) still is the token.
        say(format_args!(
            "{}: {} is not in tcp.backends, so it may not connect until it is added there",
            config.path.display(),
            args.id
        ));
    }
    Ok(())
}
