//! The outbox and the trace, for operators: `payrelay outbox` and `payrelay trace` ask here.
//!
//! What changes something is a POST of JSON, which no web page of another origin can send.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::query::{base64, decode, pairs};
use super::{Asked, Told};
use crate::notification::{EventKey, NotificationId};
use crate::outbox::{AskError, Filter, Order, Outbox, Row, State, What};
use crate::timeline::Timeline;
use crate::trace::{Record, Trace};

/// The most notifications in one answer, and how many there are if nobody says.
const LIMIT_MAX: usize = 500;
const LIMIT_DEFAULT: usize = 100;

/// How much one page of an export has, about; one notification may have more.
const EXPORT_BYTES: usize = 1 << 20;

/// The most that one trace finds: an event is known by its newest requests.
const TRACES_MAX: usize = 20;

/// The most ids in one order.
const IDS_MAX: usize = 100;

/// What is under way of what somebody means by a word.
pub type UnderWay = Box<dyn Fn(&str) -> Vec<Record> + Send + Sync>;

/// What is asked about, and what is to be told of changes.
pub struct AdminState {
    /// `None`: nothing is stored here.
    pub outbox: Option<Arc<Outbox>>,
    pub trace: Arc<Trace>,
    pub under_way: UnderWay,
    /// An event that was stored is not any more.
    pub forget: Box<dyn Fn(&EventKey) + Send + Sync>,
}

/// Which notifications an order is about; at least one key, or `all`.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct FilterParams {
    ids: Vec<String>,
    backend: Option<String>,
    state: Option<String>,
    route: Option<String>,
    event: Option<String>,
    since: Option<u64>,
    all: bool,
    after: i64,
}

impl AdminState {
    /// Answers what is asked below `/outbox` and at `/trace`; `None`: there is no such page.
    pub(super) fn answer(&self, asked: Asked<'_>) -> Option<Told> {
        let path = asked.target.split(['?', '#']).next().unwrap_or_default();
        if path == "/trace" {
            return Some(reading(asked, || self.trace(asked.target)));
        }
        let rest = path.strip_prefix("/outbox")?;
        let Some(outbox) = &self.outbox else {
            let words = "this relay has no outbox: delivery.undelivered is \"refuse\"\n";
            return Some(Told::text(404, words));
        };
        match rest {
            "" => Some(reading(asked, || list(outbox, asked.target))),
            "/export" => Some(reading(asked, || export(outbox, asked.target))),
            "/retry" => Some(self.changing(outbox, asked, What::Retry)),
            "/drop" => Some(self.changing(outbox, asked, What::Drop)),
            rest => {
                let id = NotificationId::parse(rest.strip_prefix('/')?)?;
                Some(reading(asked, || show(outbox, id, asked.target)))
            }
        }
    }

    fn trace(&self, target: &str) -> Told {
        let query = pairs(target);
        let key = query.iter().find(|(key, _)| key == "key");
        let Some((_, key)) = key else {
            return Told::text(400, "key=ID or key=EVENT is missing\n");
        };
        let mut found: Vec<Value> = (self.under_way)(key).iter().map(of_record).collect();
        let told = self.trace.find(key, TRACES_MAX);
        let stored = match &self.outbox {
            None => Vec::new(),
            Some(outbox) => {
                let filter = match NotificationId::parse(key) {
                    Some(id) => Filter {
                        ids: vec![id],
                        ..Filter::default()
                    },
                    None => Filter {
                        event: Some(key.clone()),
                        ..Filter::default()
                    },
                };
                match outbox.list(&filter, 0, TRACES_MAX) {
                    Ok(rows) => rows,
                    Err(error) => return failed(&error),
                }
            }
        };
        for row in &stored {
            // What its provider was told is remembered beside the disk, if it was not long ago.
            let answered = told.iter().find(|record| record.id == row.id);
            found.push(of_row(row, answered));
        }
        let elsewhere = |record: &&Record| stored.iter().all(|row| row.id != record.id);
        found.extend(told.iter().filter(elsewhere).map(of_record));
        Told::json(200, &json!({ "found": found }))
    }

    fn changing(&self, outbox: &Outbox, asked: Asked<'_>, what: What) -> Told {
        if asked.method != "POST" {
            return Told {
                extra: Some("Allow: POST"),
                ..Told::text(405, "this changes something: use POST\n")
            };
        }
        if !asked.is_json {
            return Told::text(
                415,
                "the body must be JSON, Content-Type: application/json\n",
            );
        }
        let params: FilterParams = match serde_json::from_slice(asked.body) {
            Ok(params) => params,
            Err(error) => return Told::text(400, &format!("{error}\n")),
        };
        let (after, all) = (params.after, params.all);
        let filter = match params.filter() {
            Ok(filter) => filter,
            Err(words) => return Told::text(400, words),
        };
        if filter == Filter::default() && !all {
            return Told::text(
                400,
                "say which: ids, backend, state, route, event, since, or all\n",
            );
        }
        let order = Order {
            what,
            filter,
            after,
        };
        match outbox.order(order) {
            Ok(ordered) => {
                for key in &ordered.freed {
                    (self.forget)(key);
                }
                Told::json(
                    200,
                    &json!({ "changed": ordered.changed, "in_hand": ordered.in_hand, "next": ordered.next }),
                )
            }
            Err(error) => failed(&error),
        }
    }
}

