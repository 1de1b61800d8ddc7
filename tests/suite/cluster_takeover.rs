//! Takeover across nodes: the newest session of an id wins, exactly one survives, and nobody's notification is lost over it.

use std::time::{Duration, Instant};

use redis::Commands as _;
use rustix::process::Signal;

use crate::support::{
    Backend, Backends, Cluster, DEADLINE, Random, Redis, Relay, TcpProxy, eventually,
};

/// Long before any deadline of the relay's, and no test of this machine's speed.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_newer_session_wins_wherever_it_is_and_back_again() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, "");
    let mut older = cluster.nodes[0].backend("till-7");
    // To and fro: a node that has held the id before is no different from one that has not.
    for round in 0..30 {
        let mut newer = cluster.nodes[(round + 1) % 2].backend("till-7");
        assert_eq!(older.expect_bye("takeover").field("retry"), "5");
        for node in &cluster.nodes {
            let answer = node.post("/notify/till-7", b"for the newer");
            newer.expect("MSG id=* =*", b"for the newer").ack();
            assert_eq!(answer.answer().told(), (200, "delivered"));
        }
        older.expect_closed();
        eventually("one node is subscribed", || redis.nodes_with("till-7") == 1);
        older = newer;
    }
    older.settle();
    drop(older);
    eventually("none is subscribed", || redis.nodes_with("till-7") == 0);
    for node in &cluster.nodes {
        let answer = node.post("/notify/till-7", b"x").answer();
        assert_eq!(answer.told(), (503, "offline"));
    }
}

/// Later than a constant of some seconds, and as long as the provider waits.
#[test]
fn the_older_session_may_still_acknowledge_what_it_has_from_a_third_node() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, "[delivery]\nack_deadline = \"12s\"");
    let mut older = cluster.nodes[0].backend("till-7");
    let (kept, lost) = (
        b"acknowledged late".as_slice(),
        b"never acknowledged".as_slice(),
    );
    let kept_answer = cluster.nodes[2].post("/notify/till-7", kept);
    let id = older.expect("MSG id=* =*", kept).id();
    let lost_answer = cluster.nodes[2].post("/notify/till-7", lost);
    older.expect("MSG id=* =*", lost);
    let mut newer = cluster.nodes[1].backend("till-7");
    older.expect_bye("takeover");
    let since = Instant::now();
    older.expect_nothing_until(|| since.elapsed() > Duration::from_secs(5));
    older.send(&format!("ACK id={id}"));
    let answer = kept_answer.answer();
    assert_eq!((answer.told(), answer.id()), ((200, "delivered"), &*id));
    drop(older);
    let answer = lost_answer.answer();
    assert_eq!(answer.told(), (503, "offline"));
    assert!(answer.elapsed < SOON, "{:?}", answer.elapsed);
    newer.settle(); // and was given neither
}

/// A backend gave up on a node that was stopped, and connected to another one.
#[test]
fn a_connection_that_was_closed_meanwhile_takes_over_from_none_on_another_node() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 2, "");
    let [stopped, other] = &cluster.nodes[..] else {
        panic!("two nodes");
    };
    for round in 0..5 {
        let id = format!("till-{round}");
        stopped.process().signal(Signal::STOP);
        let mut closed = Backend::raw(stopped);
        closed.send(&format!("HELLO 1 id={id}"));
        drop(closed);
        let mut live = other.backend(&id);
        stopped.process().signal(Signal::CONT);
        stopped.process().wait_log(&format!("{id} gone (peer)"));
        cluster.wait_green();
        for node in &cluster.nodes {
            let answer = node.post(&format!("/notify/{id}"), b"x");
            live.expect("MSG id=* =*", b"x").ack();
            assert_eq!(answer.answer().told(), (200, "delivered"));
        }
        live.settle();
    }
}

#[test]
fn what_waited_for_the_older_session_is_answered_at_once() {
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, "");
    let mut older = cluster.nodes[0].backend_with("till-7", "max=0");
    let mut waiting = Vec::new();
    for node in &cluster.nodes {
        for _ in 0..3 {
            waiting.push(node.post("/notify/till-7", b"waits"));
        }
    }
    eventually("all wait there", || {
        cluster.nodes[0].metric("payrelay_queue_depth") == 9.0
    });
    let mut newer = cluster.nodes[1].backend("till-7");
    older.expect_bye("takeover");
    for pending in waiting {
        let answer = pending.answer();
        assert_eq!(answer.told(), (503, "offline"));
        assert!(answer.elapsed < SOON, "{:?}", answer.elapsed);
    }
    older.expect_closed();
    newer.settle();
}

