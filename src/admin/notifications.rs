//! The notifications of this node in one list, newest first: those whose providers wait, the latest that ended, and those in
//! the outbox. And what one of them carried.

use std::collections::HashSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;

use super::api::{Content, Listed, OutboxCounts, Summary};
use super::query::pairs;
use super::reply::{AdminAnswer, AdminReply};
use super::{Admin, Sources};
use crate::notification::{NotificationId, Outcome};
use crate::outbox::{AskError, Search, State};
use crate::trace::Record;

/// The most in one answer, and how many there are if nobody says.
const LIMIT_MAX: usize = 500;
const LIMIT_DEFAULT: usize = 100;

/// The most under way that are shown: the table that they are in is every provider's.
const WAITING_MAX: usize = 200;

/// The shortest text that is looked for inside of events and bodies.
const TEXT_BYTES_MIN: usize = 3;

const KNOWN: &str = "known: q, backend, route, state, before, limit, since\n";

/// What somebody wants to see.
#[derive(Debug, Default)]
struct Wanted {
    search: Search,
    /// A state that is none of the outbox's.
    outcome: Option<String>,
    since: Option<String>,
    limit: usize,
}

impl Wanted {
    fn of(target: &str, bodies: bool) -> Result<Self, &'static str> {
        let mut wanted = Self {
            limit: LIMIT_DEFAULT,
            ..Self::default()
        };
        for (key, value) in pairs(target) {
            if value.is_empty() {
                continue;
            }
            match key.as_str() {
                "q" if value.len() < TEXT_BYTES_MIN => {
                    return Err(
                        "q: at least 3 bytes: an id, a backend, or a part of an event or a body\n",
                    );
                }
                "q" => wanted.search.text = Some(value.trim().to_owned()),
                "backend" => wanted.search.backend = Some(value),
                "route" => wanted.search.route = Some(value),
                "state" if !is_state(&value) => {
                    return Err(
                        "state: waiting, pending, done, dead, or an outcome such as delivered\n",
                    );
                }
                "state" => match State::parse(&value) {
                    Some(state) => wanted.search.state = Some(state),
                    None => wanted.outcome = Some(value),
                },
                "before" => {
                    let id = NotificationId::parse(&value);
                    wanted.search.before = Some(id.ok_or("before: the id of a notification\n")?);
                }
                "limit" => {
                    let limit = value.parse::<usize>().ok().filter(|&limit| limit > 0);
                    wanted.limit = limit.ok_or("limit: a number from 1 on\n")?.min(LIMIT_MAX);
                }
                "since" => wanted.since = Some(value),
                "node" => {}
                _ => return Err(KNOWN),
            }
        }
        wanted.search.in_contents = bodies;
        Ok(wanted)
    }

    /// Whether a notification that is not in the outbox is wanted; `by_content`: those with the text in what they carried.
    fn takes(&self, record: &Record, by_content: &HashSet<NotificationId>) -> bool {
        let Search {
            text,
            in_contents: _,
            backend,
            route,
            state: _,
            before,
        } = &self.search;
        let same = |wanted: &Option<String>, is: &str| wanted.as_deref().is_none_or(|w| w == is);
        let has_text = text.as_deref().is_none_or(|text| {
            record.backend.as_str() == text
                || record
                    .event
                    .as_deref()
                    .is_some_and(|event| event.contains(text))
                || NotificationId::parse(text) == Some(record.id)
                || by_content.contains(&record.id)
        });
        let word = record
            .concluded
            .map_or("waiting", |(outcome, _)| outcome.as_str());
        same(backend, record.backend.as_str())
            && same(route, &record.route)
            && same(&self.outcome, word)
            && before.is_none_or(|before| record.id < before)
            && has_text
    }
}

