//! Many at once: what only goes wrong between two of them.

use std::sync::atomic::{AtomicBool, Ordering};

use crossbeam_channel::unbounded;

use super::node::{PATIENCE, channel, eventually, id};
use super::pair::Pair;
use super::sessions::Behavior;
use crate::bus::{Reach, Topic};
use crate::notification::Receipt;

pub fn those_who_come_and_go_at_the_same_time_leave_nothing_behind(pair: &Pair) {
    let b = pair.b();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            scope.spawn(move || {
                for n in 0..3000 {
                    // All the same few, so that one's coming is looked at after another's going.
                    let (till, news) = (id(&format!("till-{}", n % 3)), channel("news"));
                    b.sessions.seat(&till, Behavior::Keeps);
                    b.bus.look_again(Topic::Backend(till.clone()), None);
                    let (listener, _) = b.events.add(&news, n % 2 == 0, Box::new(|_| {}), None);
                    if thread % 2 == 0 {
                        std::thread::yield_now();
                    }
                    b.events.remove_listener(listener);
                    b.sessions.unseat(&till);
                    b.bus.look_again(Topic::Backend(till), None);
                }
            });
        }
    });
    let own = pair.own_channels();
    if own > 0 {
        eventually("only the nodes' own channels are left", || {
            let now = b.bus.readings();
            let channels = pair.channels();
            // `all` is one channel of both.
            channels.len() == 2 * own - 1
                && channels
                    .iter()
                    .all(|name| name.contains(":node:") || name.ends_with(":all"))
                && (now.subscriptions_wanted, now.subscriptions_standing) == (own, own)
        });
    }
    b.seat("till-0", Behavior::Says(Receipt::Ack));
    let sent = pair.a().deliver(pair.a().notification("till-0"));
    assert_eq!(pair.a().receipt(), (sent, Receipt::Ack));
}

pub fn everybody_who_waits_to_be_reached_is_told(pair: &Pair) {
    let (a, b) = (pair.a(), pair.b());
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            // Events that end the listening while others begin it.
            while !over.load(Ordering::Relaxed) {
                a.emit("news", b"x");
            }
        });
        let told = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            for round in 0..1000 {
                let (ready, is_ready) = unbounded();
                let mut waiting = 0;
                for _ in 0..3 {
                    let ready = ready.clone();
                    let ready = Box::new(move || {
                        let _ = ready.send(());
                    });
                    let listener = Box::new(|_: crate::bus::Event<'_>| {});
                    let (_, reach) = b.events.add(&channel("news"), true, listener, Some(ready));
                    waiting += usize::from(reach == Reach::Soon);
                }
                for n in 0..waiting {
                    let told = is_ready.recv_timeout(PATIENCE);
                    assert!(told.is_ok(), "round {round}: {n} of {waiting} were told");
                }
            }
        }));
        over.store(true, Ordering::Relaxed);
        if let Err(panic) = told {
            std::panic::resume_unwind(panic);
        }
    });
}
