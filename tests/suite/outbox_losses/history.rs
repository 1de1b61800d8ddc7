//! What the test knows by itself beside posts and ACKs: what was done to nodes and Redis in which order, and what both its disk and
//! Redis have lost.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, RwLock};

use crate::support::delivery_log::{AckNumber, AckRecord, AckState, DeliveryLog};

/// How many events there were before.
pub type Moment = usize;

/// When a backend acknowledged.
#[derive(Clone, Copy, Debug)]
pub struct AckTime {
    round: usize,
    /// The last time at which every notification was known to be in one place.
    settled: Moment,
    /// When its MSG had been read.
    read: Moment,
}

/// What has lost both its disk and Redis.
struct BothLost {
    round: usize,
    /// Posted to this node in that round.
    node: usize,
    /// What that node had before.
    held: HashSet<String>,
    why: String,
}

/// What came of it all.
#[derive(Debug, Default)]
pub struct LossReport {
    pub promised: usize,
    pub acknowledged: usize,
    /// What was acknowledged more than once, by the reason.
    pub twice: BTreeMap<String, usize>,
    /// What had lost both: how much of it there was, and how much of that was never acknowledged.
    pub both_lost: BTreeMap<String, (usize, usize)>,
    /// Answered ok, never acknowledged, and not one of these.
    pub lost: Vec<String>,
    /// Acknowledged again, and nothing explains it.
    pub without_reason: Vec<String>,
    /// The ids of those, and of the lost ones.
    pub unexplained: Vec<String>,
}

/// What both sides remember.
#[derive(Default)]
pub struct LossHistory {
    /// Providers hold it while they post.
    pub posting: RwLock<()>,
    round: AtomicUsize,
    settled: AtomicUsize,
    events: Mutex<Vec<String>>,
    /// Of each post the round.
    noted: DeliveryLog<usize, AckTime>,
    both_lost: Mutex<Vec<BothLost>>,
    /// Rounds in which a node lost Redis and nobody had done anything: the machine was too busy.
    stalls: Mutex<BTreeSet<usize>>,
    /// Ids that two nodes have, and since which round.
    in_two: Mutex<HashMap<String, usize>>,
}

impl LossHistory {
    /// Something was done.
    pub fn happens(&self, what: &str) {
        let round = self.round.load(Ordering::SeqCst);
        eprintln!("round {round}: {what}");
        self.events.lock().push(what.to_owned());
    }

    /// A node has lost Redis in this round for want of an answer.
    pub fn stalls(&self) {
        let round = self.round.load(Ordering::SeqCst);
        self.stalls.lock().insert(round);
    }

    pub fn now(&self) -> Moment {
        self.events.lock().len()
    }

    /// The round is over: `nodes` have these, and Redis has the same.
    pub fn settles(&self, nodes: &[Vec<String>]) {
        let round = self.round.fetch_add(1, Ordering::SeqCst);
        let mut seen = HashSet::new();
        for id in nodes.iter().flatten().filter(|id| !seen.insert(*id)) {
            self.in_two.lock().entry(id.clone()).or_insert(round);
        }
        self.settled.store(self.now(), Ordering::SeqCst);
    }

    /// What was posted to `node` in this round, and what it `held`, may be lost.
    pub fn loses_both(&self, node: usize, held: HashSet<String>, why: &str) {
        let round = self.round.load(Ordering::SeqCst);
        self.both_lost.lock().push(BothLost {
            round,
            node,
            held,
            why: format!("round {round}: {why}"),
        });
    }

    /// `body` is about to be posted to the node `origin`.
    pub fn posts(&self, body: &str, origin: usize) {
        let round = self.round.load(Ordering::SeqCst);
        self.noted.posts(body, origin, round);
    }

    /// `body` was answered ok, as `id`.
    pub fn promised(&self, body: &str, id: &str) {
        self.noted.promised(body, id);
    }

    /// A backend, which read the MSG at `read`, is about to acknowledge it.
    pub fn acks(&self, body: &str, id: &str, read: Moment) -> AckNumber {
        let at = AckTime {
            round: self.round.load(Ordering::SeqCst),
            settled: self.settled.load(Ordering::SeqCst),
            read,
        };
        self.noted.acks(body, id, at)
    }

    /// More is known of an ACK.
    pub fn becomes(&self, ack: &AckNumber, state: AckState) {
        self.noted.becomes(ack, state);
    }

