//! Redis dies, stands still and falls silent under load: no answer lies, nobody on this node notices, and all is well soon
//! after.

use std::time::{Duration, Instant};

use crate::support::{
    AnsweredNotification, Backends, Cluster, DEADLINE, Notification, Providers, REFUSE, Random,
    Redis, TcpProxy, assert_ok_means_acked, eventually, failovers,
};

const NODES: usize = 3;

const BACKENDS: usize = 30;

/// Generous: it is what tells a worker that blocks on Redis from one that waits for an ACK.
const ACK_DEADLINE: Duration = Duration::from_secs(5);

/// How much later than that an answer may come on a busy machine.
const SLACK: Duration = Duration::from_secs(5);

/// Within which every backend can be reached again, once Redis is back.
const HEALED: Duration = Duration::from_secs(5);

/// What happens to Redis, or to the way there.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// It is killed, and started anew.
    Death,
    /// It is stopped, and goes on.
    Standstill,
    /// Nothing comes through any more, and nothing is closed.
    Silence,
    /// The same, for one node only.
    SilenceOfOne(usize),
    /// Every connection is cut.
    Cut,
}

#[test]
fn ok_is_no_lie_while_redis_dies_stands_still_and_falls_silent() {
    let _turn = failovers();
    let faults = [
        Fault::Death,
        Fault::Standstill,
        Fault::Silence,
        Fault::SilenceOfOne(1),
        Fault::Cut,
    ];
    storm(faults.into_iter());
}

#[test]
#[ignore = "soak: a minute of storms, for tests/run --soak"]
fn soak_a_minute_of_storms() {
    let _turn = failovers();
    let until = Instant::now() + Duration::from_secs(60);
    let mut random = Random::new();
    storm(std::iter::from_fn(|| {
        let fault = match random.below(6) {
            0 | 1 => Fault::Death,
            2 => Fault::Standstill,
            3 => Fault::Silence,
            4 => Fault::SilenceOfOne(random.below(NODES)),
            _ => Fault::Cut,
        };
        (Instant::now() < until).then_some(fault)
    }));
}

fn storm(faults: impl Iterator<Item = Fault>) {
    let mut random = Random::new();
    let mut redis = Redis::start();
    let proxies: Vec<_> = (0..NODES).map(|_| TcpProxy::before(redis.addr())).collect();
    let urls: Vec<_> = proxies
        .iter()
        .map(|proxy| format!("redis://{}", proxy.addr()))
        .collect();
    let extra = format!("[delivery]\nack_deadline = \"{}s\"", ACK_DEADLINE.as_secs());
    let cluster = Cluster::on(&urls, &extra);
    let names: Vec<String> = (0..BACKENDS).map(|n| format!("game-{n}")).collect();
    let addresses = names.iter().enumerate();
    let addresses = addresses.map(|(n, name)| (name.clone(), cluster.nodes[n % NODES].ready().tcp));
    let backends = Backends::start(addresses.collect(), 2);
    backends.wait_serving(DEADLINE);

    // For each node, a provider whose backends are all there, and two whose backends may be anywhere.
    let sources = |local: bool, random: &mut Random| {
        let sources = cluster.nodes.iter().enumerate().map(|(at, node)| {
            let (http, mut random) = (node.ready().http, random.fork());
            let mut n = 0;
            move || {
                let to = match local {
                    true => random.below(BACKENDS / NODES) * NODES + at,
                    false => random.below(BACKENDS),
                };
                n += 1;
                let refuse = !local && random.below(10) == 0;
                let body = format!("{at} {n} {}", if refuse { REFUSE } else { "" });
                Some(Notification {
                    http,
                    to: format!("game-{to}"),
                    body: body.into_bytes(),
                })
            }
        });
        sources.collect::<Vec<_>>()
    };
    let local = Providers::start_paced(sources(true, &mut random));
    let everywhere = Providers::start_paced(
        [sources(false, &mut random), sources(false, &mut random)]
            .into_iter()
            .flatten()
            .collect(),
    );

    let mut probes = Vec::new();
    let mut count = 0;
    for fault in faults {
        count += 1;
        everywhere.wait_for_more(300);
        let cluster = &cluster;
        let downs = || {
            let of = |node: &crate::support::Relay| node.metric("payrelay_bus_downs_total");
            cluster.nodes.iter().map(of).sum::<f64>()
        };
        let before = downs();
        match fault {
            Fault::Death => redis.kill(),
            Fault::Standstill => redis.pause(),
            Fault::Silence => proxies.iter().for_each(TcpProxy::swallow),
            Fault::SilenceOfOne(at) => proxies[at].swallow(),
            Fault::Cut => proxies.iter().for_each(TcpProxy::cut),
        }
        match fault {
            Fault::Death | Fault::Standstill | Fault::Silence => cluster.wait_red(),
            Fault::SilenceOfOne(at) => drop(cluster.nodes[at].wait_red()),
            Fault::Cut => eventually("all have noticed", || downs() >= before + 3.0),
        }
        // Backends here are served meanwhile, as quickly as ever.
        local.wait_for_more(300);
        match fault {
            Fault::Death => redis.restart(),
            Fault::Standstill => redis.resume(),
            Fault::Silence => proxies.iter().for_each(TcpProxy::forward),
            Fault::SilenceOfOne(at) => proxies[at].forward(),
            Fault::Cut => {}
        }
        let back = Instant::now();
        cluster.wait_green();
        eprintln!("{fault:?}: green again after {:?}", back.elapsed());
        assert!(back.elapsed() < HEALED, "{fault:?}: {:?}", back.elapsed());
        // Green is no lie either: every backend from every node, at the first try.
        probes.extend(cluster.all_reach_all(&names));
    }

    let (local, everywhere) = (local.stop(), everywhere.stop());
    assert_eq!(backends.ended(), 0, "a backend was cut off");
    let heard = backends.stop();
    assert_ok_means_acked(&probes, &heard);
    assert_eq!(assert_ok_means_acked(&local, &heard), local.len());
    let delivered = assert_ok_means_acked(&everywhere, &heard);
    for told in local.iter().chain(&everywhere) {
        assert!(
            told.elapsed < ACK_DEADLINE + SLACK,
            "{} was answered {:?} after {:?}",
            told.id,
            told.outcome,
            told.elapsed
        );
    }
    let unreachable = |told: &&AnsweredNotification| told.outcome == "unreachable";
    let unreachable = everywhere.iter().filter(unreachable).count();
    eprintln!(
        "{count} faults; {} local posts; {} others, {delivered} delivered, {unreachable} unreachable",
        local.len(),
        everywhere.len()
    );
    assert!(delivered > 0 && unreachable > 0, "there was no storm");
}
