//! What is remembered of a notification, how it is found, and what its record tells.

use super::*;
use crate::notification::IdMint;

fn record(mint: &IdMint, event: &str) -> Record {
    Record {
        id: mint.mint(7),
        backend: BackendId::parse("a").expect("an id"),
        route: "pay".into(),
        verified: "alipay".into(),
        event: Some(event.into()),
        at_unix_ms: 7,
        sent: Some(Sent {
            at_unix_ms: 8,
            session: 3,
        }),
        concluded: Some((Outcome::Delivered, 9)),
        why: None,
    }
}

#[test]
fn it_is_found_by_id_and_by_event_until_it_is_forgotten() {
    let (trace, mint) = (Trace::default(), IdMint::new(0));
    let first = record(&mint, "42");
    trace.add(first.clone(), None);
    trace.add(record(&mint, "42"), None);
    assert_eq!(trace.find("42", 9).len(), 2);
    assert_eq!(trace.find("42", 1)[0].id, trace.find("42", 9)[0].id);
    let found = trace.find(&first.id.to_string(), 9);
    assert_eq!((found.len(), found[0].id), (1, first.id));
    assert!(found[0].is("42") && !found[0].is("43"));
    for _ in 0..RECORDS_MAX {
        trace.add(record(&mint, "43"), None);
    }
    assert!(trace.find("42", 9).is_empty());
    assert_eq!(trace.ring.lock().records.len(), RECORDS_MAX);
}

#[test]
fn the_newest_are_found_by_id_whatever_ended_first_and_beyond_one_look() {
    let (trace, mint) = (Trace::default(), IdMint::new(0));
    let mut records: Vec<Record> = (0..3 * LOOKED_AT_ONCE)
        .map(|n| record(&mint, if n % 2 == 0 { "even" } else { "odd" }))
        .collect();
    let ids: Vec<_> = records.iter().map(|record| record.id).collect();
    records.reverse();
    for record in records {
        trace.add(record, None);
    }
    assert_eq!(trace.added(), ids.len() as u64);
    let found = trace.newest(3, |record| record.event.as_deref() == Some("even"));
    let found: Vec<_> = found.iter().map(|record| record.id).collect();
    let even: Vec<_> = ids.iter().step_by(2).rev().take(3).copied().collect();
    assert_eq!(found, even);
    assert_eq!(trace.newest(9999, |_| true).len(), ids.len());
}

#[test]
fn what_is_kept_is_what_was_told_and_it_is_small() {
    let (trace, mint) = (Trace::default(), IdMint::new(0));
    let full = Record {
        why: Some("because".into()),
        ..record(&mint, "42")
    };
    let bare = Record {
        id: mint.mint(7),
        verified: UNVERIFIED.into(),
        event: None,
        sent: None,
        concluded: None,
        ..record(&mint, "")
    };
    for one in [full, bare] {
        trace.add(one.clone(), None);
        let found = trace.find(&one.id.to_string(), 1);
        assert_eq!(format!("{:?}", found[0]), format!("{one:?}"));
    }
    assert!(size_of::<StoredTrace>() <= 96);
}

#[test]
fn a_record_tells_its_story() {
    let told = |record: &Record| {
        let timeline = record.timeline();
        let steps = timeline.steps().iter();
        let steps = steps.map(|s| format!("{} {} {}", s.at_unix_ms, s.what, s.detail));
        steps.collect::<Vec<_>>()
    };
    let mut record = record(&IdMint::new(0), "42");
    assert_eq!(
        told(&record),
        [
            "7 received route=pay",
            "7 verified alipay",
            "8 sent try=1 session=3",
            "9 acked ",
            "9 answered ok (delivered)"
        ]
    );
    record.concluded = Some((Outcome::Refused, 9));
    record.why = Some("no such order".into());
    assert_eq!(
        told(&record)[3..],
        ["9 nacked no such order", "9 answered fail (refused)"]
    );
    record.concluded = Some((Outcome::Duplicate, 9));
    record.why = Some("joined X".into());
    assert_eq!(told(&record)[3..], ["9 answered ok (duplicate): joined X"]);
}
