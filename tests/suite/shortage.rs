//! What the system has no more of: threads, and connections that it would wait for.

use crate::support::{Relay, strace};

#[test]
fn connections_that_the_system_does_not_wait_for_are_served_each_alone() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let refused = ["-e", "inject=epoll_ctl:error=ENOSPC"];
    let Some(_strace) = strace(&relay, &refused) else {
        return;
    };
    let mut providers: Vec<_> = (0..5).map(|_| relay.http()).collect();
    for round in 0..3 {
        for provider in &mut providers {
            let body = format!("{round}");
            provider.send(&crate::support::post_request(
                "/notify/till-7",
                &[],
                body.as_bytes(),
            ));
            till.expect("MSG id=* =1", body.as_bytes()).ack();
            assert_eq!(provider.must_answer().told(), (200, "delivered"));
        }
    }
    let log = relay.log();
    let said = log.lines().filter(|line| line.contains("served alone"));
    assert_eq!(said.count(), 1, "{log}");
}

#[test]
fn without_another_thread_providers_are_served_and_who_needs_one_is_told_so() {
    let relay = Relay::start();
    let mut till = relay.backend("till-7");
    let mut kept = relay.http();
    assert_eq!(kept.post("/notify/nobody", b"x").told(), (503, "offline"));
    let refused = ["-e", "inject=clone,clone3:error=EAGAIN"];
    let Some(_strace) = strace(&relay, &refused) else {
        return;
    };
    for _ in 0..20 {
        let large = vec![b'x'; 100_000];
        assert_eq!(
            relay.http().post("/notify/till-7", &large).told(),
            (503, "limit")
        );
        let mut last = relay.http();
        last.send(b"POST /notify/nobody HTTP/1.1\r\nHost: relay\r\nConnection: close\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(last.must_answer().told(), (503, "offline"));
        last.expect_closed();
        for provider in [&mut kept, &mut relay.http()] {
            provider.send(&crate::support::post_request("/notify/till-7", &[], b"y"));
            till.expect("MSG id=* =1", b"y").ack();
            assert_eq!(provider.must_answer().told(), (200, "delivered"));
        }
    }
    let log = relay.log();
    let said = log.lines().filter(|line| line.contains("no thread for"));
    assert_eq!(said.count(), 1, "{log}");
}
