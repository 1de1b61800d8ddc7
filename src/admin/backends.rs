//! The backends of this node: whose sessions are here, and for whom something lies in its outbox.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::Admin;
use super::api::{Backend, BackendsAnswer, SessionEntry};
use super::auth::Caller;
use super::reply::{AdminAnswer, AdminReply, AdminRequest};
use crate::notification::BackendId;

/// The most without a session that are listed, those with most in the outbox first.
const STORED_MAX: usize = 1000;

/// Which session `POST /backends/disconnect` is about.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    id: String,
    /// As `GET /backends` says: a newer session of the same backend is left alone.
    since_unix_ms: u64,
}

/// Every backend with a session here, or with something in the outbox.
pub fn list(admin: &Admin) -> AdminAnswer {
    let sources = &admin.sources;
    let mut known: BTreeMap<String, Backend> = BTreeMap::new();
    let stored = match &sources.outbox {
        Some(outbox) => outbox.busiest(STORED_MAX)?,
        None => Vec::new(),
    };
    for (id, pending, dead) in stored {
        let one = known.entry(id.clone()).or_default();
        (one.id, one.pending, one.dead) = (id, pending, dead);
    }
    for session in sources.registry.list() {
        let id = session.backend.as_str().to_owned();
        let one = known.entry(id.clone()).or_default();
        one.id = id;
        one.session = Some(SessionEntry {
            number: session.session,
            since_unix_ms: session.stamp / 1000,
            credit: session.credit,
            in_flight: session.in_flight,
            waiting: session.waiting,
            last_answer_unix_ms: Some(session.answered_at_unix_ms).filter(|&ms| ms > 0),
        });
    }
    let unknown = sources.outbox.iter();
    for one in unknown.flat_map(|outbox| outbox.unknown_backends().some) {
        // It may have come, or have been dropped, since the outbox was looked at.
        if let Some(known) = known.get_mut(&one.id)
            && known.session.is_none()
            && known.pending > 0
        {
            (known.unknown, known.like) = (true, one.like);
        }
    }
    let idle = |one: &Backend| one.session.is_none() && one.pending + one.dead == 0;
    let backends = known.into_values().filter(|one| !idle(one)).collect();
    let node = admin.node.clone();
    Ok(AdminReply::json(200, &BackendsAnswer { node, backends }))
}

/// Ends a session.
pub fn disconnect(admin: &Admin, asked: &AdminRequest<'_>, caller: &Caller) -> AdminAnswer {
    let which: Which = asked.parse()?;
    let id = BackendId::parse(&which.id)
        .map_err(|error| AdminReply::text(400, &format!("{error}\n")))?;
    let registry = &admin.sources.registry;
    if !registry.disconnect(&id, which.since_unix_ms) {
        let words = "this session is not on this node any more\n";
        return Err(AdminReply::text(404, words));
    }
    log::info!("admin: {} disconnects {id}", asked.who(caller));
    let told = serde_json::json!({ "disconnected": id.as_str() });
    Ok(AdminReply::json(200, &told))
}
