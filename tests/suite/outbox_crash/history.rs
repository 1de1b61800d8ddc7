//! What the test knows by itself beside posts and ACKs: who was away when. Whether an ACK can have been in vain is judged by what
//! happened to that very ACK.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::support::delivery_log::{AckNumber, AckRecord, AckState, DeliveryLog, PostedBody};

/// How long a session keeps what is not acknowledged, in this test.
pub const ACK_TIMEOUT: Duration = Duration::from_secs(2);

/// How often each node, and Redis, went away or came back: odd while it is away.
pub struct Clocks {
    nodes: Vec<AtomicUsize>,
    redis: AtomicUsize,
}

/// All of them at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    nodes: Vec<usize>,
    redis: usize,
}

/// Who can be away.
#[derive(Clone, Copy)]
pub enum Who {
    Node(usize),
    Redis,
}

impl Clocks {
    /// Everybody is there.
    pub fn new(nodes: usize) -> Self {
        Self {
            nodes: (0..nodes).map(|_| AtomicUsize::new(0)).collect(),
            redis: AtomicUsize::new(0),
        }
    }

    /// `who` goes away, or is back.
    pub fn turn(&self, who: Who) {
        let clock = match who {
            Who::Node(n) => &self.nodes[n],
            Who::Redis => &self.redis,
        };
        clock.fetch_add(1, Ordering::SeqCst);
    }

    /// What they show now.
    pub fn now(&self) -> Time {
        let read = |clock: &AtomicUsize| clock.load(Ordering::SeqCst);
        Time {
            nodes: self.nodes.iter().map(read).collect(),
            redis: read(&self.redis),
        }
    }
}

impl Time {
    /// Whether `who` was away at some moment between this time and the `other`, whichever came first.
    fn was_away(&self, other: &Self, who: Who) -> bool {
        let (here, there) = match who {
            Who::Node(n) => (self.nodes[n], other.nodes[n]),
            Who::Redis => (self.redis, other.redis),
        };
        here != there || here % 2 == 1
    }
}

/// Where and when a backend acknowledged.
#[derive(Debug)]
pub struct AckOrigin {
    /// The node of its session.
    node: usize,
    /// When it had read the MSG.
    read: Time,
}

/// What the rules found.
#[derive(Debug, Default)]
pub struct CrashReport {
    pub promised: usize,
    pub acknowledged: usize,
    pub twice: usize,
    pub too_late: usize,
    pub doubtful: usize,
    /// Answered ok, and never acknowledged.
    pub lost: Vec<String>,
    /// Acknowledged again, although nothing speaks against the ACK before; and what of it is known.
    pub without_reason: Vec<String>,
}

/// What both sides remember.
pub struct CrashHistory {
    pub clocks: Clocks,
    noted: DeliveryLog<Time, AckOrigin>,
    /// What the relay has forgotten before its time.
    too_early: Mutex<Vec<String>>,
}

impl CrashHistory {
    /// An empty one, for so many nodes.
    pub fn new(nodes: usize) -> Self {
        Self {
            clocks: Clocks::new(nodes),
            noted: DeliveryLog::default(),
            too_early: Mutex::default(),
        }
    }

    /// `body` is about to be posted to the node `origin`.
    pub fn posts(&self, body: &str, origin: usize) {
        self.noted.posts(body, origin, self.clocks.now());
    }

    /// `body` was answered ok, as `id`.
    pub fn promised(&self, body: &str, id: &str) {
        self.noted.promised(body, id);
    }

    /// A backend on `node`, which read the MSG at `read`, is about to acknowledge it.
    pub fn acks(&self, body: &str, id: &str, node: usize, read: Time) -> AckNumber {
        self.noted.acks(body, id, AckOrigin { node, read })
    }

    /// The relay has read this ACK.
    pub fn read(&self, ack: &AckNumber) {
        self.noted.becomes(ack, AckState::Read);
    }

    /// Its connection is gone.
    pub fn doubts(&self, ack: &AckNumber) {
        self.noted.becomes(ack, AckState::Doubtful);
    }

