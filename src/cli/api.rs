//! What subcommands ask a running relay, at its admin port.

use std::time::Duration;

use payrelay::admin::api::SessionInfo;
use payrelay::escape::percent_encoded;
use payrelay::logging::Utc;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use time::{OffsetDateTime, UtcOffset};

use super::text::{one_line, readable};
use super::{ConfigFile, Failure, place, say};
use crate::client::http::{ClientRequest, ClientResponse};

/// The relay answers when its disk has.
const DEADLINE: Duration = Duration::from_secs(60);

/// The end of the year 9999: a clock that is further off would not fit in its column.
const TIME_MAX_MS: u64 = 253_402_300_799_999;

/// Where the relay is asked.
#[derive(Debug, clap::Args)]
pub struct Where {
    /// The relay's admin port [default: admin.listen of the configuration]
    #[arg(long, visible_alias = "admin", value_name = "HOST:PORT")]
    connect: Option<String>,

    /// Print the answer as JSON
    #[arg(long)]
    pub json: bool,
}

/// A node that can be asked through the relay, or the relay itself.
#[derive(Debug)]
pub struct Node {
    /// Its name in this run; empty as long as it was not asked.
    pub name: String,
    /// What `node=` is for it; `None`: the relay itself.
    address: Option<String>,
}

impl Node {
    /// Whether it is the relay itself.
    pub fn is_own(&self) -> bool {
        self.address.is_none()
    }

    /// `target` at this node.
    pub fn target(&self, target: &str) -> String {
        match &self.address {
            None => target.to_owned(),
            Some(address) => {
                let sign = if target.contains('?') { '&' } else { '?' };
                format!("{target}{sign}node={}", escaped(address))
            }
        }
    }
}

/// Names the nodes that were `silent`.
pub fn name_silent(silent: &[String]) {
    for node in silent {
        say(format_args!("not asked: {}", one_line(node)));
    }
}

/// Names the nodes that were `silent`, and says that the answer lacks them.
///
/// # Errors
/// There are some.
pub fn all_answered(silent: &[String], words: &str) -> Result<(), Failure> {
    name_silent(silent);
    match silent.len() {
        0 => Ok(()),
        count => Err(Failure::new(format_args!("{count} nodes {words}"))),
    }
}

/// A relay that can be asked.
#[derive(Debug)]
pub struct Api {
    place: String,
    headers: Vec<(String, String)>,
}

impl Api {
    /// Finds the relay of this configuration, and the token that it asks for.
    pub fn of(config: &ConfigFile, given: &Where) -> Result<Self, Failure> {
        let loaded = match &given.connect {
            None => Some(config.load_or(", or the relay with --connect HOST:PORT")?),
            Some(_) => config.load_if_there()?,
        };
        let place = match (&given.connect, &loaded) {
            (Some(place), _) => place.clone(),
            (None, Some(loaded)) => {
                place::reachable(loaded.admin.listen, "admin.listen", "--admin")?.to_string()
            }
            (None, None) => return Err(Failure::usage("no configuration, and no --connect")),
        };
        let token = loaded.and_then(|loaded| loaded.admin.token);
        let bearer = token.map(|token| format!("Bearer {}", token.expose()));
        Ok(Self {
            place,
            headers: bearer
                .map(|bearer| ("Authorization".to_owned(), bearer))
                .into_iter()
                .collect(),
        })
    }

    /// What the relay has at `target`.
    pub fn get(&self, target: &str) -> Result<Value, Failure> {
        self.ask("GET", target, &self.headers, b"")
    }

    /// The relay itself, and the nodes that may be asked through it.
    pub fn known_nodes(&self) -> Result<Vec<Node>, Failure> {
        let session = SessionInfo::deserialize(&self.get("/session")?)
            .map_err(|_| Failure::new("this relay is of a version without GET /session"))?;
        let own = Node {
            name: session.node,
            address: None,
        };
        let others = session.others.into_iter().map(|address| Node {
            name: String::new(),
            address: Some(address),
        });
        Ok(std::iter::once(own).chain(others).collect())
    }

    /// The nodes that can be asked, the relay itself first; and those that do not answer, with the reason.
    pub fn nodes(&self) -> Result<(Vec<Node>, Vec<String>), Failure> {
        let (mut nodes, mut silent): (Vec<Node>, _) = (Vec::new(), Vec::new());
        for mut node in self.known_nodes()? {
            if let Some(address) = &node.address {
                match self.get(&node.target("/health")) {
                    Ok(health) => node.name = text(&health, "node"),
                    Err(failure) => {
                        silent.push(format!("{address}: {}", failure.words));
                        continue;
                    }
                }
            }
            // By another address it is the same node.
            if nodes.iter().all(|known| known.name != node.name) {
                nodes.push(node);
            }
        }
        Ok((nodes, silent))
    }

