//! The backends for which something is pending: who is to be looked at when, and how much is under way to each.
//!
//! Only what is under way is known here one by one; what waits is on disk.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use crate::notification::{BackendId, NotificationId};

/// The most backends that are kept in mind at once. The others are looked at when one of these has got everything, or
/// when they connect.
pub const QUEUES_MAX: usize = 100_000;

/// One backend.
#[derive(Debug, Default)]
pub struct BackendQueue {
    /// Not to be looked at before; `None`: when something happens.
    wake: Option<Instant>,
    /// How often in a row nobody was there, or nobody had room. Above 0 one is sent ahead of the others.
    pub failures: u32,
    /// It was heard of since it was last away, if it ever was. Before that one is sent ahead of the others as well: were it to
    /// come while several go out, the first of them would come back, and those behind them would be there before them.
    pub connected: bool,
    /// The one that was sent ahead, while it is under way. None may follow until the backend has it: if the backend comes
    /// meanwhile, that one may come back although those behind it would be delivered.
    pub probe: Option<NotificationId>,
    /// The backend came while that one was under way.
    pub came: bool,
    /// How many are under way.
    pub flights: usize,
    /// Under way, or settled and not on disk yet: these are not to be read again.
    pub in_flight_rows: HashSet<i64>,
    /// The next to be sent, as they stood on disk when they were last looked for. Emptied when another may have come before
    /// them, or when nobody is there.
    pub ahead: VecDeque<i64>,
    ready: bool,
}

impl BackendQueue {
    /// Whether nobody is going to look at it, whatever is under way.
    pub fn is_unscheduled(&self) -> bool {
        self.wake.is_none() && !self.ready
    }

    /// Whether nothing is under way, expected or about to be looked at.
    fn is_dormant(&self) -> bool {
        self.flights == 0 && self.in_flight_rows.is_empty() && self.is_unscheduled()
    }
}

/// All of them.
#[derive(Debug, Default)]
pub struct BackendQueues {
    queues: HashMap<BackendId, BackendQueue>,
    wakes: BTreeSet<(Instant, BackendId)>,
    /// To be served, in turn.
    ready: VecDeque<BackendId>,
    /// Somebody was left out for want of room.
    pub left_out: bool,
}

impl BackendQueues {
    /// The queue of `backend`, if it is known.
    pub fn get(&mut self, backend: &BackendId) -> Option<&mut BackendQueue> {
        self.queues.get_mut(backend)
    }

    /// The queue of `backend`; `None` if there are too many already.
    pub fn open(&mut self, backend: &BackendId) -> Option<&mut BackendQueue> {
        if !self.queues.contains_key(backend) {
            if self.queues.len() >= QUEUES_MAX {
                self.left_out = true;
                return None;
            }
            self.queues.insert(backend.clone(), BackendQueue::default());
        }
        self.queues.get_mut(backend)
    }

    /// Looks at `backend` at `when`, or before if it is to be looked at before anyway.
    pub fn wake_by(&mut self, backend: &BackendId, when: Instant) {
        let Some(queue) = self.queues.get(backend) else {
            return;
        };
        if !queue.ready && queue.wake.is_none_or(|wake| wake > when) {
            self.set_wake(backend, Some(when));
        }
    }

    /// Looks at `backend` at `when`, and not before unless something happens.
    pub fn set_wake(&mut self, backend: &BackendId, when: Option<Instant>) {
        let Some(queue) = self.queues.get_mut(backend) else {
            return;
        };
        if let Some(before) = std::mem::replace(&mut queue.wake, when) {
            self.wakes.remove(&(before, backend.clone()));
        }
        if let Some(when) = when {
            self.wakes.insert((when, backend.clone()));
        }
    }

    /// Serves `backend` in its turn.
    pub fn make_ready(&mut self, backend: &BackendId) {
        self.set_wake(backend, None);
        if let Some(queue) = self.queues.get_mut(backend)
            && !std::mem::replace(&mut queue.ready, true)
        {
            self.ready.push_back(backend.clone());
        }
    }