impl FilterParams {
    fn filter(self) -> Result<Filter, &'static str> {
        if self.ids.len() > IDS_MAX {
            return Err("at most 100 ids at once\n");
        }
        let ids = self.ids.iter().map(|id| NotificationId::parse(id));
        let state = self.state.as_deref().map(State::parse);
        Ok(Filter {
            ids: ids
                .collect::<Option<_>>()
                .ok_or("an id has 26 characters of 0-9 A-Z\n")?,
            backend: self.backend,
            state: state
                .map(|state| state.ok_or("a state is pending, done or dead\n"))
                .transpose()?,
            route: self.route,
            event: self.event,
            since_unix_ms: self.since,
        })
    }
}

fn reading(asked: Asked<'_>, read: impl FnOnce() -> Told) -> Told {
    match asked.method {
        "GET" | "HEAD" => read(),
        _ => Told {
            extra: Some("Allow: GET, HEAD"),
            ..Told::text(405, "this only reads: use GET\n")
        },
    }
}

fn list(outbox: &Outbox, target: &str) -> Told {
    let mut params = FilterParams::default();
    let mut limit = LIMIT_DEFAULT;
    for (key, value) in pairs(target) {
        let number = value.parse::<u64>().ok();
        match (key.as_str(), number) {
            ("backend", _) => params.backend = Some(value),
            ("state", _) => params.state = Some(value),
            ("route", _) => params.route = Some(value),
            ("event", _) => params.event = Some(value),
            ("since", Some(ms)) => params.since = Some(ms),
            ("after", Some(seq)) => params.after = i64::try_from(seq).unwrap_or(i64::MAX),
            ("limit", Some(most @ 1..)) => limit = LIMIT_MAX.min(most as usize),
            _ => {
                let words = "known: backend, state, route, event, since (Unix ms), after, limit\n";
                return Told::text(400, words);
            }
        }
    }
    let after = params.after;
    let filter = match params.filter() {
        Ok(filter) => filter,
        Err(words) => return Told::text(400, words),
    };
    match outbox.list(&filter, after, limit) {
        Ok(rows) => {
            let next = rows.last().filter(|_| rows.len() == limit);
            let next = next.map(|row| row.seq);
            let messages: Vec<Value> = rows.iter().map(|row| of_row(row, None)).collect();
            Told::json(200, &json!({ "messages": messages, "next": next }))
        }
        Err(error) => failed(&error),
    }
}

/// Everything about what is stored, in pages.
fn export(outbox: &Outbox, target: &str) -> Told {
    let mut after = 0;
    for (key, value) in pairs(target) {
        match (key.as_str(), value.parse()) {
            ("after", Ok(seq)) => after = seq,
            _ => return Told::text(400, "known: after\n"),
        }
    }
    match outbox.export(after, EXPORT_BYTES) {
        Ok((messages, next)) => Told::json(200, &json!({ "messages": messages, "next": next })),
        Err(error) => failed(&error),
    }
}

fn show(outbox: &Outbox, id: NotificationId, target: &str) -> Told {
    let (row, payload) = match outbox.show(id) {
        Ok(Some(found)) => found,
        Ok(None) => return Told::text(404, "the outbox has no notification with this id\n"),
        Err(error) => return failed(&error),
    };
    let mut shown = of_row(&row, None);
    let with_body = pairs(target)
        .iter()
        .any(|(key, value)| key == "body" && decode(value).as_deref() == Some("1"));
    if with_body {
        shown["damaged"] = payload.is_none().into();
        if let Some(payload) = payload {
            shown["headers"] = String::from_utf8_lossy(&payload.head).into();
            shown["body_base64"] = base64(&payload.body).into();
        }
    }
    Told::json(200, &shown)
}

fn failed(error: &AskError) -> Told {
    Told::text(503, &format!("{error}\n"))
}

fn of_row(row: &Row, answered: Option<&Record>) -> Value {
    let mut timeline = row.timeline.clone();
    let answer = answered.map(Record::timeline).unwrap_or_default();
    for step in answer.steps().iter().filter(|step| step.what == "answered") {
        timeline.add(step.at_unix_ms, &step.what, &step.detail);
    }
    let mut steps = steps(&timeline);
    steps.sort_by_key(|step| step["at"].as_u64());
    json!({
        "seq": row.seq,
        "id": row.id.to_string(),
        "backend": row.backend,
        "route": row.route,
        "verified": row.verified,
        "event": row.event,
        "at": row.at_unix_ms,
        "state": row.state.as_str(),
        "tries": row.tries,
        "bytes": row.bytes,
        "why": row.why,
        "timeline": steps,
    })
}

fn of_record(record: &Record) -> Value {
    json!({
        "id": record.id.to_string(),
        "backend": record.backend.as_str(),
        "route": &*record.route,
        "verified": &*record.verified,
        "event": record.event,
        "at": record.at_unix_ms,
        "state": match record.concluded {
            None => "under way",
            Some((outcome, _)) => outcome.as_str(),
        },
        "timeline": steps(&record.timeline()),
    })
}

fn steps(timeline: &Timeline) -> Vec<Value> {
    let step = |step: &crate::timeline::Step| json!({ "at": step.at_unix_ms, "what": step.what, "detail": step.detail });
    timeline.steps().iter().map(step).collect()
}
