//! Three nodes, each with a way of its own to Redis, and a replica of that Redis; what can happen to them, and how all is well again.

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;

use super::history::LossHistory;
use crate::support::{NodeAddresses, NodeLocator, Redis, Relay, Setup, TcpProxy, eventually};

pub const NODES: usize = 3;

/// What becomes of the file of a node that is killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskState {
    Kept,
    Deleted,
    /// In its place comes one from an earlier death, if there was any.
    Old,
}

/// What can happen to Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RedisFault {
    Killed,
    /// One node does not reach it any more; for long: until others take over what that node had.
    CutOff {
        node: usize,
        long: bool,
    },
    Flushed,
    /// Another server has its address now; with or without the death of the one before.
    FailedOver {
        crash: bool,
    },
}

/// The nodes with their Redis, and what the test does to them.
pub struct LossSite {
    servers: Vec<Redis>,
    primary: usize,
    proxies: Vec<TcpProxy>,
    relays: Vec<Relay>,
    is_up: [bool; NODES],
    /// The length of each node's log when the round began.
    logs_seen: [usize; NODES],
    pub locators: Arc<Vec<NodeLocator>>,
    pub history: Arc<LossHistory>,
    mode: &'static str,
}

impl LossSite {
    pub fn start(mode: &'static str, history: Arc<LossHistory>) -> Self {
        let options = ["--appendonly", "yes", "--repl-diskless-sync-delay", "0"];
        let servers: Vec<Redis> = (0..2).map(|_| Redis::with(&options)).collect();
        servers[1].replicate(&servers[0]);
        let proxies: Vec<TcpProxy> = (0..NODES)
            .map(|_| TcpProxy::before(servers[0].addr()))
            .collect();
        let relays: Vec<Relay> = (0..NODES)
            .map(|n| Relay::with(&config(n, &proxies[n], mode)))
            .collect();
        let locators: Vec<NodeLocator> = (0..NODES).map(|_| NodeLocator::default()).collect();
        for (locator, relay) in locators.iter().zip(&relays) {
            locator.set(Some(NodeAddresses::of(relay)));
        }
        Self {
            servers,
            primary: 0,
            proxies,
            relays,
            is_up: [true; NODES],
            logs_seen: [0; NODES],
            locators: Arc::new(locators),
            history,
            mode,
        }
    }

    /// Whether nothing is answered ok that Redis does not have.
    pub fn is_required(&self) -> bool {
        self.mode == "require"
    }

    /// Under a heavy load a node can lose Redis though nobody does anything to it.
    fn note_stalls(&self, node: usize) {
        let log = self.relays[node].log();
        let fresh = log.get(self.logs_seen[node]..).unwrap_or(&log);
        // A node that could not keep its lease, because the disk was busy, is taken for gone, and delivers all the same.
        let living = (0..NODES).filter(|node| self.is_up[*node]);
        let mut taken_from = living.map(|node| format!("the node node{node} is gone"));
        if ["no answer in time", "silent for"]
            .iter()
            .any(|words| fresh.contains(words))
            || taken_from.any(|words| fresh.contains(&words))
        {
            self.history.stalls();
        }
    }

    fn redis(&self) -> &Redis {
        &self.servers[self.primary]
    }

    /// Whether the node says that it has lost its way to Redis in this round.
    pub fn has_lost_redis(&self, node: usize) -> bool {
        let log = self.relays[node].log();
        let fresh = log.get(self.logs_seen[node]..).unwrap_or(&log);
        fresh.contains("the outbox is not mirrored in Redis")
    }

    /// What a node has to deliver.
    pub fn held(&self, node: usize) -> Vec<String> {
        let (mut ids, mut after) = (Vec::new(), 0);
        loop {
            let path = format!("/outbox?state=pending&limit=500&after={after}");
            let text = self.relays[node].admin(&path).text();
            let page: serde_json::Value = serde_json::from_str(&text).expect("JSON");
            let messages = page["messages"].as_array().expect("a list");
            let id = |message: &serde_json::Value| message["id"].as_str().map(str::to_owned);
            ids.extend(messages.iter().filter_map(id));
            match page["next"].as_i64() {
                Some(next) => after = next,
                None => return ids,
            }
        }
    }

    /// `kill -9`, and what becomes of its file.
    pub fn kill(&mut self, node: usize, disk: DiskState) {
        self.locators[node].set(None);
        let relay = &mut self.relays[node];
        self.history
            .happens(&format!("node {node} is killed, its disk {disk:?}"));
        relay.kill();
        let log = relay.log();
        self.note_stalls(node);
        let relay = &self.relays[node];
        let panic = log.lines().find(|line| line.contains("panicked"));
        assert_eq!(panic, None, "a thread of node {node} panicked");
        self.is_up[node] = false;
        let (data, kept) = (relay.path("data"), relay.path("kept"));
        let next = relay.path("next");
        // The file of this death is the old one of a later death.
        if disk != DiskState::Old || !kept.exists() {
            copy(&data, &next);
        }
        match disk {
            DiskState::Kept => {}
            DiskState::Deleted => fs::remove_dir_all(&data).expect("the folder of the outbox"),
            DiskState::Old if kept.exists() => {
                fs::remove_dir_all(&data).expect("the folder of the outbox");
                copy(&kept, &data);
            }
            DiskState::Old => {}
        }
        if next.exists() {
            let _ = fs::remove_dir_all(&kept); // there is none the first time
            fs::rename(&next, &kept).expect("renamed");
        }
    }

    /// Starts those again that are down.
    pub fn revive(&mut self, node: usize) {
        if self.is_up[node] {
            return;
        }
        let setup = Setup::with(&config(node, &self.proxies[node], self.mode));
        self.relays[node].start_again(setup);
        self.logs_seen[node] = 0;
        self.is_up[node] = true;
        self.history.happens(&format!("node {node} is back"));
        self.locators[node].set(Some(NodeAddresses::of(&self.relays[node])));
    }

