//! Out of file descriptors: newcomers are refused, whoever is in is served, and when some come back so do the doors.

use crate::support::{Backend, RawHttp, Relay, Setup, eventually, heavy};

/// Few enough to be used up at once, enough to start with.
const FILES: u32 = 128;

fn small_relay() -> Relay {
    Setup::with(
        "[http]\nmax_in_flight = 8\nrequest_deadline = \"60s\"\n[tcp]\nhello_deadline = \"60s\"",
    )
    .nofile(FILES)
    .start()
}

/// A backend and a provider that were there before: their exchange.
fn exchange(till: &mut Backend, provider: &mut RawHttp) {
    let request = "POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: 5\r\n\r\nhello";
    provider.send(request.as_bytes());
    till.expect("MSG id=* =5", b"hello").ack();
    assert_eq!(provider.must_answer().told(), (200, "delivered"));
}

#[test]
fn backends_beyond_the_limit_are_refused_and_those_inside_are_served() {
    let _alone = heavy();
    let relay = small_relay();
    let mut till = relay.backend("till-7");
    let mut provider = relay.http();
    exchange(&mut till, &mut provider);

    let mut crowd: Vec<Backend> = (0..FILES * 2).map(|_| Backend::raw(&relay)).collect();
    // The last ones cannot have found a place.
    for newcomer in &mut crowd[FILES as usize..] {
        newcomer.expect_fatal("limit");
        exchange(&mut till, &mut provider);
    }
    assert_eq!(relay.admin("/livez").status, 200);
    drop(crowd);
    eventually("a backend gets in again", || {
        let mut newcomer = Backend::raw(&relay);
        newcomer.try_send(b"HELLO 1 id=newcomer\n");
        newcomer.next().is_some_and(|frame| frame.verb == "OK")
    });
    exchange(&mut till, &mut provider);
}

#[test]
fn providers_beyond_the_limit_make_room_or_are_refused_and_those_inside_are_served() {
    let _alone = heavy();
    let relay = small_relay();
    let mut till = relay.backend("till-7");
    let mut provider = relay.http();
    exchange(&mut till, &mut provider);

    // Each is in the middle of a request, so that none of them counts as idle.
    let begun = b"POST /notify/till-7 HTTP/1.1\r\nHost: relay\r\nContent-Length: 5\r\n\r\nhel";
    let mut crowd: Vec<RawHttp> = (0..FILES * 2)
        .map(|_| {
            let mut one = relay.http();
            one.send(begun);
            one
        })
        .collect();
    exchange(&mut till, &mut relay.http());
    assert_eq!(relay.admin("/livez").status, 200);
    assert!(relay.process().fds() <= FILES as usize);
    // Every one of them was refused or closed, or is still in and can finish.
    let mut served = 0;
    for one in &mut crowd {
        one.send(b"lo");
        if one.stirs(std::time::Duration::from_millis(50)) {
            let told = one.answer().ok().flatten().map(|answer| answer.status);
            assert!(matches!(told, None | Some(408 | 503)), "{told:?}");
        } else {
            till.expect("MSG id=* =5", b"hello").ack();
            assert_eq!(one.must_answer().told(), (200, "delivered"));
            served += 1;
        }
    }
    assert!(served >= 10, "only {served} of those inside were served");
    drop(crowd);
    eventually("descriptors come back", || {
        relay.process().fds() < FILES as usize / 2
    });
    exchange(&mut till, &mut relay.http());
    relay.backend("newcomer");
}
