//! What the system has no more of: threads.

use crate::support::{Relay, strace};

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
    let said = log.lines().filter(|line| line.contains("no thread for"));
    assert_eq!(said.count(), 1, "{log}");
}
