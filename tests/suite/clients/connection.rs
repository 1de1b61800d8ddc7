//! What becomes of the connection: lost, taken over, drained, silent, handed over, closed.

use super::{connected, door, pair, pair_with, relay_for, same_port, served, stop};
use crate::support::{Adapter, Backend, DEADLINE, LuaSetup, Pending, TcpProxy, eventually};
use rustix::process::Signal;

pub fn relay_restarted(adapter: Adapter) {
    let (mut relay, mut till) = pair(adapter, "ack");
    served(&relay, &mut till, b"before");
    relay.restart_with(&same_port(&relay));
    till.line("READY");
    served(&relay, &mut till, b"after");
    stop(&relay, till);
}

pub fn takeover(adapter: Adapter) {
    let (relay, mut old) = pair(adapter, "ack");
    let mut new = connected(&relay, &LuaSetup::new(adapter, "till-7", "ack"));
    let said = old.line("LOG warn the relay said BYE: takeover; next try in ");
    let wait: f64 = said.trim_end_matches(" s").parse().expect("seconds");
    assert!((5.0..=7.5).contains(&wait), "{wait}");
    served(&relay, &mut new, b"for the new one");
    assert_eq!(old.count("GOT"), 0);
    stop(&relay, new);
}

pub fn relay_draining(adapter: Adapter) {
    let (mut relay, mut till) = pair(adapter, "slow:1");
    let in_flight = relay.post("/notify/till-7", b"in flight");
    eventually("it is with the backend", || {
        relay.metric("payrelay_in_flight") == 1.0 && relay.metric("payrelay_queue_depth") == 0.0
    });
    relay.signal(Signal::TERM);
    assert_eq!(in_flight.answer().told(), (200, "delivered"));
    till.got();
    till.line("LOG warn the relay said BYE: drain; next try in ");
    assert_eq!(relay.wait_exit(DEADLINE), Some(0));
    relay.restart_with(&same_port(&relay));
    till.line("READY");
    served(&relay, &mut till, b"after");
    stop(&relay, till);
}

pub fn heartbeats_while_idle(adapter: Adapter) {
    let (relay, mut till) = pair_with(adapter, "ack", "[tcp]\nheartbeat = \"2s\"");
    // One who answers no PING is the clock: the relay ends it after 2.5 heartbeats.
    for _ in 0..2 {
        let mut silent = Backend::raw(&relay);
        silent.hello("silent", "");
        while silent
            .expect_line_or_ping("BYE reason=idle retry=*")
            .is_none()
        {}
    }
    assert_eq!(till.count("READY"), 1, "{}", till.printed());
    served(&relay, &mut till, b"still there");
    stop(&relay, till);
}

pub fn silence(adapter: Adapter) {
    let relay = relay_for(adapter, "[tcp]\nheartbeat = \"400ms\"");
    let proxy = TcpProxy::before(door(&relay));
    let mut till = LuaSetup::new(adapter, "till-7", "ack").start(proxy.addr());
    till.line("READY");
    let before = till.sockets();
    proxy.freeze();
    till.line("LOG warn the connection broke: nothing heard for 1 s; next try in ");
    eventually("it lets go of the socket", || till.sockets() < before);
    proxy.forward();
    till.line("READY");
    served(&relay, &mut till, b"again");
    stop(&relay, till);
}

/// As a debugger, a snapshot of the machine or a slow disk stops it.
pub fn relay_stopped_for_a_while(adapter: Adapter) {
    let (relay, mut till) = pair_with(adapter, "ack", "[tcp]\nheartbeat = \"400ms\"");
    relay.signal(Signal::STOP);
    till.line("LOG warn the connection broke: nothing heard for 1 s; next try in ");
    relay.signal(Signal::CONT);
    till.line("READY");
    served(&relay, &mut till, b"after it");
    stop(&relay, till);
}

/// Handlers that take longer than a connection lingers: what the older session has in flight when a newer one takes over is
/// acknowledged all the same.
pub fn slow_handlers_over_a_hand_over(adapter: Adapter) {
    let (relay, mut old) = pair(adapter, "late:3");
    // In one thread they would wait for each other, longer than the provider waits.
    let count = if adapter.has_coroutines() { 8 } else { 1 };
    let in_flight: Vec<Pending> = (0..count)
        .map(|n| relay.post("/notify/till-7", format!("number {n}").as_bytes()))
        .collect();
    eventually("they are with the backend", || {
        relay.metric("payrelay_in_flight") == count as f64
            && relay.metric("payrelay_queue_depth") == 0.0
    });
    let mut new = connected(&relay, &LuaSetup::new(adapter, "till-7", "ack"));
    served(&relay, &mut new, b"for the new one");
    for answer in in_flight {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    // What a program printed is read by a thread of its own, and may come after the answer.
    old.line("LOG warn the relay said BYE: takeover; next try in ");
    eventually("the older one handled all", || old.count("GOT") == count);
    stop(&relay, new);
}

pub fn close_with_one_in_flight(adapter: Adapter) {
    let (relay, mut till) = pair(adapter, "slow:1");
    let slow = relay.post("/notify/till-7", b"slow");
    eventually("it is with the backend", || {
        relay.metric("payrelay_in_flight") == 1.0 && relay.metric("payrelay_queue_depth") == 0.0
    });
    let last = relay.post("/notify/till-7", b"stop");
    assert_eq!(slow.answer().told(), (200, "delivered"));
    assert_eq!(last.answer().told(), (200, "delivered"));
    till.got();
    till.expect_closed();
    relay.log_contains("gone (bye)");
}
