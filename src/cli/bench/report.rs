//! What a run came to, for people and for programs.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use super::backends::BackendStats;
use super::error::BenchError;
use super::histogram::Histogram;
use super::plan::{Endpoint, Plan};
use super::providers::ProviderStats;
use crate::cli::send::answer::is_ok_outcome;
use crate::cli::terminal::{Tone, out};
use crate::cli::text::one_line;

/// A thread of the load generator that is this busy may be what limits the figures.
const BUSY: f64 = 0.9;

/// The shares of all notifications whose times are shown.
const QUANTILES: [(&str, f64); 4] = [("p50", 0.5), ("p90", 0.9), ("p99", 0.99), ("p99_9", 0.999)];

/// Everything that was measured.
#[derive(Debug)]
pub struct Report<'a> {
    pub plan: &'a Plan,
    pub posted: ProviderStats,
    pub received: BackendStats,
    /// How many have been posted.
    pub sent: u64,
    /// How many have arrived, each counted once.
    pub arrived: u64,
    /// Answered ok, and not arrived when the run was over.
    pub lost: u64,
    /// A signal ended it.
    pub interrupted: bool,
}

impl Report<'_> {
    /// Why the relay did not do what it should, in words; empty: every notification was delivered once, and answered ok.
    pub fn faults(&self) -> Vec<String> {
        let mut faults: Vec<String> = self.troubles().map(BenchError::to_string).collect();
        for (count, words) in self.counts() {
            if count > 0 {
                faults.push(format!("{} {words}", grouped(count)));
            }
        }
        let not_ok = self
            .posted
            .outcomes
            .iter()
            .filter(|(outcome, _)| !is_ok_outcome(outcome));
        let not_ok: u64 = not_ok.map(|(_, count)| count).sum();
        if not_ok > 0 {
            faults.push(format!("{} not answered ok", grouped(not_ok)));
        }
        faults
    }

    fn counts(&self) -> [(u64, &'static str); 5] {
        [
            (self.lost, "lost"),
            (self.received.duplicates, "duplicates"),
            (self.received.damaged, "damaged"),
            (self.posted.early, "answered delivered too early"),
            (self.posted.unanswered, "unanswered"),
        ]
    }

    fn troubles(&self) -> impl Iterator<Item = &BenchError> {
        let all = [&self.received.error, &self.posted.error];
        all.into_iter().filter_map(Option::as_ref)
    }

    /// From the first post to the last arrival, or to the end of posting if that is later.
    fn took(&self) -> Duration {
        let arrivals = self.received.last_ns.saturating_sub(self.posted.began_ns);
        self.posted.took.max(Duration::from_nanos(arrivals))
    }

    fn per_second(&self, amount: f64) -> f64 {
        match self.took().as_secs_f64() {
            0.0 => 0.0,
            seconds => amount / seconds,
        }
    }

    /// How much of one processor each side of the load generator took.
    fn generator(&self) -> [(&'static str, f64); 2] {
        let share = |cpu: Duration| self.per_second(cpu.as_secs_f64());
        [
            ("providers", share(self.posted.cpu)),
            ("backends", share(self.received.cpu)),
        ]
    }

    /// A few lines for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        // A String takes everything.
        let _ = writeln!(
            text,
            "posted      {:>11}  in {:.1} s{}",
            grouped(self.sent),
            self.took().as_secs_f64(),
            if self.interrupted {
                ", ended by a signal"
            } else {
                ""
            }
        );
        let _ = writeln!(
            text,
            "arrived     {:>11}  {}/s",
            grouped(self.arrived),
            grouped(self.per_second(self.arrived as f64).round() as u64)
        );
        for (outcome, &count) in &self.posted.outcomes {
            let _ = writeln!(
                text,
                "answered    {:>11}  {}",
                grouped(count),
                out(Tone::of_state(outcome), one_line(outcome))
            );
        }
        let mut head = String::from("ms                   ");
        for (name, _) in QUANTILES {
            let _ = write!(head, "{:>9}", name.replace('_', "."));
        }
        let _ = write!(head, "{:>9}", "max");
        let _ = writeln!(text, "\n{}", out(Tone::Head, head));
        for (name, latency) in self.latencies() {
            let _ = write!(text, "{name:<21}");
            for (_, share) in QUANTILES {
                let _ = write!(text, "{:>9}", shown(latency.quantile(share)));
            }
            let _ = writeln!(text, "{:>9}", shown(latency.max()));
        }
        text.push('\n');
        let counts = self.counts();
        let counts: Vec<_> = counts
            .iter()
            .map(|(n, words)| match (format!("{} {words}", grouped(*n)), n) {
                (text, 0) => text,
                (text, _) => out(Tone::Bad, text),
            })
            .collect();
        let _ = writeln!(text, "{}", counts.join(", "));
        for note in self.notes() {
            let _ = writeln!(text, "{}: {note}", out(Tone::Odd, "note"));
        }
        text
    }

    fn latencies(&self) -> [(&'static str, &Histogram); 2] {
        [
            ("post to backend", &self.received.latency),
            ("post to answer", &self.posted.latency),
        ]
    }

    /// What a reader of the figures should know.
    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        if let (Some(rate), unsent @ 1..) = (self.plan.rate, self.posted.unsent) {
            notes.push(format!(
                "the rate of {} a second was not kept: {} were due and not posted; they count as answered after the time \
                 that they had waited",
                grouped(rate.into()),
                grouped(unsent)
            ));
        }
        for (side, share) in self.generator() {
            if share > BUSY {
                notes.push(format!(
                    "the load generator's {side} took {:.0} % of a processor: it may be what limits these figures",
                    share * 100.0
                ));
            }
        }
        if self.received.error.is_some() {
            notes.push("the backends ended first: what went elsewhere from then on cannot be told from what was lost".into());
        }
        if self.received.foreign > 0 {
            notes.push(format!(
                "{} notifications of others came and were acknowledged",
                grouped(self.received.foreign)
            ));
        }
        if self.lost > 0 && self.posted.outcomes.contains_key("stored") {
            notes.push("some of the lost may be in the relay's outbox still".into());
        }
        notes
    }

    /// The same for programs. Names carry their units; times are in milliseconds.
    pub fn json(&self) -> String {
        let texts = |places: &[Endpoint]| -> Vec<String> {
            places.iter().map(|p| p.text.clone()).collect()
        };
        let times = |latency: &Histogram| {
            let quantiles =
                QUANTILES.map(|(name, share)| (name.to_owned(), in_ms(latency.quantile(share))));
            let max = [("max".to_owned(), in_ms(latency.max()))];
            quantiles
                .into_iter()
                .chain(max)
                .collect::<serde_json::Map<_, _>>()
        };
        let [providers, backends] = self.generator();
        let mut report = json!({
            "version": env!("CARGO_PKG_VERSION"),
            "http": texts(&self.plan.http),
            "tcp": texts(&self.plan.tcp),
            "path": self.plan.target,
            "backends": self.plan.backends.len(),
            "credit": self.plan.credit,
            "concurrency": self.plan.concurrency,
            "rate_per_s": self.plan.rate,
            "body_bytes": self.plan.body_bytes,
            "interrupted": self.interrupted,
            "faults": self.faults(),
            "seconds": rounded(self.took().as_secs_f64()),
            "posted": self.sent,
            "arrived": self.arrived,
            "arrived_per_s": rounded(self.per_second(self.arrived as f64)),
            "outcomes": self.posted.outcomes,
            "lost": self.lost,
            "duplicates": self.received.duplicates,
            "damaged": self.received.damaged,
            "early": self.posted.early,
            "unanswered": self.posted.unanswered,
            "unsent": self.posted.unsent,
            "foreign": self.received.foreign,
            "generator_cpu": { providers.0: rounded(providers.1), backends.0: rounded(backends.1) },
        });
        for (name, latency) in self.latencies() {
            report[format!("{}_ms", name.replace(' ', "_"))] = times(latency).into();
        }
        format!("{report:#}\n")
    }
}

fn in_ms(time: Duration) -> Value {
    rounded(time.as_secs_f64() * 1000.0).into()
}

/// To three places: more would be noise.
fn rounded(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}

/// Milliseconds with three figures that mean something.
fn shown(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1000.0;
    match ms {
        ..10.0 => format!("{ms:.2}"),
        ..100.0 => format!("{ms:.1}"),
        _ => format!("{ms:.0}"),
    }
}

/// `1234567` as `1,234,567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped_and_times_short() {
        let all = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (1234567, "1,234,567"),
        ];
        for (number, text) in all {
            assert_eq!(grouped(number), text);
        }
        let all = [(170, "0.17"), (12_340, "12.3"), (1_234_000, "1234")];
        for (us, text) in all {
            assert_eq!(shown(Duration::from_micros(us)), text);
        }
    }
}
