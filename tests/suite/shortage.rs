//! What there is no more of: threads, and places for backends.

use crate::support::{Backend, Relay, eventually, strace};

#[test]
fn without_another_thread_connections_are_served_and_a_new_one_is_told_so() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let mut kept = relay.http();
    assert_eq!(kept.post("/notify/nobody", b"x").told(), (503, "offline"));
    let refused = ["-e", "inject=clone,clone3:error=EAGAIN"];
    let Some(_strace) = strace(&relay, &refused) else {
        return;
    };
    for _ in 0..20 {
        assert_eq!(
            relay.http().post("/notify/till-7", b"x").told(),
            (503, "limit")
        );
        kept.send(&crate::support::post_request("/notify/till-7", &[], b"y"));
        till.expect("MSG id=* =1", b"y").ack();
        assert_eq!(kept.must_answer().told(), (200, "delivered"));
    }
    let log = relay.log();
    let said = log
        .lines()
        .filter(|line| line.contains("no thread for") && !line.contains(" more in 10 s like: "));
    assert_eq!(said.count(), 1, "{log}");
}

#[test]
fn beyond_max_connections_the_newcomer_is_told_limit() {
    let relay = Relay::with("[tcp]\nmax_connections = 2");
    let first = relay.backend("till-1");
    let mut second = relay.backend("till-2");
    let mut third = Backend::raw(&relay);
    third.expect_fatal("limit");
    second.settle();
    drop(first);
    eventually("a place is free again", || {
        let mut newcomer = Backend::raw(&relay);
        newcomer.try_send(b"HELLO 1 id=till-3\n");
        newcomer.next().is_some_and(|frame| frame.verb == "OK")
    });
}

#[test]
fn silent_connections_make_room_for_those_that_say_hello() {
    let relay = Relay::with("[tcp]\nmax_connections = 4\nhello_deadline = \"60s\"");
    let mut till = relay.backend("till-1");
    let mut silent: Vec<Backend> = (0..8).map(|_| Backend::raw(&relay)).collect();
    // The oldest go, one for each that came after the place was gone; each is told why.
    for backend in &mut silent[..5] {
        backend.expect_fatal("limit");
    }
    let mut second = relay.backend("till-2");
    let mut third = relay.backend("till-3");
    let mut fourth = relay.backend("till-4");
    for backend in &mut silent[5..] {
        backend.expect_fatal("limit");
    }
    // All places are taken by backends, so now the newcomer is refused.
    Backend::raw(&relay).expect_fatal("limit");
    for backend in [&mut till, &mut second, &mut third, &mut fourth] {
        backend.settle();
    }
    relay.log_contains(
        "all of tcp.max_connections = 4 are taken: the oldest connection without a HELLO is closed",
    );
}
