//! A primary that sentinels name. Each is asked twice a second, by connections of this thread with limits on every wait.

use std::time::Instant;

use redis::Value;

use super::others::Others;
use super::vote::{Vote, vote};
use super::{ANSWER_WITHIN, Primaries};
use crate::bus::redis::connection::RedisConnection;
use crate::bus::redis::health::Health;
use crate::bus::redis::link::{self, BadConfig, Connector, LinkError, Server};
use crate::bus::redis::names::{ALL, KeyNames};
use crate::bus::redis::resp;

/// The sentinels, and what they said last.
pub struct Sentinels {
    sentinels: Vec<Sentinel>,
    master: String,
    /// How to connect to the primary.
    pub connector: Connector,
    /// The primary in use.
    present: Option<String>,
    others: Others,
    /// What was logged of them last.
    logged: Option<String>,
}

struct Sentinel {
    name: String,
    server: Server,
    connection: Option<RedisConnection>,
}

impl Sentinels {
    /// The sentinels at `addresses`, which watch the primary called `master`. Opens nothing.
    ///
    /// # Errors
    /// An address is none.
    pub fn new(
        addresses: &[String],
        master: &str,
        asking: &Connector,
        connector: Connector,
    ) -> Result<Self, BadConfig> {
        let sentinels = addresses.iter().map(|address| {
            Ok(Sentinel {
                name: address.clone(),
                server: asking.server(address)?,
                connection: None,
            })
        });
        Ok(Self {
            sentinels: sentinels.collect::<Result<_, _>>()?,
            master: master.to_owned(),
            others: Others::new(connector.clone().hasty(ANSWER_WITHIN)),
            connector,
            present: None,
            logged: None,
        })
    }

    /// Asks every sentinel; then looks for nodes that use another primary.
    pub fn look(&mut self, health: &Health, names: &KeyNames) -> Primaries {
        let mut answers = Vec::with_capacity(self.sentinels.len());
        let mut trouble = None;
        for sentinel in &mut self.sentinels {
            match sentinel.ask(&self.master) {
                Ok(name) => answers.push(Some(name)),
                Err(why) => {
                    trouble = Some(format!("sentinel {}: {why}", sentinel.name));
                    answers.push(None);
                }
            }
        }
        health.sentinels(answers.iter().flatten().count(), answers.len());
        self.log(&answers, trouble.as_deref());
        let mut moves = false;
        let works = health.is_up(ALL);
        if let Vote::Use(name) = vote(&answers, self.present.as_deref(), works) {
            match &self.present {
                Some(before) => log::warn!(
                    "redis: the sentinels name {name} as the primary, no longer {before}"
                ),
                None => log::info!("redis: the sentinels name {name} as the primary"),
            }
            health.about_to_use(&name);
            moves = true;
            if let Some(before) = self.present.replace(name) {
                self.others.add(&before, Instant::now());
            }
        }
        match &self.present {
            Some(present) => {
                let now = Instant::now();
                for named in answers.iter().flatten().filter(|named| *named != present) {
                    self.others.add(named, now);
                }
                // Before the move: nodes that stay where this one was must know why nobody receives their messages any more. But
                // a primary that does not work would only hold up the move.
                if works || !moves {
                    let found = self.others.look(present, names, now);
                    // That there are none is true once the new link stands.
                    if found.is_some() || !moves {
                        health.found_elsewhere(found);
                    }
                }
                Ok(vec![Some(present.clone())])
            }
            None => {
                let why = trouble.unwrap_or_else(|| "no sentinel names a primary".into());
                Err(LinkError(why))
            }
        }
    }

    /// Logs when sentinels disagree or do not answer, once each time that changes.
    fn log(&mut self, answers: &[Option<String>], trouble: Option<&str>) {
        let mut named: Vec<&String> = answers.iter().flatten().collect();
        named.sort();
        named.dedup();
        let line = match (&named[..], trouble) {
            ([], Some(trouble)) => Some(format!("no sentinel answers; {trouble}")),
            ([_, _, ..], _) => Some(format!("the sentinels name different primaries: {named:?}")),
            (_, Some(trouble)) => Some(format!("not every sentinel answers; {trouble}")),
            (_, None) => None,
        };
        if line != self.logged {
            match &line {
                Some(line) => log::warn!("redis: {line}"),
                None => log::info!("redis: all sentinels answer"),
            }
            self.logged = line;
        }
    }
}

impl Sentinel {
    fn ask(&mut self, master: &str) -> Result<String, LinkError> {
        let answer = self.try_ask(master);
        if answer.is_err() {
            self.connection = None;
        }
        answer
    }

    fn try_ask(&mut self, master: &str) -> Result<String, LinkError> {
        let connection = match &mut self.connection {
            Some(connection) => connection,
            none => none.insert(self.server.connect(None)?),
        };
        named_primary(connection, master)
    }
}

/// The primary called `master`, as the sentinel at the other end of `connection` names it.
///
/// # Errors
/// It does not answer, lacks a right, or knows no such primary.
pub fn named_primary(connection: &mut RedisConnection, master: &str) -> Result<String, LinkError> {
    let command = [
        &b"SENTINEL"[..],
        b"GET-MASTER-ADDR-BY-NAME",
        master.as_bytes(),
    ];
    let reply = link::ask(connection, &command).map_err(|error| match error.code() {
        Some("NOPERM") => LinkError(format!(
            "the user in redis.sentinel_user needs +sentinel|get-master-addr-by-name: {error}"
        )),
        _ => LinkError::from(error),
    })?;
    address(&reply).ok_or_else(|| {
        LinkError(format!(
            "it does not know a primary called {master:?} (redis.master)"
        ))
    })
}

/// `host:port` of a reply with both.
fn address(reply: &Value) -> Option<String> {
    let Value::Array(parts) = reply else {
        return None;
    };
    let [host, port] = &parts[..] else {
        return None;
    };
    let (host, port) = (resp::text(host)?, resp::text(port)?);
    Some(match host.contains(':') {
        true => format!("[{host}]:{port}"),
        false => format!("{host}:{port}"),
    })
}
