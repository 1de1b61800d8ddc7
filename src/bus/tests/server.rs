//! Real Redis servers, each in a folder of its own: one on a socket, a primary with sentinels, a cluster.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, TcpListener};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::node::{PATIENCE, eventually};

/// The program. The tests run with another server, such as Valkey, when this variable names it.
fn program() -> String {
    std::env::var("PAYRELAY_REDIS_SERVER").unwrap_or_else(|_| "redis-server".into())
}

/// A server. Dropping it ends it.
pub struct Server {
    child: Option<Child>,
    dir: TempDir,
    /// `None`: on a unix socket.
    port: Option<u16>,
    arguments: Vec<String>,
}

impl Server {
    /// On a unix socket: no port that somebody else could have.
    pub fn start() -> Self {
        let dir = folder("payrelay-redis-");
        let socket = dir.path().join("redis.sock").display().to_string();
        let arguments = ["--port", "0", "--unixsocket", &socket].map(str::to_owned);
        Self::begin(dir, None, arguments.into())
    }

    /// On a port, with further options.
    pub fn on_a_port(options: &[&str]) -> Self {
        let dir = folder("payrelay-redis-");
        let port = free_port();
        let text = port.to_string();
        let mut arguments: Vec<String> = ["--port", &text, "--bind", "127.0.0.1"]
            .map(str::to_owned)
            .into();
        arguments.extend(options.iter().map(|option| (*option).to_owned()));
        Self::begin(dir, Some(port), arguments)
    }

    fn begin(dir: TempDir, port: Option<u16>, arguments: Vec<String>) -> Self {
        let mut server = Self {
            child: None,
            dir,
            port,
            arguments,
        };
        server.launch();
        server
    }

    /// Starts it, or starts it again, and waits until it answers.
    pub fn launch(&mut self) {
        self.kill();
        let is_sentinel = self
            .arguments
            .iter()
            .any(|argument| argument == "--sentinel");
        let mut command = Command::new(program());
        command.args(&self.arguments).current_dir(self.dir.path());
        if !is_sentinel {
            command.args(["--save", "", "--appendonly", "no"]);
        }
        let child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        self.child = Some(child.expect("redis-server is on this machine; tests/run installs it"));
        let until = Instant::now() + PATIENCE;
        while self.try_ask(&["PING"]).is_none() {
            assert!(Instant::now() < until, "redis-server does not start");
            super::node::pause();
        }
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        let _ = std::fs::remove_file(self.dir.path().join("redis.sock"));
    }