#[test]
fn of_sessions_that_begin_in_the_same_moment_exactly_one_survives() {
    let mut random = Random::new();
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, "");
    for round in 0..5 {
        let names: Vec<String> = (0..40).map(|n| format!("till-{round}-{n}")).collect();
        // On two nodes or on three, and on one of them perhaps twice.
        let mut rivals: Vec<Vec<_>> = (0..4).map(|_| Vec::new()).collect();
        for name in &names {
            let first = random.below(3);
            let many = 2 + random.below(3);
            for (n, rivals) in rivals.iter_mut().take(many).enumerate() {
                let node = &cluster.nodes[(first + n) % 3];
                rivals.push((name.clone(), node.ready().tcp));
            }
        }
        let all: usize = rivals.iter().map(Vec::len).sum();
        let groups = rivals.into_iter().map(|rivals| Backends::start(rivals, 1));
        let groups: Vec<Backends> = groups.collect();
        one_survives(&redis, &cluster, &names, &groups, all - names.len());
        let heard = groups
            .into_iter()
            .flat_map(Backends::stop)
            .collect::<Vec<_>>();
        assert_eq!(heard.len(), 3 * names.len(), "each delivered once");
    }
}

/// All rivals but one for each name end, and what is posted to any node comes to the one that is left.
fn one_survives(
    redis: &Redis,
    cluster: &Cluster,
    names: &[String],
    groups: &[Backends],
    losers: usize,
) {
    let ended = || groups.iter().map(Backends::ended).sum::<usize>();
    eventually("all but one of each are told to go", || ended() == losers);
    let sessions = |node: &Relay| node.metric("payrelay_sessions");
    eventually("one session of each is left", || {
        cluster.nodes.iter().map(sessions).sum::<f64>() == names.len() as f64
    });
    let channels: Vec<String> = names.iter().map(|n| format!("payrelay:to:{n}")).collect();
    eventually("one subscription of each is left", || {
        redis.subscribers(&channels).iter().all(|count| *count == 1)
    });
    cluster.all_reach_all(names);
    assert_eq!(ended(), losers, "the survivors have survived");
}

#[test]
fn sessions_that_began_while_redis_was_away_come_down_to_the_newest_when_it_is_back() {
    let mut redis = Redis::start();
    let cluster = Cluster::start(&redis, 3, "");
    let names: Vec<String> = (0..40).map(|n| format!("till-{n}")).collect();
    let addresses = |node: &Relay| {
        names
            .iter()
            .map(|n| (n.clone(), node.ready().tcp))
            .collect()
    };
    redis.kill();
    cluster.wait_red();
    // Nobody can know of the other, and each is served where it is.
    let older = Backends::start(addresses(&cluster.nodes[0]), 1);
    older.wait_serving(DEADLINE);
    let newer = Backends::start(addresses(&cluster.nodes[1]), 1);
    newer.wait_serving(DEADLINE);
    for node in &cluster.nodes[..2] {
        let answer = node.post("/notify/till-3", b"here").answer();
        assert_eq!(answer.told(), (200, "delivered"));
    }
    let answer = cluster.nodes[2].post("/notify/till-3", b"there").answer();
    assert_eq!((answer.status, answer.outcome()), (503, "unreachable"));
    assert_eq!((older.ended(), newer.ended()), (0, 0));

    redis.restart();
    cluster.wait_green();
    let groups = [older, newer];
    one_survives(&redis, &cluster, &names, &groups, names.len());
    assert_eq!(groups[0].ended(), names.len(), "the older ones are gone");
}

#[test]
fn a_node_that_was_deaf_when_its_backend_went_elsewhere_gives_way_once_it_hears_again() {
    let redis = Redis::start();
    let proxy = TcpProxy::before(redis.addr());
    let through = format!("redis://{}", proxy.addr());
    let cluster = Cluster::on(&[through, redis.url()], "");
    let mut older = cluster.nodes[0].backend("till-7");
    assert_eq!(proxy.deaden(b"SUBSCRIBE"), 1);
    // It has not noticed yet, and does not hear of the newer one.
    let mut newer = cluster.nodes[1].backend("till-7");
    older.expect_bye("takeover");
    cluster.wait_green();
    for node in &cluster.nodes {
        let answer = node.post("/notify/till-7", b"x");
        newer.expect("MSG id=* =*", b"x").ack();
        assert_eq!(answer.answer().told(), (200, "delivered"));
    }
    newer.settle();
}

