//! `kill -9` at random moments, under load, with backends that come and go, of one node and of three with a Redis that is
//! restarted in between: what was answered ok is acknowledged by a backend in the end. The test keeps its own history.

mod history;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use self::history::{CrashHistory, Time, Who};
use crate::support::delivery_log::AckNumber;
use crate::support::{
    FlappingSession, Next, NodeAddresses, NodeLocator, Random, Redis, Relay, eventually, heavy,
    post_request,
};

const CONFIG: &str = "[delivery]\nundelivered = \"store\"\nack_deadline = \"300ms\"\n\
    [tcp]\nack_timeout = \"2s\"\n[outbox]\nretry_first = \"100ms\"\nretry_max = \"1s\"\nmax_tries = 100000\n";

const BACKENDS: usize = 4;
const PROVIDERS: usize = 6;

/// When a slow backend acknowledges: after `ack_deadline`, before `ack_timeout`.
const SLOW: Duration = Duration::from_millis(500);

#[test]
fn kill_9_under_load_loses_nothing_that_was_answered_ok() {
    rounds(10, 1);
}

#[test]
fn kill_9_of_three_nodes_and_of_their_redis_loses_nothing_that_was_answered_ok() {
    rounds(10, 3);
}

#[test]
#[ignore = "long: part of tests/run --soak"]
fn kill_9_fifty_times() {
    rounds(50, 1);
}

#[test]
#[ignore = "long: part of tests/run --soak"]
fn kill_9_fifty_times_among_three_nodes_and_their_redis() {
    rounds(50, 3);
}

/// So many kills among so many nodes, and as many chances for Redis to be killed too.
fn rounds(count: usize, nodes: usize) {
    let _alone = heavy();
    let mut random = Random::new();
    let history = Arc::new(CrashHistory::new(nodes));
    let locators: Arc<Vec<NodeLocator>> =
        Arc::new((0..nodes).map(|_| NodeLocator::default()).collect());
    let (no_more_posts, calm, over) = (
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
        Arc::new(AtomicBool::new(false)),
    );
    let mut redis = (nodes > 1).then(Redis::start);
    let config = match &redis {
        None => CONFIG.to_owned(),
        Some(redis) => format!(
            "{CONFIG}[redis]\nurl = \"{}\"\nresponse_timeout = \"5s\"\n",
            redis.url()
        ),
    };
    let mut relays: Vec<Relay> = (0..nodes).map(|_| Relay::with(&config)).collect();
    for (locator, relay) in locators.iter().zip(&relays) {
        locator.set(Some(NodeAddresses::of(relay)));
    }
    let mut providers = Vec::new();
    for n in 0..PROVIDERS {
        let (locators, history, over) = (locators.clone(), history.clone(), no_more_posts.clone());
        providers.push(thread::spawn(move || {
            provide(n, &locators, &history, &over);
        }));
    }
    let mut backends = Vec::new();
    for n in 0..BACKENDS {
        let (locators, history) = (locators.clone(), history.clone());
        let (calm, over, seed) = (calm.clone(), over.clone(), random.next());
        backends.push(thread::spawn(move || {
            serve(
                &format!("flap-{n}"),
                seed,
                &locators,
                &history,
                &calm,
                &over,
            );
        }));
    }
    for round in 0..count {
        // Some while it starts, some after it has been at work.
        let lives = Duration::from_millis(30 + random.below(900) as u64);
        crate::support::let_pass(lives);
        if let Some(redis) = redis.as_mut().filter(|_| random.below(3) == 0) {
            history.clocks.turn(Who::Redis);
            redis.kill();
            redis.restart();
            // It is over when every node hears again: until then the word of an ACK can be lost between them.
            for relay in &relays {
                relay.wait_green();
            }
            history.clocks.turn(Who::Redis);
            eprintln!("round {round}: Redis killed");
        }
        let victim = random.below(nodes);
        locators[victim].set(None);
        history.clocks.turn(Who::Node(victim));
        relays[victim].restart_with(&config);
        // It is back for everybody at once, and for the history when it hears the others.
        locators[victim].set(Some(NodeAddresses::of(&relays[victim])));
        relays[victim].wait_green();
        history.clocks.turn(Who::Node(victim));
        eprintln!("round {round}: node {victim} killed after {lives:?}");
    }
    no_more_posts.store(true, Ordering::SeqCst);
    for provider in providers {
        provider.join().expect("a provider failed");
    }
    calm.store(true, Ordering::SeqCst);
    for relay in &relays {
        eventually("nothing is pending", || {
            relay.metric("payrelay_outbox_messages{state=\"pending\"}") == 0.0
        });
        let dead = relay.metric("payrelay_outbox_messages{state=\"dead\"}");
        assert_eq!(dead, 0.0);
    }
    over.store(true, Ordering::SeqCst);
    for backend in backends {
        backend.join().expect("a backend failed");
    }

    let report = history.report();
    eprintln!(
        "{} answered ok, {} acknowledged, {} of them more than once; of the ACKs {} doubtful, {} too late",
        report.promised, report.acknowledged, report.twice, report.doubtful, report.too_late
    );
    assert!(
        report.promised > 10 * count,
        "only {} were answered ok",
        report.promised
    );
    let (lost, twice) = (&report.lost, &report.without_reason);
    assert!(lost.is_empty(), "{} lost: {lost:#?}", lost.len());
    assert!(
        twice.is_empty(),
        "{} acknowledged twice without a reason: {twice:#?}",
        twice.len()
    );
}