    /// Judges everything.
    pub fn report(&self) -> LossReport {
        let mut report = LossReport {
            acknowledged: self.noted.acknowledged(),
            ..LossReport::default()
        };
        let both_lost = self.both_lost.lock();
        self.noted.for_each(|body, post, list| {
            if let Some(id) = &post.promised {
                report.promised += 1;
                let may_be_lost = both_lost.iter().find(|loss| {
                    loss.held.contains(id) || (loss.node, loss.round) == (post.origin, post.at)
                });
                match may_be_lost {
                    Some(loss) => {
                        let (all, lost) = report.both_lost.entry(loss.why.clone()).or_default();
                        *all += 1;
                        *lost += usize::from(list.is_empty());
                    }
                    None if list.is_empty() => {
                        let (node, round) = (post.origin, post.at);
                        let words = format!("{body} {id} posted to node {node} in round {round}");
                        report.lost.push(words);
                        report.unexplained.push(id.clone());
                    }
                    None => {}
                }
            }
            for two in list.windows(2) {
                match self.reason(&two[0], &two[1]) {
                    Some(reason) => *report.twice.entry(reason).or_default() += 1,
                    None => {
                        report.without_reason.push(format!("{body}: {two:?}"));
                        report.unexplained.push(two[0].id.clone());
                    }
                }
            }
        });
        report
    }

    /// Why the MSG of the `second` ACK was sent although there was a `first`.
    fn reason(&self, first: &AckRecord<AckTime>, second: &AckRecord<AckTime>) -> Option<String> {
        if matches!(first.state, AckState::Doubtful | AckState::TooLate) {
            return Some("the first ACK may not have arrived".into());
        }
        let events = self.events.lock();
        // A slow backend may acknowledge first what it has read last.
        let from = first.at.settled.min(second.at.settled);
        let (from, to) = (from.min(second.at.read), first.at.read.max(second.at.read));
        // The latest one that says something: what comes back does no harm by itself, unless its file is an old one.
        let says_something = |event: &&String| !event.ends_with("is back");
        if let Some(event) = events[from..to].iter().rfind(says_something) {
            let kind: String = event.chars().filter(|c| !c.is_ascii_digit()).collect();
            return Some(format!("after: {kind}"));
        }
        let (first_round, last_round) = (first.at.round.min(second.at.round), second.at.round);
        let stalls = self.stalls.lock();
        if let Some(round) = stalls.range(first_round..=last_round).next() {
            return Some(format!("a node had no answer from Redis in round {round}"));
        }
        let since = self.in_two.lock().get(&first.id).copied()?;
        Some(format!("two nodes had it since round {since}"))
    }
}

#[test]
fn of_two_acks_the_first_must_have_had_a_reason_to_be_in_vain() {
    let history = LossHistory::default();
    let ack = |settled, read, state| AckRecord {
        id: "x".into(),
        at: AckTime {
            round: 0,
            settled,
            read,
        },
        state,
    };
    let is_explained = |first: &AckRecord<AckTime>, second: &AckRecord<AckTime>| {
        history.reason(first, second).is_some()
    };
    let calm = ack(0, 0, AckState::Read);
    assert!(!is_explained(&calm, &calm), "without a reason");
    assert!(is_explained(&ack(0, 0, AckState::Doubtful), &calm));
    history.happens("node 1 is killed");
    history.happens("node 1 is back");
    assert!(!is_explained(&calm, &calm), "it came before that");
    assert!(is_explained(&calm, &ack(2, 2, AckState::Read)));
    assert!(is_explained(
        &ack(0, 1, AckState::Read),
        &ack(2, 2, AckState::Read)
    ));
    assert!(is_explained(&ack(0, 2, AckState::Read), &calm), "read last");
    let later = ack(2, 2, AckState::Read);
    assert!(!is_explained(&later, &later), "all was in one place again");
    history.settles(&[vec!["x".into()], vec!["x".into()]]);
    assert!(is_explained(&later, &later), "two nodes had it");
}

#[test]
fn what_is_not_acknowledged_is_lost_unless_it_had_lost_both_places() {
    let history = LossHistory::default();
    for (body, origin) in [("acked", 0), ("lost", 0), ("held", 0), ("posted", 1)] {
        history.posts(body, origin);
        history.promised(body, body);
    }
    history.posts("not promised", 0);
    let ack = history.acks("acked", "acked", 0);
    history.becomes(&ack, AckState::Read);
    history.loses_both(1, HashSet::from(["held".into()]), "both");
    let report = history.report();
    assert_eq!(report.promised, 4);
    assert_eq!(report.both_lost["round 0: both"], (2, 2));
    assert_eq!(report.lost, ["lost lost posted to node 0 in round 0"]);
}
