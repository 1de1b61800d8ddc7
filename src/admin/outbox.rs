//! The outbox, for operators: the page and `payrelay outbox` ask here.

mod filter;
mod orders;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE_64;
use serde_json::json;

use self::filter::FilterParams;
use super::Admin;
use super::api::Traced;
use super::auth::Caller;
use super::query::{asks_for_body, pairs};
use super::reply::{AdminAnswer, AdminReply, AdminRequest};
use super::wanted::NO_BODIES;
use crate::notification::NotificationId;
use crate::outbox::{AdminAction, Outbox};

/// The most notifications in one answer, and how many there are if nobody says.
const LIMIT_MAX: usize = 500;
const LIMIT_DEFAULT: usize = 100;

/// How much one page of an export has, about; one notification may have more.
const EXPORT_BYTES: usize = 1 << 20;

/// Answers what is asked below `/outbox`.
pub fn answer(admin: &Admin, asked: &AdminRequest<'_>, caller: &Caller) -> AdminAnswer {
    let rest = asked.path().strip_prefix("/outbox").ok_or_else(no_page)?;
    if rest == "/forget" {
        return orders::forget(admin, asked, caller);
    }
    let Some(outbox) = &admin.sources.outbox else {
        let words = "this relay has no outbox: delivery.undelivered is \"refuse\"\n";
        return Err(AdminReply::text(404, words));
    };
    let change = |what| orders::change(admin, outbox, asked, what, caller);
    match rest {
        "" => list(outbox, &admin.node, asked.target),
        "/export" => export(outbox, asked.target),
        "/retry" => change(AdminAction::Retry),
        "/import" => orders::import(admin, outbox, asked, caller),
        "/hand-over" => orders::hand_over(outbox, &admin.node, asked, caller),
        "/drop" => change(AdminAction::Drop { pending: false }),
        rest => {
            let id = rest.strip_prefix('/').and_then(NotificationId::parse);
            show(outbox, id.ok_or_else(no_page)?, asked.target, caller)
        }
    }
}

fn list(outbox: &Outbox, node: &str, target: &str) -> AdminAnswer {
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
                return Err(words.into());
            }
        }
    }
    let after = params.after;
    let rows = outbox.list(&params.filter()?, after, limit)?;
    let next = rows.last().filter(|_| rows.len() == limit);
    let next = next.map(|row| row.seq);
    let messages: Vec<Traced> = rows.iter().map(|row| Traced::of_row(row, None)).collect();
    Ok(AdminReply::json(
        200,
        &json!({ "node": node, "messages": messages, "next": next, "gone": outbox.gone() }),
    ))
}

/// Everything about what is stored, in pages.
fn export(outbox: &Outbox, target: &str) -> AdminAnswer {
    let mut after = 0;
    for (key, value) in pairs(target) {
        match (key.as_str(), value.parse()) {
            ("after", Ok(seq)) => after = seq,
            ("node", _) => {}
            _ => return Err("known: after\n".into()),
        }
    }
    let (messages, next) = outbox.export(after, EXPORT_BYTES)?;
    let page = json!({ "messages": messages, "next": next });
    Ok(AdminReply::json(200, &page))
}

fn no_page() -> AdminReply {
    AdminReply::text(404, "the outbox has no such page\n")
}

fn show(outbox: &Outbox, id: NotificationId, target: &str, caller: &Caller) -> AdminAnswer {
    let with_body = asks_for_body(target);
    // Asked before, by the page; here it does not depend on which page leads to it.
    if with_body && !caller.rights.bodies {
        return Err(AdminReply::text(403, NO_BODIES));
    }
    let unknown = || AdminReply::text(404, "the outbox has no notification with this id\n");
    let (row, payload) = outbox.show(id)?.ok_or_else(unknown)?;
    let mut shown = json!(Traced::of_row(&row, None));
    if with_body {
        shown["damaged"] = payload.is_none().into();
        if let Some(payload) = payload {
            shown["headers"] = String::from_utf8_lossy(&payload.head).into();
            shown["body_base64"] = BASE_64.encode(&payload.body).into();
        }
    }
    Ok(AdminReply::json(200, &shown))
}
