//! The service manager is told how the relay is, for as long as it runs.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use payrelay::heartbeat;
use payrelay::relay::Vitals;
use payrelay::systemd::{Notifier, watchdog};
use payrelay::thread::{self, JoinOnDrop};

/// How often `systemctl status` is brought up to date, at least.
const STATUS_EVERY: Duration = Duration::from_secs(10);

/// Feeds for each deadline of the watchdog: one that comes late is no reason for a restart.
const FEEDS_PER_DEADLINE: u32 = 3;

/// What the service manager hears. Dropping it ends the messages.
#[derive(Debug)]
pub struct Service {
    notifier: Arc<Notifier>,
    vitals: Arc<Vitals>,
    // Dropped first: the closed channel ends the thread.
    _stop: Sender<Infallible>,
    _thread: Option<JoinOnDrop>,
}

impl Service {
    /// Says that the relay is ready; from now on feeds the watchdog and says how the relay is. Without a service manager there
    /// is no thread.
    ///
    /// # Errors
    /// The system has no room for another thread.
    pub fn start(notifier: Notifier, vitals: Arc<Vitals>) -> io::Result<Self> {
        let notifier = Arc::new(notifier);
        let (stop, stopped) = bounded(0);
        let thread = match notifier.has_listener() {
            false => None,
            true => {
                notifier.ready(&vitals.condition().to_string());
                let (notifier, vitals) = (Arc::clone(&notifier), Arc::clone(&vitals));
                let work = move || keep_telling(&notifier, &vitals, &stopped);
                Some(thread::spawn("systemd", thread::SMALL_STACK_BYTES, work)?)
            }
        };
        Ok(Self {
            notifier,
            vitals,
            _stop: stop,
            _thread: thread,
        })
    }

    /// Says that a reload begins; [`Service::ready`] ends it.
    pub fn reloading(&self) {
        self.notifier.reloading();
    }

    /// Says that the relay is ready, and how it is.
    pub fn ready(&self) {
        if self.notifier.has_listener() {
            self.notifier.ready(&self.vitals.condition().to_string());
        }
    }

    /// Says that the relay stops, and is silent from then on: a service manager that was told so feeds no watchdog.
    pub fn stopping(self) {
        if self.notifier.has_listener() {
            let stopping = format!("draining; {}", self.vitals.condition());
            self.notifier.stopping(&stopping);
        }
    }
}

fn keep_telling(notifier: &Notifier, vitals: &Vitals, stopped: &Receiver<Infallible>) {
    let deadline = watchdog();
    let every = deadline.map_or(STATUS_EVERY, |deadline| {
        (deadline / FEEDS_PER_DEADLINE).min(STATUS_EVERY)
    });
    let mut told = None;
    loop {
        // It asks every part of the relay. If one of them hangs, so does this thread, or the heartbeat says so, and the watchdog goes
        // unfed. A Redis or a disk that is away is no reason for a restart: that would not bring it back.
        let condition = vitals.condition();
        let hangs = heartbeat::ailments().iter().any(|it| it.needs_restart);
        if deadline.is_some() && !hangs {
            notifier.feed_watchdog();
        }
        if told.as_ref() != Some(&condition) && notifier.status(&condition.to_string()) {
            told = Some(condition);
        }
        if stopped.recv_timeout(every) != Err(RecvTimeoutError::Timeout) {
            return;
        }
    }
}
