//! Two thousand notifications at once to two hundred backends: each answered once, each delivered once, none crossed.

use crate::support::{Load, Relay, heavy};

/// Room for all of them at once, and a deadline that a loaded machine does not reach.
const ROOMY: &str = "[http]\nmax_connections = 3000\nmax_in_flight = 2500\nrequest_deadline = \"60s\"\n\
                     [delivery]\nack_deadline = \"60s\"\n[log]\nlevel = \"info\"";

#[test]
fn two_thousand_at_once_to_two_hundred_backends() {
    let _alone = heavy();
    let relay = Relay::with(ROOMY);
    let load = Load {
        backends: 200,
        each: 10,
        threads: 8,
    };
    let history = load.run(&relay);
    assert_eq!(history.posts.len(), 2000);
    history.assert_each_once_none_crossed();
    assert_eq!(
        relay.metric("payrelay_notifications_total{outcome=\"delivered\"}"),
        2000.0
    );
    assert_eq!(relay.metric("payrelay_in_flight"), 0.0);
}

#[test]
#[ignore = "soak: ten rounds of the crowd, for tests/run --soak"]
fn soak_ten_crowds_in_a_row() {
    let _alone = heavy();
    let relay = Relay::with(ROOMY);
    let load = Load {
        backends: 200,
        each: 10,
        threads: 8,
    };
    load.run(&relay).assert_each_once_none_crossed();
    let (threads, fds) = (relay.process().threads(), relay.process().fds());
    for _ in 0..10 {
        load.run(&relay).assert_each_once_none_crossed();
    }
    crate::support::eventually(
        "threads and descriptors are as after the first crowd",
        || relay.process().threads() <= threads + 8 && relay.process().fds() <= fds + 8,
    );
}
