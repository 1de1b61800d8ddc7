//! The outbox, for operators: the page and `payrelay outbox` ask here.

mod filter;
mod orders;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use serde_json::json;

use self::filter::FilterParams;
use super::Sources;
use super::api::Traced;
use super::auth::Caller;
use super::changes::Changes;
use super::query::pairs;
use super::reply::{AdminReply, AdminRequest};
use super::wanted::NO_BODIES;
use crate::notification::NotificationId;
use crate::outbox::{AdminAction, Outbox};

/// The most notifications in one answer, and how many there are if nobody says.
const LIMIT_MAX: usize = 500;
const LIMIT_DEFAULT: usize = 100;

/// How much one page of an export has, about; one notification may have more.
const EXPORT_BYTES: usize = 1 << 20;

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
        return Some(orders::forget(sources, changes, node, asked, caller));
    }
    let Some(outbox) = &sources.outbox else {
        let words = "this relay has no outbox: delivery.undelivered is \"refuse\"\n";
        return Some(AdminReply::text(404, words));
    };
    let change = |what| orders::change(sources, changes, outbox, asked, what, caller);
    match rest {
        "" => Some(list(outbox, node, asked.target)),
        "/export" => Some(export(outbox, asked.target)),
        "/retry" => Some(change(AdminAction::Retry)),
        "/import" => Some(orders::import(sources, outbox, asked, caller)),
        "/hand-over" => Some(orders::hand_over(outbox, node, asked, caller)),
        "/drop" => Some(change(AdminAction::Drop { pending: false })),
        rest => {
            let id = NotificationId::parse(rest.strip_prefix('/')?)?;
            Some(show(outbox, id, asked.target, caller))
        }
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
        Err(error) => AdminReply::failed(&error),
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
        Err(error) => AdminReply::failed(&error),
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
        Err(error) => return AdminReply::failed(&error),
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
