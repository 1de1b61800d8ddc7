//! Payments that flow all the while: to backends on the same node, and to backends anywhere. Everything undelivered is stored,
//! and in the end the test's books must balance.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{
    Barrage, Cluster, DEADLINE, Fleet, HealthWatch, Heard, Interval, Random, Relay, Setup, Shot,
    Told, eventually,
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
    watch: HealthWatch,
    events: Vec<Event>,
}

/// Something that was done to the servers.
struct Event {
    what: String,
    since: Instant,
    /// From when on every backend was reached; `None`: no node needed to notice.
    healed: Option<Duration>,
    /// The longest that a node may have been red.
    bound: Duration,
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
            watch: HealthWatch::begin(&cluster.nodes),
            events: Vec::new(),
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
                self.events.push(Event {
                    what: what.to_owned(),
                    since,
                    healed: Some(began),
                    bound,
                });
                return began;
            }
            assert!(
                began < bound,
                "{what}: {missed} posts after {began:?} do not reach their backend, and the bound is {bound:?}"
            );
        }
    }

    /// Waits until payments have flowed for a while: no node may turn red for this.
    pub fn unnoticed(&mut self, what: &str, since: Instant) {
        self.flow();
        self.events.push(Event {
            what: what.to_owned(),
            since,
            healed: None,
            bound: Duration::ZERO,
        });
    }

    /// Ends the payments, waits until everything stored is delivered, and balances the books: nothing answered ok is lost,
    /// no backend was called offline, and no answer was late.
    pub fn balance(self) {
        let red = self.watch.end();
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
        for told in &local {
            let outcome = &told.outcome;
            assert_eq!(outcome, "delivered", "{} is on the node itself", told.to);
        }
        let posts: Vec<Told> = [local, everywhere, self.probes].concat();
        let copies = assert_none_is_lost(&posts, &heard);
        print_table(&self.events, &red, &posts, &copies);
        let slowest = posts.iter().map(|told| told.elapsed).max();
        assert!(slowest < Some(ACK_DEADLINE + SLACK), "{slowest:?}");
    }
}

/// Nothing answered ok is lost or has another's body, and no backend was called offline. Gives how often each id was acknowledged.
fn assert_none_is_lost<'a>(posts: &[Told], heard: &'a [Heard]) -> HashMap<&'a str, usize> {
    let mut copies: HashMap<&str, usize> = HashMap::new();
    for heard in heard.iter().filter(|heard| heard.acked) {
        *copies.entry(&heard.id).or_default() += 1;
    }
    let bodies: HashSet<(&str, &[u8])> = heard.iter().map(key).collect();
    let mut outcomes = HashMap::<&str, usize>::new();
    for told in posts {
        *outcomes.entry(&told.outcome).or_default() += 1;
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
    eprintln!("{outcomes:?}");
    copies
}

/// The table of doc/cluster.md: for each event the longest time that a node was red, what was delivered more than once, and the
/// slowest answer, of what was posted until the next event.
fn print_table(
    events: &[Event],
    red: &[Vec<Interval>],
    posts: &[Told],
    copies: &HashMap<&str, usize>,
) {
    eprintln!(
        "| event | every backend is reached after | longest red | more than once | slowest answer |"
    );
    for (n, event) in events.iter().enumerate() {
        let until = events.get(n + 1).map(|next| next.since);
        let until = until.unwrap_or_else(Instant::now);
        let within = |at: Instant| event.since <= at && at < until;
        let part = |&(from, to): &Interval| {
            let (from, to) = (from.max(event.since), to.min(until));
            to.saturating_duration_since(from)
        };
        let of_node = |red: &Vec<Interval>| red.iter().map(part).sum::<Duration>();
        let longest = red.iter().map(of_node).max().unwrap_or_default();
        let posts: Vec<&Told> = posts.iter().filter(|told| within(told.posted)).collect();
        let twice = |told: &&&Told| copies.get(&*told.id).is_some_and(|copies| *copies > 1);
        let slowest = posts.iter().map(|told| told.elapsed).max();
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        eprintln!(
            "| {} | {} | {} | {} of {} | {} |",
            event.what,
            event.healed.map_or("–".into(), seconds),
            seconds(longest),
            posts.iter().filter(twice).count(),
            posts.len(),
            seconds(slowest.unwrap_or_default())
        );
        assert!(
            longest <= event.bound,
            "{}: red for {longest:?}, and the bound is {:?}",
            event.what,
            event.bound
        );
    }
}

fn key(heard: &Heard) -> (&str, &[u8]) {
    (&heard.id, &heard.body)
}
