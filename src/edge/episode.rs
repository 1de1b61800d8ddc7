//! Trouble that lasts is said once, not a thousand times a second.

use std::time::{Duration, Instant};

/// Trouble that has not come back for so long is over.
const OVER_AFTER: Duration = Duration::from_secs(10);

/// One kind of trouble, over time.
#[derive(Debug, Default)]
pub struct Episode {
    last: Option<Instant>,
}

impl Episode {
    /// The trouble is here (again); says whether an episode begins with it: log that one.
    pub fn begins(&mut self) -> bool {
        let now = Instant::now();
        self.last
            .replace(now)
            .is_none_or(|last| now - last > OVER_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_that_goes_on_begins_once() {
        let mut trouble = Episode::default();
        assert!(trouble.begins());
        assert!(!trouble.begins());
        trouble.last = Instant::now().checked_sub(OVER_AFTER * 2);
        assert!(trouble.begins());
    }
}
