//! What takes a library with coroutines: callbacks and handlers that wait while the client goes on.

use super::{pair, pair_with, same_port, served, stop};
use crate::support::{Adapter, eventually};

pub fn send_that_waits(adapter: Adapter) {
    let (relay, mut till) = pair(adapter, "bus");
    till.line("SUBSCRIBED ok");
    for (to, told) in [("till-7", "ok"), ("nobody", "offline")] {
        let body = format!("ask {to} good day");
        let answer = relay.post("/notify/till-7", body.as_bytes()).answer();
        assert_eq!(answer.told(), (200, "delivered"));
        assert_eq!(till.line("TOLD "), told);
    }
    stop(&relay, till);
}

/// close(true) comes back once what is in flight has been answered and the connection is over.
pub fn close_that_waits(adapter: Adapter) {
    let (relay, mut till) = pair(adapter, "late:1");
    let in_flight = relay.post("/notify/till-7", b"in flight");
    eventually("it is with the backend", || {
        relay.metric("payrelay_in_flight") == 1.0 && relay.metric("payrelay_queue_depth") == 0.0
    });
    relay.backend("till-8").send("SEND to=till-7 =5\nclose");
    assert_eq!(in_flight.answer().told(), (200, "delivered"));
    till.got();
    assert_eq!(till.line("ENDED "), "true");
    relay.log_contains("gone (bye)");
    till.expect_closed();
}

pub fn stuck_callback(adapter: Adapter) {
    let (mut relay, mut till) = pair_with(adapter, "stuck", "[tcp]\nheartbeat = \"400ms\"");
    let mut other = relay.backend("till-8");
    for data in ["1", "2"] {
        other.send(&format!("SEND to=till-7 =1\n{data}"));
    }
    till.line("LOG warn on_data has not returned for 0.4 s");
    served(&relay, &mut till, b"meanwhile");
    // The heartbeats go on, and so does reconnecting.
    assert_eq!(till.count("READY"), 1, "{}", till.printed());
    relay.restart_with(&same_port(&relay));
    till.line("LOG info connected as till-7");
    served(&relay, &mut till, b"go on");
    assert_eq!(till.line("DATA "), "till-8 1");
    assert_eq!(till.line("DATA "), "till-8 2");
    stop(&relay, till);
}
