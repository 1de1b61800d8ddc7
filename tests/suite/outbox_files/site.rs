//! A relay whose outbox loses its files, and what it must say and keep then.

use std::fs::{self, File, OpenOptions};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::process::Signal;
use tempfile::TempDir;

use super::super::outbox::messages;
use super::super::outbox_operator::ask;
use crate::support::{DEADLINE, Process, Relay, Setup, binary, eventually};

/// What the relay promises.
const SAID_WITHIN: Duration = Duration::from_secs(2);

/// One look at readyz counts for no more than this: a machine that is too busy for the test is too busy for the relay.
const LOOK_MAX: Duration = Duration::from_millis(100);

pub fn config(path: &Path) -> String {
    format!(
        "[delivery]\nundelivered = \"store\"\n[outbox]\nretry_first = \"100ms\"\npath = \"{}\"\n",
        path.display()
    )
}

/// A relay whose outbox lies in a folder of its own, with some notifications in it.
pub struct Site {
    pub relay: Relay,
    pub database: PathBuf,
    /// Answered `stored`.
    pub stored: Vec<Vec<u8>>,
    posted: usize,
    // Last: the relay is in it.
    _folder: TempDir,
}

impl Site {
    pub fn new() -> Self {
        Self::with(
            TempDir::with_prefix("payrelay-files-").expect("a folder"),
            Setup::with,
        )
    }

    pub fn with(folder: TempDir, setup: impl FnOnce(&str) -> Setup) -> Self {
        let database = folder.path().join("data/outbox.db");
        let relay = setup(&config(&database)).start();
        let mut site = Self {
            relay,
            database,
            stored: Vec::new(),
            posted: 0,
            _folder: folder,
        };
        for _ in 0..5 {
            assert!(site.post(), "it is not stored");
        }
        site
    }

    pub fn log(&self) -> PathBuf {
        PathBuf::from(format!("{}-wal", self.database.display()))
    }

    pub fn directory(&self) -> &Path {
        self.database.parent().expect("a directory")
    }

    /// Posts to nobody; whether it was stored.
    pub fn post(&mut self) -> bool {
        self.posted += 1;
        let body = format!("{} {}", self.posted, "x".repeat(300)).into_bytes();
        let answer = self.relay.post("/notify/till-7", &body).answer();
        match answer.told() {
            (200, "stored") => self.stored.push(body),
            (503, "offline") => return false,
            told => panic!("{told:?}"),
        }
        true
    }

    /// After a fault: readyz says so in time, with these words, and nothing is stored.
    pub fn refuses(&mut self, words: &[&str]) {
        let (mut took, mut look) = (Duration::ZERO, Instant::now());
        eventually(&format!("readyz says {words:?}"), || {
            took += look.elapsed().min(LOOK_MAX);
            look = Instant::now();
            let said = self.relay.readyz();
            said.status == 503 && words.iter().all(|word| said.text().contains(word))
        });
        assert!(took < 2 * SAID_WITHIN, "said after {took:?}");
        for _ in 0..3 {
            assert!(!self.post(), "it is stored in files that nobody will find");
        }
        assert!(
            self.relay
                .metric("payrelay_outbox_refusals_total{reason=\"file\"}")
                > 0.0
                || self
                    .relay
                    .metric("payrelay_outbox_refusals_total{reason=\"disk\"}")
                    > 0.0
        );
        self.relay.log_contains("the outbox refuses to store");
    }

    pub fn stores_again(&mut self) {
        eventually("it is ready", || self.relay.readyz().status == 200);
        assert!(self.post(), "it is not stored");
    }

    /// What the relay has open, of database and log, wherever these are.
    pub fn open_files(&self) -> [Vec<u8>; 2] {
        let folder = format!("/proc/{}/fd", self.relay.process().pid());
        let open = |ending: &str| {
            let links = fs::read_dir(&folder).expect("the relay's files").flatten();
            let link = links
                .filter(|link| {
                    let target = fs::read_link(link.path()).unwrap_or_default();
                    let target = target.to_string_lossy().replace(" (deleted)", "");
                    target.ends_with(ending)
                })
                .map(|link| link.path())
                .next();
            let mut bytes = Vec::new();
            let file = File::open(link.unwrap_or_else(|| panic!("{ending} is not open")));
            file.and_then(|mut file| file.read_to_end(&mut bytes))
                .expect("readable");
            bytes
        };
        [open("outbox.db"), open("outbox.db-wal")]
    }

    /// `payrelay outbox rescue`, and another relay on what it saved.
    pub fn all_is_rescued(&self) {
        let folder = TempDir::with_prefix("payrelay-files-").expect("a folder");
        let path = folder.path().join("saved.db");
        let (code, words) = ask(&self.relay, &["outbox", "rescue", &path.to_string_lossy()]);
        assert_eq!(code, Some(0), "{words}");
        let count = self.stored.len();
        assert!(
            words.contains(&format!("saved {count} notifications: {count} pending")),
            "{words}"
        );
        let mut other = Self {
            relay: Relay::with(&config(&path)),
            database: path,
            stored: self.stored.clone(),
            posted: 0,
            _folder: folder,
        };
        other.all_is_delivered();
    }

    /// `kill -9`, and another relay with the files that this one had open: everything that was answered `stored` is in it.
    pub fn all_is_found(mut self) {
        let [database, log] = self.open_files();
        self.relay.process().signal(Signal::KILL);
        assert_eq!(self.relay.wait_exit(DEADLINE), None);
        let folder = TempDir::with_prefix("payrelay-files-").expect("a folder");
        let path = folder.path().join("outbox.db");
        fs::write(&path, database).expect("written");
        fs::write(folder.path().join("outbox.db-wal"), log).expect("written");
        self.relay.restart_with(&config(&path));
        self.all_is_delivered();
    }

    /// Everything that was answered `stored` comes when its backend does.
    pub fn all_is_delivered(&mut self) {
        assert!(messages(&self.relay, "pending") >= self.stored.len() as f64);
        let mut till = self.relay.backend("till-7");
        let mut missing = self.stored.clone();
        while !missing.is_empty() {
            let message = till.message();
            missing.retain(|body| body != message.frame.body());
            message.ack();
        }
    }
}

pub fn rename(from: &Path, to: &Path) {
    fs::rename(from, to).expect("moved");
}

pub fn beside(path: &Path, ending: &str) -> PathBuf {
    PathBuf::from(format!("{}{ending}", path.display()))
}

pub fn truncate(path: &Path, bytes: u64) {
    let file = OpenOptions::new().write(true).open(path).expect("a file");
    file.set_len(bytes).expect("truncated");
}

/// Starts a relay on the files of this site, which must refuse: its exit code and what it says.
pub fn start(site: &Site) -> (Option<i32>, String) {
    let mut command = binary();
    let file = site.relay.path("relay.toml");
    command.arg("run").arg("-c").arg(&file);
    let mut process = Process::start("the relay, which must not start", command);
    let code = process.wait_exit(DEADLINE);
    (code, process.stderr())
}
