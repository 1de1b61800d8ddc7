//! How many times each peer has failed within a minute, in bounded memory.
//!
//! Only those who fail are counted, and only they are answered otherwise for it: whoever comes with a good signature or
//! token from the same address (a proxy's, a shared host's) is let in, however often others there have failed.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What is counted within.
const WINDOW: Duration = Duration::from_secs(60);

/// The most peers that are told apart within a window. Those beyond share one count; some 200 KiB in all.
const PEERS_MAX: usize = 4096;

/// The failures of all peers.
#[derive(Debug)]
pub struct Failures {
    most: AtomicU32,
    counted: Mutex<Counted>,
}

#[derive(Debug, Default)]
struct Counted {
    since: Option<Instant>,
    peers: HashMap<Block, u32>,
    others: u32,
}

/// What counts as one peer: an IPv4 address, or the 64 bits of an IPv6 network that one host is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Block {
    V4(u32),
    V6(u64),
}

impl From<IpAddr> for Block {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) => Self::V4(v4.to_bits()),
            IpAddr::V6(v6) => Self::V6((v6.to_bits() >> 64) as u64),
        }
    }
}

/// What came of one more failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judged {
    /// The peer may be told what was wrong.
    Within,
    /// It has failed too often.
    Beyond {
        /// It is the first beyond the limit in this window: to be logged, as the next are not.
        first: bool,
        /// When the count begins afresh.
        left: Duration,
    },
}

impl Failures {
    /// Allows `most` failures a minute to each peer.
    pub fn new(most: u32) -> Self {
        Self {
            most: AtomicU32::new(most),
            counted: Mutex::default(),
        }
    }

    /// From now on so many are allowed.
    pub fn set_most(&self, most: u32) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// How many a minute each peer may have.
    pub fn most(&self) -> u32 {
        self.most.load(Ordering::Relaxed)
    }

    /// How long a peer that has failed too often is still answered 429; `None`: it has not. A peer that shares its count with
    /// others, because too many peers have failed, has not either: it may never have failed itself.
    pub fn left(&self, peer: IpAddr, now: Instant) -> Option<Duration> {
        let counted = self.counted.lock();
        let since = counted.since?;
        let left = (since + WINDOW).checked_duration_since(now)?;
        let failed = *counted.peers.get(&Block::from(peer))?;
        (failed > self.most()).then_some(left)
    }

    /// `peer` has failed.
    pub fn count(&self, peer: IpAddr, now: Instant) -> Judged {
        let most = self.most();
        let mut counted = self.counted.lock();
        let since = match counted.since {
            Some(since) if now.saturating_duration_since(since) < WINDOW => since,
            _ => {
                *counted = Counted {
                    since: Some(now),
                    // Kept: under a flood it would be built anew each minute.
                    peers: std::mem::take(&mut counted.peers),
                    others: 0,
                };
                counted.peers.clear();
                now
            }
        };
        let block = Block::from(peer);
        let room = counted.peers.len() < PEERS_MAX;
        let failed = match counted.peers.get_mut(&block) {
            Some(failed) => failed,
            None if room => counted.peers.entry(block).or_default(),
            None => &mut counted.others,
        };
        *failed = failed.saturating_add(1);
        match failed.checked_sub(most) {
            None | Some(0) => Judged::Within,
            Some(beyond) => Judged::Beyond {
                first: beyond == 1,
                left: (since + WINDOW).saturating_duration_since(now),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    fn v4(n: u32) -> IpAddr {
        Ipv4Addr::from_bits(n).into()
    }

    fn within(failures: &Failures, peer: IpAddr, now: Instant) -> bool {
        failures.count(peer, now) == Judged::Within
    }

    #[test]
    fn each_peer_has_its_own_count_which_begins_afresh_after_a_minute() {
        let (failures, start) = (Failures::new(3), Instant::now());
        for _ in 0..3 {
            assert!(within(&failures, v4(1), start));
        }
        let later = start + Duration::from_secs(20);
        let left = Duration::from_secs(40);
        for first in [true, false, false] {
            assert_eq!(failures.count(v4(1), later), Judged::Beyond { first, left });
        }
        assert!(within(&failures, v4(2), later), "another peer");
        assert!(within(&failures, v4(1), start + WINDOW));
    }

    #[test]
    fn a_host_with_a_network_of_its_own_is_one_peer() {
        let (failures, now) = (Failures::new(1), Instant::now());
        let host = |network: u64, host: u64| -> IpAddr {
            Ipv6Addr::from_bits(u128::from(network) << 64 | u128::from(host)).into()
        };
        assert!(within(&failures, host(1, 1), now));
        assert!(!within(&failures, host(1, 2), now));
        assert!(within(&failures, host(2, 1), now));
        let mapped: IpAddr = Ipv4Addr::from_bits(7).to_ipv6_mapped().into();
        assert!(within(&failures, mapped, now));
        assert!(
            !within(&failures, v4(7), now),
            "the same, otherwise written"
        );
    }

    #[test]
    fn a_flood_of_peers_takes_no_more_memory_and_those_beyond_share_a_count() {
        let (failures, now) = (Failures::new(2), Instant::now());
        for n in 0..200_000 {
            failures.count(v4(n), now);
        }
        let counted = failures.counted.lock().peers.len();
        assert_eq!(counted, PEERS_MAX);
        assert!(!within(&failures, v4(200_001), now), "one of the others");
        assert!(within(&failures, v4(0), now), "told apart still");
        assert!(within(&failures, v4(200_001), now + WINDOW));
    }

    #[test]
    fn the_limit_can_change() {
        let (failures, now) = (Failures::new(1), Instant::now());
        assert!(within(&failures, v4(1), now) && !within(&failures, v4(1), now));
        failures.set_most(9);
        assert!(within(&failures, v4(1), now));
    }
}
