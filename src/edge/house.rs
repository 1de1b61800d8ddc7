//! What every connection of a front shares.

use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Mutex, RwLock};

use super::channel::Channel;
use super::episode::Episode;
use super::guests::{Guest, Guests};
use super::poller::Poller;
use super::refusal::Refusal;
use super::reply::{self, After};
use super::socket::{Received, receive_now};
use super::{Handler, Limits, Peers, Watcher};
use crate::tls::Identity;

/// The most bytes read from a connection that is turned away, so that closing it does not destroy the answer.
const TURNED_AWAY_READ_MAX: usize = 16 * 1024;

/// What every connection of a front shares.
pub struct House {
    pub name: &'static str,
    pub limits: Limits,
    pub handler: Arc<dyn Handler>,
    pub watcher: Arc<dyn Watcher>,
    pub guests: Arc<Guests>,
    pub idle_max: Duration,
    /// What peers are shown; `None`: nothing is sealed.
    pub tls: Option<Arc<Identity>>,
    /// Who may come; replaced on reload.
    pub peers: RwLock<Arc<Peers>>,
    /// Who waits for connections that need no thread of their own; nobody, if the handler takes its time.
    pub pollers: Vec<Arc<Poller>>,
    /// Threads were not to be had.
    pub no_thread: Mutex<Episode>,
}

impl House {
    /// Who may come, as of now.
    pub fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.peers.read())
    }

    /// Who waits for `guest` together with others; `None`: its own thread does.
    pub fn poller(&self, guest: &Guest) -> Option<&Arc<Poller>> {
        if guest.channel.is_sealed() || self.pollers.is_empty() {
            return None;
        }
        self.pollers.get(guest.number as usize % self.pollers.len())
    }

    /// Says no without waiting for anything: whoever serves many has no time for one.
    pub fn turn_away(&self, channel: &Channel, refusal: Refusal) {
        let mut buffer = Vec::new();
        self.refuse(&mut buffer, refusal);
        channel.refuse_until(&buffer, refusal.alert(), Instant::now());
        channel.end_sending();
        // Unread input would turn the close into a reset, which can destroy the answer on its way.
        buffer.clear();
        buffer.reserve(TURNED_AWAY_READ_MAX);
        while buffer.len() < TURNED_AWAY_READ_MAX
            && let Some(Received::Bytes(_)) = receive_now(channel.stream(), &mut buffer)
        {}
    }

    /// The answer to a refused peer, counted.
    pub fn refuse(&self, out: &mut Vec<u8>, refusal: Refusal) {
        self.watcher.refused(refusal.word());
        let answer = refusal.reply(self.name);
        reply::render(out, &answer, After::SayClose, false);
    }
}
