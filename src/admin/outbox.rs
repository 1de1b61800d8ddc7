//! The outbox and the trace, for operators: the page, `payrelay outbox` and `payrelay trace` ask here.

use std::collections::HashSet;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use serde::Deserialize;
use serde_json::json;

use super::Sources;
use super::api::{Changed, Forgotten, HandedOver, Imported, TraceAnswer, Traced};
use super::auth::Caller;
use super::changes::Changes;
use super::query::pairs;
use super::reply::{AdminReply, AdminRequest};
use crate::notification::NotificationId;
use crate::outbox::{AdminAction, AskError, Exported, Filter, Order, Outbox, SPARED_MAX, State};
use crate::trace::Record;

/// The most notifications in one answer, and how many there are if nobody says.
const LIMIT_MAX: usize = 500;
const LIMIT_DEFAULT: usize = 100;

/// How much one page of an export has, about; one notification may have more.
const EXPORT_BYTES: usize = 1 << 20;

/// The most that one trace finds: an event is known by its newest requests.
const TRACES_MAX: usize = 20;

/// The most ids in one order.
const IDS_MAX: usize = 100;

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
    /// Pending ones may be dropped too.
    pending: bool,
}

/// Answers what is asked below `/outbox`; `None`: there is no such page.
pub fn answer(
    sources: &Sources,
    changes: &Changes,
    node: &str,
    asked: &AdminRequest<'_>,
    caller: &Caller,
) -> Option<AdminReply> {
    let rest = asked.path().strip_prefix("/outbox")?;
    if rest == "/forget" {
        return Some(forget(sources, changes, node, asked, caller));
    }
    let Some(outbox) = &sources.outbox else {
        let words = "this relay has no outbox: delivery.undelivered is \"refuse\"\n";
        return Some(AdminReply::text(404, words));
    };
    match rest {
        "" => Some(list(outbox, node, asked.target)),
        "/export" => Some(export(outbox, asked.target)),
        "/retry" => Some(change(
            sources,
            changes,
            outbox,
            asked,
            AdminAction::Retry,
            caller,
        )),
        "/import" => Some(import(sources, outbox, asked, caller)),
        "/hand-over" => Some(hand_over(outbox, node, asked, caller)),
        "/drop" => Some(change(
            sources,
            changes,
            outbox,
            asked,
            AdminAction::Drop { pending: false },
            caller,
        )),
        rest => {
            let id = NotificationId::parse(rest.strip_prefix('/')?)?;
            Some(show(outbox, id, asked.target, caller))
        }
    }
}

/// What became of what somebody means by the `key` of `target`, as far as `node` knows.
pub fn trace(sources: &Sources, changes: &Changes, node: &str, target: &str) -> AdminReply {
    let query = pairs(target);
    let key = query.iter().find(|(key, _)| key == "key");
    let Some((_, key)) = key else {
        return AdminReply::text(400, "key=ID or key=EVENT is missing\n");
    };
    let mut found: Vec<Traced> = sources
        .delivery
        .under_way(key)
        .iter()
        .map(Traced::of_record)
        .collect();
    let told = sources.trace.find(key, TRACES_MAX);
    let stored = match &sources.outbox {
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
        found.push(Traced::of_row(row, answered));
    }
    found.extend(changes.find_dropped(key, &told));
    let known: HashSet<String> = found.iter().map(|one| one.id.clone()).collect();
    let elsewhere = |record: &&Record| !known.contains(&record.id.to_string());
    for record in told.iter().filter(elsewhere) {
        let mut traced = Traced::of_record(record);
        changes.add_forgotten(&mut traced);
        found.push(traced);
    }
    let node = node.to_owned();
    AdminReply::json(200, &TraceAnswer { node, found })
}

