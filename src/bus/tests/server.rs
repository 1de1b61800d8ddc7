//! A real Redis, in a folder of its own, on a socket in it: no port that somebody else could have.

use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::node::PATIENCE;

/// The server. Dropping it ends it.
pub struct Server {
    child: Option<Child>,
    dir: TempDir,
}

impl Server {
    pub fn start() -> Self {
        let dir = TempDir::with_prefix("payrelay-redis-").expect("a folder");
        let mut server = Self { child: None, dir };
        server.launch();
        server
    }

    /// Starts it, or starts it again, and waits until it lets somebody in.
    pub fn launch(&mut self) {
        self.kill();
        let child = Command::new("redis-server")
            .args(["--port", "0", "--save", "", "--appendonly", "no"])
            .arg("--unixsocket")
            .arg(self.socket())
            .arg("--dir")
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("redis-server is on this machine; tests/run installs it");
        self.child = Some(child);
        let until = Instant::now() + PATIENCE;
        while UnixStream::connect(self.socket()).is_err() {
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
        let _ = std::fs::remove_file(self.socket());
    }

    /// SIGSTOP, or SIGCONT.
    pub fn signal(&self, signal: Signal) {
        let child = self.child.as_ref().expect("it runs");
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
        kill_process(pid.expect("a process"), signal).expect("it takes signals");
    }

    pub fn url(&self) -> String {
        format!("unix://{}", self.socket().display())
    }

    /// A connection of the test's own.
    pub fn client(&self) -> redis::Connection {
        let client = redis::Client::open(self.url()).expect("an address");
        client.get_connection().expect("a connection")
    }

    /// Every channel that somebody is subscribed to, sorted.
    pub fn channels(&self) -> Vec<String> {
        let mut channels: Vec<String> = redis::cmd("PUBSUB")
            .arg("CHANNELS")
            .query(&mut self.client())
            .expect("an answer");
        channels.sort();
        channels
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("redis.sock")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.kill();
    }
}
