//! How the mirror is, for the metrics and `/readyz`. Written by the writer and the mirror's thread.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use serde::Serialize;

use crate::config::SharedOutbox;
use crate::metrics::SharedReadings;

/// Why other nodes cannot take over what this one has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NoHandOver {
    /// `outbox.shared` is off.
    Off,
    /// Redis is away, in words.
    Away(String),
    /// No other node shares its outbox.
    Alone,
}

impl fmt::Display for NoHandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str(
                "outbox.shared is off, so no other node can take over: payrelay outbox export, and import at another node",
            ),
            Self::Away(trouble) => write!(f, "Redis is away, try again when it is back: {trouble}"),
            Self::Alone => f.write_str(
                "no other node shares its outbox in this Redis just now: start one with outbox.shared first",
            ),
        }
    }
}

/// A node that holds no lease, and what of it is in Redis.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Gone {
    /// The name of its file in Redis.
    #[serde(skip)]
    pub store: String,
    /// Its name.
    pub node: String,
    /// Its pending notifications and dead letters that no other node has taken over yet.
    pub count: u64,
}

/// How the mirror is.
#[derive(Debug)]
pub struct SharedState {
    pub mode: SharedOutbox,
    /// The writer has a connection.
    up: AtomicBool,
    /// All of the file is in Redis, and nothing else of it.
    complete: AtomicBool,
    mirrored: AtomicU64,
    /// Stored while there was no connection.
    unmirrored: AtomicU64,
    inherited: AtomicU64,
    /// Replicas of the primary.
    replicas: AtomicU64,
    /// Other nodes that share their outboxes now.
    others: AtomicU64,
    /// Other nodes are to have everything, for good.
    handing_over: AtomicBool,
    /// They may: the lease is given up.
    released: AtomicBool,
    /// Damaged on disk, and not in Redis.
    damaged: AtomicU64,
    trouble: Mutex<Option<String>>,
    /// Nodes that hold no lease.
    gone: Mutex<Vec<Gone>>,
    /// By what the file is known in Redis.
    store: Mutex<String>,
}

impl SharedState {
    pub fn new(mode: SharedOutbox, store: &str) -> Self {
        Self {
            mode,
            up: AtomicBool::new(false),
            complete: AtomicBool::new(false),
            mirrored: AtomicU64::new(0),
            unmirrored: AtomicU64::new(0),
            inherited: AtomicU64::new(0),
            replicas: AtomicU64::new(0),
            others: AtomicU64::new(0),
            handing_over: AtomicBool::new(false),
            released: AtomicBool::new(false),
            damaged: AtomicU64::new(0),
            trouble: Mutex::new(Some("not connected to Redis yet".into())),
            gone: Mutex::new(Vec::new()),
            store: Mutex::new(store.to_owned()),
        }
    }

    /// There is a connection.
    pub fn set_up(&self) {
        self.up.store(true, Ordering::Relaxed);
        *self.trouble.lock() = None;
    }

    /// There is none; says whether that is news.
    pub fn set_down(&self, why: String) -> bool {
        self.complete.store(false, Ordering::Relaxed);
        *self.trouble.lock() = Some(why);
        self.up.swap(false, Ordering::Relaxed)
    }

    /// By what the file is known in Redis.
    pub fn store(&self) -> String {
        self.store.lock().clone()
    }

    /// It is known by another name from now on.
    pub fn set_store(&self, store: &str) {
        store.clone_into(&mut self.store.lock());
    }

    /// Whether there is a connection.
    pub fn is_up(&self) -> bool {
        self.up.load(Ordering::Relaxed)
    }

    /// Whether Redis has all of the file, and nothing else of it.
    pub fn set_complete(&self, complete: bool) {
        if complete {
            self.unmirrored.store(0, Ordering::Relaxed);
        }
        self.complete.store(complete, Ordering::Relaxed);
    }

    /// Whether Redis has all of the file, as far as is known.
    pub fn is_complete(&self) -> bool {
        self.complete.load(Ordering::Relaxed)
    }

    /// Redis has so many.
    pub fn set_mirrored(&self, count: u64) {
        self.mirrored.store(count, Ordering::Relaxed);
    }

    /// So many came to Redis, and so many went.
    pub fn add_mirrored(&self, came: u64, went: u64) {
        // One thread writes, so nothing is lost in between.
        let before = self.mirrored.load(Ordering::Relaxed);
        self.set_mirrored((before + came).saturating_sub(went));
    }

