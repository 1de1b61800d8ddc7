//! Repeated log lines: the first of a cause is written at once, the others of the next ten seconds as one line with their count.
//!
//! A flood (forged callbacks, a full disk, a backend that refuses everything) must not fill the log, and its size must be
//! in the log all the same. So a cause that occurs again is only counted, and the thread that writes the log tells the count
//! every [`PERIOD`], for as long as the cause goes on: a condition that lasts is one line when it begins, and one line every
//! ten seconds that says how often it occurred. A period without an occurrence ends it.
//!
//! ```
//! use payrelay::log_once::LogOnce;
//!
//! static CANNOT_ACCEPT: LogOnce = LogOnce::new();
//! CANNOT_ACCEPT.warn(format_args!("cannot accept connections: {}", "too many open files"));
//! ```
//!
//! An occurrence that is only counted costs one atomic addition: no clock, no lock, no formatting. [`LogOncePer`] is for causes that are told
//! apart by a key, such as the backend.

use std::collections::HashMap;
use std::fmt;
use std::hash::Hash;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use log::Level;
use parking_lot::Mutex;

/// A cause has one line in so long, after its first.
pub const PERIOD: Duration = Duration::from_secs(10);

/// The most keys of a [`LogOncePer`] that are told apart at a time; those beyond it share one line.
pub const KEYS_MAX: usize = 256;

/// How many bytes of the first line are repeated beside the count.
const REPEATED_BYTES_MAX: usize = 512;

/// The causes whose period runs, in the order in which the periods end.
static RUNNING: Mutex<Vec<Running>> = Mutex::new(Vec::new());

/// One cause of log lines.
#[derive(Debug, Default)]
pub struct LogOnce {
    count: OnceLock<Count>,
}

/// 0: the cause has not occurred of late. Else its period runs, and this is 1 plus the occurrences that are not told yet.
type Count = Arc<AtomicU64>;

impl LogOnce {
    /// A cause that has not occurred yet.
    pub const fn new() -> Self {
        Self {
            count: OnceLock::new(),
        }
    }

    /// The cause has occurred: a line at level warn, or one more for the count.
    pub fn warn(&self, line: fmt::Arguments<'_>) {
        occurred(self.count(), Level::Warn, line);
    }

    /// The same at level error.
    pub fn error(&self, line: fmt::Arguments<'_>) {
        occurred(self.count(), Level::Error, line);
    }

    fn count(&self) -> &Count {
        self.count.get_or_init(Count::default)
    }
}

/// Writes the line if no period runs; counts the occurrence otherwise.
fn occurred(count: &Count, level: Level, line: fmt::Arguments<'_>) {
    if count.fetch_add(1, Ordering::Relaxed) > 0 {
        return;
    }
    let mut first = line.to_string();
    log::log!(target: "payrelay", level, "{first}");
    cut(&mut first);
    RUNNING.lock().push(Running {
        ends: Instant::now() + PERIOD,
        count: Arc::clone(count),
        level,
        first,
    });
}

/// Causes that are told apart by a key: the backend and the reason, for example.
///
/// Keys may come from a peer: at most [`KEYS_MAX`] are told apart at a time, and the keys beyond that count as one cause.
#[derive(Debug)]
pub struct LogOncePer<K> {
    causes: Mutex<HashMap<K, Count>>,
    others: Count,
}

impl<K> Default for LogOncePer<K> {
    fn default() -> Self {
        Self {
            causes: Mutex::default(),
            others: Count::default(),
        }
    }
}

impl<K: Clone + Eq + Hash> LogOncePer<K> {
    /// The cause `key` has occurred: a line at `level`, or one more for its count.
    pub fn log(&self, level: Level, key: &K, line: fmt::Arguments<'_>) {
        occurred(&self.count(key), level, line);
    }

    fn count(&self, key: &K) -> Count {
        let mut causes = self.causes.lock();
        if let Some(count) = causes.get(key) {
            return Arc::clone(count);
        }
        if causes.len() >= KEYS_MAX {
            causes.retain(|_, count| count.load(Ordering::Relaxed) > 0);
        }
        if causes.len() >= KEYS_MAX {
            return Arc::clone(&self.others);
        }
        Arc::clone(causes.entry(key.clone()).or_default())
    }
}

/// A period that runs.
#[derive(Debug)]
struct Running {
    ends: Instant,
    count: Count,
    level: Level,
    /// The line that began it.
    first: String,
}

/// The count of a period that is over, for the log.
#[derive(Debug, PartialEq, Eq)]
pub struct Repeated {
    /// The level of the line that is repeated.
    pub level: Level,
    /// The whole line.
    pub text: String,
}

