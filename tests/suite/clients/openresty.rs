//! OpenResty's own: requests that use the client, and one connection that goes from timer to timer and from worker to worker.

use super::{connected, pair, stop};
use crate::support::{Adapter, LuaBackend, LuaSetup, Pending, Relay, eventually, heavy};

#[test]
fn requests_use_the_client() {
    let (relay, mut till) = pair(Adapter::OpenResty, "bus");
    till.line("SUBSCRIBED ok");
    let answer = till.request();
    assert!(answer.ends_with("\r\n\r\ntrue false\n"), "{answer}");
    assert_eq!(till.line("EVENT "), "news from a request");
    stop(&relay, till);
}

#[test]
fn openresty_hands_over_to_another_timer_and_loses_nothing() {
    let _alone = heavy();
    let (relay, mut till) = pair(Adapter::OpenResty, "ack");
    for round in 0..13 {
        let answers: Vec<Pending> = (0..100)
            .map(|n| relay.post("/notify/till-7", format!("{round} {n}").as_bytes()))
            .collect();
        for answer in answers {
            let answer = answer.answer();
            // Its queue holds 64, and so more than 80 at once may be too many.
            assert!(
                ["delivered", "busy"].contains(&answer.outcome()),
                "{}",
                answer.outcome()
            );
        }
    }
    till.line("LOG info connected as till-7"); // the second: the first line() took READY
    relay.log_contains("taken over");
    served_last(&relay, &till);
    stop(&relay, till);
}

/// A hand-over while handlers are at work would leave it to the relay how long it waits for them.
#[test]
fn it_hands_over_to_another_timer_when_no_handler_is_at_work() {
    let relay = Relay::start();
    let mut setup = LuaSetup::new(Adapter::OpenRestyWorkers, "till-7", "late:3");
    setup.timer_messages = 5;
    let mut till = connected(&relay, &setup);
    let answers: Vec<Pending> = (0..16)
        .map(|n| relay.post("/notify/till-7", format!("number {n}").as_bytes()))
        .collect();
    for answer in answers {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    till.line("LOG info connected as till-7");
    let printed = till.printed();
    let (before, _) = printed
        .rsplit_once("LOG info connected as")
        .expect("it connected");
    assert_eq!(before.matches("GOT ").count(), 16, "{printed}");
    stop(&relay, till);
}

/// A client that is never idle hands over in the end, so that nginx's memory has a bound; nothing is lost or comes twice by it.
#[test]
fn it_hands_over_while_handlers_are_at_work_if_they_always_are() {
    const COUNT: usize = 60;
    let relay = Relay::start();
    let mut setup = LuaSetup::new(Adapter::OpenRestyWorkers, "till-7", "late:0.3");
    setup.timer_messages = 2;
    let mut till = connected(&relay, &setup);
    let answers: Vec<Pending> = (0..COUNT)
        .map(|n| relay.post("/notify/till-7", format!("number {n}").as_bytes()))
        .collect();
    till.line("LOG info connected as till-7"); // the second: the first line() took READY
    for answer in answers {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    let printed = till.printed();
    let mut connected = printed.match_indices("LOG info connected as");
    let (second, _) = connected.nth(1).expect("it connected again");
    let before = printed[..second].matches("GOT ").count();
    assert!(before < COUNT, "it waited until nothing was at work");
    served_last(&relay, &till);
    assert_eq!(till.count("GOT"), COUNT + 1, "{}", till.printed());
    stop(&relay, till);
}

/// Told to close while handlers of the connection before are at work, it ends when these are heard.
#[test]
fn it_closes_only_when_the_timer_before_has_answered() {
    const COUNT: usize = 25;
    let relay = Relay::start();
    let mut setup = LuaSetup::new(Adapter::OpenResty, "till-7", "late:2");
    (setup.timer_messages, setup.max) = (1, 64);
    let mut till = connected(&relay, &setup);
    let answers: Vec<Pending> = (0..COUNT)
        .map(|n| relay.post("/notify/till-7", format!("number {n}").as_bytes()))
        .collect();
    till.line("LOG info connected as till-7"); // the second: the first line() took READY
    stop(&relay, till);
    for answer in answers {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
}

fn served_last(relay: &Relay, till: &LuaBackend) {
    let answer = relay.post("/notify/till-7", b"the last").answer();
    assert_eq!(answer.told(), (200, "delivered"));
    eventually("it was handled", || till.printed().contains(answer.id()));
}

#[test]
fn it_hands_over_to_the_new_workers_of_a_reload() {
    let (relay, mut till) = pair(Adapter::OpenRestyWorkers, "slow:1");
    let in_flight = relay.post("/notify/till-7", b"in flight");
    eventually("it is with the backend", || {
        relay.metric("payrelay_in_flight") == 1.0
    });
    let opened = "payrelay_sessions_opened_total";
    assert_eq!(relay.metric(opened), 1.0, "one of the four workers serves");
    till.reload();
    till.line("READY");
    assert_eq!(in_flight.answer().told(), (200, "delivered"));
    eventually("the old workers are gone", || {
        till.printed().matches("exited with code 0").count() == 4
    });
    served_last(&relay, &till);
    assert_eq!(relay.metric(opened), 2.0);
    stop(&relay, till);
}

/// Handlers slower than a connection lingers: the old worker's are heard, and none is handled twice.
#[test]
fn a_reload_hands_over_from_slow_handlers() {
    let (relay, mut till) = pair(Adapter::OpenRestyWorkers, "late:3.5");
    let in_flight: Vec<Pending> = (0..5)
        .map(|n| relay.post("/notify/till-7", format!("number {n}").as_bytes()))
        .collect();
    eventually("they are with the backend", || {
        relay.metric("payrelay_in_flight") == 5.0 && relay.metric("payrelay_queue_depth") == 0.0
    });
    till.reload();
    till.line("READY");
    for answer in in_flight {
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    eventually("all were handled", || till.count("GOT") >= 5);
    served_last(&relay, &till);
    // The last one was printed after all the others: none of these came twice.
    assert_eq!(till.count("GOT"), 6, "{}", till.printed());
    stop(&relay, till);
}