    /// So many were stored on the disk alone.
    pub fn add_unmirrored(&self, count: u64) {
        self.unmirrored.fetch_add(count, Ordering::Relaxed);
    }

    /// So many were taken over from the file called `store`.
    pub fn add_inherited(&self, store: &str, count: u64) {
        self.inherited.fetch_add(count, Ordering::Relaxed);
        let mut gone = self.gone.lock();
        if let Some(gone) = gone.iter_mut().find(|gone| gone.store == store) {
            gone.count = gone.count.saturating_sub(count);
        }
    }

    /// These hold no lease.
    pub fn set_gone(&self, gone: Vec<Gone>) {
        *self.gone.lock() = gone;
    }

    /// The nodes that hold no lease and have something in Redis, by the last look, a second ago or less; `None`: Redis is away.
    pub fn gone(&self) -> Option<Vec<Gone>> {
        if !self.is_up() {
            return None;
        }
        let gone = self.gone.lock();
        Some(gone.iter().filter(|gone| gone.count > 0).cloned().collect())
    }

    /// The primary has so many replicas.
    pub fn set_replicas(&self, count: u64) {
        self.replicas.store(count, Ordering::Relaxed);
    }

    /// Whether the primary has a replica.
    pub fn has_replicas(&self) -> bool {
        self.replicas.load(Ordering::Relaxed) > 0
    }

    /// So many other nodes share their outboxes now; says whether that is news.
    pub fn set_others(&self, count: u64) -> bool {
        self.others.swap(count, Ordering::Relaxed) != count
    }

    /// Other nodes are to have everything that this one has, and this one stores nothing more.
    ///
    /// # Errors
    /// Nobody could take it over now; nothing has changed.
    pub fn hand_over(&self) -> Result<(), NoHandOver> {
        if self.is_handing_over() {
            return Ok(());
        }
        if let Some(trouble) = self.trouble.lock().clone() {
            return Err(NoHandOver::Away(trouble));
        }
        if self.others.load(Ordering::Relaxed) == 0 {
            return Err(NoHandOver::Alone);
        }
        self.handing_over.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether other nodes are to have everything.
    pub fn is_handing_over(&self) -> bool {
        self.handing_over.load(Ordering::Relaxed)
    }

    /// They may take it over from now on.
    pub fn set_released(&self) {
        self.released.store(true, Ordering::Relaxed);
    }

    /// Whether other nodes may take over what this one has.
    pub fn is_released(&self) -> bool {
        self.released.load(Ordering::Relaxed)
    }

    /// So many are damaged on disk and not in Redis.
    pub fn set_damaged(&self, count: usize) {
        self.damaged.store(count as u64, Ordering::Relaxed);
    }

    /// How many are damaged on disk and not in Redis: nobody can take them over.
    pub fn damaged(&self) -> u64 {
        self.damaged.load(Ordering::Relaxed)
    }

    /// Why nothing can be stored just now, if so.
    pub fn unwell(&self) -> Option<String> {
        if self.is_handing_over() {
            return Some(
                "stores nothing: it is handed over to other nodes, until a restart".into(),
            );
        }
        if self.mode != SharedOutbox::Require {
            return None;
        }
        let trouble = self.trouble.lock().clone()?;
        Some(format!(
            "stores nothing: Redis does not take it, and outbox.shared = \"require\" ({trouble})"
        ))
    }

    /// Why what is stored is on the disk alone just now, if so; `kept` pending ones and dead letters are on disk.
    pub fn warning(&self, kept: u64) -> Option<String> {
        if self.mode != SharedOutbox::Prefer {
            return None;
        }
        let trouble = self.trouble.lock().clone()?;
        let behind = self.readings(kept).behind;
        Some(format!(
            "outbox.shared = \"prefer\": {behind} are on this node's disk alone, and not in Redis: {trouble}"
        ))
    }

    /// For the metrics; `kept` pending ones and dead letters are on disk.
    pub fn readings(&self, kept: u64) -> SharedReadings {
        let mirrored = self.mirrored.load(Ordering::Relaxed);
        let behind = match self.is_complete() {
            true => 0,
            false => {
                let unmirrored = self.unmirrored.load(Ordering::Relaxed);
                kept.saturating_sub(mirrored).max(unmirrored)
            }
        };
        SharedReadings {
            mirrored,
            behind,
            inherited: self.inherited.load(Ordering::Relaxed),
            trouble: self.trouble.lock().clone(),
        }
    }
}
