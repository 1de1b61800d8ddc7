//! What follows from the reports: which buckets are up, what is wrong, and who is told.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::state::{HealthState, not_yet};
use super::{Health, not_proven};
use crate::bus::hub::StateChange;
use crate::bus::redis::link::LinkError;
use crate::bus::redis::names::Bucket;

/// How old the last proof of a bucket may be.
const PROOF_AGE_MAX: Duration = Duration::from_millis(3500);

/// What is wrong now.
struct Down {
    buckets: usize,
    why: LinkError,
}

impl Health {
    /// Applies `change`, and tells the log and the listeners what follows.
    pub(super) fn change(&self, change: impl FnOnce(&Self, &mut HealthState)) {
        let mut state = self.state.lock();
        change(self, &mut state);
        let down = self.evaluate(&mut state);
        let was_up = std::mem::replace(&mut state.up, down.is_none());
        let news = self.news(&mut state, was_up, down.as_ref());
        self.changed.notify_all();
        self.metrics.up(down.is_none());
        let to_log = down.filter(|down| state.is_news(&down.why));
        drop(state);
        match to_log {
            Some(down) => log::warn!(
                "redis: {}{}; backends on other nodes cannot be reached until that is over",
                share(down.buckets, self.buckets.len(), None),
                down.why
            ),
            None if news.is_some() && !was_up => {
                log::info!("redis: connected, every subscription stands");
            }
            None => {}
        }
        if let Some(news) = news {
            news.tell();
        }
    }

    /// For the listeners. Made under the lock, since another thread may be about to say the opposite.
    fn news(
        &self,
        state: &mut HealthState,
        was_up: bool,
        down: Option<&Down>,
    ) -> Option<StateChange> {
        if was_up != down.is_none() {
            if was_up {
                state.down_since = Instant::now();
            } else {
                (state.last, state.logged) = (None, Vec::new());
            }
            return Some(self.hub.turn(down.map(|down| &*down.why.0)));
        }
        None
    }

    /// Which buckets are up; what is wrong, if one is not.
    fn evaluate(&self, state: &mut HealthState) -> Option<Down> {
        let mut down: Option<Down> = None;
        for bucket in 0..self.buckets.len() {
            let trouble = self.trouble(state, bucket);
            let health = &self.buckets[bucket];
            match trouble {
                None if !self.is_up(bucket) => health.up_since.store(self.now(), Ordering::Relaxed),
                None => {}
                Some(why) => {
                    health.up_since.store(0, Ordering::Relaxed);
                    down.get_or_insert(Down { buckets: 0, why }).buckets += 1;
                }
            }
        }
        if let Some(down) = &mut down {
            // A reason that a connection gives outlives it: that nothing is proven yet says less.
            match state.connection_trouble() {
                Some(why) => {
                    down.why = why.clone();
                    state.last = Some(why);
                }
                None => down.why = state.last.clone().unwrap_or_else(|| down.why.clone()),
            }
        }
        let split = state.split.why(Instant::now());
        let is_split = split.is_some() || state.split.is_suspected();
        if self.is_split.swap(is_split, Ordering::Relaxed) {
            // Nodes that come from the other side need time to subscribe.
            self.settle_anew();
        }
        down.or_else(|| split.map(|why| Down { buckets: 0, why }))
    }

    pub(super) fn settle_anew(&self) {
        let up = (0..self.buckets.len()).filter(|bucket| self.is_up(*bucket));
        up.for_each(|bucket| {
            self.buckets[bucket]
                .up_since
                .store(self.now(), Ordering::Relaxed)
        });
    }

    fn trouble(&self, state: &HealthState, bucket: Bucket) -> Option<LinkError> {
        let Some(owner) = state.owners[bucket] else {
            return Some(state.topology.clone().unwrap_or_else(not_yet));
        };
        let link = state.links.get(&owner);
        let Some(link) = link else {
            return Some(not_yet());
        };
        if let Err(why) = link.publisher.as_ref().and(link.subscriber.as_ref()) {
            return Some(why.clone());
        }
        if !self.is_proven(bucket) {
            return Some(not_proven());
        }
        let age = Duration::from_micros(self.now().saturating_sub(self.proof(bucket)));
        (age > PROOF_AGE_MAX)
            .then(|| LinkError("silent: this node does not receive its own canary".into()))
    }

    /// Why other nodes are not reached; `None`: they are.
    pub fn unwell(&self) -> Option<String> {
        self.refresh();
        let mut state = self.state.lock();
        let down = self.evaluate(&mut state)?;
        let since = state.down_since.elapsed();
        let share = share(down.buckets, self.buckets.len(), Some(since));
        Some(format!("redis: {share}{}", down.why))
    }
}

/// `85 of 256 buckets, 2.1 s: `, if there is more than one.
fn share(down: usize, all: usize, since: Option<Duration>) -> String {
    match (all, since) {
        (1, _) => String::new(),
        (_, None) => format!("{down} of {all} buckets: "),
        (_, Some(since)) => format!("{down} of {all} buckets, {:.1} s: ", since.as_secs_f64()),
    }
}
