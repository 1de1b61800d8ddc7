//! What the test knows by itself: what was posted where and answered ok, what was acknowledged where, and who was away when.
//!
//! Of two ACKs of one body the first was in vain. Whether that can be is judged by what happened to that very ACK.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

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

/// A body, which is posted once.
struct Post {
    /// The node it was posted to.
    origin: usize,
    /// Before it was.
    began: Time,
    /// The id under which it was answered ok, if it was.
    promised: Option<String>,
}

/// An ACK that a backend has written.
#[derive(Debug)]
struct Ack {
    id: String,
    /// The node of its session.
    node: usize,
    /// When it had read the MSG.
    at: Time,
    fate: Fate,
}

/// What is known of an ACK.
#[derive(Debug, PartialEq, Eq)]
enum Fate {
    /// Written, and nothing heard yet.
    Written,
    /// A later PONG shows that the relay has read it.
    Read,
    /// Its connection broke before: nobody knows whether it arrived.
    Doubtful,
    /// The relay said that it came too late, after `ack_timeout`.
    TooLate,
}

/// An ACK of one body: the how manieth.
pub type AckNumber = (String, usize);

/// What the rules found.
#[derive(Debug, Default)]
pub struct Verdict {
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
pub struct Ledger {
    pub clocks: Clocks,
    posts: Mutex<HashMap<String, Post>>,
    /// Of each body, in the order of the ACKs.
    acks: Mutex<HashMap<String, Vec<Ack>>>,
    /// What the relay has forgotten before its time.
    too_early: Mutex<Vec<String>>,
}

impl Ledger {
    /// An empty one, for so many nodes.
    pub fn new(nodes: usize) -> Self {
        Self {
            clocks: Clocks::new(nodes),
            posts: Mutex::default(),
            acks: Mutex::default(),
            too_early: Mutex::default(),
        }
    }

    /// `body` is about to be posted to the node `origin`.
    pub fn posts(&self, body: &str, origin: usize) {
        let post = Post {
            origin,
            began: self.clocks.now(),
            promised: None,
        };
        let before = self.posts.lock().insert(body.to_owned(), post);
        assert!(before.is_none(), "{body} is posted twice");
    }

    /// `body` was answered ok, as `id`.
    pub fn promised(&self, body: &str, id: &str) {
        if let Some(post) = self.posts.lock().get_mut(body) {
            post.promised = Some(id.to_owned());
        }
    }

    /// A backend on `node`, which read the MSG at `at`, is about to acknowledge it.
    pub fn acks(&self, body: &str, id: &str, node: usize, at: Time) -> AckNumber {
        let mut acks = self.acks.lock();
        let list = acks.entry(body.to_owned()).or_default();
        list.push(Ack {
            id: id.to_owned(),
            node,
            at,
            fate: Fate::Written,
        });
        (body.to_owned(), list.len() - 1)
    }

    fn becomes(&self, (body, number): &AckNumber, fate: Fate) {
        if let Some(list) = self.acks.lock().get_mut(body)
            && list[*number].fate == Fate::Written
        {
            list[*number].fate = fate;
        }
    }

    /// The relay has read this ACK.
    pub fn read(&self, ack: &AckNumber) {
        self.becomes(ack, Fate::Read);
    }

    /// Its connection is gone.
    pub fn doubts(&self, ack: &AckNumber) {
        self.becomes(ack, Fate::Doubtful);
    }

    /// The relay did not take this ACK; the MSG had been on its way for `held` at most.
    pub fn too_late(&self, ack: &AckNumber, held: Duration) {
        if held < ACK_TIMEOUT {
            self.too_early
                .lock()
                .push(format!("{} within {held:?}", ack.0));
        }
        self.becomes(ack, Fate::TooLate);
    }

    /// Judges everything.
    pub fn verdict(&self) -> Verdict {
        let (posts, acks) = (self.posts.lock(), self.acks.lock());
        let early = self.too_early.lock();
        assert!(early.is_empty(), "forgotten before ack_timeout: {early:?}");
        let mut verdict = Verdict {
            acknowledged: acks.len(),
            ..Verdict::default()
        };
        for (body, post) in posts.iter() {
            let list = acks.get(body).map_or(&[][..], Vec::as_slice);
            let count = |fate| list.iter().filter(|ack| ack.fate == fate).count();
            verdict.too_late += count(Fate::TooLate);
            verdict.doubtful += count(Fate::Doubtful);
            if let Some(id) = &post.promised {
                verdict.promised += 1;
                let same = list.iter().all(|ack| &ack.id == id);
                assert!(same, "{body} came under two ids");
                if list.is_empty() {
                    verdict.lost.push(format!("{body} {id}"));
                }
            }
            verdict.twice += usize::from(list.len() > 1);
            for two in list.windows(2) {
                if !post.explains(&two[0], &two[1]) {
                    let (origin, began) = (post.origin, &post.began);
                    let words = format!("{body} posted to {origin} at {began:?}: {two:?}");
                    verdict.without_reason.push(words);
                }
            }
        }
        verdict
    }
}

impl Post {
    /// Whether the `first` ACK can have been in vain, so that the MSG of the `second` had to be sent.
    fn explains(&self, first: &Ack, second: &Ack) -> bool {
        let origin = Who::Node(self.origin);
        match first.fate {
            Fate::Doubtful | Fate::TooLate => true,
            // Heard where it counts: only the death of that process can undo it, before it is noted on disk.
            _ if first.node == self.origin => first.at.was_away(&second.at, origin),
            // On its way between two nodes. The one that sent the MSG may have died before it was even read.
            _ => [origin, Who::Node(first.node), Who::Redis]
                .into_iter()
                // A slow one may acknowledge first what it has read last.
                .any(|who| {
                    let mut times = [&first.at, &second.at].into_iter();
                    times.any(|at| self.began.was_away(at, who))
                }),
        }
    }
}

#[test]
fn of_two_acks_the_first_must_have_had_a_reason_to_be_in_vain() {
    let ledger = Ledger::new(3);
    let calm = ledger.clocks.now();
    let ack = |node, at: &Time, fate| Ack {
        id: "x".into(),
        node,
        at: at.clone(),
        fate,
    };
    let post = Post {
        origin: 0,
        began: calm.clone(),
        promised: None,
    };
    let explains = |node, at: &Time, later: &Time| {
        post.explains(&ack(node, at, Fate::Read), &ack(2, later, Fate::Read))
    };
    for node in 0..3 {
        assert!(!explains(node, &calm, &calm), "on {node}, without a reason");
    }
    assert!(post.explains(&ack(1, &calm, Fate::Doubtful), &ack(1, &calm, Fate::Read)));
    ledger.clocks.turn(Who::Redis);
    let redis_away = ledger.clocks.now();
    assert!(explains(1, &redis_away, &redis_away));
    assert!(!explains(0, &calm, &redis_away), "not Redis's business");
    ledger.clocks.turn(Who::Redis);
    ledger.clocks.turn(Who::Node(1));
    ledger.clocks.turn(Who::Node(1));
    let later = ledger.clocks.now();
    assert!(explains(1, &calm, &later));
    assert!(!explains(0, &calm, &later), "not this node's business");
    ledger.clocks.turn(Who::Node(0));
    ledger.clocks.turn(Who::Node(0));
    let after = ledger.clocks.now();
    assert!(explains(0, &later, &after));
    assert!(!explains(0, &after, &after), "it had come back before");
    assert!(
        explains(2, &after, &after),
        "the MSG may be older than that"
    );
}