fn change(
    sources: &Sources,
    changes: &Changes,
    outbox: &Outbox,
    asked: &AdminRequest<'_>,
    what: AdminAction,
    caller: &Caller,
) -> AdminReply {
    let params: FilterParams = match serde_json::from_slice(asked.body) {
        Ok(params) => params,
        Err(error) => return AdminReply::text(400, &format!("{error}\n")),
    };
    let order = match order(params, what, asked.who(caller)) {
        Ok(order) => order,
        Err(words) => return AdminReply::text(400, words),
    };
    let (which, by) = (in_words(&order.filter), order.by.clone());
    let ordered = match outbox.order(order) {
        Ok(ordered) if ordered.spared > 0 => return spared(ordered.spared),
        Ok(ordered) => ordered,
        Err(error) => return failed(&error),
    };
    for key in &ordered.freed {
        sources.delivery.forget(key);
    }
    let done = match what {
        AdminAction::Retry => "delivers again",
        AdminAction::Drop { .. } => "drops",
        AdminAction::Forget => "forgets",
    };
    let changed = ordered.changed;
    log::info!("admin: {by} {done} {changed} notifications: {which}");
    changes.dropped(ordered.dropped, &by);
    AdminReply::json(
        200,
        &Changed {
            changed,
            in_hand: ordered.in_hand,
            next: ordered.next,
        },
    )
}

/// What the outbox is asked to do; an error says what `params` lack.
fn order(params: FilterParams, what: AdminAction, by: String) -> Result<Order, &'static str> {
    let (after, all, pending) = (params.after, params.all, params.pending);
    let filter = params.filter()?;
    if filter == Filter::default() && !all {
        return Err("say which: ids, backend, state, route, event, since, or all\n");
    }
    let what = match what {
        AdminAction::Drop { .. } => AdminAction::Drop { pending },
        what => what,
    };
    Ok(Order {
        what,
        filter,
        after,
        by,
    })
}

/// Nothing was dropped, since so many are pending.
fn spared(count: u64) -> AdminReply {
    let or_more = match count >= SPARED_MAX as u64 {
        true => " or more",
        false => "",
    };
    AdminReply::text(
        409,
        &format!(
            "{count}{or_more} of these are pending: their providers were told ok and will not send them again; nothing was \
             dropped. To delete them all the same: \"pending\": true\n"
        ),
    )
}

/// What `POST /outbox/forget` carries.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    event: String,
}

/// Has the next request for an event delivered, though the event was delivered or stored before.
fn forget(
    sources: &Sources,
    changes: &Changes,
    node: &str,
    asked: &AdminRequest<'_>,
    caller: &Caller,
) -> AdminReply {
    let by = asked.who(caller);
    let Forget { event } = match serde_json::from_slice(asked.body) {
        Ok(forget) => forget,
        Err(error) => return AdminReply::text(400, &format!("{error}\n")),
    };
    // The disk first: what is known there is known again after a restart.
    let (mut forgotten, mut after) = (HashSet::new(), Some(0));
    while let (Some(from), Some(outbox)) = (after, &sources.outbox) {
        let filter = Filter {
            event: Some(event.clone()),
            ..Filter::default()
        };
        let order = Order {
            what: AdminAction::Forget,
            filter,
            after: from,
            by: by.clone(),
        };
        match outbox.order(order) {
            Ok(ordered) => {
                after = ordered.next;
                forgotten.extend(ordered.freed);
            }
            Err(error) => return failed(&error),
        }
    }
    for key in &forgotten {
        sources.delivery.forget(key);
    }
    forgotten.extend(sources.delivery.forget_named(&event));
    log::info!(
        "admin: {by} forgets {} events called {}",
        forgotten.len(),
        event.escape_debug()
    );
    if !forgotten.is_empty() {
        changes.forgotten(event, &by);
    }
    let told = Forgotten {
        node: node.to_owned(),
        forgotten: forgotten.len() as u64,
    };
    AdminReply::json(200, &told)
}

/// Has other nodes take over everything.
fn hand_over(outbox: &Outbox, node: &str, asked: &AdminRequest<'_>, caller: &Caller) -> AdminReply {
    match outbox.hand_over() {
        Ok((left, damaged)) => {
            log::info!(
                "admin: {} hands the outbox over; {left} are still here",
                asked.who(caller)
            );
            let node = node.to_owned();
            AdminReply::json(
                200,
                &HandedOver {
                    node,
                    left,
                    damaged,
                },
            )
        }
        Err(error) => AdminReply::text(409, &format!("{error}\n")),
    }
}

/// What `POST /outbox/import` carries.
#[derive(Deserialize)]
struct Import {
    messages: Vec<Exported>,
}

