//! A Redis of the test's own: started, paused, killed and started again on the same port, and asked what it knows.

use std::collections::BTreeSet;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use redis::Connection;
use rustix::process::Signal;
use tempfile::TempDir;

use super::{Authority, DEADLINE, Process, Random, eventually, pause};

/// How often another port is tried when somebody else was faster.
const TRIES: usize = 20;

/// A running `redis-server`, which keeps nothing on disk. Dropping it ends the process.
pub struct Redis {
    process: Process,
    place: RedisAddress,
    options: Vec<String>,
    still: AtomicBool,
    dir: TempDir,
}

#[derive(Clone)]
enum RedisAddress {
    Tcp(SocketAddr),
    Tls(SocketAddr),
    Unix(PathBuf),
}

impl Redis {
    /// On a port of the system's choosing.
    pub fn start() -> Self {
        Self::with(&[])
    }

    /// The same, with further options, such as `["--requirepass", "x"]`.
    pub fn with(options: &[&str]) -> Self {
        Self::on_a_free_port(options, RedisAddress::Tcp)
    }

    /// With TLS only, with a certificate for localhost and 127.0.0.1 of the tests' own authority.
    pub fn with_tls(options: &[&str]) -> Self {
        let tls = tls_options();
        let tls = tls.iter().map(String::as_str);
        let options: Vec<&str> = tls.chain(options.iter().copied()).collect();
        Self::on_a_free_port(&options, RedisAddress::Tls)
    }

    /// On a unix socket only.
    pub fn on_a_unix_socket() -> Self {
        let dir = dir_in_memory("redis-");
        let place = RedisAddress::Unix(dir.path().join("redis.sock"));
        let process = launch(dir.path(), &place, &[]).expect("Redis starts");
        Self {
            process,
            place,
            options: Vec::new(),
            still: AtomicBool::new(false),
            dir,
        }
    }

    /// A sentinel that watches `primary` as mymaster, with two others.
    pub fn sentinel(primary: SocketAddr) -> Self {
        Self::in_dir(
            sentinel_dir(primary),
            vec!["--sentinel".into()],
            RedisAddress::Tcp,
        )
    }

    /// The same with TLS only, to both sides.
    pub fn sentinel_with_tls(primary: SocketAddr) -> Self {
        let dir = sentinel_dir(primary);
        let mut options = tls_options();
        options.push("--sentinel".into());
        Self::in_dir(dir, options, RedisAddress::Tls)
    }

    fn on_a_free_port(options: &[&str], place: impl Fn(SocketAddr) -> RedisAddress) -> Self {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        let dir = dir_in_memory("redis-");
        Self::in_dir(dir, options, place)
    }

    fn in_dir(
        dir: TempDir,
        options: Vec<String>,
        place: impl Fn(SocketAddr) -> RedisAddress,
    ) -> Self {
        // Redis cannot be given port 0. One of the system's choosing would be among those that it gives to clients, and while
        // Redis is away one of them, trying to connect, would get that port for its own end, and talk to itself.
        let mut random = Random::new();
        for _ in 0..TRIES {
            let Some(addr) = free_addr(&mut random) else {
                continue; // somebody has it
            };
            let place = place(addr);
            if let Some(process) = launch(dir.path(), &place, &options) {
                return Self {
                    process,
                    place,
                    options,
                    still: AtomicBool::new(false),
                    dir,
                };
            }
        }
        panic!("Redis found no port");
    }

    /// Whether the program of these tests has no sharded channels.
    pub fn is_older_than_7() -> bool {
        let said = Command::new(program()).arg("--version").output();
        let said = said.expect("redis-server is on this machine; tests/run installs it");
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let version = said
            .split_once("v=")
            .and_then(|(_, rest)| rest.split('.').next());
        version
            .and_then(|major| major.parse().ok())
            .is_some_and(|major: u32| major < 7)
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        match self.place {
            RedisAddress::Tcp(addr) | RedisAddress::Tls(addr) => addr,
            RedisAddress::Unix(_) => panic!("this Redis has no port"),
        }
    }

