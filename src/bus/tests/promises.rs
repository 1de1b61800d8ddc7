//! Envelopes, data, arrivals and the presence.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::node::{AT_ONCE, eventually, id};
use super::pair::Pair;
use super::sessions::Behavior;
use crate::notification::{Again, Nack, Notification, Receipt};

/// Every byte there is, in order.
pub fn every_byte() -> Vec<u8> {
    (0..=255).collect()
}

pub fn what_is_sent_is_answered_as_the_backend_did(pair: &Pair) {
    let nack = |again, reason: Option<&str>| {
        let reason = reason.map(Into::into);
        Receipt::Nack(Nack { again, reason })
    };
    let receipts = [
        Receipt::Ack,
        Receipt::Busy,
        Receipt::Gone,
        Receipt::Expired,
        nack(Again::Whenever, None),
        nack(Again::Never, Some("no such order")),
        nack(
            Again::After(Duration::from_millis(30_500)),
            Some("数据库 = 100% \"full\"\n"),
        ),
        nack(Again::After(Duration::ZERO), Some("")),
    ];
    for (from, to) in [(pair.a(), pair.b()), (pair.b(), pair.a())] {
        for receipt in &receipts {
            to.seat("till", Behavior::Says(receipt.clone()));
            let sent = from.deliver(from.notification("till"));
            assert_eq!(from.receipt(), (sent, receipt.clone()));
        }
        to.unseat("till");
    }
}

pub fn a_backend_that_is_nowhere_is_told_at_once(pair: &Pair) {
    pair.b().seat("somebody", Behavior::Says(Receipt::Ack));
    for _ in 0..3 {
        let began = Instant::now();
        let sent = pair.a().deliver(pair.a().notification("nobody"));
        assert_eq!(pair.a().receipt(), (sent, Receipt::Gone));
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    }
}

pub fn a_backend_is_reached_when_it_is_told_so_and_not_when_it_has_left(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    for round in 0..50 {
        b.seat("till", Behavior::Says(Receipt::Ack));
        let sent = a.deliver(a.notification("till"));
        assert_eq!(a.receipt(), (sent, Receipt::Ack), "round {round}");
        b.unseat("till");
        let sent = a.deliver(a.notification("till"));
        assert_eq!(a.receipt(), (sent, Receipt::Gone), "round {round}");
    }
}

pub fn a_notification_arrives_as_it_was(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    b.seat("till", Behavior::Keeps);
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| (n >> 4) as u8).collect();
    let notification = |head: &[u8], body: &[u8], route: &str, event: Option<&str>| Notification {
        route: route.into(),
        verified: "alipay".into(),
        event: event.map(Into::into),
        tries: 7,
        head: head.to_vec(),
        body: body.to_vec(),
        ..a.notification("till")
    };
    let longest = "\u{7f}".repeat(128);
    for sent in [
        notification(b"", b"", "/notify/{id}", None),
        notification(
            b"POST /x HTTP/1.1\r\nX-Sign: =\r\n",
            b"",
            "r",
            Some("order=7 & 8%"),
        ),
        notification(b"", &every_byte(), "r", Some("订单")),
        notification(&every_byte(), b"=5\nPING\n", "r", Some("")),
        notification(b"h", &large, &"{".repeat(64), Some(&longest)),
    ] {
        let wanted = Notification {
            id: sent.id,
            backend: sent.backend.clone(),
            route: Arc::clone(&sent.route),
            verified: sent.verified.clone(),
            event: sent.event.clone(),
            head: sent.head.clone(),
            body: sent.body.clone(),
            ..sent
        };
        a.deliver(sent);
        let envelope = b.sessions.envelope();
        let got = &envelope.notification;
        assert_eq!(
            (got.id, &got.backend, &got.route, &got.verified),
            (wanted.id, &wanted.backend, &wanted.route, &wanted.verified)
        );
        assert_eq!(
            (&got.event, got.at_unix_ms, got.tries),
            (&wanted.event, wanted.at_unix_ms, wanted.tries)
        );
        assert!(got.head == wanted.head && got.body == wanted.body);
        let left = envelope.deadline.saturating_duration_since(Instant::now());
        assert!(left > Duration::from_secs(10), "{left:?} of its 20 s");
        envelope.settle(Receipt::Ack);
        assert_eq!(a.receipt(), (wanted.id, Receipt::Ack));
    }
}

