//! Named threads, joined on drop.
//!
//! Two shapes: [`JoinOnDrop`] for a thread that lives as long as its owner, and [`ThreadGroup`] for threads that come and go,
//! one per connection. No thread of the relay is detached.

use std::collections::HashMap;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::{Condvar, Mutex};

/// The stack of a thread that only moves messages, in bytes.
pub const SMALL_STACK_BYTES: usize = 128 * 1024;

/// A thread that its owner outlives: dropping the handle waits for it.
///
/// Put whatever ends the thread (the sender of its channel) above this field, so that it is dropped first.
#[derive(Debug)]
pub struct JoinOnDrop(Option<JoinHandle<()>>);

impl JoinOnDrop {
    /// Whether the thread has ended, so that dropping the handle does not wait.
    pub fn is_finished(&self) -> bool {
        self.0.as_ref().is_none_or(JoinHandle::is_finished)
    }
}

impl Drop for JoinOnDrop {
    fn drop(&mut self) {
        if let Some(handle) = self.0.take() {
            join(handle);
        }
    }
}

/// Starts `work` on a thread called `name` (15 bytes show in `ps` and `top`).
///
/// # Errors
/// The system has no room for another thread.
pub fn spawn(
    name: impl Into<String>,
    stack_bytes: usize,
    work: impl FnOnce() + Send + 'static,
) -> io::Result<JoinOnDrop> {
    let handle = Builder::new()
        .name(name.into())
        .stack_size(stack_bytes)
        .spawn(work)?;
    Ok(JoinOnDrop(Some(handle)))
}

/// How long a thread that yields may work before it yields again, at most. A request takes three or four times as long.
const BURST_MAX: Duration = Duration::from_micros(100);

/// Cooperative yielding of a thread with long work that no request waits for.
///
/// Linux lets a running thread finish its slice: milliseconds in which a request that has just come in would wait. A thread that
/// yields too often may get nothing at all while others are busy all the time.
#[derive(Debug, Default)]
pub struct CooperativeYield {
    /// Until then it need not yield.
    paid_until: Option<Instant>,
}

impl CooperativeYield {
    /// Between two pieces of the work: lets others go first that are ready to run, if there are any. For as long as that has
    /// taken, and [`BURST_MAX`] at most, it does not do so again: a part of its share is left to it, and nobody waits for long.
    pub fn yield_now(&mut self) {
        let before = Instant::now();
        if self.paid_until.is_none_or(|until| until <= before) {
            std::thread::yield_now();
            let after = Instant::now();
            self.paid_until = Some(after + (after - before).min(BURST_MAX));
        }
    }
}

fn join(handle: JoinHandle<()>) {
    // The panic of a thread is in the log already, where and when it happened.
    let _ = handle.join();
}

/// Threads that come and go. A member that ends is joined soon after by the group's reaper, so that its stack goes back.
#[derive(Debug)]
pub struct ThreadGroup {
    // Dropped first: the members' clones of it are gone by then, so the reaper's inbox closes...
    finished: Sender<u64>,
    members: Arc<Members>,
    // ...and this waits for the reaper.
    _reaper: JoinOnDrop,
}

#[derive(Debug, Default)]
struct Members {
    next: AtomicU64,
    running: Mutex<Running>,
    emptied: Condvar,
}

#[derive(Debug, Default)]
struct Running {
    handles: HashMap<u64, JoinHandle<()>>,
    /// How many were spawned and not joined yet.
    unjoined: usize,
}

impl ThreadGroup {
    /// An empty group, whose reaper is called `name`.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(name: &str) -> io::Result<Self> {
        let (finished, inbox) = unbounded(); // bounded by the members: each sends once
        let members = Arc::new(Members::default());
        let theirs = Arc::clone(&members);
        let reaper = spawn(name, SMALL_STACK_BYTES, move || reap(&inbox, &theirs))?;
        Ok(Self {
            finished,
            members,
            _reaper: reaper,
        })
    }

    /// Starts a member called `name`. A panic in `work` ends that member only, and is logged.
    ///
    /// # Errors
    /// The system has no room for another thread: refuse the peer, and go on.
    pub fn spawn(
        &self,
        name: String,
        stack_bytes: usize,
        work: impl FnOnce() + Send + 'static,
    ) -> io::Result<()> {
        let number = self.members.next.fetch_add(1, Ordering::Relaxed);
        let leaving = Leaving {
            number,
            finished: self.finished.clone(),
        };
        // Held over the spawn, so that the reaper cannot look for a handle that is not there yet.
        let mut running = self.members.running.lock();
        let handle = Builder::new()
            .name(name)
            .stack_size(stack_bytes)
            .spawn(move || {
                let _leaving = leaving; // dropped last, and on a panic too
                work();
            })?;
        running.handles.insert(number, handle);
        running.unjoined += 1;
        Ok(())
    }

    /// How many members have not been joined.
    pub fn len(&self) -> usize {
        self.members.running.lock().unjoined
    }

    /// Whether all members have been joined.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Waits until the last member has left, however long that takes: tell them to go first.
    pub fn join_all(&self) {
        let mut running = self.members.running.lock();
        while running.unjoined > 0 {
            self.members.emptied.wait(&mut running);
        }
    }

    /// Waits until the last member has left, or `deadline` has come; says whether they all left.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        let mut running = self.members.running.lock();
        while running.unjoined > 0 {
            if self
                .members
                .emptied
                .wait_until(&mut running, deadline)
                .timed_out()
            {
                break;
            }
        }
        running.unjoined == 0
    }
}

struct Leaving {
    number: u64,
    finished: Sender<u64>,
}

impl Drop for Leaving {
    fn drop(&mut self) {
        // Fails only when the group itself is gone.
        let _ = self.finished.send(self.number);
    }
}

fn reap(inbox: &Receiver<u64>, members: &Members) {
    for number in inbox {
        let Some(handle) = members.running.lock().handles.remove(&number) else {
            continue; // its spawn failed: it never was a member
        };
        join(handle);
        let mut running = members.running.lock();
        running.unjoined -= 1;
        if running.unjoined == 0 {
            members.emptied.notify_all();
        }
    }
}
