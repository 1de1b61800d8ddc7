//! What the nodes know together of events.

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::bounded;

use super::node::{PATIENCE, Pair, eventually};
use crate::bus::{Claim, Ledger};
use crate::notification::EventKey;

/// No claim of these tests runs out by itself but where that is what is shown.
const HOLD: Duration = Duration::from_secs(60);

fn ledger(pair: &Pair, second: bool, hold: Duration) -> Arc<dyn Ledger> {
    let node = if second { pair.b() } else { pair.a() };
    node.bus.ledger(hold).expect("there are other nodes")
}

fn claim(ledger: &Arc<dyn Ledger>, key: u8) -> Claim {
    let (tell, told) = bounded(1);
    let then = Box::new(move |claim| {
        let _ = tell.send(claim);
    });
    ledger.claim(&EventKey::from_bytes([key; 16]), then);
    told.recv_timeout(PATIENCE).expect("an answer")
}

#[test]
fn an_event_is_one_nodes_until_it_is_freed_and_known_to_all_once_it_is_kept() {
    let pair = Pair::over_redis();
    let (a, b) = (ledger(&pair, false, HOLD), ledger(&pair, true, HOLD));
    let key = EventKey::from_bytes([1; 16]);
    assert_eq!((claim(&a, 1), claim(&b, 1)), (Claim::Mine, Claim::Taken));
    assert_eq!(claim(&a, 1), Claim::Mine, "asked again, it still is");
    assert_eq!(claim(&b, 2), Claim::Mine, "another event");
    b.free(&key); // not its to free
    assert_eq!(claim(&b, 1), Claim::Taken);
    a.free(&key);
    eventually("it is free", || claim(&b, 1) == Claim::Mine);
    b.keep(&key, HOLD);
    eventually("it is kept", || claim(&a, 1) == Claim::Kept);
    a.free(&key); // it was settled, and is not any more
    eventually("it is free again", || claim(&a, 1) == Claim::Mine);
}

#[test]
fn what_a_dead_node_had_under_way_and_what_is_old_is_forgotten() {
    let pair = Pair::over_redis();
    let short = Duration::from_millis(100);
    let (a, b) = (ledger(&pair, false, short), ledger(&pair, true, HOLD));
    assert_eq!(claim(&a, 1), Claim::Mine);
    eventually("the claim runs out", || claim(&b, 1) == Claim::Mine);
    b.keep(&EventKey::from_bytes([1; 16]), short);
    eventually("the window is over", || claim(&a, 1) == Claim::Mine);
}

#[test]
fn nobody_guesses_while_redis_is_away() {
    let mut pair = Pair::over_redis();
    let a = ledger(&pair, false, HOLD);
    if let Some(server) = &mut pair.server {
        server.kill();
    }
    assert_eq!(claim(&a, 1), Claim::Unknown);
}

#[test]
fn a_node_that_is_alone_has_nobody_to_ask() {
    assert!(Pair::alone().a().bus.ledger(HOLD).is_none());
}
