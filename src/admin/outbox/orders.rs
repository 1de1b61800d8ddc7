//! What changes stored notifications: deliver again, drop, forget, hand over, import. Each is in the log, with who did it.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;

use super::filter::{FilterParams, in_words};
use crate::admin::Sources;
use crate::admin::api::{Changed, Forgotten, HandedOver, Imported};
use crate::admin::auth::Caller;
use crate::admin::changes::Changes;
use crate::admin::reply::{AdminReply, AdminRequest};
use crate::outbox::{AdminAction, Exported, Filter, Order, Outbox, SPARED_MAX};

/// Delivers again or drops what the body says.
pub fn change(
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
        Err(error) => return AdminReply::failed(&error),
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
pub fn forget(
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
            Err(error) => return AdminReply::failed(&error),
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
pub fn hand_over(
    outbox: &Outbox,
    node: &str,
    asked: &AdminRequest<'_>,
    caller: &Caller,
) -> AdminReply {
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
pub fn import(
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
        Err(error) => AdminReply::failed(&error),
    }
}
