//! Who is connected where, on all nodes together: the answer to `payrelay status`, and its gathering.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::Stamp;
use crate::notification::BackendId;

/// How long the nodes have to answer. With the publisher's tick of a second, whoever asked hears within two.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);

/// Questions that may be open at once.
const CALLS_MAX: usize = 8;

/// What the nodes said when they were asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Roll {
    /// The nodes that answered, by name.
    pub nodes: Vec<NodeRoll>,
    /// The nodes that Redis has a subscription of and that did not answer in time.
    pub silent: Vec<String>,
    /// Why the list may be incomplete, if it may.
    pub trouble: Option<String>,
}

/// One node's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeRoll {
    /// The instance's name.
    pub node: String,
    /// Its backends, sorted.
    pub backends: Vec<Present>,
}

/// A backend that is connected.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Present {
    /// Its id.
    pub id: String,
    /// When its session began, in Unix milliseconds (never earlier; a little later if clocks differ between nodes).
    pub since_unix_ms: u64,
}

impl NodeRoll {
    /// The answer of the node called `node`, which holds `backends`.
    pub fn here(node: String, backends: Vec<(BackendId, Stamp)>) -> Self {
        let mut roll = Self {
            node,
            backends: Vec::with_capacity(backends.len()),
        };
        roll.add(backends);
        roll
    }

    fn add(&mut self, backends: Vec<(BackendId, Stamp)>) {
        let present = backends.into_iter().map(|(id, stamp)| Present {
            id: id.as_str().to_owned(),
            since_unix_ms: stamp / 1000,
        });
        self.backends.extend(present);
        self.backends.sort();
    }
}

/// Hears the roll.
pub type Then = Box<dyn FnOnce(Roll) + Send>;

/// Questions that are open.
#[derive(Default)]
pub struct RollCalls {
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    next: u64,
    open: HashMap<u64, Call>,
}

struct Call {
    then: Then,
    until: Instant,
    /// Redis's own list of nodes; unknown until it has come.
    expected: Option<Vec<String>>,
    answers: HashMap<String, (NodeRoll, bool)>,
}

impl fmt::Debug for RollCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RollCalls({})", self.calls.lock().open.len())
    }
}

impl RollCalls {
    /// Opens a question, to which this node answers `own`; its number goes with it. `None`: too many are open, and `then`
    /// has heard so.
    pub fn open(&self, own: NodeRoll, then: Then, now: Instant) -> Option<u64> {
        let call = Call {
            then,
            until: now + ANSWER_WITHIN,
            expected: None,
            answers: HashMap::from([(own.node.clone(), (own, true))]),
        };
        {
            let mut calls = self.calls.lock();
            if calls.open.len() < CALLS_MAX {
                calls.next += 1;
                let n = calls.next;
                calls.open.insert(n, call);
                return Some(n);
            }
        }
        call.close(Some("too many ask at once; try again".into()));
        None
    }

    /// These nodes should answer question `n`.
    pub fn awaits(&self, n: u64, nodes: Vec<String>) {
        self.change(n, |call| call.expected = Some(nodes));
    }

    /// A node answers question `n`, or a part of it.
    pub fn answer(&self, n: u64, node: &str, more: bool, backends: Vec<(BackendId, Stamp)>) {
        self.change(n, |call| {
            let (roll, whole) = call.answers.entry(node.to_owned()).or_default();
            node.clone_into(&mut roll.node);
            roll.add(backends);
            *whole = !more;
        });
    }

    fn change(&self, n: u64, change: impl FnOnce(&mut Call)) {
        let complete = {
            let mut calls = self.calls.lock();
            let Some(call) = calls.open.get_mut(&n) else {
                return; // its time was up
            };
            change(call);
            match call.is_complete() {
                true => calls.open.remove(&n),
                false => None,
            }
        };
        if let Some(call) = complete {
            call.close(None);
        }
    }

    /// Answers what has waited long enough with what there is.
    pub fn sweep(&self, now: Instant) {
        let late: Vec<Call> = {
            let mut calls = self.calls.lock();
            calls
                .open
                .extract_if(|_, call| call.until <= now)
                .map(|(_, call)| call)
                .collect()
        };
        for call in late {
            let trouble = call
                .expected
                .is_none()
                .then(|| "Redis did not answer".into());
            call.close(trouble);
        }
    }

    /// Answers question `n` with `trouble`.
    pub fn fail(&self, n: u64, trouble: &str) {
        let call = self.calls.lock().open.remove(&n);
        if let Some(call) = call {
            call.close(Some(trouble.to_owned()));
        }
    }
}

impl Call {
    fn is_complete(&self) -> bool {
        self.expected.as_ref().is_some_and(|nodes| {
            nodes
                .iter()
                .all(|node| self.answers.get(node).is_some_and(|(_, whole)| *whole))
        })
    }

    fn close(self, trouble: Option<String>) {
        let answered = |node: &String| self.answers.get(node).is_some_and(|(_, whole)| *whole);
        let expected = self.expected.as_deref().unwrap_or_default();
        let mut silent: Vec<_> = expected
            .iter()
            .filter(|node| !answered(node))
            .cloned()
            .collect();
        silent.sort();
        let mut nodes: Vec<_> = self.answers.into_values().map(|(roll, _)| roll).collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        (self.then)(Roll {
            nodes,
            silent,
            trouble,
        });
    }
}
