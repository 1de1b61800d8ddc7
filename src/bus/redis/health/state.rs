//! What the threads of all links have reported, and what follows for people.

use std::collections::HashMap;
use std::time::Instant;

use crate::bus::redis::link::LinkError;
use crate::bus::redis::split::Split;

/// The most that the log says of one outage: each reason once, and not for ever if they are all different.
const LOGGED_MAX: usize = 8;

/// Whether a connection stands, or why not.
pub type LinkState = Result<(), LinkError>;

/// What was reported; the lock is around it.
pub struct HealthState {
    pub links: HashMap<u64, LinkHealth>,
    pub owners: Vec<Option<u64>>,
    /// Why the topology is not known, if it is not.
    pub topology: Option<LinkError>,
    pub split: Split,
    /// How many sentinels answer, and how many there are.
    pub sentinels: (usize, usize),
    pub up: bool,
    pub down_since: Instant,
    /// The last reason of this outage: until this node has received its own canary, it is still the reason.
    pub last: Option<LinkError>,
    /// What the log has said since the bus was up.
    pub logged: Vec<LinkError>,
}

/// A link.
pub struct LinkHealth {
    pub name: String,
    pub publisher: LinkState,
    pub subscriber: LinkState,
    pub wanted: usize,
    pub standing: usize,
}

/// A link has no connection yet.
pub fn not_yet() -> LinkError {
    LinkError("not connected yet".into())
}

impl HealthState {
    /// Whether the log has not said it yet. The same reason is said once, and another that follows it, too: what was a Redis
    /// that is gone may have become a password that is wrong.
    pub fn is_news(&mut self, why: &LinkError) -> bool {
        let is_news = !self.logged.contains(why) && self.logged.len() < LOGGED_MAX;
        if is_news {
            self.logged.push(why.clone());
        }
        is_news
    }

    /// What is wrong with a connection, or with the topology.
    pub fn connection_trouble(&self) -> Option<LinkError> {
        let mut links: Vec<_> = self.links.iter().collect();
        links.sort_by_key(|(number, _)| **number);
        let in_use = |number: &u64| self.owners.contains(&Some(*number));
        let links = links.into_iter().filter(|(number, _)| in_use(number));
        let mut troubles = links.filter_map(|(_, link)| {
            link.publisher
                .as_ref()
                .and(link.subscriber.as_ref())
                .err()
                .cloned()
        });
        let trouble = troubles.find(|why| *why != not_yet());
        self.topology.clone().or(trouble)
    }

    /// The names of the links that have buckets.
    pub fn primaries(&self) -> Vec<String> {
        let links = self.links.iter();
        let mut names: Vec<_> = links
            .filter(|(number, _)| self.owners.contains(&Some(**number)))
            .map(|(_, link)| link.name.clone())
            .collect();
        names.sort();
        names
    }
}
