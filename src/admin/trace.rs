//! What became of a notification: of one that is under way, one that is remembered, one in the outbox.

use std::collections::HashSet;

use super::Admin;
use super::api::{TraceAnswer, Traced};
use super::query::pairs;
use super::reply::{AdminAnswer, AdminReply};
use crate::notification::NotificationId;
use crate::outbox::Filter;
use crate::trace::Record;

/// The most that one trace finds: an event is known by its newest requests.
const TRACES_MAX: usize = 20;

/// What became of what somebody means by the `key` of `target`, as far as `admin`'s node knows.
pub fn find(admin: &Admin, target: &str) -> AdminAnswer {
    let (sources, changes) = (&admin.sources, &admin.changes);
    let query = pairs(target);
    let key = query.iter().find(|(key, _)| key == "key");
    let (_, key) = key.ok_or("key=ID or key=EVENT is missing\n")?;
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
            let id = NotificationId::parse(key);
            let filter = Filter {
                ids: id.into_iter().collect(),
                event: id.is_none().then(|| key.clone()),
                ..Filter::default()
            };
            outbox.list(&filter, 0, TRACES_MAX)?
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
    let node = admin.node.clone();
    Ok(AdminReply::json(200, &TraceAnswer { node, found }))
}
