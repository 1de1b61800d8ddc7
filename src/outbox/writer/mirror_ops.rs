//! What the writer does when the mirror's thread asks.

use crossbeam_channel::bounded;

use super::Writer;
use crate::notification::NotificationId;
use crate::outbox::ops::{Beat, Inherited, MirrorOp};
use crate::outbox::ops::{Op, Ordered};
use crate::outbox::store::by_id;
use crate::outbox::store::exported::Parsed;
use crate::outbox::store::rows;

impl Writer {
    /// Does what the mirror's thread asks, with commits of its own.
    pub(in crate::outbox) fn mirror_op(&mut self, op: MirrorOp) {
        let kept = self.stats.pending() + self.stats.dead();
        let Some(mirror) = &mut self.mirror else {
            return;
        };
        match op {
            MirrorOp::Connected(link) => {
                mirror.connected(link);
                self.beat();
            }
            MirrorOp::Disconnect(why) => mirror.disconnect(&why),
            MirrorOp::Put(ids) => mirror.put(&self.connection, &ids),
            MirrorOp::Moved(ids) => self.commit(vec![Op::Remove(ids)]),
            MirrorOp::Count(tell) => {
                let _ = tell.send(mirror.count(kept)); // who asked may have ended
            }
            MirrorOp::Conclude(tell) => {
                let _ = tell.send(mirror.conclude(kept)); // who asked may have ended
            }
            MirrorOp::Recover(found) => {
                let ids: Vec<NotificationId> = found.iter().map(Parsed::id).collect();
                let Some(there) = mirror.still_there(&ids) else {
                    return;
                };
                let (found, gone): (Vec<Parsed>, Vec<Parsed>) = found
                    .into_iter()
                    .partition(|parsed| there.contains(&parsed.id()));
                let gone: Vec<NotificationId> = gone.iter().map(Parsed::id).collect();
                mirror.put(&self.connection, &gone);
                self.import_now(found);
            }
            MirrorOp::Inherit(store, found, tell) => {
                let _ = tell.send(self.inherit(&store, found)); // who asked may have ended
            }
        }
    }

    /// Holds the lease of this file, or gives it up when nobody has anything of it in hand any more. If another relay has a copy of it, this one becomes another file.
    pub(in crate::outbox) fn beat(&mut self) {
        let kept = self.stats.pending() + self.stats.dead();
        let Some(mirror) = &mut self.mirror else {
            return;
        };
        // What is in hand is delivered here, or comes back.
        if self.inbox.in_flight() == 0 && rows::held(&self.connection).is_ok_and(|held| held == 0) {
            mirror.release();
        }
        if mirror.beat(kept) == Beat::Copy {
            self.commit(vec![Op::Rename]);
            // Not written: the next look sees the copy again.
            if let (Ok(store), Some(mirror)) = (by_id::store_id(&self.connection), &mut self.mirror)
            {
                mirror.rename(store);
            }
        }
    }

    /// Stores what the file called `store` had, and only then takes it over. What was not there any more is dropped again.
    fn inherit(&mut self, store: &str, found: Vec<(NotificationId, Parsed)>) -> Inherited {
        let stopped = Inherited {
            stopped: true,
            ..Inherited::default()
        };
        let (ids, found): (Vec<NotificationId>, Vec<Parsed>) = found.into_iter().unzip();
        let known = ids.iter().filter(|id| self.has(**id)).copied();
        let known: Vec<NotificationId> = known.collect();
        let Some(ordered) = self.import_now(found) else {
            return stopped;
        };
        let stored = ids.iter().filter(|id| self.has(**id)).copied();
        let stored: Vec<NotificationId> = stored.collect();
        let taken = self
            .mirror
            .as_mut()
            .and_then(|mirror| mirror.take(store, &stored));
        let Some(taken) = taken else {
            // Redis may have it or not: what is in both files is delivered twice.
            return stopped;
        };
        let not_ours = stored
            .iter()
            .filter(|id| !taken.contains(id) && !known.contains(id));
        let not_ours: Vec<NotificationId> = not_ours.copied().collect();
        let stopped = !not_ours.is_empty();
        if stopped {
            self.commit(vec![Op::Remove(not_ours)]);
        }
        Inherited {
            taken: taken.len() as u64,
            full: ordered.full,
            stopped,
        }
    }

    fn has(&self, id: NotificationId) -> bool {
        by_id::is_known(&self.connection, id).unwrap_or(false)
    }

    /// Adds these; `None`: the disk does not take them.
    fn import_now(&mut self, found: Vec<Parsed>) -> Option<Ordered> {
        let (tell, told) = bounded(1);
        self.commit(vec![Op::Import(found, tell)]);
        told.try_recv().ok()?.ok()
    }
}