    /// The relay did not take this ACK; the MSG had been on its way for `held` at most.
    pub fn too_late(&self, ack: &AckNumber, held: Duration) {
        if held < ACK_TIMEOUT {
            self.too_early
                .lock()
                .push(format!("{} within {held:?}", ack.0));
        }
        self.noted.becomes(ack, AckState::TooLate);
    }

    /// Judges everything.
    pub fn report(&self) -> CrashReport {
        let early = self.too_early.lock();
        assert!(early.is_empty(), "forgotten before ack_timeout: {early:?}");
        let mut report = CrashReport {
            acknowledged: self.noted.acknowledged(),
            ..CrashReport::default()
        };
        self.noted.for_each(|body, post, list| {
            let count = |state| list.iter().filter(|ack| ack.state == state).count();
            report.too_late += count(AckState::TooLate);
            report.doubtful += count(AckState::Doubtful);
            if let Some(id) = &post.promised {
                report.promised += 1;
                if list.is_empty() {
                    report.lost.push(format!("{body} {id}"));
                }
            }
            report.twice += usize::from(list.len() > 1);
            for two in list.windows(2) {
                if !explains(post, &two[0], &two[1]) {
                    let (origin, at) = (post.origin, &post.at);
                    let words = format!("{body} posted to {origin} at {at:?}: {two:?}");
                    report.without_reason.push(words);
                }
            }
        });
        report
    }
}

/// Whether the `first` ACK can have been in vain, so that the MSG of the `second` had to be sent.
fn explains(
    post: &PostedBody<Time>,
    first: &AckRecord<AckOrigin>,
    second: &AckRecord<AckOrigin>,
) -> bool {
    let origin = Who::Node(post.origin);
    match first.state {
        AckState::Doubtful | AckState::TooLate => true,
        // Heard where it counts: only the death of that process can undo it, before it is noted on disk.
        _ if first.at.node == post.origin => first.at.read.was_away(&second.at.read, origin),
        // On its way between two nodes. The one that sent the MSG may have died before it was even read.
        _ => [origin, Who::Node(first.at.node), Who::Redis]
            .into_iter()
            // A slow one may acknowledge first what it has read last.
            .any(|who| {
                let mut times = [&first.at.read, &second.at.read].into_iter();
                times.any(|at| post.at.was_away(at, who))
            }),
    }
}

#[test]
fn of_two_acks_the_first_must_have_had_a_reason_to_be_in_vain() {
    let history = CrashHistory::new(3);
    let calm = history.clocks.now();
    let ack = |node, read: &Time, state| AckRecord {
        id: "x".into(),
        at: AckOrigin {
            node,
            read: read.clone(),
        },
        state,
    };
    let post = PostedBody {
        origin: 0,
        at: calm.clone(),
        promised: None,
    };
    let explained = |node, at: &Time, later: &Time| {
        explains(
            &post,
            &ack(node, at, AckState::Read),
            &ack(2, later, AckState::Read),
        )
    };
    for node in 0..3 {
        assert!(
            !explained(node, &calm, &calm),
            "on {node}, without a reason"
        );
    }
    assert!(explains(
        &post,
        &ack(1, &calm, AckState::Doubtful),
        &ack(1, &calm, AckState::Read)
    ));
    history.clocks.turn(Who::Redis);
    let redis_away = history.clocks.now();
    assert!(explained(1, &redis_away, &redis_away));
    assert!(!explained(0, &calm, &redis_away), "not Redis's business");
    history.clocks.turn(Who::Redis);
    history.clocks.turn(Who::Node(1));
    history.clocks.turn(Who::Node(1));
    let later = history.clocks.now();
    assert!(explained(1, &calm, &later));
    assert!(!explained(0, &calm, &later), "not this node's business");
    history.clocks.turn(Who::Node(0));
    history.clocks.turn(Who::Node(0));
    let after = history.clocks.now();
    assert!(explained(0, &later, &after));
    assert!(!explained(0, &after, &after), "it had come back before");
    assert!(
        explained(2, &after, &after),
        "the MSG may be older than that"
    );
}
