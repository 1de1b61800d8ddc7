//! Payments that flow all the while: to backends on the same node, and to backends anywhere. Everything undelivered is stored,
//! and in the end what was posted, answered and received must agree.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use super::{
    AnsweredNotification, Backends, Cluster, DEADLINE, HealthWatch, Interval, Notification,
    Providers, Random, ReceivedMessage, Relay, SentinelGroup, Setup, SwitchWatch, eventually,
};

/// The longest that a provider waits for an ACK.
pub const ACK_DEADLINE: Duration = Duration::from_secs(4);

/// How much later than that an answer may come on a busy machine.
const SLACK: Duration = Duration::from_secs(15);

/// Within which every backend is reached from every node, and no node is red, once the servers have healed. It takes less than
/// a second, as the table shows; but on a busy machine a thread may not run for as long as that.
const REACHED_WITHIN: Duration = Duration::from_secs(4);

/// Within which a node that does not hear the others says so.
const RED_WITHIN: Duration = Duration::from_secs(4);

/// Nodes, backends and providers.
pub struct Traffic {
    pub names: Vec<String>,
    backends: Backends,
    local: Providers,
    everywhere: Providers,
    probes: Vec<AnsweredNotification>,
    watch: HealthWatch,
    switches: Option<SwitchWatch>,
    events: Vec<Event>,
    /// The last to end: a failure is told alone, without those of clients whose node has gone.
    pub cluster: Cluster,
}

/// Something that was done to the servers.
struct Event {
    what: String,
    since: Instant,
    /// When the servers had healed, and from when on every backend was reached; `None`: no node may notice.
    healed: Option<(Duration, Duration)>,
    /// No node can have overlooked it.
    is_outage: bool,
}

impl Event {
    /// After this no node is red, and no notification misses its backend.
    fn over(&self) -> Instant {
        let healed = self.healed.map(|(whole, _)| whole + REACHED_WITHIN);
        self.since + healed.unwrap_or_default()
    }
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
                "node = \"node{n}\"\n{redis}response_timeout = \"2s\"\n[delivery]\nack_deadline = \"{}s\"\nundelivered = \"store\"\n\
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
        let addresses = names.iter().enumerate();
        let addresses =
            addresses.map(|(n, name)| (name.clone(), cluster.nodes[n % count].ready().tcp));
        let sessions = Backends::start(addresses.collect(), 2);
        sessions.wait_serving(DEADLINE);
        let mut sources = |local: bool| {
            let nodes = cluster.nodes.iter().enumerate();
            let sources = nodes.map(|(at, node)| {
                let (http, mut random) = (node.ready().http, random.fork());
                let mut n = 0;
                move || {
                    let to = match local {
                        true => random.below(backends / count) * count + at,
                        false => random.below(backends),
                    };
                    n += 1;
                    Some(Notification {
                        http,
                        to: format!("game-{to}"),
                        body: format!("{at} {local} {n}").into_bytes(),
                    })
                }
            });
            sources.collect::<Vec<_>>()
        };
        let (local, everywhere) = (sources(true), sources(false));
        let traffic = Self {
            watch: HealthWatch::begin(&cluster.nodes),
            switches: None,
            events: Vec::new(),
            cluster,
            names,
            backends: sessions,
            local: Providers::start_paced(local),
            everywhere: Providers::start_paced(everywhere),
            probes: Vec::new(),
        };
        traffic.flow();
        traffic
    }

    /// What happens to the servers of `group` by itself counts too: they have healed once the sentinels name no other primary.
    pub fn follow(&mut self, group: &SentinelGroup) {
        self.switches = Some(SwitchWatch::begin(group));
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

    /// Waits until every backend is reached from every node at the first try. `whole`: when the servers had healed; that no node
    /// is red, and no post misses its backend, later than [`REACHED_WITHIN`] after that is judged in the end, in `balance`.
    pub fn healed(&mut self, what: &str, since: Instant, whole: Duration) {
        // Local backends are served throughout.
        self.local.wait_for_more(20);
        self.cluster.wait_green();
        let mut reached = Duration::ZERO;
        eventually("every backend is reached from every node", || {
            reached = since.elapsed();
            let told = self.cluster.all_try_all(&self.names);
            let is_whole = told.iter().all(|told| told.outcome == "delivered");
            self.probes.extend(told);
            is_whole
        });
        self.events.push(Event {
            what: what.to_owned(),
            since,
            healed: Some((whole, reached)),
            is_outage: false,
        });
    }

    /// The same for an event that every node must notice within [`RED_WITHIN`].
    pub fn healed_from_outage(&mut self, what: &str, since: Instant, whole: Duration) {
        self.healed(what, since, whole);
        if let Some(event) = self.events.last_mut() {
            event.is_outage = true;
        }
    }

    /// Waits until payments have flowed for a while: no node may turn red for this.
    pub fn unnoticed(&mut self, what: &str, since: Instant) {
        self.flow();
        self.events.push(Event {
            what: what.to_owned(),
            since,
            healed: None,
            is_outage: false,
        });
    }

    /// Ends the payments, waits until everything stored is delivered, and balances the books: nothing answered ok is lost,
    /// no backend was called offline, and no answer was late.
    pub fn balance(mut self) {
        for n in 0..self.events.len() {
            let next = self.events.get(n + 1).map(|next| next.since);
            let event = &mut self.events[n];
            let switches = self.switches.as_ref();
            let last = switches.and_then(|watch| {
                watch.last_within(event.since, next.unwrap_or_else(Instant::now))
            });
            if let (Some(last), Some((whole, _))) = (last, &mut event.healed) {
                *whole = (*whole).max(last - event.since);
            }
        }
        let red = self.watch.end();
        let (local, everywhere) = (self.local.stop(), self.everywhere.stop());
        for node in &self.cluster.nodes {
            eventually("everything stored is delivered", || {
                node.metric("payrelay_outbox_messages{state=\"pending\"}") == 0.0
            });
            let dead = node.metric("payrelay_outbox_messages{state=\"dead\"}");
            assert_eq!(dead, 0.0, "dead letters");
        }
        assert_eq!(self.backends.ended(), 0, "a backend was cut off");
        let heard = self.backends.stop();
        for told in &local {
            let outcome = &told.outcome;
            assert_eq!(outcome, "delivered", "{} is on the node itself", told.to);
        }
        let posts: Vec<AnsweredNotification> = [local, everywhere, self.probes].concat();
        let copies = assert_none_is_lost(&posts, &heard);
        print_table(&self.events, &red, &posts, &copies);
        let slowest = posts.iter().map(|told| told.elapsed).max();
        assert!(slowest < Some(ACK_DEADLINE + SLACK), "{slowest:?}");
    }
}

