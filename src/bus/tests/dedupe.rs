//! What the nodes know together of events.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::node::{PATIENCE, eventually};
use super::pair::Pair;
use crate::bus::{DedupeStore, EventLease};
use crate::notification::EventKey;

/// No claim of these tests runs out by itself but where that is what is shown.
const HOLD: Duration = Duration::from_secs(60);

fn store(pair: &Pair, second: bool, hold: Duration) -> Arc<dyn DedupeStore> {
    let node = if second { pair.b() } else { pair.a() };
    node.bus.dedupe_store(hold).expect("there are other nodes")
}

fn claim(store: &Arc<dyn DedupeStore>, key: u8) -> EventLease {
    let (tell, told) = bounded(1);
    let then = Box::new(move |claim| {
        let _ = tell.send(claim);
    });
    store.claim(&EventKey::from_bytes([key; 16]), then);
    told.recv_timeout(PATIENCE).expect("an answer")
}

#[test]
fn an_event_is_one_nodes_until_it_is_freed_and_known_to_all_once_it_is_kept() {
    let pair = Pair::over_redis();
    let (a, b) = (store(&pair, false, HOLD), store(&pair, true, HOLD));
    let key = EventKey::from_bytes([1; 16]);
    assert_eq!(
        (claim(&a, 1), claim(&b, 1)),
        (EventLease::Mine, EventLease::Taken)
    );
    assert_eq!(claim(&a, 1), EventLease::Mine, "asked again, it still is");
    assert_eq!(claim(&b, 2), EventLease::Mine, "another event");
    b.free(&key); // not its to free
    assert_eq!(claim(&b, 1), EventLease::Taken);
    a.free(&key);
    eventually("it is free", || claim(&b, 1) == EventLease::Mine);
    b.keep(&key, HOLD);
    eventually("it is kept", || claim(&a, 1) == EventLease::Kept);
    a.free(&key); // it was settled, and is not any more
    eventually("it is free again", || claim(&a, 1) == EventLease::Mine);
}

#[test]
fn what_a_dead_node_had_under_way_and_what_is_old_is_forgotten() {
    let pair = Pair::over_redis();
    let short = Duration::from_millis(100);
    let (a, b) = (store(&pair, false, short), store(&pair, true, HOLD));
    assert_eq!(claim(&a, 1), EventLease::Mine);
    eventually("the claim runs out", || claim(&b, 1) == EventLease::Mine);
    b.keep(&EventKey::from_bytes([1; 16]), short);
    eventually("the window is over", || claim(&a, 1) == EventLease::Mine);
}

#[test]
fn nobody_guesses_while_redis_is_away() {
    let mut pair = Pair::over_redis();
    let a = store(&pair, false, HOLD);
    pair.server().kill();
    assert_eq!(claim(&a, 1), EventLease::Unknown);
}

#[test]
fn a_node_that_is_alone_has_nobody_to_ask() {
    assert!(Pair::alone().a().bus.dedupe_store(HOLD).is_none());
}