    /// Its URL, with `login` such as `user:password@` before the host.
    pub fn url_with(&self, login: &str) -> String {
        match &self.place {
            RedisAddress::Tcp(addr) => format!("redis://{login}{addr}"),
            RedisAddress::Tls(addr) => format!("rediss://{login}localhost:{}", addr.port()),
            RedisAddress::Unix(path) => format!("unix://{}", path.display()),
        }
    }

    /// Its URL.
    pub fn url(&self) -> String {
        self.url_with("")
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.still.store(true, Ordering::SeqCst);
        self.process.kill();
    }

    /// Whether the process is there and does not stand still.
    pub fn is_running(&self) -> bool {
        !self.still.load(Ordering::SeqCst)
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        let deadline = std::time::Instant::now() + DEADLINE;
        loop {
            if let Some(process) = launch(self.dir.path(), &self.place, &self.options) {
                self.process = process;
                self.still.store(false, Ordering::SeqCst);
                return;
            }
            let now = std::time::Instant::now();
            assert!(now < deadline, "Redis does not get its port back");
            pause();
        }
    }

    /// It stands still: connections are accepted by the system, and nobody answers.
    pub fn pause(&self) {
        self.still.store(true, Ordering::SeqCst);
        self.process.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn resume(&self) {
        self.still.store(false, Ordering::SeqCst);
        self.process.signal(Signal::CONT);
    }

    fn client_with(&self, login: &str) -> redis::RedisResult<redis::Client> {
        let url = self.url_with(login);
        match self.place {
            RedisAddress::Tls(_) => redis::Client::build_with_tls(
                url,
                redis::TlsCertificates {
                    client_tls: None,
                    root_cert: std::fs::read(Authority::get().file()).ok(),
                },
            ),
            RedisAddress::Tcp(_) | RedisAddress::Unix(_) => redis::Client::open(url),
        }
    }

    /// A connection without a password.
    pub fn connection(&self) -> Connection {
        self.connection_with("")
    }

    /// A connection with a login such as `user:password@`.
    pub fn connection_with(&self, login: &str) -> Connection {
        let client = self.client_with(login).expect("a URL");
        let connection = client.get_connection_with_timeout(DEADLINE);
        connection.unwrap_or_else(|e| panic!("no connection to the test's own Redis: {e}"))
    }

    /// Runs a command, its words separated by blanks, and gives its reply as text.
    pub fn command(&self, words: &str) -> String {
        let done = self.try_command(words);
        done.unwrap_or_else(|e| panic!("the test's own Redis refuses {words:?}: {e}"))
    }

    /// The same, which may fail.
    pub fn try_command(&self, words: &str) -> redis::RedisResult<String> {
        let mut words = words.split(' ');
        let mut command = redis::cmd(words.next().unwrap_or_default());
        for word in words {
            command.arg(word);
        }
        let client = self.client_with("")?;
        let mut connection = client.get_connection_with_timeout(DEADLINE)?;
        let value: redis::Value = command.query(&mut connection)?;
        Ok(redis::from_redis_value(value).unwrap_or_default())
    }

    /// Follows `primary` from now on; returns when it has everything.
    pub fn replicate(&self, primary: &Self) {
        let addr = primary.addr();
        self.command(&format!("REPLICAOF {} {}", addr.ip(), addr.port()));
        eventually("the replica has everything", || {
            self.command("INFO replication")
                .contains("master_link_status:up")
        });
    }

    /// How many are subscribed to each of `channels`, in their order.
    pub fn subscribers(&self, channels: &[String]) -> Vec<u64> {
        let mut connection = self.connection();
        let mut counts = Vec::with_capacity(channels.len());
        for some in channels.chunks(1000) {
            let mut command = redis::cmd("PUBSUB");
            command.arg("NUMSUB").arg(some);
            let answer: Vec<(String, u64)> = command.query(&mut connection).expect("an answer");
            counts.extend(answer.into_iter().map(|(_, count)| count));
        }
        counts
    }

    /// How many nodes are subscribed to what is for `backend`.
    pub fn nodes_with(&self, backend: &str) -> u64 {
        self.subscribers(&[format!("payrelay:to:{backend}")])[0]
    }
}

/// A folder in memory, if the machine has one. A sentinel and a server of a cluster stand still until each change of what they
/// know of the others is on disk: seconds, on a disk that a build beside the tests writes to.
fn dir_in_memory(prefix: &str) -> TempDir {
    let dir = TempDir::with_prefix_in(prefix, "/dev/shm").or_else(|_| TempDir::with_prefix(prefix));
    dir.expect("a folder for Redis")
}

/// A folder with the file of a sentinel that watches `primary` as mymaster, with two others.
fn sentinel_dir(primary: SocketAddr) -> TempDir {
    let (ip, port) = (primary.ip(), primary.port());
    let dir = dir_in_memory("sentinel-");
    let text = format!(
        "sentinel monitor mymaster {ip} {port} 2\nsentinel down-after-milliseconds mymaster 3000\n\
         sentinel failover-timeout mymaster 5000\n"
    );
    std::fs::write(dir.path().join("sentinel.conf"), text).expect("a file");
    dir
}

/// What makes a server speak TLS, to other servers too.
fn tls_options() -> Vec<String> {
    static DIR: OnceLock<TempDir> = OnceLock::new();
    let dir = DIR.get_or_init(|| {
        let dir = TempDir::with_prefix("redis-tls-").expect("a folder for a certificate");
        Authority::get().issue(dir.path());
        dir
    });
    let file = |name: &str| dir.path().join(name).display().to_string();
    let ca = Authority::get().file().display().to_string();
    let options = [
        ("--tls-cert-file", file("cert.pem")),
        ("--tls-key-file", file("key.pem")),
        ("--tls-ca-cert-file", ca),
        ("--tls-auth-clients", "no".into()),
        ("--tls-replication", "yes".into()),
        ("--tls-cluster", "yes".into()),
    ];
    let words = options.map(|(name, value)| [name.to_owned(), value]);
    words.into_iter().flatten().collect()
}

/// The program. The tests run with another server, such as Valkey, when this variable names it.
pub fn program() -> String {
    std::env::var("PAYRELAY_REDIS_SERVER").unwrap_or_else(|_| "redis-server".into())
}

/// An address that nobody has, and whose cluster bus (10,000 above) nobody has either.
pub fn free_addr(random: &mut Random) -> Option<SocketAddr> {
    static GIVEN: Mutex<BTreeSet<u16>> = Mutex::new(BTreeSet::new());
    let port = 10_000 + random.below(12_000) as u16;
    let addr = |port| SocketAddr::from(([127, 0, 0, 1], port));
    // While a server is down nobody else of these tests gets its port.
    let is_free = |port| TcpListener::bind(addr(port)).is_ok() && GIVEN.lock().insert(port);
    (is_free(port) && is_free(port + 10_000)).then(|| addr(port))
}

/// A Redis that answers; `None` if it ends, because its port is taken.
fn launch(dir: &Path, place: &RedisAddress, options: &[String]) -> Option<Process> {
    let mut command = Command::new(program());
    command.current_dir(dir);
    // A sentinel keeps what it knows in its file, and has no data.
    let is_sentinel = options.iter().any(|option| option == "--sentinel");
    match is_sentinel {
        true => command.arg("sentinel.conf"),
        false => command.args(["--save", "", "--appendonly", "no"]),
    };
    command.args(["--bind", "127.0.0.1"]);
    let port;
    match place {
        RedisAddress::Tcp(addr) => {
            port = addr.port().to_string();
            command.args(["--port", &port]);
        }
        RedisAddress::Tls(addr) => {
            port = addr.port().to_string();
            command.args(["--port", "0", "--tls-port", &port]);
        }
        RedisAddress::Unix(path) => {
            command.args(["--port", "0", "--unixsocket"]).arg(path);
        }
    }
    command.args(options);
    let mut process = Process::start("redis-server", command);
    let mut ended = false;
    eventually("Redis listens, or ends", || {
        ended = !process.is_running();
        let started = ["eady to accept connections", "+monitor master mymaster"];
        ended || started.iter().any(|words| process.stdout().contains(words))
    });
    if let RedisAddress::Tcp(addr) | RedisAddress::Tls(addr) = place
        && !ended
    {
        eventually("Redis can be connected to", || {
            TcpStream::connect(addr).is_ok()
        });
    }
    (!ended).then_some(process)
}
