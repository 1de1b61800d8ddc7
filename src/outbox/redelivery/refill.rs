//! Redelivery: looking on the disk for backends that have something pending and are not kept in mind.

use std::time::{Duration, Instant};

use super::Redelivery;
use super::queues::{BackendQueue, QUEUES_MAX};
use crate::notification::BackendId;
use crate::outbox::store::rows;

/// How often the disk is asked for backends that were left out.
const REFILL_EVERY: Duration = Duration::from_secs(10);

impl Redelivery {
    /// When to look on the disk for whoever is not kept in mind: soon if somebody was left out, and every now and then in any
    /// case, so that nothing that is pending depends on a word that was lost.
    pub(super) fn next_refill(&self, now: Instant) -> Instant {
        let every = match self.queues.left_out {
            true => REFILL_EVERY,
            false => self.settings.retry_max.max(REFILL_EVERY),
        };
        self.refilled.0.map_or(now, |last| last + every)
    }

    /// Looks for backends that were never here, if it is time; says when to look next.
    pub(super) fn look_for_unknown(&mut self, now: Instant) -> Option<Instant> {
        let pending = self.stats.pending();
        if self
            .unknown
            .next_look(pending)
            .is_some_and(|due| due <= now)
        {
            let heard = self.inbox.heard();
            match self.unknown.look(&self.reading, heard, now) {
                Ok(found) => self.stats.set_unknown(found),
                Err(error) => log::error!("the outbox cannot be read: {error}"),
            }
        }
        self.unknown.next_look(pending)
    }

    /// Looks on the disk for backends that are not kept in mind.
    pub(super) fn refill(&mut self) {
        let now = Instant::now();
        self.refilled.0 = Some(now);
        let room = QUEUES_MAX.saturating_sub(self.queues.len());
        let after = std::mem::take(&mut self.refilled.1);
        let names = match rows::backends_pending(&self.reading, &after, room) {
            Ok(names) => names,
            Err(error) => return log::error!("the outbox cannot be read: {error}"),
        };
        self.queues.left_out = names.len() == room;
        if self.queues.left_out {
            self.refilled.1 = names.last().cloned().unwrap_or_default();
        }
        for (n, name) in names.iter().enumerate() {
            let Ok(backend) = BackendId::parse(name) else {
                continue;
            };
            let idle = |queue: &mut BackendQueue| queue.flights == 0 && queue.is_unscheduled();
            if self.queues.get(&backend).is_none_or(idle) {
                self.queues.open(&backend);
                // One after another: most of them are likely to be away.
                self.queues
                    .wake_by(&backend, now + Duration::from_millis(n as u64));
            }
        }
    }
}
