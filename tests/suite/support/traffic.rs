//! Payments that flow all the while: to backends on the same node, and to backends anywhere. Everything undelivered is stored,
//! and in the end the test's books must balance.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{
    Barrage, Cluster, DEADLINE, Fleet, Heard, Random, Relay, Setup, Shot, Told, eventually,
};

/// The longest that a provider waits for an ACK.
pub const ACK_DEADLINE: Duration = Duration::from_secs(4);

/// How much later than that an answer may come on a busy machine.
const SLACK: Duration = Duration::from_secs(4);

/// Nodes, backends and providers.
pub struct Traffic {
    pub cluster: Cluster,
    pub names: Vec<String>,
    fleet: Fleet,
    local: Barrage,
    everywhere: Barrage,
    probes: Vec<Told>,
}

impl Traffic {
    /// `nodes` nodes with this `[redis]`, and `backends` backends spread over them.
    pub fn begin(redis: &str, nodes: usize, backends: usize, random: &mut Random) -> Self {
        Self::begin_on(&vec![redis.to_owned(); nodes], backends, random)
    }

    /// A node for each `[redis]` of `redis`.
    pub fn begin_on(redis: &[String], backends: usize, random: &mut Random) -> Self {
        let nodes = redis.iter().enumerate().map(|(n, redis)| {
            let toml = format!(
                "node = \"node{n}\"\n{redis}[delivery]\nack_deadline = \"{}s\"\nundelivered = \"store\"\n\
                 [outbox]\nretry_first = \"100ms\"\nretry_max = \"1s\"\n",
                ACK_DEADLINE.as_secs()
            );
            Setup::with(&toml).start()
        });
        let cluster = Cluster {
            nodes: nodes.collect(),
        };
        cluster.wait_green();
        let count = cluster.nodes.len();
        let names: Vec<String> = (0..backends).map(|n| format!("game-{n}")).collect();
        let berths = names.iter().enumerate();
        let berths = berths.map(|(n, name)| (name.clone(), cluster.nodes[n % count].ready().tcp));
        let fleet = Fleet::launch(berths.collect(), 2);
        fleet.wait_serving(DEADLINE);
        let mut guns = |local: bool| {
            let nodes = cluster.nodes.iter().enumerate();
            let guns = nodes.map(|(at, node)| {
                let (http, mut random) = (node.ready().http, random.fork());
                let mut n = 0;
                move || {
                    let to = match local {
                        true => random.below(backends / count) * count + at,
                        false => random.below(backends),
                    };
                    n += 1;
                    Some(Shot {
                        http,
                        to: format!("game-{to}"),
                        body: format!("{at} {local} {n}").into_bytes(),
                    })
                }
            });
            guns.collect::<Vec<_>>()
        };
        let (local, everywhere) = (guns(true), guns(false));
        let traffic = Self {
            cluster,
            names,
            fleet,
            local: Barrage::begin(local),
            everywhere: Barrage::begin(everywhere),
            probes: Vec::new(),
        };
        traffic.flow();
        traffic
    }

    /// Waits until payments have flowed for a while, local ones and others.
    pub fn flow(&self) {
        self.local.wait_for_more(100);
        self.everywhere.wait_for_more(100);
    }

    /// How often the bus of each node has failed.
    pub fn downs(&self) -> Vec<f64> {
        let downs = |node: &Relay| node.metric("payrelay_bus_downs_total");
        self.cluster.nodes.iter().map(downs).collect()
    }

    /// Waits until every backend is reached from every node at the first try, by all that is posted later than `bound` from `since`;
    /// says when that round of posts began. A node may be green at first because it has not noticed the event yet, so one round is
    /// not enough.
    pub fn healed(&mut self, what: &str, since: Instant, bound: Duration) -> Duration {
        // Local backends are served throughout.
        self.local.wait_for_more(20);
        let mut is_first = true;
        loop {
            self.cluster.wait_green();
            let began = since.elapsed();
            // A round that misses some takes as long as their providers wait, so a later one may begin after the bound.
            assert!(
                began < bound || !is_first,
                "{what}: green after {began:?}, and the bound is {bound:?}"
            );
            is_first = false;
            let told = self.cluster.all_try_all(&self.names);
            let missed = told
                .iter()
                .filter(|told| told.outcome != "delivered")
                .count();
            self.probes.extend(told);
            if missed == 0 {
                eprintln!("{what}: every backend is reached by what is posted after {began:?}");
                return began;
            }
            assert!(
                began < bound,
                "{what}: {missed} posts after {began:?} do not reach their backend, and the bound is {bound:?}"
            );
        }
    }

    /// Ends the payments, waits until everything stored is delivered, and balances the books: nothing answered ok is lost,
    /// no backend was called offline, and no answer was late.
    pub fn balance(self) {
        let (local, everywhere) = (self.local.end(), self.everywhere.end());
        for node in &self.cluster.nodes {
            eventually("everything stored is delivered", || {
                node.metric("payrelay_outbox_messages{state=\"pending\"}") == 0.0
            });
            let dead = node.metric("payrelay_outbox_messages{state=\"dead\"}");
            assert_eq!(dead, 0.0, "dead letters");
        }
        assert_eq!(self.fleet.ended(), 0, "a backend was cut off");
        let heard = self.fleet.land();
        let mut copies: HashMap<&str, usize> = HashMap::new();
        for heard in heard.iter().filter(|heard| heard.acked) {
            *copies.entry(&heard.id).or_default() += 1;
        }
        let bodies: HashSet<(&str, &[u8])> = heard.iter().map(key).collect();
        let (mut outcomes, mut slowest) = (HashMap::<&str, usize>::new(), Duration::ZERO);
        for told in local.iter().chain(&everywhere).chain(&self.probes) {
            *outcomes.entry(&told.outcome).or_default() += 1;
            slowest = slowest.max(told.elapsed);
            assert_ne!(told.outcome, "offline", "{} is connected", told.to);
            if told.status < 300 {
                assert!(
                    copies.contains_key(told.id.as_str()),
                    "{} to {} was answered {:?} and is lost",
                    told.id,
                    told.to,
                    told.outcome
                );
                let body: &[u8] = &told.body;
                assert!(
                    bodies.contains(&(&*told.id, body)),
                    "{} has another's body",
                    told.id
                );
            }
        }
        for told in &local {
            assert_eq!(
                told.outcome, "delivered",
                "{} is on the node itself",
                told.to
            );
        }
        let twice = copies.values().filter(|copies| **copies > 1).count();
        eprintln!("{outcomes:?}; {twice} delivered more than once; slowest answer {slowest:?}");
        assert!(slowest < ACK_DEADLINE + SLACK, "{slowest:?}");
    }
}

fn key(heard: &Heard) -> (&str, &[u8]) {
    (&heard.id, &heard.body)
}
