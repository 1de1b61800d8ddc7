//! `payrelay outbox hand-over`: other nodes take over everything, before this one is removed.

use std::time::{Duration, Instant};

use payrelay::admin::api::HandedOver;
use serde_json::json;

use super::super::api::{Api, Where, parsed};
use super::super::{ConfigFile, Failure, print, print_json, say};

/// How often the relay is asked how far it is.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// How often the user is told.
const TELL_EVERY: Duration = Duration::from_secs(10);

pub fn run(config: &ConfigFile, at: &Where) -> Result<(), Failure> {
    let api = Api::of(config, at)?;
    let mut told = Instant::now();
    loop {
        let answer = api.order("/outbox/hand-over", &json!({}))?;
        let HandedOver {
            node,
            left,
            damaged,
        } = parsed(&answer)?;
        if left > damaged {
            if told.elapsed() >= TELL_EVERY {
                told = Instant::now();
                say(format_args!("{left} are still here"));
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "the relay is asked at intervals; a signal ends the process"
            )]
            std::thread::park_timeout(ASK_EVERY);
            continue;
        }
        if at.json {
            print_json(&answer)?;
        }
        if damaged > 0 {
            return Err(Failure::new(format_args!(
                "other nodes have all but {damaged}, which are damaged on disk and in no other place: they stay at {node}; payrelay outbox \
                 show ID --body says of each whether it is damaged"
            )));
        }
        if !at.json {
            print(format_args!(
                "other nodes have everything; {node} can be stopped now\n"
            ))?;
        }
        return Ok(());
    }
}