/// When [`take_due`] has something to do next; `None`: no period runs. For the thread that writes the log.
pub fn next_due() -> Option<Instant> {
    RUNNING.lock().first().map(|running| running.ends)
}

/// The counts of the periods that are over at `now`. A period in which nothing occurred again ends its cause, silently.
pub fn take_due(now: Instant) -> Vec<Repeated> {
    take_due_of(&mut RUNNING.lock(), now)
}

fn take_due_of(all: &mut Vec<Running>, now: Instant) -> Vec<Repeated> {
    let is_due = all.iter().take_while(|running| running.ends <= now).count();
    let mut told = Vec::new();
    let mut go_on = Vec::new();
    for mut running in all.drain(..is_due) {
        let ended = running
            .count
            .compare_exchange(1, 0, Ordering::Relaxed, Ordering::Relaxed);
        if ended.is_ok() {
            continue;
        }
        let more = running.count.swap(1, Ordering::Relaxed) - 1;
        told.push(Repeated {
            level: running.level,
            text: format!(
                "{more} more in {} s like: {}",
                PERIOD.as_secs(),
                running.first
            ),
        });
        running.ends = now + PERIOD;
        go_on.push(running);
    }
    all.extend(go_on); // the latest end, so the order is kept
    told
}

/// Cuts `line` to [`REPEATED_BYTES_MAX`].
fn cut(line: &mut String) {
    if line.len() <= REPEATED_BYTES_MAX {
        return;
    }
    let end = (0..=REPEATED_BYTES_MAX)
        .rev()
        .find(|&at| line.is_char_boundary(at));
    line.truncate(end.unwrap_or(0));
    line.push('…');
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes the running periods of `causes` alone out of the list: other tests of this process have theirs in it.
    fn running(causes: &[&Count]) -> Vec<Running> {
        let mut all = RUNNING.lock();
        let is_own = |running: &Running| causes.iter().any(|c| Arc::ptr_eq(c, &running.count));
        all.extract_if(.., |running| is_own(running)).collect()
    }

    #[test]
    fn a_flood_is_one_line_in_ten_seconds_and_none_is_missing_from_the_count() {
        let flood = LogOnce::new();
        let began = Instant::now();
        for n in 0..1000 {
            flood.warn(format_args!("bad signature {n}"));
        }
        let mut own = running(&[flood.count()]);
        assert_eq!(own.len(), 1);
        assert_eq!(take_due_of(&mut own, began), []);
        let over = own[0].ends;
        let repeated = |count: u64| Repeated {
            level: Level::Warn,
            text: format!("{count} more in 10 s like: bad signature 0"),
        };
        assert_eq!(take_due_of(&mut own, over), [repeated(999)]);
        // It goes on: no line of its own, one count a period.
        flood.warn(format_args!("bad signature again"));
        assert_eq!(take_due_of(&mut own, over + PERIOD), [repeated(1)]);
        // A period without it ends it, without a line.
        assert_eq!(take_due_of(&mut own, over + 2 * PERIOD), []);
        assert!(own.is_empty());
        // It begins again with its own line.
        flood.warn(format_args!("bad signature, the next day"));
        assert_eq!(
            running(&[flood.count()])[0].first,
            "bad signature, the next day"
        );
    }

    #[test]
    fn keys_are_told_apart_up_to_a_limit_and_old_ones_make_room() {
        let per_backend = LogOncePer::default();
        for n in 0..2 * KEYS_MAX {
            per_backend.log(Level::Info, &n, format_args!("till-{n}"));
            per_backend.log(Level::Info, &n, format_args!("till-{n} again"));
        }
        let causes: Vec<Count> = per_backend.causes.lock().values().cloned().collect();
        let mut all: Vec<&Count> = causes.iter().collect();
        all.push(&per_backend.others);
        let mut own = running(&all);
        assert_eq!(own.len(), KEYS_MAX + 1);
        let over = own[KEYS_MAX].ends;
        let told = take_due_of(&mut own, over);
        assert_eq!(told.len(), KEYS_MAX + 1);
        let others = 2 * KEYS_MAX - 1;
        assert!(
            told.iter()
                .any(|line| line.text.starts_with(&format!("{others} more "))),
            "{told:?}"
        );
        assert_eq!(take_due_of(&mut own, over + PERIOD), []);
        // All are over, so there is room for others.
        per_backend.log(Level::Info, &usize::MAX, format_args!("a new one"));
        assert_eq!(per_backend.causes.lock().len(), 1);
    }

    #[test]
    fn a_long_line_is_repeated_in_part() {
        let mut line = "é".repeat(REPEATED_BYTES_MAX);
        cut(&mut line);
        assert!(line.ends_with("é…") && line.len() <= REPEATED_BYTES_MAX + "…".len());
    }
}
