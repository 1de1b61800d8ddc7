//! The relay under test: the real binary, on ports of the system's choosing, with a folder of its own.

mod launch;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Once};
use std::thread;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, Signal, getrlimit, setrlimit};
use rustls::ClientConfig;
use tempfile::TempDir;

use self::launch::launch;
pub use self::launch::{UNDER, binary, copy_binary, run};
use super::overlay::overlay;
use super::{Answer, Authority, Gate, Process, Via, hold};

/// What every relay of the suite starts from; a test's own fragment is laid over it.
///
/// The ACK deadline is far away: an answer that comes before it did not wait for it, and no busy machine reaches it.
/// Nothing is stored unless a test says so: most of them are about what the provider is told without a store.
const BASE: &str = r#"
node = "test"
[http]
listen = "127.0.0.1:0"
[tcp]
listen = "127.0.0.1:0"
[delivery]
ack_deadline = "25s"
undelivered = "refuse"
[admin]
listen = "127.0.0.1:0"
[log]
level = "info"
[[route]]
path = "/notify/{id}"
verify = "none"
"#;

/// Lets providers come through TLS.
const HTTP_TLS: &str = "[http]\ntls = { cert = \"cert.pem\", key = \"key.pem\" }";

/// Lets backends come through TLS.
const TCP_TLS: &str = "[tcp.tls]\nlisten = \"127.0.0.1:0\"\ncert = \"cert.pem\"\nkey = \"key.pem\"";

/// How a relay is to be started.
#[derive(Default)]
pub struct Setup {
    toml: String,
    nofile: Option<u32>,
    unread_log: bool,
    pipe: Option<&'static str>,
    under: Option<String>,
    panics: bool,
    env: Vec<(&'static str, String)>,
    tls: bool,
    nobody: bool,
}

/// The user that owns nothing.
const NOBODY: u32 = 65_534;

impl Setup {
    /// With a fragment of relay.toml laid over the suite's own, section by section and key by key. Its routes, if any,
    /// replace the suite's. One key a line.
    pub fn with(fragment: &str) -> Self {
        Self {
            toml: fragment.to_owned(),
            ..Self::default()
        }
    }

    /// Under `ulimit -n files`.
    pub fn nofile(mut self, files: u32) -> Self {
        self.nofile = Some(files);
        self
    }

    /// With a log that nobody reads: its standard error is the pipe `log` in its folder, which it keeps open itself.
    pub fn unread_log(mut self) -> Self {
        self.unread_log = true;
        self
    }

    /// With a pipe of this name in its folder.
    pub fn pipe(mut self, name: &'static str) -> Self {
        self.pipe = Some(name);
        self
    }

    /// Started by another program, whose process becomes the relay: `strace -D …`.
    pub fn under(mut self, program: &str) -> Self {
        self.under = Some(program.to_owned());
        self
    }

    /// Lets the loops of its threads panic and hang when a file in its folder `faults` says so; see `src/heartbeat.rs`.
    pub fn faults(mut self) -> Self {
        self.panics = true;
        self
    }

    /// With a variable in its environment.
    pub fn env(mut self, name: &'static str, value: &str) -> Self {
        self.env.push((name, value.to_owned()));
        self
    }

    /// As a user to whom not every file is open; for tests that run as root.
    pub fn for_nobody(mut self) -> Self {
        self.nobody = true;
        self
    }

    /// With a certificate of the tests' authority in `cert.pem` and `key.pem` of its folder.
    pub fn certified(mut self) -> Self {
        self.tls = true;
        self
    }

    /// The same, and with providers coming as `via` says.
    pub fn via(self, via: Via) -> Self {
        match via {
            Via::Clear => self,
            Via::Tls => {
                let mut setup = self.certified();
                setup.toml = overlay(&setup.toml, HTTP_TLS);
                setup
            }
        }
    }

    /// With backends coming as `via` says.
    pub fn backends_via(self, via: Via) -> Self {
        match via {
            Via::Clear => self,
            Via::Tls => {
                let mut setup = self.certified();
                setup.toml = overlay(&setup.toml, TCP_TLS);
                setup
            }
        }
    }

    /// Starts it and waits until it is ready.
    pub fn start(self) -> Relay {
        raise_own_file_limit();
        let dir = TempDir::with_prefix("payrelay-").expect("a folder for the relay");
        if self.tls {
            Authority::get().issue(dir.path());
        }
        let (process, ready) = launch(dir.path(), &self);
        let sealed = self.toml.contains("\ntls = {");
        Relay {
            process,
            ready,
            dir,
            via: if sealed { Via::Tls } else { Via::Clear },
            panics: self.panics,
            client: Authority::get().client(rustls::ALL_VERSIONS),
        }
    }
}

/// A running relay. Dropping it ends the process; a relay in which a thread panicked fails the test.
pub struct Relay {
    process: Process,
    ready: Ready,
    dir: TempDir,
    via: Via,
    /// The test makes threads of it panic.
    panics: bool,
    /// Kept, so that its connections resume each other's sessions as a provider's do.
    client: Arc<ClientConfig>,
}

/// The line on standard output that says everything listens.
pub struct Ready {
    pub instance: String,
    pub http: SocketAddr,
    pub tcp: SocketAddr,
    pub admin: SocketAddr,
    /// Where backends come through TLS, if they do.
    pub tcp_tls: Option<SocketAddr>,
}

impl Ready {
    fn parse(line: &str) -> Self {
        let mut tokens = line.split(' ');
        let mut take = |key: &str| {
            let value = tokens.next().and_then(|token| token.strip_prefix(key));
            value.unwrap_or_else(|| panic!("no {key:?} in its place in the ready line {line:?}"))
        };
        take("ready");
        let instance = take("node=").to_owned();
        let mut address = |key| {
            take(key)
                .parse()
                .unwrap_or_else(|e| panic!("{key} {e} in {line:?}"))
        };
        Self {
            instance,
            http: address("http="),
            tcp: address("tcp="),
            admin: address("admin="),
            tcp_tls: line
                .rsplit_once("tcp.tls=")
                .map(|(_, addr)| addr.parse().expect("an address")),
        }
    }
}

impl Relay {
    /// Starts a relay as it comes.
    pub fn start() -> Self {
        Setup::default().start()
    }

