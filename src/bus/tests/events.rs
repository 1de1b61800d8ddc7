//! `on`, `once`, `emit`, `remove_listener`, across two nodes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use crossbeam_channel::unbounded;
use serde_json::json;

use super::node::{PATIENCE, PAYLOAD_BYTES_MAX, Word, channel, eventually};
use super::pair::Pair;
use super::promises::every_byte;
use crate::bus::Event;
use crate::bus::NotEmitted;

pub fn an_emit_tells_on_how_many_nodes_it_was_heard(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    assert_eq!(a.emit("news", b"x"), Some(0));
    let first = b.listen("news", false);
    let second = b.listen("news", false);
    assert_eq!(a.emit("news", b"x"), Some(1), "two listeners on one node");
    let third = a.listen("news", false);
    let nodes = pair.nodes().len() as u64;
    assert_eq!(a.emit("news", b"x"), Some(nodes));
    for (node, listener) in [(b, &first), (b, &second), (a, &third)] {
        assert!(node.events.remove_listener(listener.id.clone()));
        assert!(!node.events.remove_listener(listener.id.clone()));
    }
    eventually("nobody is left", || a.emit("news", b"x") == Some(0));
}

pub fn every_listener_of_a_channel_hears_and_no_other(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    let heard: Vec<_> = [a, a, b, b]
        .iter()
        .map(|node| node.listen("news", false))
        .collect();
    let other = b.listen("news/today", false);
    for (n, node) in [a, b, a].into_iter().enumerate() {
        node.emit("news", format!("event {n}").as_bytes());
        for heard in &heard {
            assert_eq!(heard.said(), format!("event {n}").as_bytes());
        }
    }
    assert!(a.emit("news/today", b"other").is_some());
    assert_eq!(other.said(), b"other", "and nothing before");
}

pub fn bytes_stay_bytes_and_json_stays_json(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    let (heard, hears) = unbounded();
    let here = channel("paid");
    b.listen("other", false);
    let (ready, is_ready) = unbounded();
    let ready = Box::new(move || {
        let _ = ready.send(());
    });
    let listener = Box::new(move |event: Event<'_>| {
        if let Event::Message(payload) = event {
            let _ = heard.send((payload.bytes().to_vec(), payload.json()));
        }
    });
    if b.events.add(&here, false, listener, Some(ready)).1 == crate::bus::Reach::Soon {
        is_ready.recv_timeout(PATIENCE).expect("it stands");
    }
    for value in [
        json!({"order": 7, "名": ["é", null, 1.5, true, {}], "large": u64::MAX}),
        json!(null),
        json!("text"),
        json!(-0.25),
        json!([]),
    ] {
        let told = Box::new(|_| {});
        a.events.emit_json(&here, &value, told).expect("JSON");
        let (_, json) = hears.recv_timeout(PATIENCE).expect("an event");
        assert_eq!(json, Some(value));
    }
    let large: Vec<u8> = (0..PAYLOAD_BYTES_MAX).map(|n| (n >> 4) as u8).collect();
    for bytes in [
        b"".to_vec(),
        every_byte(),
        b"{\"half\":".to_vec(),
        b"\xff\xfe".to_vec(),
        large,
    ] {
        a.emit("paid", &bytes);
        let (payload, json) = hears.recv_timeout(PATIENCE).expect("an event");
        assert!(payload == bytes && json.is_none());
    }
}

pub fn once_fires_once_although_two_nodes_emit_together(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    for round in 0..300 {
        let name = format!("round-{round}");
        let heard: Vec<_> = [a, b, b]
            .iter()
            .map(|node| node.listen(&name, true))
            .collect();
        std::thread::scope(|scope| {
            for node in [a, b] {
                let name = &name;
                scope.spawn(move || node.emit(name, node.name.as_bytes()));
            }
        });
        for heard in &heard {
            heard.said();
        }
        // Whatever came of the second emit has been heard when this has.
        let last = b.listen(&name, false);
        a.emit(&name, b"last");
        while last.said() != b"last" {}
        for (n, heard) in heard.iter().enumerate() {
            assert_eq!(heard.so_far(), [], "round {round}, listener {n}");
            let node = [a, b, b][n];
            assert!(!node.events.remove_listener(heard.id.clone()));
        }
        b.events.remove_listener(last.id);
    }
}

pub fn what_is_removed_hears_no_more(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    let stays = b.listen("news", false);
    for round in 0..50u32 {
        let goes = b.listen("news", round % 2 == 0);
        assert!(b.events.remove_listener(goes.id.clone()));
        a.emit("news", b"x");
        assert_eq!(stays.said(), b"x");
        assert_eq!(goes.so_far(), []);
    }
}

pub fn listeners_may_come_and_go_while_events_fly(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    let stays = b.listen("news", false);
    let over = AtomicBool::new(false);
    let emitted = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for node in pair.nodes() {
            let (over, emitted) = (&over, &emitted);
            scope.spawn(move || {
                while !over.load(Ordering::Relaxed) {
                    if node.emit("news", b"x").is_some() {
                        emitted.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        for _ in 0..200 {
            let removed = b.listen("news", false);
            let once = a.listen("news", true);
            let gone = b.events.remove_listener(removed.id.clone());
            assert!(gone);
            once.said();
            assert_eq!(once.so_far(), []);
        }
        over.store(true, Ordering::Relaxed);
    });
    let began = Instant::now();
    for n in 0..emitted.load(Ordering::Relaxed) {
        assert_eq!(stays.said(), b"x", "event {n}");
    }
    assert!(began.elapsed() < PATIENCE);
    assert_eq!(stays.so_far(), [], "each once");
}

pub fn a_listener_that_panics_harms_nobody(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    let before = b.listen("news", false);
    let calls = Arc::new(AtomicU64::new(0));
    for node in pair.nodes() {
        let calls = Arc::clone(&calls);
        node.events.on(&channel("news"), move |_| {
            calls.fetch_add(1, Ordering::Relaxed);
            panic!("a listener's own fault, meant by this test");
        });
    }
    let after = b.listen("news", false);
    let _too = a.listen("news", false); // the channel is heard there, so it is by the listener before
    for _ in 0..3 {
        assert!(a.emit("news", b"x").is_some());
        assert_eq!((before.said(), after.said()), (b"x".into(), b"x".into()));
    }
    eventually("it stays", || {
        calls.load(Ordering::Relaxed) == 3 * pair.nodes().len() as u64
    });
    assert_eq!(b.bus.unwell(), None);
}

pub fn what_is_too_big_is_refused_and_nothing_else_is(pair: &Pair) {
    let heard = pair.b().listen("news", false);
    let events = &pair.a().events;
    let told = Box::new(|_| panic!("it was not emitted"));
    let refused = events.emit(&channel("news"), &vec![0; PAYLOAD_BYTES_MAX + 1], told);
    assert_eq!(refused, Err(NotEmitted::TooBig(PAYLOAD_BYTES_MAX)));
    let map: std::collections::BTreeMap<(u8, u8), u8> = [((1, 2), 3)].into();
    let told = Box::new(|_| panic!("it was not emitted"));
    let refused = events.emit_json(&channel("news"), &map, told);
    assert_eq!(refused, Err(NotEmitted::NotJson));
    pair.a().emit("news", b"x");
    assert_eq!(heard.next(), Word::Said(b"x".into()));
}