    pub fn begin(&mut self, fault: RedisFault) {
        self.history.happens(&format!("Redis: {fault:?}"));
        let primary = self.primary;
        match fault {
            RedisFault::Killed => self.servers[primary].kill(),
            RedisFault::CutOff { node, .. } => self.proxies[node].freeze(),
            RedisFault::Flushed => {
                self.redis().command("FLUSHALL");
            }
            RedisFault::FailedOver { crash } => {
                if crash {
                    self.servers[primary].kill();
                }
                self.primary = 1 - primary;
                self.redis().command("REPLICAOF NO ONE");
                for proxy in &self.proxies {
                    proxy.move_to(self.redis().addr());
                    proxy.cut();
                }
            }
        }
    }

    pub fn end(&mut self, fault: RedisFault) {
        match fault {
            RedisFault::Killed => self.servers[self.primary].restart(),
            RedisFault::CutOff { node, long } => {
                if long {
                    self.wait_inherited();
                }
                self.proxies[node].cut();
                self.proxies[node].forward();
            }
            RedisFault::Flushed => return,
            RedisFault::FailedOver { crash } => {
                let before = 1 - self.primary;
                if crash {
                    self.servers[before].restart();
                }
                self.servers[before].replicate(&self.servers[self.primary]);
            }
        }
        self.history.happens("Redis is back");
    }

    /// Waits until living nodes have taken over what dead ones had.
    pub fn wait_inherited(&self) {
        eventually("what dead nodes had is taken over", || {
            let leases = self.keys("lease");
            let orphan = |store: &String| !leases.contains(store);
            !self.keys("out").iter().any(orphan)
        });
    }

    /// The files of which there is such a key.
    fn keys(&self, kind: &str) -> HashSet<String> {
        let keys: Vec<String> = redis::cmd("KEYS")
            .arg(format!("*:outbox:{kind}:*"))
            .query(&mut self.redis().connection())
            .expect("a list");
        let store = |key: String| key.rsplit(':').next().unwrap_or_default().to_owned();
        keys.into_iter().map(store).collect()
    }

    /// Waits until everything is where it belongs: each notification on the disk of one node and in Redis, and on its replica.
    pub fn settle(&mut self) {
        for relay in &self.relays {
            relay.wait_green();
        }
        self.wait_inherited();
        eventually("Redis has what the nodes have", || {
            let all = self.relays.iter().map(numbers).collect::<Vec<_>>();
            let kept: f64 = all.iter().map(|(kept, ..)| kept).sum();
            all.iter()
                .all(|(kept, mirrored, behind)| kept == mirrored && *behind == 0.0)
                && self.records() as f64 == kept
        });
        eventually("the replica has what the primary has", || {
            let info = self.redis().command("INFO replication");
            let number = |after: &str| {
                let (_, rest) = info.split_once(after)?;
                let digits = rest.split(|c: char| !c.is_ascii_digit()).next()?;
                digits.parse::<u64>().ok()
            };
            number(",offset=").is_some() && number(",offset=") == number("master_repl_offset:")
        });
        let held: Vec<Vec<String>> = (0..NODES).map(|node| self.held(node)).collect();
        (0..NODES).for_each(|node| self.note_stalls(node));
        self.logs_seen = std::array::from_fn(|node| self.relays[node].log().len());
        self.history.settles(&held);
    }

    fn records(&self) -> u64 {
        let mut connection = self.redis().connection();
        let count = |store: &String| -> u64 {
            let key = format!("payrelay:outbox:out:{store}");
            redis::cmd("HLEN")
                .arg(key)
                .query(&mut connection)
                .expect("a number")
        };
        self.keys("out").iter().map(count).sum()
    }

    /// What each node knows of a notification.
    pub fn tell(&self, id: &str) {
        for (n, relay) in self.relays.iter().enumerate() {
            let known = relay.admin(&format!("/trace?key={id}")).text();
            eprintln!("node {n} knows of {id}: {known}");
        }
    }

    /// Waits until nothing is left.
    pub fn wait_delivered(&self) {
        eventually("nothing is pending", || {
            self.relays.iter().all(|relay| numbers(relay).0 == 0.0)
        });
    }
}

/// How many a node has on disk, and in Redis, and how many Redis lacks; of one moment.
fn numbers(relay: &Relay) -> (f64, f64, f64) {
    let [pending, dead, mirrored, behind] = relay.metrics([
        "payrelay_outbox_messages{state=\"pending\"}",
        "payrelay_outbox_messages{state=\"dead\"}",
        "payrelay_outbox_mirrored",
        "payrelay_outbox_behind",
    ]);
    (pending + dead, mirrored, behind)
}

fn config(node: usize, redis: &TcpProxy, mode: &str) -> String {
    format!(
        "node = \"node{node}\"\n[redis]\nurl = \"redis://{}\"\nsettle_time = \"0s\"\nresponse_timeout = \"1s\"\n\
         [delivery]\nundelivered = \"store\"\nack_deadline = \"300ms\"\n[tcp]\nack_timeout = \"2s\"\n\
         [outbox]\nshared = \"{mode}\"\ninherit_after = \"3s\"\nretry_first = \"100ms\"\nretry_max = \"1s\"\n\
         max_tries = 100000\n",
        redis.addr()
    )
}

/// Copies the files of an outbox.
fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir_all(to).expect("a folder");
    for entry in fs::read_dir(from).expect("the folder of the outbox") {
        let entry = entry.expect("an entry");
        fs::copy(entry.path(), to.join(entry.file_name())).expect("copied");
    }
}