#[test]
fn a_node_whose_clock_lags_gives_new_sessions_later_stamps_than_it_has_heard_of() {
    const HOUR_US: u64 = 3_600_000_000;
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 1, "");
    let node = &cluster.nodes[0];
    let mut speaker = redis.connection();
    let mut listener = redis.connection();
    let mut heard = listener.as_pubsub();
    heard.subscribe("payrelay:all").expect("a subscription");
    heard.set_read_timeout(Some(DEADLINE)).expect("a timeout");
    let mut stamp = || loop {
        let message = heard.get_message().expect("a message");
        let text: String = message.get_payload().expect("text");
        let (line, list) = text.split_once('\n').expect("a line");
        if line.starts_with("HERE ") && !line.contains("elsewhere") {
            let (backend, stamp) = list.trim_end().split_once(' ').expect("a stamp");
            assert_eq!(backend, "till-7");
            break stamp.parse::<u64>().expect("a number");
        }
    };
    let mut zeroth = node.backend("till-7");
    let oldest = stamp();
    // A takeover on one node is announced too: other nodes may wait for ACKs of the older one.
    let mut first = node.backend("till-7");
    zeroth.expect_bye("takeover");
    let before = stamp();
    assert!(before > oldest);
    // Another node, an hour ahead, has a session of this backend.
    let there = before + HOUR_US;
    let mut say = |node: &str, stamp: u64| {
        let list = format!("till-7 {stamp}\n");
        let here = format!("HERE node={node} ={}\n{list}\n", list.len());
        let said = speaker.publish::<_, _, ()>("payrelay:all", here);
        said.expect("published");
    };
    say("elsewhere-1", there);
    first.expect_bye("takeover");
    // What comes now is newer than that, whatever this node's clock says.
    let mut second = node.backend("till-7");
    assert!(stamp() > there);
    second.settle();
    // And an announcement of the older one is answered with its own, at which the other node gives way.
    say("elsewhere-1", there);
    let ours = stamp();
    assert!(ours > there);
    second.settle();
    // The same stamp on two nodes: the name decides, and no node has it both ways.
    say("0-elsewhere", ours);
    assert_eq!(stamp(), ours, "it stays, and says so");
    second.settle();
    say("zz-elsewhere", ours);
    second.expect_bye("takeover");
}

#[test]
fn nothing_that_is_said_on_the_bus_breaks_a_node() {
    let mut random = Random::new();
    let redis = Redis::start();
    let cluster = Cluster::start(&redis, 1, "");
    let node = &cluster.nodes[0];
    let mut till = node.backend("till-7");
    let channels = [
        "payrelay:all".to_owned(),
        "payrelay:to:till-7".to_owned(),
        format!("payrelay:node:{}", node.ready().instance),
    ];
    let id = "01JD8XK4ZQ3V5T7W9Y0A2B4C6D";
    let mut words: Vec<Vec<u8>> = [
        format!("HERE node=x =28\nother {}\n\n", u64::MAX),
        format!("HERE node=x =27\nother {}\n", u64::MAX),
        "HERE node=x =99999999999\n".into(),
        "HERE node=x =10\nshort".into(),
        format!("MSG id={id} try=1 route=r verified=none at=1 h=9 origin=x ttl=1 =1\nx\n"),
        format!(
            "MSG id={id} try=4294967295 route=r verified=none at={0} h=0 origin=x ttl={0} =1\nx\n",
            u64::MAX
        ),
        format!("NACK id={id} to=till-7 delay=1e300 reason=%00"),
        format!("ACK id={id} to=nobody\n"),
        format!("ROLL n={} node=x more=1 =0\n\n", u64::MAX),
        "WHO n=1 origin=%0a%0d\n".into(),
        "CANARY n=18446744073709551615\n".into(),
        "WAKE\n".into(),
        "EVENT =0\n\n".into(),
        String::new(),
    ]
    .map(String::into_bytes)
    .into();
    for _ in 0..300 {
        let mut word = words[random.below(14)].clone();
        for _ in 0..random.below(4) {
            let at = random.below(word.len().max(1));
            if let Some(byte) = word.get_mut(at) {
                *byte = random.next() as u8;
            }
        }
        words.push(word);
    }
    let mut speaker = redis.connection();
    for word in words {
        let to = &channels[random.below(3)];
        speaker.publish::<_, _, ()>(to, word).expect("published");
    }
    drop(till);
    till = node.backend("till-8");
    let answer = node.post("/notify/till-8", b"x");
    till.message().ack();
    assert_eq!(answer.answer().told(), (200, "delivered"));
    assert_eq!(node.log().matches("panicked").count(), 0);
}
