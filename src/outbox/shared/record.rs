//! A notification as it stands in Redis: one line of JSON, then its head and its body as they are.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::escape::hex;
use crate::notification::{EventKey, Notification, NotificationId};
use crate::outbox::store::exported::{Exported, FORMAT, Parsed};
use crate::outbox::store::row::{Payload, Row, State};

/// The version of the form. Members may be added to it; what is removed or changes its meaning makes the next one.
const VERSION: u32 = 1;

/// What is known of it beside what it carries. Its id is the name of its field.
#[derive(Serialize, Deserialize)]
struct Meta<'a> {
    v: u32,
    backend: Cow<'a, str>,
    route: Cow<'a, str>,
    verified: Cow<'a, str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    at: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    dead: bool,
    tries: u32,
    why: Cow<'a, str>,
    steps: Cow<'a, str>,
    head_bytes: usize,
}

/// What a record is made of, when it is stored.
pub struct New<'a> {
    pub notification: &'a Notification,
    pub key: Option<EventKey>,
    pub state: State,
    pub tries: u32,
    pub why: &'a str,
    pub steps: String,
}

/// The record of a notification.
pub fn encode(new: New<'_>) -> Vec<u8> {
    let n = new.notification;
    let meta = Meta {
        v: VERSION,
        backend: n.backend.as_str().into(),
        route: (&*n.route).into(),
        verified: (&*n.verified).into(),
        event: n.event.as_deref().map(Into::into),
        key: new.key.map(|key| hex(key.bytes())),
        at: n.at_unix_ms,
        dead: new.state == State::Dead,
        tries: new.tries,
        why: new.why.into(),
        steps: new.steps.into(),
        head_bytes: n.head.len(),
    };
    let mut record = Vec::with_capacity(1024 + n.head.len() + n.body.len());
    // A Vec takes everything, and the members are text and numbers.
    let _ = serde_json::to_writer(&mut record, &meta);
    record.push(b'\n');
    record.extend_from_slice(&n.head);
    record.extend_from_slice(&n.body);
    record
}

/// The record of what stands in a row; `None`: its backend's id is none.
pub fn of_row(row: &Row, payload: Payload) -> Option<Vec<u8>> {
    let notification = row.notification(payload)?;
    Some(encode(New {
        notification: &notification,
        key: row.key,
        state: row.state,
        tries: row.tries,
        why: &row.why,
        steps: row.timeline.to_text(),
    }))
}

/// Reads a record of `id`, which a pending one has `expire_ms` from now on to be delivered; `None`: another version wrote it.
///
/// How long it waited where it comes from is not known here by any clock that can be trusted, so its time begins anew.
pub fn parse(id: NotificationId, record: &[u8], expire_ms: i64) -> Option<Parsed> {
    let end = record.iter().position(|byte| *byte == b'\n')?;
    let meta: Meta = serde_json::from_slice(&record[..end]).ok()?;
    let carried = &record[end + 1..];
    if meta.v != VERSION || carried.len() < meta.head_bytes {
        return None;
    }
    let (head, body) = carried.split_at(meta.head_bytes);
    let state = match meta.dead {
        true => State::Dead,
        false => State::Pending,
    };
    let exported = Exported {
        format: FORMAT,
        id: id.to_string(),
        backend: meta.backend.into_owned(),
        route: meta.route.into_owned(),
        verified: meta.verified.into_owned(),
        event: meta.event.map(Cow::into_owned),
        event_key: meta.key,
        at: meta.at,
        state: state.as_str().to_owned(),
        tries: meta.tries,
        stored_ago_ms: 0,
        due_in_ms: 0,
        turn_in_ms: match state {
            State::Pending => expire_ms,
            State::Done | State::Dead => 0,
        },
        why: meta.why.into_owned(),
        steps: meta.steps.into_owned(),
        head: None,
        body: None,
    };
    exported.with_payload(head.to_vec(), body.to_vec()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notification::BackendId;

    #[test]
    fn what_is_written_is_read_back_and_other_versions_are_not() {
        let notification = Notification {
            id: NotificationId::from_bytes([7; 16]),
            backend: BackendId::parse("till-7").expect("an id"),
            route: "/notify/{id}".into(),
            verified: "stripe".into(),
            event: Some("evt\n1".into()),
            event_proven: true,
            at_unix_ms: 1,
            tries: 1,
            head: b"POST / HTTP/1.1\r\n\r\n".to_vec(),
            body: b"\n\0{}\n".to_vec(),
        };
        let new = |state| New {
            notification: &notification,
            key: Some(EventKey::from_bytes([9; 16])),
            state,
            tries: 3,
            why: "offline",
            steps: "1 received\n".into(),
        };
        for state in [State::Pending, State::Dead] {
            let record = encode(new(state));
            let read = parse(notification.id, &record, 5).expect("a record");
            assert_eq!(read.state, state);
            assert_eq!(read.notification.body, notification.body);
            assert_eq!(read.notification.head, notification.head);
            assert_eq!(read.notification.event, notification.event);
            assert_eq!(read.exported.tries, 3);
            assert_eq!(read.key, Some(EventKey::from_bytes([9; 16])));
            let later = String::from_utf8_lossy(&record).replace("\"v\":1", "\"v\":2");
            assert!(parse(notification.id, later.as_bytes(), 5).is_none());
        }
        for broken in [&b""[..], b"{}\n", b"no", b"{\"v\":1}\n"] {
            assert!(parse(notification.id, broken, 5).is_none());
        }
    }
}
