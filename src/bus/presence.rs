//! Who is connected where, on all nodes together: the answer to `payrelay status`, and its gathering.

use std::collections::HashMap;
use std::fmt;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::types::Stamp;
use crate::notification::BackendId;

/// How long the nodes have to answer. With the publisher's tick of a second, whoever asked hears within two.
const ANSWER_WITHIN: Duration = Duration::from_millis(900);

/// Questions that may be open at once.
const QUERIES_MAX: usize = 8;

/// What the nodes said when they were asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Presence {
    /// The nodes that answered, by name.
    pub nodes: Vec<NodePresence>,
    /// The nodes that Redis has a subscription of and that did not answer in time.
    pub silent: Vec<String>,
    /// Why the list may be incomplete, if it may.
    pub trouble: Option<String>,
}

/// One node's answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodePresence {
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

impl NodePresence {
    /// The answer of the node called `node`, which holds `backends`.
    pub fn here(node: String, backends: Vec<(BackendId, Stamp)>) -> Self {
        let mut presence = Self {
            node,
            backends: Vec::with_capacity(backends.len()),
        };
        presence.add(backends);
        presence
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

/// Called once, with what the nodes said.
pub type OnPresence = Box<dyn FnOnce(Presence) + Send>;

/// Questions that are open.
#[derive(Default)]
pub struct PresenceQueries {
    queries: Mutex<Queries>,
}

#[derive(Default)]
struct Queries {
    next: u64,
    open: HashMap<u64, Query>,
}

struct Query {
    then: OnPresence,
    until: Instant,
    /// Redis's own list of nodes; unknown until it has come.
    expected: Option<Vec<String>>,
    answers: HashMap<String, (NodePresence, bool)>,
}

impl fmt::Debug for PresenceQueries {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PresenceQueries({})", self.queries.lock().open.len())
    }
}

impl PresenceQueries {
    /// Opens a question, to which this node answers `own`; its number goes with it. `None`: too many are open, and `then`
    /// has heard so.
    pub fn open(&self, own: NodePresence, then: OnPresence, now: Instant) -> Option<u64> {
        let query = Query {
            then,
            until: now + ANSWER_WITHIN,
            expected: None,
            answers: HashMap::from([(own.node.clone(), (own, true))]),
        };
        {
            let mut queries = self.queries.lock();
            if queries.open.len() < QUERIES_MAX {
                queries.next += 1;
                let n = queries.next;
                queries.open.insert(n, query);
                return Some(n);
            }
        }
        query.close(Some("too many ask at once; try again".into()));
        None
    }

    /// These nodes should answer question `n`.
    pub fn awaits(&self, n: u64, nodes: Vec<String>) {
        self.change(n, |query| query.expected = Some(nodes));
    }

    /// A node answers question `n`, or a part of it.
    pub fn answer(&self, n: u64, node: &str, more: bool, backends: Vec<(BackendId, Stamp)>) {
        self.change(n, |query| {
            let (presence, whole) = query.answers.entry(node.to_owned()).or_default();
            node.clone_into(&mut presence.node);
            presence.add(backends);
            *whole = !more;
        });
    }

    fn change(&self, n: u64, change: impl FnOnce(&mut Query)) {
        let complete = {
            let mut queries = self.queries.lock();
            let Some(query) = queries.open.get_mut(&n) else {
                return; // its time was up
            };
            change(query);
            match query.is_complete() {
                true => queries.open.remove(&n),
                false => None,
            }
        };
        if let Some(query) = complete {
            query.close(None);
        }
    }

    /// Answers what has waited long enough with what there is.
    pub fn sweep(&self, now: Instant) {
        let late: Vec<Query> = {
            let mut queries = self.queries.lock();
            queries
                .open
                .extract_if(|_, query| query.until <= now)
                .map(|(_, query)| query)
                .collect()
        };
        for query in late {
            let trouble = query
                .expected
                .is_none()
                .then(|| "Redis did not answer".into());
            query.close(trouble);
        }
    }

    /// Answers question `n` with `trouble`.
    pub fn fail(&self, n: u64, trouble: &str) {
        let query = self.queries.lock().open.remove(&n);
        if let Some(query) = query {
            query.close(Some(trouble.to_owned()));
        }
    }
}

impl Query {
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
        let mut nodes: Vec<_> = self
            .answers
            .into_values()
            .map(|(presence, _)| presence)
            .collect();
        nodes.sort_by(|a, b| a.node.cmp(&b.node));
        (self.then)(Presence {
            nodes,
            silent,
            trouble,
        });
    }
}
