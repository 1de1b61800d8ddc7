//! Promise 8 and its enemies: many senders, a slow reader, credit that changes, sessions that take over.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::Mutex;

use super::Random;
use super::setup::{Client, Heard, Setup};
use crate::notification::Receipt;

const SENDERS: usize = 6;
const EACH: usize = 300;

/// How many envelopes may be without a receipt: as many as the queue holds, so that none is refused.
fn gate() -> (Sender<()>, Receiver<()>) {
    bounded(64)
}

/// Every sender sends its envelopes one after the other, numbered, in sizes from nothing to more than a socket takes.
fn send_all(setup: &Setup, seed: usize, gate: &Sender<()>) {
    std::thread::scope(|scope| {
        for sender in 0..SENDERS {
            let mut random = Random((seed + sender) as u64);
            scope.spawn(move || {
                for n in 0..EACH {
                    let size = match random.below(20) {
                        0 => 200_000,
                        1..4 => 20_000,
                        _ => random.below(200),
                    };
                    gate.send(()).expect("the test takes receipts");
                    let route = format!("{sender}/{n}");
                    let envelope = setup.sender.envelope("a", &route, &vec![0; size]);
                    let sent = setup.context.registry.send(envelope);
                    sent.expect("the backend is there, with a place for it");
                }
            });
        }
    });
}

fn number(route: &str) -> (usize, usize) {
    let (sender, n) = route.split_once('/').expect("sender/n");
    (sender.parse().expect("sender"), n.parse().expect("n"))
}

#[test]
fn one_backend_gets_everything_in_the_order_taken() {
    let setup = Setup::new();
    let mut random = Random::seeded();
    let mut client = setup.narrow_client();
    client.say("HELLO 1 id=a max=1");
    assert!(client.line().starts_with("OK "));
    std::thread::scope(|scope| {
        let seed = random.below(1 << 30);
        let (setup, (enter, leave)) = (&setup, gate());
        scope.spawn(move || send_all(setup, seed, &enter));
        scope.spawn(move || {
            for _ in 0..SENDERS * EACH {
                assert_eq!(setup.sender.receipt().1, Receipt::Ack);
                leave.recv().expect("it had entered");
            }
        });
        let mut next = [0; SENDERS];
        let (mut flying, mut credit) = (Vec::new(), 1);
        for _ in 0..SENDERS * EACH {
            let msg = client.msg();
            let (sender, n) = number(&msg.route);
            assert_eq!(n, next[sender], "of sender {sender}");
            next[sender] += 1;
            flying.push(msg.id);
            // Some, in any order; all, once nothing more can come.
            while !flying.is_empty() && (flying.len() >= credit || random.below(3) == 0) {
                let id = flying.swap_remove(random.below(flying.len()));
                client.say(&format!("ACK id={id}"));
            }
            if random.below(10) == 0 {
                credit = 1 + random.below(40);
                client.say(&format!("RDY max={credit}"));
                while flying.len() >= credit {
                    client.say(&format!("ACK id={}", flying.remove(0)));
                }
            }
        }
        for id in flying {
            client.say(&format!("ACK id={id}"));
        }
        client.ping(); // before it goes
    });
}

/// Reads and acknowledges until the relay closes; which MSG came, in order.
fn serve(mut client: Client) -> Vec<(usize, usize)> {
    let mut got = Vec::new();
    loop {
        match client.hear() {
            Heard::Msg(msg) => {
                client.say(&format!("ACK id={}", msg.id));
                got.push(number(&msg.route));
            }
            Heard::Line(_) => {}
            Heard::Closed => return got,
        }
    }
}

#[test]
fn sessions_that_take_over_lose_nothing_and_keep_the_order() {
    const SESSIONS: usize = 30;
    let setup = Setup::new();
    let mut random = Random::seeded();
    let seed = random.below(1 << 30);
    let first = setup.backend("HELLO 1 id=a max=3");
    let total = SENDERS * EACH;
    std::thread::scope(|scope| {
        let (setup, (enter, leave)) = (&setup, gate());
        let mut sessions = vec![scope.spawn(move || serve(first))];
        scope.spawn(move || send_all(setup, seed, &enter));
        for n in 0..total {
            assert_eq!(setup.sender.receipt().1, Receipt::Ack, "receipt {n}");
            leave.recv().expect("it had entered");
            if n % (total / SESSIONS) == 0 {
                let next = setup.backend(&format!("HELLO 1 id=a max={}", 1 + random.below(8)));
                sessions.push(scope.spawn(move || serve(next)));
            }
        }
        // The last one would stay.
        setup.listener().drain();
        let got: Vec<_> = sessions
            .into_iter()
            .flat_map(|session| session.join().expect("no panic"))
            .collect();
        assert_eq!(got.len(), total, "each once");
        let mut next = [0; SENDERS];
        for (sender, n) in got {
            assert_eq!(n, next[sender], "of sender {sender}");
            next[sender] += 1;
        }
    });
}

#[test]
fn of_many_that_come_at_once_one_stays_and_nothing_is_lost() {
    const STORM: usize = 40;
    let setup = Setup::new();
    let first = setup.backend("HELLO 1 id=a max=0");
    let sent: Vec<_> = (0..64).map(|_| setup.sender.send("a", b"0/0")).collect();
    let alive = AtomicUsize::new(STORM + 1);
    let tally = Mutex::new(HashMap::new());
    let done = Arc::new(std::sync::Barrier::new(STORM));
    std::thread::scope(|scope| {
        let (setup, alive, tally) = (&setup, &alive, &tally);
        let follow = move |mut client: Client| {
            loop {
                match client.hear() {
                    Heard::Msg(msg) => {
                        *tally.lock().entry(msg.id.clone()).or_insert(0) += 1;
                        client.say(&format!("ACK id={}", msg.id));
                    }
                    Heard::Line(line) => assert!(!line.starts_with("ERR"), "{line}"),
                    Heard::Closed => break,
                }
            }
            alive.fetch_sub(1, Ordering::SeqCst)
        };
        scope.spawn(move || follow(first));
        let ends: Vec<_> = (0..STORM)
            .map(|_| {
                let together = Arc::clone(&done);
                scope.spawn(move || {
                    let mut client = setup.client();
                    together.wait();
                    client.say("HELLO 1 id=a max=4");
                    follow(client)
                })
            })
            .collect();
        for _ in &sent {
            assert_eq!(setup.sender.receipt().1, Receipt::Ack);
        }
        // One stays: the newest. What is sent now must find it.
        while alive.load(Ordering::SeqCst) > 1 {
            std::thread::yield_now();
        }
        assert_eq!(setup.context.registry.len(), 1);
        let last = setup.sender.send("a", b"0/0");
        assert_eq!(setup.sender.receipt(), (last, Receipt::Ack));
        setup.listener().drain();
        for end in ends {
            end.join().expect("no panic");
        }
    });
    let tally = tally.into_inner();
    assert_eq!(tally.len(), sent.len() + 1);
    assert!(tally.values().all(|&times| times == 1), "each once");
    assert!(setup.context.registry.is_empty());
}