    /// Does `ask` for every node, the relay itself first. Says which do not answer, with the reason.
    pub fn each_node(
        &self,
        mut ask: impl FnMut(&Node) -> Result<(), Failure>,
    ) -> Result<Vec<String>, Failure> {
        let (nodes, mut silent) = self.nodes()?;
        for node in &nodes {
            if let Err(failure) = ask(node) {
                silent.push(format!("{}: {}", node.name, failure.words));
            }
        }
        Ok(silent)
    }

    /// Has the relay do what `order` says.
    pub fn order(&self, target: &str, order: &Value) -> Result<Value, Failure> {
        let mut headers = self.headers.clone();
        headers.push(("Content-Type".into(), "application/json".into()));
        headers.push(("X-Payrelay-Action".into(), "1".into()));
        self.ask("POST", target, &headers, order.to_string().as_bytes())
    }

    fn ask(
        &self,
        method: &str,
        target: &str,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<Value, Failure> {
        let place = &self.place;
        let answer = ClientRequest {
            method,
            place,
            trust: None,
            target,
            headers,
            body,
            deadline: DEADLINE,
        }
        .send();
        let answer =
            answer.map_err(|error| Failure::no_answer(&error, ", with its admin port", place))?;
        if answer.status != 200 {
            return Err(refused(&answer, place));
        }
        serde_json::from_slice(&answer.body)
            .map_err(|_| Failure::at(place, "what answers there is no relay"))
    }
}

fn refused(answer: &ClientResponse, place: &str) -> Failure {
    let words = readable(&answer.body);
    let words = one_line(words.trim_end());
    match answer.status {
        401 => Failure::new(format_args!(
            "{place} asks for the admin token; name the relay's own configuration with -c"
        )),
        404 | 400 => Failure::new(words),
        status => Failure::new(format_args!("{place}: {status}: {words}")),
    }
}

/// `text` as it stands in a query.
pub fn escaped(text: &str) -> String {
    percent_encoded(text.as_bytes())
}

/// An answer of the relay as what it should be.
///
/// # Errors
/// It is something else.
pub fn parsed<T: DeserializeOwned>(answer: &Value) -> Result<T, Failure> {
    T::deserialize(answer).map_err(|_| Failure::new("what answers is no relay of this version"))
}

/// The string called `key`, fit for a terminal; `-` if there is none.
pub fn text(value: &Value, key: &str) -> String {
    match &value[key] {
        Value::Null => "-".into(),
        Value::String(text) => one_line(text),
        other => one_line(&other.to_string()),
    }
}

/// Unix milliseconds as people read them: in UTC, and behind that the time of day here, if that is another.
pub fn time(ms: u64) -> String {
    let utc = Utc(ms.min(TIME_MAX_MS));
    let at = i64::try_from(ms / 1000).ok();
    let at = at.and_then(|s| OffsetDateTime::from_unix_timestamp(s).ok());
    // The system's zone is known to a process of one thread only; these commands are.
    let offset = at.and_then(|at| UtcOffset::local_offset_at(at).ok());
    let (Some(at), Some(offset)) = (at, offset.filter(|offset| !offset.is_utc())) else {
        return utc.to_string();
    };
    let here = at.to_offset(offset);
    let (sign, minutes) = match offset.whole_minutes() {
        minutes if minutes < 0 => ('-', -minutes),
        minutes => ('+', minutes),
    };
    format!(
        "{utc} ({:02}:{:02}:{:02} {sign}{:02}:{:02})",
        here.hour(),
        here.minute(),
        here.second(),
        minutes / 60,
        minutes % 60
    )
}

/// The steps of a notification, one a line.
pub fn timeline(message: &Value) -> String {
    let mut lines = String::new();
    for step in message["timeline"].as_array().into_iter().flatten() {
        let at = time(step["at"].as_u64().unwrap_or(0));
        let line = format!(
            "  {at}  {:<10} {}",
            text(step, "what"),
            text(step, "detail")
        );
        lines.push_str(line.trim_end());
        lines.push('\n');
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        for (ms, shown) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_399_999, "2000-02-28T23:59:59.999Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (1_764_018_096_001, "2025-11-24T21:01:36.001Z"),
            (4_102_444_800_000, "2100-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(Utc(ms).to_string(), shown);
        }
    }
}
