//! A child process whose output is kept line by line, and who does not outlive its test.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use rustix::process::{Pid, Signal, kill_process};

use super::{DEADLINE, pause};

/// A running child.
pub struct Process {
    name: String,
    child: Child,
    out: Arc<Lines>,
    err: Arc<Lines>,
    readers: Vec<JoinHandle<()>>,
}

#[derive(Default)]
struct Lines {
    said: Mutex<CapturedLines>,
    more: Condvar,
}

#[derive(Default)]
struct CapturedLines {
    lines: Vec<String>,
    over: bool,
}

impl Process {
    /// Starts `command`; `name` stands in failures.
    pub fn start(name: &str, mut command: Command) -> Self {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command
            .spawn()
            .unwrap_or_else(|e| panic!("{name} does not start: {e}"));
        let (out, err) = (Arc::new(Lines::default()), Arc::new(Lines::default()));
        let readers = vec![
            collect(child.stdout.take().expect("piped"), Arc::clone(&out)),
            collect(child.stderr.take().expect("piped"), Arc::clone(&err)),
        ];
        Self {
            name: name.to_owned(),
            child,
            out,
            err,
            readers,
        }
    }

    /// Waits for a line of standard output from line number `from` on that `wanted` accepts: its number and itself.
    pub fn wait_line(&self, from: usize, wanted: impl Fn(&str) -> bool) -> (usize, String) {
        self.out.wait(from, wanted).unwrap_or_else(|so_far| {
            panic!(
                "{}: the awaited line did not come; stdout so far: {so_far:?}; stderr:\n{}",
                self.name,
                self.err.text()
            )
        })
    }

    /// Waits until standard error has a line that contains `words`.
    pub fn wait_log(&self, words: &str) -> String {
        match self.err.wait(0, |line| line.contains(words)) {
            Ok((_, line)) => line,
            Err(_) => panic!(
                "{}: {words:?} never came in stderr:\n{}",
                self.name,
                self.err.text()
            ),
        }
    }

    /// What came on standard output so far.
    pub fn stdout(&self) -> String {
        self.out.text()
    }

    /// What came on standard error so far.
    pub fn stderr(&self) -> String {
        self.err.text()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap_or_else(|e| panic!("no signal to {}: {e}", self.name));
    }

    /// Whether it is still running.
    pub fn is_running(&mut self) -> bool {
        self.exited().is_none()
    }

    /// Waits for the end, `within` at most: the exit code, or `None` if a signal ended it.
    pub fn wait_exit(&mut self, within: Duration) -> Option<i32> {
        let deadline = Instant::now() + within;
        let status = loop {
            if let Some(status) = self.exited() {
                break status;
            }
            assert!(
                Instant::now() < deadline,
                "{} still runs after {within:?}",
                self.name
            );
            pause();
        };
        // What it said last must be there when the caller looks.
        for reader in self.readers.drain(..) {
            let _ = reader.join();
        }
        status.code()
    }

    fn exited(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("a child can be waited for")
    }

    /// Ends it at once, as `kill -9` does.
    pub fn kill(&mut self) {
        if self.is_running() {
            self.child.kill().expect("a child can be killed");
        }
        self.wait_exit(DEADLINE);
    }

    /// Open file descriptors.
    pub fn fds(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).map_or(0, Iterator::count)
    }

    /// The names of its threads; 15 bytes of each.
    pub fn thread_names(&self) -> Vec<String> {
        self.tasks()
            .filter_map(|task| fs::read_to_string(task.join("comm")).ok())
            .map(|name| name.trim_end().to_owned())
            .collect()
    }

    /// How often the threads whose names begin with `name` have gone to sleep, all together; `None`: there is no such thread.
    pub fn sleeps(&self, name: &str) -> Option<u64> {
        let count = |task: PathBuf| {
            let comm = fs::read_to_string(task.join("comm")).ok()?;
            let status = fs::read_to_string(task.join("status")).ok()?;
            let mut counts = status
                .lines()
                .filter_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
            let count: u64 = counts.next()?.trim().parse().ok()?;
            comm.starts_with(name).then_some(count)
        };
        let counts: Vec<u64> = self.tasks().filter_map(count).collect();
        (!counts.is_empty()).then(|| counts.iter().sum())
    }

    fn tasks(&self) -> impl Iterator<Item = PathBuf> {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("procfs");
        tasks.filter_map(|task| Some(task.ok()?.path()))
    }

    /// Threads.
    pub fn threads(&self) -> usize {
        self.status("Threads:")
    }

    /// Resident memory in KiB.
    pub fn rss_kib(&self) -> usize {
        self.status("VmRSS:")
    }

    fn status(&self, key: &str) -> usize {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let number = line.and_then(|line| line.split_whitespace().next());
        number.and_then(|n| n.parse().ok()).unwrap_or(0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Lines {
    fn wait(
        &self,
        from: usize,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(usize, String), Vec<String>> {
        let deadline = Instant::now() + DEADLINE;
        let mut said = self.said.lock();
        loop {
            let mut fresh = said.lines.iter().enumerate().skip(from);
            if let Some((at, line)) = fresh.find(|(_, line)| wanted(line)) {
                return Ok((at, line.clone()));
            }
            if said.over || self.more.wait_until(&mut said, deadline).timed_out() {
                return Err(said.lines.clone());
            }
        }
    }

    fn text(&self) -> String {
        self.said.lock().lines.join("\n")
    }
}

fn collect(pipe: impl Read + Send + 'static, lines: Arc<Lines>) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
            let line = String::from_utf8_lossy(&line).into_owned();
            lines.said.lock().lines.push(line);
            lines.more.notify_all();
        }
        lines.said.lock().over = true;
        lines.more.notify_all();
    })
}
