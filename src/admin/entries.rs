//! How the entries of answers are made: from a route of the configuration, a record of the trace, a row of the outbox.

use super::api::{RouteInfo, Summary, TraceStep, Traced};
use crate::config::RouteConfig;
use crate::outbox::Row;
use crate::timeline::{Step, Timeline};
use crate::trace::Record;

impl RouteInfo {
    /// Of a route of a configuration.
    pub fn of(route: &RouteConfig) -> Self {
        Self {
            name: route.name.to_string(),
            path: route.path.text.clone(),
            checks: route.verifier.as_ref().map(|verifier| verifier.describe()),
        }
    }
}

impl Summary {
    /// Of one that is not in the outbox.
    pub fn of_record(record: &Record) -> Self {
        let outcome = record.concluded.map(|(outcome, _)| outcome);
        let timeline = record.timeline();
        Self {
            id: record.id.to_string(),
            at: record.at_unix_ms,
            backend: record.backend.as_str().to_owned(),
            route: (*record.route).to_owned(),
            event: record.event.as_deref().map(str::to_owned),
            state: outcome
                .map_or("waiting", |outcome| outcome.as_str())
                .to_owned(),
            took_ms: took_ms(record.at_unix_ms, &timeline),
            tries: None,
            why: record.why.as_deref().map(str::to_owned),
        }
    }

    /// Of one that is in the outbox.
    pub fn of_row(row: &Row) -> Self {
        Self {
            id: row.id.to_string(),
            at: row.at_unix_ms,
            backend: row.backend.clone(),
            route: row.route.clone(),
            event: row.event.clone(),
            state: row.state.as_str().to_owned(),
            took_ms: took_ms(row.at_unix_ms, &row.timeline),
            tries: Some(row.tries),
            why: Some(row.why.clone()).filter(|why| !why.is_empty()),
        }
    }
}

fn took_ms(at_unix_ms: u64, timeline: &Timeline) -> Option<u64> {
    let mut steps = timeline.steps().iter().rev();
    let acked = steps.find(|step| step.what == "acked")?;
    Some(acked.at_unix_ms.saturating_sub(at_unix_ms))
}

impl Traced {
    /// Of one that is not in the outbox.
    pub fn of_record(record: &Record) -> Self {
        Self {
            seq: None,
            id: record.id.to_string(),
            backend: record.backend.as_str().to_owned(),
            route: (*record.route).to_owned(),
            verified: record.verified.clone().into_owned(),
            event: record.event.as_deref().map(str::to_owned),
            at: record.at_unix_ms,
            state: match record.concluded {
                None => "under way".to_owned(),
                Some((outcome, _)) => outcome.as_str().to_owned(),
            },
            tries: None,
            bytes: None,
            why: None,
            timeline: steps(&record.timeline()),
        }
    }

    /// Of one that is in the outbox; what its provider was told is known beside the disk, if that was not long ago.
    pub fn of_row(row: &Row, answered: Option<&Record>) -> Self {
        let mut steps = steps(&row.timeline);
        let answer = answered.map(Record::timeline).unwrap_or_default();
        let answers = answer.steps().iter().filter(|step| step.what == "answered");
        steps.extend(answers.map(TraceStep::of));
        steps.sort_by_key(|step| step.at);
        Self {
            seq: Some(row.seq),
            id: row.id.to_string(),
            backend: row.backend.clone(),
            route: row.route.clone(),
            verified: row.verified.clone(),
            event: row.event.clone(),
            at: row.at_unix_ms,
            state: row.state.as_str().to_owned(),
            tries: Some(row.tries),
            bytes: Some(row.bytes),
            why: Some(row.why.clone()),
            timeline: steps,
        }
    }
}

impl TraceStep {
    fn of(step: &Step) -> Self {
        Self {
            at: step.at_unix_ms,
            what: step.what.clone(),
            detail: step.detail.clone(),
        }
    }
}

fn steps(timeline: &Timeline) -> Vec<TraceStep> {
    timeline.steps().iter().map(TraceStep::of).collect()
}
