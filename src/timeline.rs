//! What happened to one notification, step by step, in words that an operator reads.
//!
//! A timeline is bounded: of one that goes round for days the beginning and the end are kept.

use std::fmt::Write;

/// The most steps that are kept.
const STEPS_MAX: usize = 64;

/// How many of them are the first ones.
const FIRST_KEPT: usize = 8;

/// The longest detail, in bytes.
const DETAIL_BYTES_MAX: usize = 300;

/// The word of the step that stands for those left out.
const OMITTED: &str = "omitted";

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, in Unix milliseconds, by the system's clock.
    pub at_unix_ms: u64,
    /// One word: `received`, `sent`, `acked` …
    pub what: String,
    /// More of it; may be empty. Never a part of a body.
    pub detail: String,
}

/// The steps, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Timeline(Vec<Step>);

impl Timeline {
    /// The steps.
    pub fn steps(&self) -> &[Step] {
        &self.0
    }

    /// Adds a step. Line breaks in `detail` become spaces, and what is too long is cut.
    pub fn add(&mut self, at_unix_ms: u64, what: &str, detail: &str) {
        let mut end = detail.len().min(DETAIL_BYTES_MAX);
        while !detail.is_char_boundary(end) {
            end -= 1;
        }
        let detail = detail[..end].replace(|c: char| c.is_control(), " ");
        if self.0.len() >= STEPS_MAX {
            self.leave_one_out();
        }
        self.0.push(Step {
            at_unix_ms,
            what: what.to_owned(),
            detail,
        });
    }

    fn leave_one_out(&mut self) {
        let at = FIRST_KEPT;
        let before: u32 = match self.0.get(at) {
            Some(step) if step.what == OMITTED => {
                let before = step.detail.split(' ').next();
                before.and_then(|count| count.parse().ok()).unwrap_or(0)
            }
            _ => 0,
        };
        let taken = if before > 0 { 1 } else { 2 };
        let last = self.0.drain(at..at + 2).next_back();
        let omitted = Step {
            at_unix_ms: last.map_or(0, |step| step.at_unix_ms),
            what: OMITTED.to_owned(),
            detail: format!("{} steps", before + taken),
        };
        self.0.insert(at, omitted);
    }

    /// One line for each step, as it is kept on disk.
    pub fn to_text(&self) -> String {
        let mut text = String::with_capacity(self.0.len() * 32);
        for step in &self.0 {
            // A String takes everything.
            let _ = writeln!(text, "{} {} {}", step.at_unix_ms, step.what, step.detail);
        }
        text
    }

    /// Reads [`Timeline::to_text`] back; what is no step is left out.
    pub fn from_text(text: &str) -> Self {
        let step = |line: &str| {
            let mut parts = line.splitn(3, ' ');
            Some(Step {
                at_unix_ms: parts.next()?.parse().ok()?,
                what: parts.next()?.to_owned(),
                detail: parts.next().unwrap_or_default().to_owned(),
            })
        };
        Self(text.lines().filter_map(step).take(STEPS_MAX).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_back_what_it_wrote() {
        let mut timeline = Timeline::default();
        timeline.add(5, "received", "");
        timeline.add(7, "nacked", "a reason\nof two lines");
        let text = timeline.to_text();
        assert_eq!(text, "5 received \n7 nacked a reason of two lines\n");
        assert_eq!(Timeline::from_text(&text), timeline);
        assert_eq!(Timeline::from_text("rubbish\n\n"), Timeline::default());
    }

    #[test]
    fn of_a_long_one_the_beginning_and_the_end_are_kept() {
        let mut timeline = Timeline::default();
        for n in 0..1000 {
            timeline.add(n, "sent", &"ä".repeat(1000));
        }
        let steps = timeline.steps();
        assert_eq!(steps.len(), STEPS_MAX);
        assert_eq!((steps[0].at_unix_ms, steps[7].at_unix_ms), (0, 7));
        let kept = STEPS_MAX as u64 - 1;
        assert_eq!(
            (steps[8].what.as_str(), steps[8].detail.as_str()),
            (OMITTED, format!("{} steps", 1000 - kept).as_str())
        );
        assert_eq!(steps[STEPS_MAX - 1].at_unix_ms, 999);
        assert!(steps[0].detail.len() <= DETAIL_BYTES_MAX);
    }
}
