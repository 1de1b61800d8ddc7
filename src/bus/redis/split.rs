//! Whether some nodes use another primary than this one: both servers may be in order, and nothing that is published on one is
//! heard on the other. No I/O.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use super::link::LinkError;

/// How long a node's word that it uses another primary is good. It says so again at least every second.
const WORD_GOOD_FOR: Duration = Duration::from_secs(3);

/// How long a node must be found on another primary: a server that stood still shows for a moment who was there before.
const FOUND_FOR: Duration = Duration::from_millis(200);

/// How long it is kept that a node has come: longer than what was found is remembered.
const JOINED_KEPT_FOR: Duration = Duration::from_secs(60);

/// Nodes that were found on another primary.
#[derive(Debug, PartialEq, Eq)]
pub struct OtherPrimaries {
    /// The primary.
    pub at: String,
    /// The nodes there.
    pub nodes: Vec<String>,
    /// When the server was asked that said so last.
    pub asked: Instant,
}

/// What is known of nodes on other primaries.
#[derive(Default)]
pub struct Split {
    /// The primary that this node uses.
    present: String,
    /// What this node has found.
    found: Option<OtherPrimaries>,
    /// Since when there are some.
    found_since: Option<Instant>,
    /// What other nodes said on this primary: which primary they use, and when they said so.
    said: HashMap<String, (String, Instant)>,
    /// Nodes that have come to this primary, and when: what was found before says nothing of them.
    joined: HashMap<String, Instant>,
}

impl Split {
    /// This node has looked at other primaries: what it has found.
    pub fn found(&mut self, found: Option<OtherPrimaries>, now: Instant) {
        let found = found.and_then(|mut found| {
            let came = |node: &String| self.joined.get(node).is_some_and(|at| found.asked < *at);
            found.nodes.retain(|node| !came(node));
            (!found.nodes.is_empty()).then_some(found)
        });
        self.found_since = found.as_ref().and(self.found_since.or(Some(now)));
        self.found = found;
    }

    /// Whether nodes were found on another primary, even if that is not certain yet.
    pub fn is_suspected(&self) -> bool {
        self.found.is_some()
    }

    /// `node` says that it uses the primary `at`.
    pub fn said(&mut self, node: &str, at: &str, now: Instant) {
        // Heard on the last primary, which this node is about to leave.
        if at != self.present {
            self.said.insert(node.to_owned(), (at.to_owned(), now));
        }
    }

    /// `node` has been heard on this primary: it has come back.
    pub fn joined(&mut self, node: &str, now: Instant) {
        self.said.remove(node);
        self.joined
            .retain(|_, at| now.saturating_duration_since(*at) < JOINED_KEPT_FOR);
        self.joined.insert(node.to_owned(), now);
        let found = self.found.take();
        self.found(found, now);
    }

    /// This node uses the primary `present` from now on, and so do those that said so before.
    pub fn uses(&mut self, present: &str) {
        present.clone_into(&mut self.present);
        self.said.retain(|_, (at, _)| at != present);
        self.joined.clear(); // to the last one
    }

    /// Which nodes this one cannot hear, if there are some.
    pub fn why(&mut self, now: Instant) -> Option<LinkError> {
        self.said
            .retain(|_, (_, since)| now.saturating_duration_since(*since) < WORD_GOOD_FOR);
        let is_certain = |since| now.saturating_duration_since(since) >= FOUND_FOR;
        let found = self
            .found
            .as_ref()
            .filter(|_| self.found_since.is_some_and(is_certain));
        let (node, at) = match (found, self.said.iter().next()) {
            (Some(found), _) => (found.nodes.join(", "), &found.at),
            (None, Some((node, (at, _)))) => (node.clone(), at),
            (None, None) => return None,
        };
        Some(LinkError(format!(
            "split: {node} uses another primary, {at}, and is not heard here: does redis.url lead all nodes to one server, or do \
             all reach the same sentinels, and do these name the same primary?"
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(nodes: &str, asked: Instant) -> Option<OtherPrimaries> {
        Some(OtherPrimaries {
            at: "h:1".into(),
            nodes: nodes.split(' ').map(str::to_owned).collect(),
            asked,
        })
    }

    #[test]
    fn a_word_is_good_for_a_while_and_until_its_node_comes_back() {
        let now = Instant::now();
        let mut split = Split::default();
        assert_eq!(split.why(now), None);
        split.said("pay-2", "10.0.0.2:6379", now);
        let why = split.why(now).expect("a split");
        assert!(why.0.contains("pay-2") && why.0.contains("10.0.0.2:6379"));
        assert_eq!(split.why(now + WORD_GOOD_FOR), None);
        split.said("pay-2", "10.0.0.2:6379", now);
        split.joined("pay-2", now);
        assert_eq!(split.why(now), None);
    }

    #[test]
    fn what_is_found_counts_until_it_is_gone() {
        let now = Instant::now();
        let mut split = Split::default();
        let some = || found("a b", now);
        split.found(some(), now);
        assert_eq!(split.why(now), None, "not yet");
        assert!(split.is_suspected());
        let later = now + FOUND_FOR;
        split.found(some(), later);
        assert!(split.why(later).is_some_and(|why| why.0.contains("a, b")));
        split.found(None, later);
        assert_eq!(split.why(later), None);
        split.found(some(), later);
        assert_eq!(split.why(later), None, "found anew");
    }

    #[test]
    fn a_node_that_has_come_is_not_where_it_was_found_before() {
        let (found_at, came_at) = (Instant::now(), Instant::now() + FOUND_FOR);
        let mut split = Split::default();
        split.found(found("a b", found_at), found_at);
        split.joined("a", came_at);
        let why = split.why(came_at).expect("a split");
        assert!(why.0.contains("split: b uses"), "{why}");
        split.joined("b", came_at);
        assert_eq!(split.why(came_at), None);
        assert!(!split.is_suspected());
        // Its last server does not answer, and what it said last is looked at once more.
        split.found(found("a b", found_at), came_at);
        assert!(!split.is_suspected());
        // It has gone back.
        split.found(found("a b", came_at + FOUND_FOR), came_at + FOUND_FOR);
        assert!(split.is_suspected());
    }

    #[test]
    fn a_node_that_goes_where_others_are_is_not_split_from_them() {
        let now = Instant::now();
        let mut split = Split::default();
        split.uses("h:1");
        split.said("a", "h:2", now);
        assert!(split.why(now).is_some());
        split.uses("h:2");
        assert_eq!(split.why(now), None);
        split.said("a", "h:2", now); // heard on the last primary
        assert_eq!(split.why(now), None);
    }
}
