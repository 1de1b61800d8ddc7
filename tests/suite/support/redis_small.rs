//! A Redis of the test's own, on a socket in a folder of its own.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;

use rustix::process::Signal;
use tempfile::TempDir;

use super::{Process, Relay, eventually};

/// The server. Dropping it ends it.
pub struct SmallRedis {
    process: Option<Process>,
    dir: TempDir,
}

impl SmallRedis {
    pub fn start() -> Self {
        let dir = TempDir::with_prefix("payrelay-redis-").expect("a folder");
        let mut redis = Self { process: None, dir };
        redis.restart();
        redis
    }

    /// Starts it, or starts it again, and waits until it lets somebody in.
    pub fn restart(&mut self) {
        self.kill();
        let mut command = Command::new("redis-server");
        command.args(["--port", "0", "--save", "", "--appendonly", "no"]);
        command.arg("--unixsocket").arg(self.socket());
        command.arg("--dir").arg(self.dir.path());
        self.process = Some(Process::start("redis-server", command));
        eventually("redis-server lets somebody in", || {
            UnixStream::connect(self.socket()).is_ok()
        });
    }

    /// Ends it as `kill -9` does.
    pub fn kill(&mut self) {
        self.process = None;
        let _ = std::fs::remove_file(self.socket());
    }

    /// It takes what comes and says nothing.
    pub fn pause(&self) {
        self.signal(Signal::STOP);
    }

    pub fn resume(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        self.process.as_ref().expect("it runs").signal(signal);
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// Starts the node called `name` on it, with a fragment of configuration.
    pub fn node(&self, name: &str, fragment: &str) -> Relay {
        let url = self.url();
        Relay::with(&format!(
            "node = \"{name}\"\n{fragment}\n[redis]\nurl = \"{url}\""
        ))
    }

    /// How many nodes are subscribed to `channel`.
    pub fn subscribers(&self, channel: &str) -> u64 {
        let client = redis::Client::open(self.url()).expect("an address");
        let mut connection = client.get_connection().expect("a connection");
        let (_, count): (String, u64) = redis::cmd("PUBSUB")
            .arg("NUMSUB")
            .arg(channel)
            .query(&mut connection)
            .expect("an answer");
        count
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }
}
