//! What every connection of a front shares.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::guests::Guests;
use super::refusal::Refusal;
use super::reply::{self, After};
use super::{Handler, Limits, Peers, Watcher};
use crate::tls::Identity;

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
}

impl House {
    /// Who may come, as of now.
    pub fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.peers.read())
    }

    /// The answer to a refused peer, counted.
    pub fn refuse(&self, out: &mut Vec<u8>, refusal: Refusal) {
        self.watcher.refused(refusal.word());
        let answer = refusal.reply(self.name);
        reply::render(out, &answer, After::SayClose, false);
    }
}
