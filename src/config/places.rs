//! Where in relay.toml the keys stand that are tried only after the file is read: files, and addresses to listen on.

use std::collections::BTreeMap;
use std::fmt;

use super::error::Position;
use super::reader::Section;

/// Keys whose values only the system can judge.
const TRIED: &[&str] = &[
    "http.listen",
    "http.tls",
    "http.tls.cert",
    "http.tls.key",
    "tcp.listen",
    "tcp.tls.listen",
    "tcp.tls",
    "tcp.tls.cert",
    "tcp.tls.key",
    "outbox.path",
    "redis.ca",
    "admin.listen",
    "log.file",
];

/// The places of those keys that the file has.
#[derive(Clone, Debug, Default)]
pub struct KeyPositions(BTreeMap<&'static str, Position>);

/// Where something stands is no part of what it says: two files that say the same are the same configuration.
impl PartialEq for KeyPositions {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for KeyPositions {}

impl KeyPositions {
    /// Those of the document `root`.
    pub(super) fn of(root: &Section<'_>) -> Self {
        let place = |key: &&'static str| Some((*key, root.find(key)?.place()));
        Self(TRIED.iter().filter_map(place).collect())
    }

    /// `file:line:column` of the key with which `sentence` begins, or else `file`; then the sentence.
    pub fn with_place(&self, file: impl fmt::Display, sentence: &str) -> String {
        let key = sentence
            .split(|c: char| c == ':' || c.is_whitespace())
            .next();
        match key.and_then(|key| self.0.get(key)) {
            Some(place) => format!("{file}:{place}: {sentence}"),
            None => format!("{file}: {sentence}"),
        }
    }
}
