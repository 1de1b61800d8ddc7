//! Several Redis servers that belong together: a primary with replicas and sentinels, and a cluster. All are real, on loopback.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::{DEADLINE, Redis, eventually, pause};

/// Options of servers that replicate without waiting for others.
const FAST: [&str; 4] = [
    "--repl-diskless-sync-delay",
    "0",
    "--repl-ping-replica-period",
    "1",
];

/// What makes a server: in the clear, or with TLS only.
type Start = fn(&[&str]) -> Redis;

/// A primary, two replicas and three sentinels.
pub struct SentinelGroup {
    pub servers: Vec<Redis>,
    pub sentinels: Vec<Redis>,
}

impl SentinelGroup {
    pub fn start() -> Self {
        Self::start_as(Redis::with, Redis::sentinel)
    }

    /// The same with TLS only, between the servers too.
    pub fn start_with_tls() -> Self {
        Self::start_as(Redis::with_tls, Redis::sentinel_with_tls)
    }

    fn start_as(server: Start, sentinel: fn(SocketAddr) -> Redis) -> Self {
        let servers: Vec<Redis> = (0..3).map(|_| server(&FAST)).collect();
        for replica in &servers[1..] {
            replica.replicate(&servers[0]);
        }
        let sentinels: Vec<Redis> = (0..3).map(|_| sentinel(servers[0].addr())).collect();
        let group = Self { servers, sentinels };
        for sentinel in &group.sentinels {
            eventually("the sentinels know each other and the replicas", || {
                let info = sentinel.command("INFO sentinel");
                info.contains("status=ok") && info.contains("slaves=2,sentinels=3")
            });
        }
        group
    }

    /// A node's `[redis]`.
    pub fn toml(&self) -> String {
        let addresses = self.sentinels.iter().map(Redis::addr);
        format!(
            "[redis]\nsentinels = {}\nmaster = \"mymaster\"\n",
            list(addresses)
        )
    }

    /// The address of the primary, as sentinel `n` says.
    pub fn primary_of(&self, n: usize) -> SocketAddr {
        let said: Vec<String> = redis::cmd("SENTINEL")
            .arg("GET-MASTER-ADDR-BY-NAME")
            .arg("mymaster")
            .query(&mut self.sentinels[n].connection())
            .expect("an answer");
        format!("{}:{}", said[0], said[1])
            .parse()
            .expect("an address")
    }

    /// Which server the primary is, as all sentinels that run say; `None`: they do not agree.
    pub fn primary(&self) -> Option<usize> {
        let running = (0..self.sentinels.len()).filter(|n| self.sentinels[*n].is_running());
        let mut said: Vec<SocketAddr> = running.map(|n| self.primary_of(n)).collect();
        said.dedup();
        let [primary] = said[..] else { return None };
        self.servers
            .iter()
            .position(|server| server.addr() == primary)
    }

    /// Waits until the sentinels agree on a primary other than `before`, and that server says the same of itself.
    pub fn wait_for_another(&self, before: usize) -> usize {
        let mut found = before;
        self.wait_for_sentinels("another primary", || {
            let primary = self.primary().filter(|primary| *primary != before);
            found = primary.unwrap_or(before);
            primary.is_some_and(|primary| {
                let role = self.servers[primary].try_command("INFO replication");
                role.is_ok_and(|role| role.contains("role:master"))
            })
        });
        found
    }

    /// Asks a sentinel for a failover until there is one: one that is not done in time is given up. Says when it was asked first,
    /// and which server the primary is now.
    pub fn fail_over(&self, before: usize) -> (Instant, usize) {
        let mut asked = None;
        self.wait_for_sentinels("a failover", || {
            let primary = self.primary();
            if primary == Some(before) {
                let now = Instant::now();
                let answer = self.sentinels[1].try_command("SENTINEL FAILOVER mymaster");
                asked = asked.or(answer.ok().map(|_| now));
            }
            primary.is_some_and(|primary| primary != before)
        });
        (asked.expect("it was asked"), self.wait_for_another(before))
    }