    /// SIGSTOP, or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("it takes signals");
    }

    /// `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port.expect("it has a port"))
    }

    pub fn url(&self) -> String {
        match self.port {
            None => format!("unix://{}", self.dir.path().join("redis.sock").display()),
            Some(_) => format!("redis://{}", self.address()),
        }
    }

    fn try_client(&self) -> Option<redis::Connection> {
        redis::Client::open(self.url()).ok()?.get_connection().ok()
    }

    fn try_ask(&self, words: &[&str]) -> Option<redis::Value> {
        let (verb, arguments) = words.split_first()?;
        redis::cmd(verb)
            .arg(arguments)
            .query(&mut self.try_client()?)
            .ok()
    }

    /// Runs a command, which must succeed, and gives its reply as text.
    pub fn ask(&self, words: &[&str]) -> String {
        let value = self.try_ask(words);
        let value = value.unwrap_or_else(|| panic!("{words:?} is refused"));
        redis::from_redis_value(value).unwrap_or_default()
    }

    /// A connection of the test's own.
    pub fn client(&self) -> redis::Connection {
        self.try_client().expect("a connection")
    }

    /// Every channel that somebody is subscribed to, sorted.
    pub fn channels(&self, kind: &str) -> Vec<String> {
        let mut channels: Vec<String> = redis::cmd("PUBSUB")
            .arg(kind)
            .query(&mut self.client())
            .expect("an answer");
        channels.sort();
        channels
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A folder in memory, if the machine has one: a sentinel and a server of a cluster stand still until what they know is on disk.
fn folder(prefix: &str) -> TempDir {
    let dir = TempDir::with_prefix_in(prefix, "/dev/shm").or_else(|_| TempDir::with_prefix(prefix));
    dir.expect("a folder")
}

/// A port that nobody has, and whose bus port (10,000 above) nobody has either. Below those that the system gives to clients,
/// or one of them could get it while a server is away.
fn free_port() -> u16 {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let random = std::collections::hash_map::RandomState::new();
    for n in 0..1000u64 {
        let hash = std::hash::BuildHasher::hash_one(&random, n);
        let port = 10_000 + (hash % 12_000) as u16;
        // Nobody else of these tests gets the port of a server that is yet to start, or is down.
        let free = |port| {
            TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() && GIVEN.lock().insert(port)
        };
        if free(port) && free(port + 10_000) {
            return port;
        }
    }
    panic!("no port is free");
}

/// A primary, its replicas and three sentinels.
pub struct SentinelSetup {
    pub servers: Vec<Server>,
    pub sentinels: Vec<Server>,
}

impl SentinelSetup {
    pub fn start() -> Self {
        let fast = [
            "--repl-diskless-sync-delay",
            "0",
            "--repl-ping-replica-period",
            "1",
        ];
        let servers: Vec<Server> = (0..2).map(|_| Server::on_a_port(&fast)).collect();
        let port = servers[0].port.expect("a port").to_string();
        servers[1].ask(&["REPLICAOF", "127.0.0.1", &port]);
        eventually("the replica follows", || {
            servers[1]
                .ask(&["INFO", "replication"])
                .contains("master_link_status:up")
        });
        let sentinels = (0..3).map(|_| sentinel(&port)).collect();
        let setup = Self { servers, sentinels };
        setup.wait_until_they_know_each_other();
        setup
    }

    fn wait_until_they_know_each_other(&self) {
        for sentinel in &self.sentinels {
            eventually("the sentinels know each other and the replica", || {
                let info = sentinel.ask(&["INFO", "sentinel"]);
                info.contains("slaves=1,sentinels=3")
            });
        }
    }

    pub fn addresses(&self) -> Vec<String> {
        self.sentinels.iter().map(Server::address).collect()
    }
}

fn sentinel(primary: &str) -> Server {
    let dir = folder("payrelay-sentinel-");
    let port = free_port();
    let config: PathBuf = dir.path().join("sentinel.conf");
    let text = format!(
        "port {port}\nbind 127.0.0.1\nsentinel monitor mymaster 127.0.0.1 {primary} 2\n\
         sentinel down-after-milliseconds mymaster 30000\nsentinel failover-timeout mymaster 5000\n"
    );
    std::fs::write(&config, text).expect("a file");
    let arguments = vec![config.display().to_string(), "--sentinel".into()];
    Server::begin(dir, Some(port), arguments)
}

/// A cluster of three primaries.
pub struct ClusterSetup {
    pub servers: Vec<Server>,
}

impl ClusterSetup {
    pub fn start() -> Self {
        let options = [
            "--cluster-enabled",
            "yes",
            "--cluster-node-timeout",
            "15000",
        ];
        let servers: Vec<Server> = (0..3).map(|_| Server::on_a_port(&options)).collect();
        for (n, server) in servers.iter().enumerate() {
            let (first, last) = (16_384 * n / 3, 16_384 * (n + 1) / 3 - 1);
            let (first, last) = (first.to_string(), last.to_string());
            server.ask(&["CLUSTER", "ADDSLOTSRANGE", &first, &last]);
            server.ask(&["CLUSTER", "SET-CONFIG-EPOCH", &(n + 1).to_string()]);
            let port = servers[0].port.expect("a port").to_string();
            server.ask(&["CLUSTER", "MEET", "127.0.0.1", &port]);
        }
        for server in &servers {
            eventually("the cluster is in order", || {
                server
                    .ask(&["CLUSTER", "INFO"])
                    .contains("cluster_state:ok")
                    && server.ask(&["CLUSTER", "NODES"]).lines().count() == 3
            });
        }
        Self { servers }
    }

    pub fn addresses(&self) -> Vec<String> {
        self.servers.iter().map(Server::address).collect()
    }
}
