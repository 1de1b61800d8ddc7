//! What changes stored notifications: deliver again, drop, forget, hand over, import. Each is in the log, with who did it.

use std::collections::HashSet;
use std::time::Duration;

use serde::Deserialize;

use super::filter::{FilterParams, in_words};
use crate::admin::Admin;
use crate::admin::api::{Changed, Forgotten, HandedOver, Imported};
use crate::admin::auth::Caller;
use crate::admin::reply::{AdminAnswer, AdminReply, AdminRequest};
use crate::outbox::{AdminAction, Exported, Filter, Order, Outbox, SPARED_MAX};

/// Delivers again or drops what the body says.
pub fn change(
    admin: &Admin,
    outbox: &Outbox,
    asked: &AdminRequest<'_>,
    what: AdminAction,
    caller: &Caller,
) -> AdminAnswer {
    let order = order(asked.parse()?, what, asked.who(caller))?;
    let (which, by) = (in_words(&order.filter), order.by.clone());
    let ordered = outbox.order(order)?;
    if ordered.spared > 0 {
        return Err(spared(ordered.spared));
    }
    for key in &ordered.freed {
        admin.sources.delivery.forget(key);
    }
    let done = match what {
        AdminAction::Retry => "delivers again",
        AdminAction::Drop { .. } => "drops",
        AdminAction::Forget => "forgets",
    };
    let changed = ordered.changed;
    log::info!("admin: {by} {done} {changed} notifications: {which}");
    admin.changes.dropped(ordered.dropped, &by);
    let told = Changed {
        changed,
        in_hand: ordered.in_hand,
        next: ordered.next,
    };
    Ok(AdminReply::json(200, &told))
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
pub fn forget(admin: &Admin, asked: &AdminRequest<'_>, caller: &Caller) -> AdminAnswer {
    let (sources, by) = (&admin.sources, asked.who(caller));
    let Forget { event } = asked.parse()?;
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
        let ordered = outbox.order(order)?;
        after = ordered.next;
        forgotten.extend(ordered.freed);
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
        admin.changes.forgotten(event, &by);
    }
    let told = Forgotten {
        node: admin.node.clone(),
        forgotten: forgotten.len() as u64,
    };
    Ok(AdminReply::json(200, &told))
}

/// Has other nodes take over everything.
pub fn hand_over(
    outbox: &Outbox,
    node: &str,
    asked: &AdminRequest<'_>,
    caller: &Caller,
) -> AdminAnswer {
    let handed_over = outbox.hand_over();
    let (left, damaged) =
        handed_over.map_err(|error| AdminReply::text(409, &format!("{error}\n")))?;
    log::info!(
        "admin: {} hands the outbox over; {left} are still here",
        asked.who(caller)
    );
    let told = HandedOver {
        node: node.to_owned(),
        left,
        damaged,
    };
    Ok(AdminReply::json(200, &told))
}

/// What `POST /outbox/import` carries.
#[derive(Deserialize)]
struct Import {
    messages: Vec<Exported>,
}

/// Adds what comes from another outbox.
pub fn import(
    admin: &Admin,
    outbox: &Outbox,
    asked: &AdminRequest<'_>,
    caller: &Caller,
) -> AdminAnswer {
    let import: Import = asked.parse()?;
    let mut parsed = Vec::with_capacity(import.messages.len());
    for one in import.messages {
        let id = one.id.escape_debug().to_string();
        let bad = |bad| AdminReply::text(400, &format!("{id}: {bad}\n"));
        parsed.push(one.parse().map_err(bad)?);
    }
    let done = outbox.import(parsed)?;
    for (key, name, ago_ms) in &done.learned {
        let ago = Duration::from_millis(u64::try_from(*ago_ms).unwrap_or(0));
        admin.sources.delivery.remember(*key, name, ago);
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
    Ok(AdminReply::json(200, &imported))
}