    /// A sentinel that stood still for 2 s, or on a busy machine, does nothing for 30 s.
    fn wait_for_sentinels(&self, what: &str, mut holds: impl FnMut() -> bool) {
        let deadline = Instant::now() + 3 * DEADLINE;
        while !holds() {
            assert!(Instant::now() < deadline, "waited in vain: {what}");
            pause();
        }
    }

    /// Waits until every server but the primary follows it, and the sentinels watch.
    pub fn wait_whole(&self) {
        self.wait_for_sentinels("the sentinels watch", || {
            let running = self
                .sentinels
                .iter()
                .filter(|sentinel| sentinel.is_running());
            let mut infos = running.map(|sentinel| sentinel.try_command("INFO sentinel"));
            infos.all(|info| info.is_ok_and(|info| info.contains("sentinel_tilt:0")))
        });
        self.wait_for_sentinels("both replicas follow", || {
            let Some(primary) = self.primary() else {
                return false;
            };
            let info = self.servers[primary].try_command("INFO replication");
            info.is_ok_and(|info| info.contains("connected_slaves:2"))
        });
    }
}

fn list(addresses: impl Iterator<Item = SocketAddr>) -> String {
    let quoted: Vec<String> = addresses.map(|address| format!("\"{address}\"")).collect();
    format!("[{}]", quoted.join(", "))
}

/// A cluster: first the primaries, then one replica of each, if there are replicas.
pub struct RedisCluster {
    pub servers: Vec<Redis>,
    primaries: usize,
}

impl RedisCluster {
    pub fn start(primaries: usize, with_replicas: bool) -> Self {
        Self::start_as(Redis::with, primaries, with_replicas)
    }

    /// Three primaries with TLS only, between the servers too.
    pub fn start_with_tls() -> Self {
        Self::start_as(Redis::with_tls, 3, false)
    }