/// Adds what comes from another outbox.
fn import(
    sources: &Sources,
    outbox: &Outbox,
    asked: &AdminRequest<'_>,
    caller: &Caller,
) -> AdminReply {
    let import: Import = match serde_json::from_slice(asked.body) {
        Ok(import) => import,
        Err(error) => return AdminReply::text(400, &format!("{error}\n")),
    };
    let mut parsed = Vec::with_capacity(import.messages.len());
    for one in import.messages {
        let id = one.id.escape_debug().to_string();
        match one.parse() {
            Ok(one) => parsed.push(one),
            Err(bad) => return AdminReply::text(400, &format!("{id}: {bad}\n")),
        }
    }
    match outbox.import(parsed) {
        Ok(done) => {
            for (key, name, ago_ms) in &done.learned {
                let ago = Duration::from_millis(u64::try_from(*ago_ms).unwrap_or(0));
                sources.delivery.remember(*key, name, ago);
            }
            log::info!(
                "admin: {} imports {} notifications; {} were there already",
                asked.who(caller),
                done.changed,
                done.known
            );
            let imported = Imported {
                imported: done.changed,
                known: done.known,
                full: done.full,
            };
            AdminReply::json(200, &imported)
        }
        Err(error) => failed(&error),
    }
}

/// What an order was about, for the log.
fn in_words(filter: &Filter) -> String {
    let mut words: Vec<String> = filter.ids.iter().map(ToString::to_string).collect();
    words.truncate(IDS_MAX);
    let state = filter.state.map(State::as_str);
    for (key, value) in [
        ("backend", filter.backend.as_deref()),
        ("state", state),
        ("route", filter.route.as_deref()),
        ("event", filter.event.as_deref()),
    ] {
        words.extend(value.map(|value| format!("{key}={}", value.escape_debug())));
    }
    words.extend(filter.since_unix_ms.map(|since| format!("since={since}")));
    match words.is_empty() {
        true => "all".into(),
        false => words.join(" "),
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

fn list(outbox: &Outbox, node: &str, target: &str) -> AdminReply {
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
            ("node", _) => {}
            ("limit", Some(most @ 1..)) => limit = LIMIT_MAX.min(most as usize),
            _ => {
                let words = "known: backend, state, route, event, since (Unix ms), after, limit\n";
                return AdminReply::text(400, words);
            }
        }
    }
    let after = params.after;
    let filter = match params.filter() {
        Ok(filter) => filter,
        Err(words) => return AdminReply::text(400, words),
    };
    match outbox.list(&filter, after, limit) {
        Ok(rows) => {
            let next = rows.last().filter(|_| rows.len() == limit);
            let next = next.map(|row| row.seq);
            let messages: Vec<Traced> = rows.iter().map(|row| Traced::of_row(row, None)).collect();
            AdminReply::json(
                200,
                &json!({ "node": node, "messages": messages, "next": next, "gone": outbox.gone() }),
            )
        }
        Err(error) => failed(&error),
    }
}

/// Everything about what is stored, in pages.
fn export(outbox: &Outbox, target: &str) -> AdminReply {
    let mut after = 0;
    for (key, value) in pairs(target) {
        match (key.as_str(), value.parse()) {
            ("after", Ok(seq)) => after = seq,
            ("node", _) => {}
            _ => return AdminReply::text(400, "known: after\n"),
        }
    }
    match outbox.export(after, EXPORT_BYTES) {
        Ok((messages, next)) => {
            AdminReply::json(200, &json!({ "messages": messages, "next": next }))
        }
        Err(error) => failed(&error),
    }
}

fn show(outbox: &Outbox, id: NotificationId, target: &str, caller: &Caller) -> AdminReply {
    let with_body = pairs(target)
        .iter()
        .any(|(key, value)| key == "body" && value == "1");
    if with_body && !caller.rights.bodies {
        return AdminReply::text(403, NO_BODIES);
    }
    let (row, payload) = match outbox.show(id) {
        Ok(Some(found)) => found,
        Ok(None) => return AdminReply::text(404, "the outbox has no notification with this id\n"),
        Err(error) => return failed(&error),
    };
    let mut shown = json!(Traced::of_row(&row, None));
    if with_body {
        shown["damaged"] = payload.is_none().into();
        if let Some(payload) = payload {
            shown["headers"] = String::from_utf8_lossy(&payload.head).into();
            shown["body_base64"] = BASE_64.encode(&payload.body).into();
        }
    }
    AdminReply::json(200, &shown)
}

/// What one who may not see bodies is told.
pub const NO_BODIES: &str =
    "this token may not see headers and bodies; admin.read_tokens says who may: bodies = true\n";

fn failed(error: &AskError) -> AdminReply {
    AdminReply::text(503, &format!("{error}\n"))
}
