//! What was refused since the start, each reason with its count and when it was last given: for people, who want to know
//! whether it goes on. Prometheus has the same counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::notification::unix_ms;

/// One reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusalReason {
    /// What was refused: `http` (a request), `signature` (a callback), `session` (a backend).
    pub kind: &'static str,
    /// The route, of a callback.
    pub route: Option<Arc<str>>,
    /// One word of a closed set.
    pub reason: &'static str,
    pub count: u64,
    pub last_unix_ms: u64,
}

type Key = (&'static str, Option<Arc<str>>, &'static str);

/// All of them: as many as there are reasons, once for each route.
#[derive(Debug, Default)]
pub struct Refusals(Mutex<BTreeMap<Key, (u64, u64)>>);

impl Refusals {
    /// One more.
    pub fn count(&self, kind: &'static str, route: Option<&Arc<str>>, reason: &'static str) {
        let now = unix_ms();
        let mut all = self.0.lock();
        let (count, last) = all.entry((kind, route.cloned(), reason)).or_default();
        *count += 1;
        *last = now;
    }

    /// Those that were last given come first.
    pub fn latest(&self) -> Vec<RefusalReason> {
        let all = self.0.lock();
        let mut latest: Vec<RefusalReason> = all
            .iter()
            .map(|((kind, route, reason), (count, last))| RefusalReason {
                kind,
                route: route.clone(),
                reason,
                count: *count,
                last_unix_ms: *last,
            })
            .collect();
        drop(all);
        latest.sort_by_key(|refusal| std::cmp::Reverse(refusal.last_unix_ms));
        latest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_reason_is_counted_for_itself() {
        let refusals = Refusals::default();
        let route: Arc<str> = "pay".into();
        refusals.count("http", None, "no-route");
        for _ in 0..3 {
            refusals.count("signature", Some(&route), "stale");
        }
        let latest = refusals.latest();
        let counts: Vec<_> = latest
            .iter()
            .map(|one| (one.reason, one.count, one.route.as_deref()))
            .collect();
        assert!(
            counts.contains(&("stale", 3, Some("pay"))) && counts.contains(&("no-route", 1, None))
        );
        assert!(latest.iter().all(|one| one.last_unix_ms > 0));
    }
}
