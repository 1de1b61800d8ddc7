//! What is told when Redis goes away, and when it is back.

use std::time::Instant;

use rustix::process::Signal;

use super::node::{AT_ONCE, Node, Word, eventually, id};
use super::pair::{Carrier, Pair};
use super::server::Server;
use super::sessions::Behavior;
use crate::notification::Receipt;

#[test]
fn a_failure_reaches_every_listener_and_so_does_recovery() {
    let mut pair = Pair::over_redis();
    let names = ["news", "news", "other"];
    let heard: Vec<_> = names
        .iter()
        .map(|name| pair.b().listen(name, false))
        .collect();
    let once = pair.b().listen("news", true);
    pair.server().kill();
    for heard in heard.iter().chain([&once]) {
        assert_eq!(heard.next(), Word::Down);
    }
    eventually("the other node has noticed", || {
        pair.a().bus.unwell().is_some()
    });
    assert_eq!(pair.a().emit("news", b"lost"), None);
    let late = pair.b().listen("late", false);
    assert_eq!(
        late.next(),
        Word::Down,
        "whoever comes meanwhile is told too"
    );

    pair.server().launch();
    for heard in heard.iter().chain([&once, &late]) {
        assert_eq!(heard.next(), Word::Up);
    }
    eventually("the other node is back", || pair.a().bus.unwell().is_none());
    for name in ["news", "other", "late"] {
        assert_eq!(pair.a().emit(name, name.as_bytes()), Some(1));
    }
    for (heard, name) in heard.iter().zip(names) {
        assert_eq!(heard.said(), name.as_bytes());
    }
    assert_eq!((once.said(), late.said()), (b"news".into(), b"late".into()));
}

#[test]
fn while_redis_is_away_everything_is_answered_at_once_and_afterwards_everybody_is_reached() {
    let mut pair = Pair::over_redis();
    pair.b().seat("till", Behavior::Says(Receipt::Ack));
    pair.a().seat("own", Behavior::Says(Receipt::Ack));
    pair.server().kill();
    eventually("both have noticed", || {
        pair.nodes().iter().all(|node| node.bus.unwell().is_some())
    });
    let (a, b) = (pair.a(), pair.b());
    let began = Instant::now();
    let sent = a.deliver(a.notification("till"));
    assert_eq!(a.receipt(), (sent, Receipt::Unreachable));
    let sent = a.deliver(a.notification("own"));
    assert_eq!(a.receipt(), (sent, Receipt::Ack));
    let sent = a.carry("own", "till", b"x");
    assert_eq!(a.receipt(), (sent, Receipt::Unreachable));
    b.seat("late", Behavior::Says(Receipt::Ack)); // not kept waiting either
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    eventually("what is kept for it need not wait", || {
        b.arrivals.try_iter().any(|came| came == id("late"))
    });

    let began = Instant::now();
    let presence = a.presence();
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert!(presence.trouble.is_some());
    let [own] = &presence.nodes[..] else {
        panic!("a node knows its own backends without Redis: {presence:?}");
    };
    assert_eq!((&*own.node, &*own.backends[0].id), ("a-1", "own"));
    eventually("nothing stands", || {
        b.bus.readings().subscriptions_standing == 0
    });

    pair.server().launch();
    let (a, b) = (pair.a(), pair.b());
    eventually("both are back", || {
        a.bus.unwell().is_none() && b.bus.unwell().is_none()
    });
    for till in ["till", "late"] {
        let sent = a.deliver(a.notification(till));
        assert_eq!(a.receipt(), (sent, Receipt::Ack), "{till}");
    }
    eventually("whoever came meanwhile is announced", || {
        a.arrivals.try_iter().any(|came| came == id("late"))
    });
    let readings = b.bus.readings();
    assert_eq!(
        (
            readings.subscriptions_wanted,
            readings.subscriptions_standing
        ),
        (4, 4)
    );
}

#[test]
fn what_was_answered_while_redis_was_away_is_told_when_it_is_back() {
    let mut pair = Pair::over_redis();
    pair.b().seat("till", Behavior::Keeps);
    let (a, b) = (pair.a(), pair.b());
    let sent: Vec<_> = (0..20).map(|_| a.deliver(a.notification("till"))).collect();
    let envelopes: Vec<_> = sent.iter().map(|_| b.sessions.envelope()).collect();
    pair.server().kill();
    eventually("both have noticed", || {
        pair.nodes().iter().all(|node| node.bus.unwell().is_some())
    });
    for envelope in envelopes {
        envelope.settle(Receipt::Ack);
    }
    pair.server().launch();
    let mut told: Vec<_> = sent.iter().map(|_| pair.a().receipt()).collect();
    told.sort_by_key(|(id, _)| *id);
    let acked: Vec<_> = sent.into_iter().map(|id| (id, Receipt::Ack)).collect();
    assert_eq!(told, acked);
}

#[test]
fn a_redis_that_stands_still_keeps_nobody_waiting() {
    let pair = Pair::over_redis();
    let (a, b) = (pair.a(), pair.b());
    b.seat("till", Behavior::Says(Receipt::Ack));
    let heard = b.listen("news", false);
    let Carrier::One(server) = &pair.carrier else {
        panic!("there is one server");
    };
    server.signal(Signal::STOP);
    let began = Instant::now();
    let sent = a.deliver(a.notification("till"));
    let said = a.carry("own", "till", b"x");
    assert_eq!(a.emit("news", b"x"), None);
    let mut told = [a.receipt(), a.receipt()];
    told.sort_by_key(|(id, _)| *id != sent);
    assert_eq!(
        told,
        [(sent, Receipt::Unreachable), (said, Receipt::Unreachable)]
    );
    let presence = a.presence();
    assert!(presence.trouble.is_some());
    // redis.response_timeout is 1 s here.
    assert!(began.elapsed() < 2 * AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(heard.next(), Word::Down);
    server.signal(Signal::CONT);
    // It may hear what stood still before.
    while heard.next() != Word::Up {}
    eventually("it is reached again", || {
        let sent = a.deliver(a.notification("till"));
        a.receipts
            .iter()
            .find(|(id, _)| *id == sent)
            .is_some_and(|(_, receipt)| receipt == Receipt::Ack)
    });
}

#[test]
fn a_node_that_does_not_answer_is_named() {
    let pair = Pair::over_redis();
    let Carrier::One(server) = &pair.carrier else {
        panic!("there is one server");
    };
    let mut ghost = server.client();
    let mut ghost = ghost.as_pubsub();
    ghost.subscribe("p:node:ghost-3").expect("subscribed");
    let began = Instant::now();
    let presence = pair.a().presence();
    assert!(began.elapsed() < 2 * AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(presence.silent, ["ghost-3"]);
    assert_eq!((presence.nodes.len(), presence.trouble), (2, None));
}

#[test]
fn a_node_that_starts_without_redis_says_so_and_comes_in_later() {
    let mut server = Server::start();
    server.kill();
    let node = Node::on(&server, "a-1");
    assert!(node.bus.unwell().is_some());
    node.seat("own", Behavior::Says(Receipt::Ack));
    let heard = node.listen("news", false);
    assert_eq!(heard.next(), Word::Down);
    server.launch();
    assert_eq!(heard.next(), Word::Up);
    let other = Node::on(&server, "b-2");
    eventually("it has found Redis", || other.bus.unwell().is_none());
    let sent = other.deliver(other.notification("own"));
    assert_eq!(other.receipt(), (sent, Receipt::Ack));
}
