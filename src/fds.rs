//! The process's file descriptors, shared out so that nobody is ever surprised by EMFILE.
//!
//! tiny_http's accept thread ends for ever on EMFILE, and a thread that cannot open a socket at the wrong moment cannot
//! answer. So whoever opens descriptors on a peer's behalf takes a permit first, and refuses the peer if there is none.
//! Nothing here opens, closes or owns a descriptor.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// What a process with no limit at all is taken to have: more than any kernel hands out by default (`fs.nr_open`).
const UNLIMITED: u64 = 1 << 20;

/// How many descriptors may still be opened. Clones share one budget.
#[derive(Clone)]
pub struct FdBudget(Arc<Shares>);

struct Shares {
    total: usize,
    free: AtomicUsize,
}

/// Leave to have some descriptors open, given back when dropped. Drop it after the descriptors are closed.
#[must_use = "dropping the permit gives the descriptors back"]
pub struct FdPermit {
    budget: FdBudget,
    count: usize,
}

impl FdBudget {
    /// What this process has left under its soft limit, less `reserved` for what takes no permits (log file, outbox, bus).
    pub fn for_process(reserved: usize) -> Self {
        let limit = usize::try_from(soft_limit()).unwrap_or(usize::MAX);
        Self::with(limit.saturating_sub(open_now()).saturating_sub(reserved))
    }

    /// A budget of exactly `total` descriptors.
    pub fn with(total: usize) -> Self {
        Self(Arc::new(Shares {
            total,
            free: AtomicUsize::new(total),
        }))
    }

    /// Leave for `count` descriptors; `None` if fewer are free.
    pub fn try_take(&self, count: usize) -> Option<FdPermit> {
        self.0
            .free
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, |free| {
                free.checked_sub(count)
            })
            .ok()?;
        Some(FdPermit {
            budget: self.clone(),
            count,
        })
    }

    /// How many are free now.
    pub fn free(&self) -> usize {
        self.0.free.load(Ordering::Acquire)
    }

    /// How many there were at the start.
    pub fn total(&self) -> usize {
        self.0.total
    }
}

impl fmt::Debug for FdBudget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FdBudget({} of {} free)", self.free(), self.total())
    }
}

impl FdPermit {
    /// For how many descriptors this is.
    pub fn count(&self) -> usize {
        self.count
    }
}

impl fmt::Debug for FdPermit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FdPermit({})", self.count)
    }
}

impl Drop for FdPermit {
    fn drop(&mut self) {
        self.budget.0.free.fetch_add(self.count, Ordering::AcqRel);
    }
}

/// Raises this process's limit of open descriptors towards `wanted`, and says what is in force now.
///
/// The soft limit goes up to the hard one; the hard one goes up too if the system lets us (root). Never lowers either.
pub fn raise_limit(wanted: u64) -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let (soft, hard) = (
        limit.current.unwrap_or(u64::MAX),
        limit.maximum.unwrap_or(u64::MAX),
    );
    if soft < wanted {
        let whole = Rlimit {
            current: Some(wanted),
            maximum: Some(wanted.max(hard)).filter(|_| hard != u64::MAX),
        };
        if setrlimit(Resource::Nofile, whole).is_err() {
            let within = Rlimit {
                current: Some(wanted.min(hard)),
                maximum: limit.maximum,
            };
            // Refused as well: the old limit stands, and is what we report.
            let _ = setrlimit(Resource::Nofile, within);
        }
    }
    soft_limit()
}

fn soft_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(UNLIMITED)
}

/// How many descriptors this process has open; the three standard ones if /proc cannot be read.
fn open_now() -> usize {
    // One of the entries is the directory itself, closed again by the time we return.
    std::fs::read_dir("/proc/self/fd").map_or(3, |entries| entries.count().saturating_sub(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_permit_is_all_or_nothing_and_comes_back() {
        let budget = FdBudget::with(5);
        let three = budget.try_take(3);
        assert_eq!(three.as_ref().map(FdPermit::count), Some(3));
        assert!(budget.clone().try_take(3).is_none());
        assert_eq!(budget.free(), 2);
        let two = budget.try_take(2);
        assert!(two.is_some() && budget.try_take(1).is_none());
        drop((three, two));
        assert_eq!((budget.free(), budget.total()), (5, 5));
    }

    #[test]
    fn the_process_budget_leaves_out_what_is_open_and_what_is_reserved() {
        let limit = soft_limit();
        let budget = FdBudget::for_process(10);
        assert!(budget.total() as u64 + 10 < limit);
        assert_eq!(FdBudget::for_process(usize::MAX).total(), 0);
    }

    #[test]
    fn the_limit_is_never_lowered() {
        let before = soft_limit();
        assert_eq!(raise_limit(1), before);
    }
}