    /// Nobody was there, or nobody had room: look again after a wait that grows. Says how often in a row that was.
    pub fn away(&mut self, backend: &BackendId, now: Instant, wait: impl Fn(u32) -> Duration) {
        let Some(queue) = self.queues.get_mut(backend) else {
            return;
        };
        // What went out together comes back together, and is one failure.
        if queue.wake.is_none_or(|wake| wake <= now) {
            queue.failures = queue.failures.saturating_add(1);
            queue.connected = false;
            let failures = queue.failures;
            queue.ready = false;
            self.ready.retain(|ready| ready != backend);
            self.set_wake(backend, Some(now + wait(failures)));
        }
    }

    /// When the next one is to be looked at; `now` if one is ready.
    pub fn next_wake(&self, now: Instant) -> Option<Instant> {
        if !self.ready.is_empty() {
            return Some(now);
        }
        self.wakes.first().map(|(when, _)| *when)
    }

    /// Makes those ready whose time has come.
    pub fn wake_due(&mut self, now: Instant) {
        while let Some((when, backend)) = self.wakes.first().cloned()
            && when <= now
        {
            self.make_ready(&backend);
        }
    }

    /// How many are ready.
    pub fn ready(&self) -> usize {
        self.ready.len()
    }

    /// The next one to be served.
    pub fn take_ready(&mut self) -> Option<BackendId> {
        let backend = self.ready.pop_front()?;
        if let Some(queue) = self.queues.get_mut(&backend) {
            queue.ready = false;
        }
        Some(backend)
    }

    /// Forgets `backend` if nothing is expected of it; says whether it did.
    pub fn close_dormant(&mut self, backend: &BackendId) -> bool {
        let dormant = self
            .queues
            .get(backend)
            .is_some_and(BackendQueue::is_dormant);
        if dormant {
            self.queues.remove(backend);
        }
        dormant
    }

    /// Every backend that is known.
    pub fn names(&self) -> Vec<BackendId> {
        self.queues.keys().cloned().collect()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.queues.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> BackendId {
        BackendId::parse(text).expect("an id")
    }

    #[test]
    fn they_are_served_in_turn_and_at_their_time() {
        let (mut queues, now) = (BackendQueues::default(), Instant::now());
        let later = now + Duration::from_secs(9);
        for text in ["a", "b", "c"] {
            assert!(queues.open(&name(text)).is_some());
        }
        queues.make_ready(&name("b"));
        queues.make_ready(&name("b"));
        queues.wake_by(&name("a"), later);
        queues.wake_by(&name("a"), now);
        queues.wake_by(&name("a"), later);
        queues.wake_by(&name("c"), later);
        queues.wake_due(now);
        let order: Vec<_> = std::iter::from_fn(|| queues.take_ready()).collect();
        assert_eq!(order, [name("b"), name("a")]);
        assert_eq!(queues.next_wake(now), Some(later));
        assert!(queues.close_dormant(&name("a")) && !queues.close_dormant(&name("c")));
        queues.wake_due(later);
        assert_eq!(queues.take_ready(), Some(name("c")));
        assert!(queues.close_dormant(&name("c")));
        assert_eq!(queues.len(), 1);
    }

    #[test]
    fn failures_that_come_together_are_one_and_the_waits_grow() {
        let (mut queues, now) = (BackendQueues::default(), Instant::now());
        let a = name("a");
        assert!(queues.open(&a).is_some());
        let second = Duration::from_secs(1);
        let wait = |failures: u32| second * failures;
        queues.make_ready(&a);
        for _ in 0..5 {
            queues.away(&a, now, wait);
        }
        assert_eq!(
            (queues.next_wake(now), queues.ready()),
            (Some(now + second), 0)
        );
        queues.wake_due(now + second);
        assert_eq!(queues.take_ready(), Some(a.clone()));
        queues.away(&a, now + second, wait);
        assert_eq!(queues.next_wake(now), Some(now + second * 3));
        assert_eq!(queues.get(&a).map(|queue| queue.failures), Some(2));
    }
}
