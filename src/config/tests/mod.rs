//! What an operator meets: relay.toml as shipped, every error's exact words, and files that are no configuration at all.

mod errors;
mod files;
mod garbage;
mod reload;
mod shipped;
mod values;

use super::Config;

/// The file that comes with the relay.
const SHIPPED: &str = include_str!("../../../relay.toml");

/// The least that is a configuration.
const LEAST: &str = "[[route]]\npath = \"/notify/{id}\"\n";

fn good(text: &str) -> Config {
    match Config::parse(text, "relay.toml") {
        Ok(config) => config,
        Err(errors) => panic!("{errors}\nin:\n{text}"),
    }
}

/// The errors of `text`, one per line.
fn bad(text: &str) -> String {
    match Config::parse(text, "relay.toml") {
        Ok(_) => panic!("no error in:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}