/// The list that `target` asks for.
pub fn list(admin: &Admin, target: &str, bodies: bool) -> AdminAnswer {
    let wanted = Wanted::of(target, bodies)?;
    let sources = &admin.sources;
    let outbox = sources.outbox.as_ref();
    let counts = outbox.map(|outbox| outbox.counts());
    let unknown = outbox.map_or(0, |outbox| outbox.unknown_backends().pending);
    let waiting = sources.delivery.some_under_way(WAITING_MAX);
    let newest = waiting.iter().map(|record| record.id).max();
    // What is taken out of those that wait is added to the trace, so nothing comes or goes unseen.
    let version = format!(
        "{}.{}.{}.{:?}",
        sources.trace.added(),
        waiting.len(),
        newest.map_or(String::new(), |id| id.to_string()),
        counts.unwrap_or_default(),
    )
    .replace([' ', '[', ']'], "");
    let mut listed = Listed {
        node: admin.node.clone(),
        unchanged: wanted.since.as_deref() == Some(&version),
        version,
        outbox: counts.map(|[pending, done, dead]| OutboxCounts {
            pending,
            done,
            dead,
            unknown_backend: unknown.min(pending),
        }),
        ..Listed::default()
    };
    if !listed.unchanged {
        (listed.notifications, listed.next) = gather(sources, &wanted, waiting)?;
    }
    Ok(AdminReply::json(200, &listed))
}

/// The notifications that are wanted, and where to go on.
fn gather(
    sources: &Sources,
    wanted: &Wanted,
    waiting: Vec<Record>,
) -> Result<(Vec<Summary>, Option<String>), AskError> {
    let found = match &sources.outbox {
        Some(outbox) if wanted.outcome.is_none() => outbox.newest(&wanted.search, wanted.limit)?,
        Some(_) | None => Default::default(),
    };
    let stored: HashSet<NotificationId> = found.rows.iter().map(|row| row.id).collect();
    // Beyond that the outbox has not been looked through: what is older belongs to the next page.
    let looked_to = found.looked_to;
    let in_reach = |record: &Record| {
        looked_to.is_none_or(|end| record.id >= end) && !stored.contains(&record.id)
    };
    let mut all: Vec<(NotificationId, Summary)> = Vec::new();
    if wanted.search.state.is_none() {
        let by_content = match &wanted.search.text {
            Some(text) if wanted.search.in_contents => sources.trace.carrying(text.as_bytes()),
            _ => HashSet::new(),
        };
        let takes = |record: &Record| in_reach(record) && wanted.takes(record, &by_content);
        // One more than fits says whether there is a next page.
        let records = sources.trace.newest(wanted.limit + 1, takes);
        // One that ended while this was read is in both.
        let ended: HashSet<NotificationId> = records.iter().map(|record| record.id).collect();
        let waiting = waiting
            .iter()
            .filter(|record| takes(record) && !ended.contains(&record.id));
        let records = records.iter().chain(waiting);
        all.extend(records.map(|record| (record.id, Summary::of_record(record))));
    }
    all.extend(found.rows.iter().map(|row| (row.id, Summary::of_row(row))));
    all.sort_by(|(one, _), (other, _)| other.cmp(one));
    let next = match all.len() > wanted.limit {
        true => all.get(wanted.limit - 1).map(|(id, _)| *id),
        false => looked_to,
    };
    all.truncate(wanted.limit);
    let notifications = all.into_iter().map(|(_, summary)| summary).collect();
    Ok((notifications, next.map(|id| id.to_string())))
}

/// What the notification called `id` carried.
pub fn content(admin: &Admin, id: NotificationId) -> AdminAnswer {
    let stored = match &admin.sources.outbox {
        Some(outbox) => outbox.show(id)?,
        None => None,
    };
    let mut content = Content {
        id: id.to_string(),
        kept: "none".into(),
        damaged: false,
        head: String::new(),
        body_base64: String::new(),
    };
    let mut fill = |kept: &str, head: &[u8], body: &[u8]| {
        content.kept = kept.into();
        content.head = String::from_utf8_lossy(head).into();
        content.body_base64 = BASE_64.encode(body);
    };
    match stored {
        Some((_, Some(payload))) => fill("outbox", &payload.head, &payload.body),
        Some((_, None)) => {
            content.kept = "outbox".into();
            content.damaged = true;
        }
        None => {
            if let Some(carried) = admin.sources.trace.carried(id) {
                fill("memory", &carried.head, &carried.body);
            }
        }
    }
    Ok(AdminReply::json(200, &content))
}

/// Whether `word` is a state that a list can be filtered by.
fn is_state(word: &str) -> bool {
    word == "waiting"
        || State::parse(word).is_some()
        || Outcome::ALL.iter().any(|outcome| outcome.as_str() == word)
}