    fn start_as(server: Start, primaries: usize, with_replicas: bool) -> Self {
        let mut options = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "2000"];
        options.extend(FAST);
        let count = if with_replicas {
            2 * primaries
        } else {
            primaries
        };
        let servers: Vec<Redis> = (0..count).map(|_| server(&options)).collect();
        let first = servers[0].addr();
        for (n, server) in servers.iter().enumerate() {
            if n < primaries {
                let from = 16_384 * n / primaries;
                let to = 16_384 * (n + 1) / primaries - 1;
                server.command(&format!("CLUSTER ADDSLOTSRANGE {from} {to}"));
            }
            server.command(&format!("CLUSTER SET-CONFIG-EPOCH {}", n + 1));
            server.command(&format!("CLUSTER MEET {} {}", first.ip(), first.port()));
        }
        let cluster = Self { servers, primaries };
        for server in &cluster.servers {
            eventually("all know each other", || {
                let nodes = server.command("CLUSTER NODES");
                nodes.lines().count() == count && !nodes.contains("handshake")
            });
        }
        for n in primaries..count {
            let of = cluster.id(n - primaries);
            cluster.servers[n].command(&format!("CLUSTER REPLICATE {of}"));
        }
        cluster.wait_whole();
        cluster
    }

    /// Waits until every server finds the cluster in order, and every replica follows its primary.
    pub fn wait_whole(&self) {
        for server in self.servers.iter().filter(|server| server.is_running()) {
            eventually("the cluster is whole", || {
                let info = server.try_command("CLUSTER INFO");
                let replication = server.try_command("INFO replication");
                info.is_ok_and(|info| info.contains("cluster_state:ok"))
                    && replication.is_ok_and(|text| {
                        text.contains("role:master") || text.contains("master_link_status:up")
                    })
            });
        }
    }

    /// Waits until every server that runs finds the cluster in order, and every slot's owner runs: the cluster has healed.
    pub fn wait_healed(&self) {
        let running = self.servers.iter().filter(|server| server.is_running());
        let running: Vec<&Redis> = running.collect();
        let addresses: Vec<String> = running.iter().map(|s| s.addr().to_string()).collect();
        let owners_run = |nodes: &str| {
            let owners = nodes
                .lines()
                .map(|line| line.split(' ').collect::<Vec<_>>());
            let mut owners = owners.filter(|words| words[2].contains("master") && words.len() > 8);
            owners.all(|words| {
                let address = words[1].split('@').next().unwrap_or_default();
                !words[2].contains("fail") && addresses.iter().any(|running| running == address)
            })
        };
        for server in running {
            eventually("the cluster has healed", || {
                let info = server.try_command("CLUSTER INFO");
                let nodes = server.try_command("CLUSTER NODES");
                info.is_ok_and(|info| info.contains("cluster_state:ok"))
                    && nodes.is_ok_and(|nodes| owners_run(&nodes))
            });
        }
    }

    /// A node's `[redis]`.
    pub fn toml(&self) -> String {
        let some = self.servers.iter().take(self.primaries).map(Redis::addr);
        format!("[redis]\ncluster = {}\n", list(some))
    }

    pub fn id(&self, n: usize) -> String {
        self.servers[n].command("CLUSTER MYID")
    }

    /// Makes the replica `n` the primary, as an operator would; says when that was asked for.
    ///
    /// A server gives a manual failover up after 5 s (CLUSTER_MF_TIMEOUT of Redis), silently, if its primary has not answered by
    /// then. So it is asked again.
    pub fn fail_over_to(&self, n: usize) -> Instant {
        let mut asked = None;
        eventually("it is the primary", || {
            if asked.is_none_or(|at: Instant| at.elapsed() > Duration::from_secs(6)) {
                asked = Some(Instant::now());
                self.servers[n].command("CLUSTER FAILOVER");
            }
            self.primaries().contains(&n)
        });
        asked.expect("it was asked")
    }

    /// Which servers are primaries now, by their own word.
    pub fn primaries(&self) -> Vec<usize> {
        self.primaries_but(usize::MAX)
    }

    /// The same without asking server `still`, which stands still.
    pub fn primaries_but(&self, still: usize) -> Vec<usize> {
        let is_primary = |n: &usize| {
            let info = self.servers[*n].try_command("INFO replication");
            info.is_ok_and(|info| info.contains("role:master"))
        };
        let others = (0..self.servers.len()).filter(|n| *n != still);
        others.filter(is_primary).collect()
    }

    /// The slot ranges of server `n`, by its own word.
    pub fn slots(&self, n: usize) -> Vec<(u16, u16)> {
        let nodes = self.servers[n].command("CLUSTER NODES");
        let own = nodes.lines().find(|line| line.contains("myself"));
        let words = own.unwrap_or_default().split(' ').skip(8);
        let range = |word: &str| {
            let (from, to) = word.split_once('-').unwrap_or((word, word));
            Some((from.parse().ok()?, to.parse().ok()?))
        };
        words
            .filter(|word| !word.starts_with('['))
            .filter_map(range)
            .collect()
    }

    /// Moves `slot` from server `from` to server `to`, as redis-cli does.
    pub fn move_slot(&self, slot: u16, from: usize, to: usize) {
        let (source, target) = (self.id(from), self.id(to));
        self.servers[to].command(&format!("CLUSTER SETSLOT {slot} IMPORTING {source}"));
        self.servers[from].command(&format!("CLUSTER SETSLOT {slot} MIGRATING {target}"));
        let addr = self.servers[to].addr();
        loop {
            let keys: Vec<String> = redis::cmd("CLUSTER")
                .arg("GETKEYSINSLOT")
                .arg(slot)
                .arg(100)
                .query(&mut self.servers[from].connection())
                .expect("a list");
            if keys.is_empty() {
                break;
            }
            for key in keys {
                let migrate = format!("MIGRATE {} {} {key} 0 5000", addr.ip(), addr.port());
                self.servers[from].command(&migrate);
            }
        }
        let told = format!("CLUSTER SETSLOT {slot} NODE {target}");
        self.servers[to].command(&told);
        self.servers[from].command(&told);
        for n in self.primaries() {
            let _ = self.servers[n].try_command(&told);
        }
    }
}
