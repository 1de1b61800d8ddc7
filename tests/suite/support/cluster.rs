//! Several nodes on one Redis, and what is true of all of them together.

use std::collections::HashMap;

use super::{
    AnsweredNotification, Notification, Providers, ReceivedMessage, Redis, Relay, Setup, eventually,
};

/// Nodes of one cluster. Indexed like a slice.
pub struct Cluster {
    pub nodes: Vec<Relay>,
}

/// A node's relay.toml: on the Redis at `url`, with `extra` laid over.
pub fn node_toml(name: &str, url: &str, extra: &str) -> String {
    format!("node = \"{name}\"\n[redis]\nurl = \"{url}\"\nsettle_time = \"0s\"\n{extra}")
}

impl Redis {
    /// Starts the node called `name` on it, with a fragment of configuration. It hears.
    pub fn node(&self, name: &str, fragment: &str) -> Relay {
        let node = Relay::with(&node_toml(name, &self.url(), fragment));
        node.wait_green();
        node
    }
}

impl Cluster {
    /// So many nodes on `redis`; each is ready, and hears.
    pub fn start(redis: &Redis, nodes: usize, extra: &str) -> Self {
        Self::on(&vec![redis.url(); nodes], extra)
    }

    /// A node for each of `urls`, by which it reaches Redis.
    pub fn on(urls: &[String], extra: &str) -> Self {
        let nodes = urls.iter().enumerate().map(|(n, url)| {
            let toml = node_toml(&format!("node{n}"), url, extra);
            Setup::with(&toml).start()
        });
        let cluster = Self {
            nodes: nodes.collect(),
        };
        cluster.wait_green();
        cluster
    }

    /// Waits until every node says that it hears.
    pub fn wait_green(&self) {
        for node in &self.nodes {
            node.wait_green();
        }
    }

    /// Waits until no node says so.
    pub fn wait_red(&self) {
        for node in &self.nodes {
            node.wait_red();
        }
    }

    /// Posts to every one of `backends` through every node; each must be acknowledged at the first try.
    pub fn all_reach_all(&self, backends: &[String]) -> Vec<AnsweredNotification> {
        let told = self.all_try_all(backends);
        for told in &told {
            let outcome = (told.status, told.outcome.as_str());
            assert_eq!(outcome, (200, "delivered"), "to {}", told.to);
        }
        told
    }

    /// Posts to every one of `backends` through every node, and gives what came of it.
    pub fn all_try_all(&self, backends: &[String]) -> Vec<AnsweredNotification> {
        let sources = self.nodes.iter().map(|node| {
            let http = node.ready().http;
            let notifications = backends.iter().cloned().map(move |to| Notification {
                http,
                body: format!("can {to} be reached?").into_bytes(),
                to,
            });
            let mut notifications = notifications.collect::<Vec<_>>().into_iter();
            move || notifications.next()
        });
        Providers::start(sources.collect()).finish()
    }
}

impl Relay {
    /// Waits until it says that it hears the others.
    pub fn wait_green(&self) {
        eventually("readyz is green", || self.readyz().status == 200);
    }

    /// Waits until it says that it does not, and gives its words.
    pub fn wait_red(&self) -> String {
        let mut text = String::new();
        eventually("readyz is red", || {
            let answer = self.readyz();
            text = answer.text();
            answer.status == 503
        });
        text
    }
}

/// Ok is no lie: whatever was answered as delivered was acknowledged, by the backend it was for, under that id, and with
/// its own body. Says how many were.
pub fn assert_ok_means_acked(told: &[AnsweredNotification], heard: &[ReceivedMessage]) -> usize {
    let mut acked: HashMap<&str, &ReceivedMessage> = HashMap::new();
    for heard in heard.iter().filter(|heard| heard.acked) {
        acked.insert(&heard.id, heard);
    }
    let mut count = 0;
    for told in told.iter().filter(|told| told.status < 300) {
        // What a store has taken is not with its backend yet.
        if told.outcome == "stored" {
            continue;
        }
        let Some(heard) = acked.get(told.id.as_str()) else {
            panic!(
                "{} to {} was answered {} {:?} without an ACK",
                told.id, told.to, told.status, told.outcome
            );
        };
        assert_eq!(heard.backend, told.to, "{} crossed over", told.id);
        assert!(heard.body == told.body, "{} has another's body", told.id);
        count += 1;
    }
    count
}