    /// Starts a relay with a fragment of configuration; see [`Setup::with`].
    pub fn with(fragment: &str) -> Self {
        Setup::with(fragment).start()
    }

    /// Starts a relay to which providers come as `via` says.
    pub fn via(via: Via, fragment: &str) -> Self {
        Setup::with(fragment).via(via).start()
    }

    /// Starts a relay to which backends come as `via` says.
    pub fn backends_via(via: Via, fragment: &str) -> Self {
        Setup::with(fragment).backends_via(via).start()
    }

    /// What clients of this relay trust.
    pub fn client(&self) -> &Arc<ClientConfig> {
        &self.client
    }

    /// Where it takes callbacks, and how.
    pub fn gate(&self) -> Gate {
        let tls = match self.via {
            Via::Clear => None,
            Via::Tls => Some(Arc::clone(&self.client)),
        };
        Gate {
            addr: self.ready.http,
            tls,
        }
    }

    /// Ends this process as `kill -9` does.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Ends this process as `kill -9` does, and starts another in the same folder, on other ports unless `fragment` says where.
    pub fn restart_with(&mut self, fragment: &str) {
        self.process.kill();
        let backends = [Some(self.ready.tcp), self.ready.tcp_tls];
        let _held: Vec<_> = backends.into_iter().flatten().map(hold).collect();
        (self.process, self.ready) = launch(self.dir.path(), &Setup::with(fragment));
    }

    /// Starts it again in the same folder, on other ports, as `setup` says; the process before has ended.
    pub fn start_again(&mut self, setup: Setup) {
        (self.process, self.ready) = launch(self.dir.path(), &setup);
    }

    /// What it said of itself when it was ready.
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// Writes its relay.toml anew; it takes a SIGHUP to be read.
    pub fn rewrite(&self, fragment: &str) {
        self.rewrite_raw(&overlay(BASE, fragment));
    }

    /// Writes its relay.toml anew, exactly so.
    pub fn rewrite_raw(&self, text: &str) {
        fs::write(self.path("relay.toml"), text).expect("relay.toml is written");
    }

    /// A file in the relay's folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn process(&self) -> &Process {
        &self.process
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        self.process.wait_exit(within)
    }

    /// Waits for a log line with these words.
    pub fn log_contains(&self, words: &str) -> String {
        self.process.wait_log(words)
    }

    /// The log so far.
    pub fn log(&self) -> String {
        self.process.stderr()
    }

    /// The sum of a metric's series: `name`, or `name{key="value"}` for those with these labels; 0 if there is none.
    pub fn metric(&self, selector: &str) -> f64 {
        self.metrics([selector])[0]
    }

    /// The same of several, all of one moment.
    pub fn metrics<const N: usize>(&self, selectors: [&str; N]) -> [f64; N] {
        let text = self.admin("/metrics").text();
        selectors.map(|selector| metric(&text, selector))
    }

    pub fn readyz(&self) -> Answer {
        self.admin("/readyz")
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        if thread::panicking() {
            let log = self.process.stderr();
            let lines: Vec<&str> = log.lines().collect();
            let last = &lines[lines.len().saturating_sub(60)..];
            eprintln!(
                "--- the relay's last {} log lines\n{}\n---",
                last.len(),
                last.join("\n")
            );
        } else if !self.panics {
            let log = self.process.stderr();
            let panic = log.lines().find(|line| line.contains("panicked"));
            assert_eq!(panic, None, "a thread of the relay panicked");
        }
    }
}

/// The sum of the series in `text` that `selector` names.
fn metric(text: &str, selector: &str) -> f64 {
    let (name, labels) = match selector.split_once('{') {
        Some((name, labels)) => (name, labels.trim_end_matches('}')),
        None => (selector, ""),
    };
    let series = text.lines().filter_map(|line| {
        let (series, value) = line.rsplit_once(' ')?;
        let (its_name, its_labels) = match series.split_once('{') {
            Some((name, labels)) => (name, labels.trim_end_matches('}')),
            None => (series, ""),
        };
        let mut labels = labels.split(',').filter(|label| !label.is_empty());
        let labelled = labels.all(|label| its_labels.split(',').any(|its| its == label));
        (its_name == name && labelled).then(|| value.parse::<f64>().ok())?
    });
    series.sum()
}

/// Heavy tests hold thousands of sockets in this process, and the relay inherits the limit.
fn raise_own_file_limit() {
    static RAISED: Once = Once::new();
    RAISED.call_once(|| {
        let Rlimit { maximum, .. } = getrlimit(Resource::Nofile);
        let wanted = Rlimit {
            current: maximum.map(|most| most.min(20_000)).or(Some(20_000)),
            maximum,
        };
        let _ = setrlimit(Resource::Nofile, wanted);
    });
}
