//! Which events are under way and which are settled, so that a provider's retry is recognised.
//!
//! A retry that comes while the first request is under way waits for the same end. One that comes after the event was
//! delivered or stored is answered at once. An event that failed is forgotten: its retry must be delivered.

use std::collections::{HashMap, VecDeque};
use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::answer::Answer;
use crate::notification::EventKey;
use crate::trace::Record;

/// The most events of one age that are kept together. Seven eighths of a power of two: what a hash map fills before it
/// doubles.
const AGE_EVENTS_MAX: usize = 114_688;

/// How many ages are kept; with the next one the oldest is forgotten.
const AGES_MAX: usize = 8;

/// The most settled events that are known, the latest; some 22 MB when it is reached.
pub const EVENTS_MAX: usize = AGE_EVENTS_MAX * AGES_MAX;

/// The most retries that wait for one event. A provider has one or two out at a time.
const JOINED_MAX: usize = 16;

/// A retry that waits for the first request's end.
pub struct Joined {
    pub record: Record,
    pub answer: Answer,
}

/// What a request for an event finds.
pub enum Entered {
    /// It is the first; the means to answer come back.
    First(Joined),
    /// It waits with the first, whose end it is told.
    Waits,
    /// The event is settled.
    Settled(Joined),
    /// Too many wait already.
    Crowded(Joined),
}

/// The events of one node.
pub struct Dedupe {
    window: Duration,
    began: Instant,
    /// Of the events' names.
    hasher: RandomState,
    events: Mutex<Events>,
}

#[derive(Default)]
struct Events {
    under_way: HashMap<EventKey, Vec<Joined>>,
    /// Settled ones, the latest age last.
    ages: VecDeque<HashMap<EventKey, Settled>>,
}

/// A settled event, in 8 bytes: there may be very many.
#[derive(Clone, Copy)]
struct Settled {
    /// The second when that was.
    then: i32,
    /// A hash of its name, by which an operator finds it. Two names in four thousand million have the same: then one more event is
    /// forgotten, whose retry is delivered once more.
    name: u32,
}

impl Dedupe {
    /// Knows settled events for `window`.
    pub fn new(window: Duration) -> Self {
        Self {
            window,
            began: Instant::now(),
            hasher: RandomState::new(),
            events: Mutex::default(),
        }
    }

    /// A request for the event `key`.
    pub fn enter(&self, key: &EventKey, request: Joined) -> Entered {
        let now = self.now();
        let mut events = self.events.lock();
        if events.is_settled(key, now - seconds(self.window)) {
            return Entered::Settled(request);
        }
        match events.under_way.get_mut(key) {
            None => {
                events.under_way.insert(*key, Vec::new());
                Entered::First(request)
            }
            Some(waiting) if waiting.len() < JOINED_MAX => {
                waiting.push(request);
                Entered::Waits
            }
            Some(_) => Entered::Crowded(request),
        }
    }

    /// The event's first request has come to its end; `settled`: the event's name, if it was delivered or stored. Gives back who
    /// waited with it.
    pub fn leave(&self, key: &EventKey, settled: Option<&str>) -> Vec<Joined> {
        let settled = settled.map(|name| self.settled(name, self.now()));
        let mut events = self.events.lock();
        if let Some(settled) = settled {
            events.settle(*key, settled);
        }
        events.under_way.remove(key).unwrap_or_default()
    }

    /// An event called `name` that was settled `age` ago, before this run.
    pub fn remember(&self, key: EventKey, name: &str, age: Duration) {
        let settled = self.settled(name, self.now().saturating_sub(seconds(age)));
        self.events.lock().settle(key, settled);
    }

    /// The event is not settled after all.
    pub fn forget(&self, key: &EventKey) {
        for age in &mut self.events.lock().ages {
            age.remove(key);
        }
    }

    /// The events called `name` are not settled after all, whatever their routes and backends; gives their keys.
    pub fn forget_named(&self, name: &str) -> Vec<EventKey> {
        let Settled { name, .. } = self.settled(name, 0);
        let mut keys = Vec::new();
        // The lock is let go of after each age: every request waits for it. From the latest on, since a new age may come meanwhile.
        for back in 1..=AGES_MAX {
            let mut events = self.events.lock();
            let at = events.ages.len().checked_sub(back);
            let Some(age) = at.and_then(|at| events.ages.get_mut(at)) else {
                break;
            };
            let found = age.iter().filter(|(_, settled)| settled.name == name);
            let found: Vec<EventKey> = found.map(|(key, _)| *key).collect();
            for key in &found {
                age.remove(key);
            }
            keys.extend(found);
        }
        keys
    }

    /// How many events are under way.
    #[cfg(test)]
    pub fn under_way(&self) -> usize {
        self.events.lock().under_way.len()
    }

    fn settled(&self, name: &str, then: i32) -> Settled {
        Settled {
            then,
            name: self.hasher.hash_one(name) as u32,
        }
    }

    fn now(&self) -> i32 {
        seconds(self.began.elapsed())
    }
}