/// Nothing answered ok is lost or has another's body, and no backend was called offline. Gives how often each id was acknowledged.
fn assert_none_is_lost<'a>(
    posts: &[AnsweredNotification],
    heard: &'a [ReceivedMessage],
) -> HashMap<&'a str, usize> {
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
/// slowest answer, of what was posted until the next event. And after each event everything is as it was.
fn print_table(
    events: &[Event],
    red: &[Vec<Interval>],
    posts: &[AnsweredNotification],
    copies: &HashMap<&str, usize>,
) {
    eprintln!(
        "| event | servers healed | every backend reached | longest red | more than once | slowest answer |"
    );
    let until = |n: usize| {
        events
            .get(n + 1)
            .map_or_else(Instant::now, |next| next.since)
    };
    for (n, event) in events.iter().enumerate() {
        let until = until(n);
        let within = |at: Instant| event.since <= at && at < until;
        let part = |&(from, to): &Interval| {
            let (from, to) = (from.max(event.since), to.min(until));
            to.saturating_duration_since(from)
        };
        let of_node = |red: &Vec<Interval>| red.iter().map(part).sum::<Duration>();
        let longest = red.iter().map(of_node).max().unwrap_or_default();
        let posts: Vec<&AnsweredNotification> =
            posts.iter().filter(|told| within(told.posted)).collect();
        let twice =
            |told: &&&AnsweredNotification| copies.get(&*told.id).is_some_and(|copies| *copies > 1);
        let slowest = posts.iter().map(|told| told.elapsed).max();
        let seconds = |time: Duration| format!("{:.1} s", time.as_secs_f64());
        let (whole, reached) = event.healed.unzip();
        eprintln!(
            "| {} | {} | {} | {} | {} of {} | {} |",
            event.what,
            whole.map_or("–".into(), seconds),
            reached.map_or("–".into(), seconds),
            seconds(longest),
            posts.iter().filter(twice).count(),
            posts.len(),
            seconds(slowest.unwrap_or_default())
        );
    }
    for (n, event) in events.iter().enumerate() {
        assert_over(event, until(n), red, posts);
    }
}

/// Until the next event, which begins at `until`, no node is red for this one, and nothing misses its backend.
fn assert_over(
    event: &Event,
    until: Instant,
    red: &[Vec<Interval>],
    posts: &[AnsweredNotification],
) {
    let (what, over) = (&event.what, event.over());
    for (n, red) in red.iter().enumerate() {
        let mut late = red.iter().filter(|(from, to)| *from < until && *to > over);
        let after = |at: Instant| at.saturating_duration_since(event.since);
        if let Some((from, to)) = late.find(|(from, to)| *from >= event.since || *to < until) {
            let (from, to) = (after(*from), after(*to));
            panic!(
                "{what}: node {n} was red from {from:?} to {to:?} after it; it was over after {:?}",
                after(over)
            );
        }
        let begins = red
            .iter()
            .any(|(from, _)| event.since <= *from && after(*from) < RED_WITHIN);
        assert!(
            begins || !event.is_outage,
            "{what}: node {n} has not noticed it"
        );
    }
    // What is on its way when the next event comes belongs to that.
    let posts = posts
        .iter()
        .filter(|told| over < told.posted && told.posted + told.elapsed < until);
    let missed: Vec<_> = posts.filter(|told| told.outcome != "delivered").collect();
    if let Some(told) = missed.first() {
        panic!(
            "{what}: {} posts missed their backend, the first {:?} after the event: {} to {}; it was over after {:?}",
            missed.len(),
            told.posted - event.since,
            told.outcome,
            told.to,
            over - event.since
        );
    }
}

fn key(heard: &ReceivedMessage) -> (&str, &[u8]) {
    (&heard.id, &heard.body)
}
