//! What every connection of a listener shares: plain data, no thread.

use std::sync::Arc;
use std::time::Instant;

use parking_lot::RwLock;

use super::channel::Transport;
use super::refusal::Refusal;
use super::reply::{self, ConnectionHeader};
use super::socket::{Received, receive_now};
use super::table::ConnectionTable;
use super::{Handler, ListenerLimits, Peers};
use crate::tls::Identity;

/// The most bytes read from a connection that is refused at once, so that closing it does not destroy the answer.
const REFUSED_READ_MAX: usize = 16 * 1024;

/// What every connection of a listener shares.
pub struct EdgeContext {
    pub limits: ListenerLimits,
    pub handler: Arc<dyn Handler>,
    pub table: Arc<ConnectionTable>,
    /// The certificate; `None`: connections are not encrypted.
    pub tls: Option<Arc<Identity>>,
    /// Which peers may connect; replaced on reload.
    pub peers: RwLock<Arc<Peers>>,
}

impl EdgeContext {
    /// Which peers may connect, as of now.
    pub fn peers(&self) -> Arc<Peers> {
        Arc::clone(&self.peers.read())
    }

    /// Refuses a new connection without waiting for anything: the accept thread calls this.
    pub fn refuse_at_once(&self, channel: &Transport, refusal: Refusal) {
        let mut buffer = self.refusal(refusal);
        channel.refuse_until(&buffer, refusal.alert(), Instant::now());
        channel.end_sending();
        // Unread input would turn the close into a reset, which can destroy the answer on its way.
        buffer.clear();
        buffer.reserve(REFUSED_READ_MAX);
        while buffer.len() < REFUSED_READ_MAX
            && let Some(Received::Bytes(_)) = receive_now(channel.stream(), &mut buffer)
        {}
    }

    /// The answer to a refused peer, counted.
    pub fn refusal(&self, refusal: Refusal) -> Vec<u8> {
        let mut out = Vec::new();
        self.table.watcher.refused(refusal.word());
        let answer = refusal.reply(self.table.name);
        reply::render(&mut out, &answer, ConnectionHeader::Close, false);
        out
    }
}