/// Posts one after another, each with a body of its own, and notes what was answered ok.
fn provide(number: usize, locators: &[NodeLocator], history: &CrashHistory, over: &AtomicBool) {
    let mut n = 0;
    let origin = number % locators.len();
    locators[origin].keep_posting(over, |connection| {
        n += 1;
        let body = format!("{number}-{n}");
        let path = format!("/notify/flap-{}", n % BACKENDS);
        history.posts(&body, origin);
        // No answer is no promise.
        let answer = connection.exchange(&post_request(&path, &[], body.as_bytes()));
        let answer = answer.ok()?;
        if answer.status == 200 {
            history.promised(&body, answer.id());
        }
        Some(())
    });
}

/// A backend that acknowledges, at once or late, refuses, stays silent and goes away, until it is told to be calm.
fn serve(
    id: &str,
    seed: u64,
    locators: &[NodeLocator],
    history: &CrashHistory,
    calm: &AtomicBool,
    over: &AtomicBool,
) {
    let mut random = Random::from(seed);
    loop {
        let node = random.below(locators.len());
        let Some(addresses) = locators[node].wait(over) else {
            return;
        };
        let Some(mut session) = FlappingSession::open(addresses.tcp, id) else {
            crate::support::let_pass(Duration::from_millis(5));
            continue;
        };
        let messages = random.below(60);
        let mut slow: VecDeque<(Instant, ReadMessage)> = VecDeque::new();
        let acknowledge = |session: &mut FlappingSession<(AckNumber, ReadMessage)>,
                           message: ReadMessage| {
            // Noted first: once it is written it may arrive.
            let ack = history.acks(&message.body, &message.id, node, message.at.clone());
            session.say(&format!("ACK id={}\nPING\n", message.id));
            session.unsure.push_back((ack, message));
        };
        let mut got = 0;
        while !over.load(Ordering::SeqCst) && (got < messages || calm.load(Ordering::SeqCst)) {
            while slow.front().is_some_and(|(due, ..)| *due <= Instant::now()) {
                if let Some((_, message)) = slow.pop_front() {
                    acknowledge(&mut session, message);
                }
            }
            let frame = match session.next() {
                Next::Frame(frame) => frame,
                Next::Nothing => continue,
                Next::Over => break,
            };
            match frame.verb.as_str() {
                "PONG" => {
                    if let Some((ack, ..)) = session.unsure.pop_front() {
                        history.read(&ack);
                    }
                }
                "PING" => session.say("PONG\n"),
                "MSG" => {
                    got += 1;
                    let message = ReadMessage {
                        id: frame.field("id").to_owned(),
                        body: String::from_utf8_lossy(frame.body()).into_owned(),
                        at: history.clocks.now(),
                        sent_after: session.reading_since,
                    };
                    let calm = calm.load(Ordering::SeqCst);
                    match if calm { 99 } else { random.below(100) } {
                        0..10 => session.say(&format!("NACK id={} delay=0.1\n", message.id)),
                        10..15 => {} // silent: the session forgets it
                        // Later than `ack_deadline`: by then it is stored, and held for this session.
                        15..20 => slow.push_back((Instant::now() + SLOW, message)),
                        _ => acknowledge(&mut session, message),
                    }
                }
                "ERR" if frame.get("code") == Some("unknown-id") => {
                    // Of an ACK, or of a NACK, which is nobody's business here.
                    let id = frame.field("id");
                    let late = session.unsure.iter().find(|(_, message)| message.id == id);
                    if let Some((ack, message)) = late {
                        history.too_late(ack, message.sent_after.elapsed());
                    }
                }
                _ => {}
            }
        }
        for (ack, ..) in &session.unsure {
            history.doubts(ack);
        }
    }
}

/// A MSG that was read.
struct ReadMessage {
    id: String,
    body: String,
    at: Time,
    /// It was sent after that.
    sent_after: Instant,
}