pub fn notifications_arrive_in_the_order_sent(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    b.seat("till", Behavior::Keeps);
    let sent: Vec<_> = (0..500)
        .map(|_| a.deliver(a.notification("till")))
        .collect();
    let got: Vec<_> = sent
        .iter()
        .map(|_| {
            let envelope = b.sessions.envelope();
            let id = envelope.notification.id;
            envelope.settle(Receipt::Ack);
            id
        })
        .collect();
    assert_eq!(got, sent);
    for id in sent {
        assert_eq!(a.receipt(), (id, Receipt::Ack));
    }
}

pub fn an_envelope_that_is_dropped_says_so(pair: &Pair) {
    pair.b().seat("till", Behavior::Keeps);
    let sent = pair.a().deliver(pair.a().notification("till"));
    drop(pair.b().sessions.envelope());
    assert_eq!(pair.a().receipt(), (sent, Receipt::Gone));
}

pub fn data_is_carried_as_it_is(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    b.seat("till", Behavior::Says(Receipt::Ack));
    b.seat("full", Behavior::Says(Receipt::Busy));
    let large: Vec<u8> = (0..1 << 20).map(|n: u32| (n >> 4) as u8).collect();
    for bytes in [b"".to_vec(), every_byte(), b"\n".to_vec(), large] {
        let sent = a.carry("game-01", "till", &bytes);
        let data = b.sessions.data.recv().expect("data");
        assert!(data.bytes == bytes && data.from == id("game-01") && data.to == id("till"));
        assert_eq!(a.receipt(), (sent, Receipt::Ack));
    }
    let sent = a.carry("game-01", "full", b"x");
    assert_eq!(a.receipt(), (sent, Receipt::Busy));
    let sent = a.carry("game-01", "nobody", b"x");
    assert_eq!(a.receipt(), (sent, Receipt::Gone));
}

pub fn every_arrival_is_heard_on_every_node(pair: &Pair) {
    for (n, node) in pair.nodes().into_iter().enumerate() {
        let name = format!("till-{n}");
        node.seat(&name, Behavior::Keeps);
        for hearing in pair.nodes() {
            // More than once is no fault: a node that has heard nothing for a while says all again.
            eventually(&format!("{} hears of {name}", hearing.name), || {
                hearing.arrivals.try_iter().any(|came| came == id(&name))
            });
        }
    }
}

pub fn presence_names_everybody_once(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    a.seat("a-till", Behavior::Keeps);
    let many: Vec<String> = (0..2500).map(|n| format!("till-{n:04}")).collect();
    for name in &many {
        b.sessions.seat(&id(name), Behavior::Keeps);
    }
    for node in [a, b] {
        let mut presence = node.presence();
        eventually("everybody has answered", || {
            let is_whole = presence.silent.is_empty() && presence.trouble.is_none();
            if !is_whole {
                presence = node.presence();
            }
            is_whole
        });
        let names: Vec<_> = presence
            .nodes
            .iter()
            .map(|node| node.node.clone())
            .collect();
        let wanted: Vec<_> = pair.nodes().into_iter().map(|n| n.name.clone()).collect();
        assert_eq!(names, wanted);
        for node in &presence.nodes {
            assert!(node.backends.is_sorted());
        }
        let mut present: Vec<_> = presence.nodes.iter().flat_map(|n| &n.backends).collect();
        present.sort();
        let ids: Vec<&str> = present.iter().map(|present| &*present.id).collect();
        let wanted: Vec<&str> = std::iter::once("a-till")
            .chain(many.iter().map(String::as_str))
            .collect();
        assert_eq!(ids, wanted);
        assert!(
            present
                .iter()
                .all(|one| one.since_unix_ms > 1_600_000_000_000)
        );
    }
}

pub fn a_bus_that_stands_says_nothing_is_wrong(pair: &Pair) {
    for node in pair.nodes() {
        assert_eq!(node.bus.unwell(), None);
        let before = node.bus.readings();
        assert_eq!(before.subscriptions_wanted, before.subscriptions_standing);
        node.seat("till", Behavior::Keeps);
        node.listen("news", false);
        eventually("both are counted", || {
            let now = node.bus.readings();
            let more = if pair.own_channels() > 0 { 2 } else { 0 };
            now.subscriptions_wanted == before.subscriptions_wanted + more
                && now.subscriptions_standing == now.subscriptions_wanted
        });
        node.unseat("till");
    }
}