fn seconds(time: Duration) -> i32 {
    i32::try_from(time.as_secs()).unwrap_or(i32::MAX)
}

impl Events {
    fn is_settled(&self, key: &EventKey, since: i32) -> bool {
        let mut ages = self.ages.iter().rev();
        ages.find_map(|age| age.get(key))
            .is_some_and(|settled| settled.then >= since)
    }

    fn settle(&mut self, key: EventKey, settled: Settled) {
        let full = |age: &HashMap<_, _>| age.len() >= AGE_EVENTS_MAX;
        if self.ages.back().is_none_or(full) {
            if self.ages.len() >= AGES_MAX {
                self.ages.pop_front();
            }
            self.ages.push_back(HashMap::new());
        }
        if let Some(age) = self.ages.back_mut() {
            age.insert(key, settled);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::Responder;
    use crate::metrics::Metrics;
    use crate::notification::{BackendId, IdMint};

    fn key(n: usize) -> EventKey {
        let mut bytes = [0; 16];
        bytes[..8].copy_from_slice(&n.to_be_bytes());
        EventKey::from_bytes(bytes)
    }

    fn request() -> Joined {
        Joined {
            record: Record {
                id: IdMint::new(0).mint(0),
                backend: BackendId::parse("a").expect("an id"),
                route: "r".into(),
                verified: "none".into(),
                event: None,
                at_unix_ms: 0,
                sent: None,
                concluded: None,
                why: None,
            },
            answer: Answer::new(
                Responder::used(),
                super::super::tests::forms(&Metrics::new()),
                IdMint::new(0).mint(0),
                None,
            ),
        }
    }

    #[test]
    fn a_retry_waits_with_the_first_and_then_finds_the_event_settled_or_free() {
        let dedupe = Dedupe::new(Duration::from_secs(60));
        assert!(matches!(
            dedupe.enter(&key(1), request()),
            Entered::First(_)
        ));
        for _ in 0..JOINED_MAX {
            assert!(matches!(dedupe.enter(&key(1), request()), Entered::Waits));
        }
        assert!(matches!(
            dedupe.enter(&key(1), request()),
            Entered::Crowded(_)
        ));
        assert!(matches!(
            dedupe.enter(&key(2), request()),
            Entered::First(_)
        ));
        assert_eq!(dedupe.leave(&key(1), None).len(), JOINED_MAX);
        assert!(matches!(
            dedupe.enter(&key(1), request()),
            Entered::First(_)
        ));
        assert!(dedupe.leave(&key(1), Some("1")).is_empty());
        assert!(matches!(
            dedupe.enter(&key(1), request()),
            Entered::Settled(_)
        ));
        dedupe.forget(&key(1));
        assert!(matches!(
            dedupe.enter(&key(1), request()),
            Entered::First(_)
        ));
    }

    #[test]
    fn an_event_is_forgotten_by_its_name_in_every_age_and_no_other_is() {
        let dedupe = Dedupe::new(Duration::from_secs(60));
        dedupe.remember(key(0), "order-1", Duration::ZERO);
        for n in 1..=AGE_EVENTS_MAX {
            dedupe.remember(key(n), "another", Duration::ZERO);
        }
        let last = key(AGE_EVENTS_MAX + 1);
        dedupe.remember(last, "order-1", Duration::ZERO);
        assert_eq!(dedupe.events.lock().ages.len(), 2);
        assert_eq!(dedupe.forget_named("order-1"), [last, key(0)]);
        assert!(dedupe.forget_named("order-1").is_empty());
        for (key, is_first) in [(key(0), true), (key(1), false), (last, true)] {
            let entered = dedupe.enter(&key, request());
            assert_eq!(matches!(entered, Entered::First(_)), is_first);
        }
        assert_eq!(size_of::<Settled>(), 8);
    }

    #[test]
    fn an_event_is_known_for_the_window_and_no_longer() {
        let dedupe = Dedupe::new(Duration::from_secs(60));
        dedupe.remember(key(1), "1", Duration::from_secs(59));
        dedupe.remember(key(2), "2", Duration::from_secs(62));
        assert!(matches!(
            dedupe.enter(&key(1), request()),
            Entered::Settled(_)
        ));
        assert!(matches!(
            dedupe.enter(&key(2), request()),
            Entered::First(_)
        ));
    }

    #[test]
    fn what_is_known_is_bounded_and_the_latest() {
        let dedupe = Dedupe::new(Duration::from_secs(60));
        for n in 0..=EVENTS_MAX {
            dedupe.remember(key(n), "n", Duration::ZERO);
        }
        let known: usize = dedupe.events.lock().ages.iter().map(HashMap::len).sum();
        assert_eq!(known, EVENTS_MAX - AGE_EVENTS_MAX + 1);
        assert!(matches!(
            dedupe.enter(&key(EVENTS_MAX), request()),
            Entered::Settled(_)
        ));
        assert!(matches!(
            dedupe.enter(&key(0), request()),
            Entered::First(_)
        ));
        assert_eq!(dedupe.under_way(), 1);
    }
}
