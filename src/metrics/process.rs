//! The process's own figures, under the names every Prometheus client library gives them.
//!
//! Read from `/proc` at each scrape; a figure that cannot be read is left out.

use std::fmt;
use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use rustix::process::{Resource, getrlimit};

/// Clock ticks per second in `/proc/*/stat`: USER_HZ, 100 on x86 and ARM whatever the kernel's own HZ (proc(5)).
const TICKS_PER_SECOND: f64 = 100.0;

/// Reads the figures; holds what does not change.
#[derive(Debug)]
pub(super) struct Process {
    started_unix_s: f64,
}

impl Process {
    pub(super) fn new() -> Self {
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        let started = read_stat().and_then(|stat| {
            let booted = boot_unix_s(&fs::read_to_string("/proc/stat").ok()?)?;
            Some(booted + stat.start_ticks / TICKS_PER_SECOND)
        });
        Self {
            started_unix_s: started.unwrap_or(now),
        }
    }
}

/// The process's resident memory in bytes; 0 if it cannot be read.
pub fn resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status_figure(&status, "VmRSS").map_or(0, |kib| (kib * 1024.0) as u64)
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        if let Some(stat) = read_stat() {
            let seconds = stat.cpu_ticks / TICKS_PER_SECOND;
            counter(
                &mut encoder,
                "process_cpu_seconds",
                "User and system CPU time spent, in seconds.",
                seconds,
            )?;
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            for (key, unit, name, help) in [
                (
                    "VmRSS",
                    1024.0,
                    "process_resident_memory_bytes",
                    "Resident memory, in bytes.",
                ),
                (
                    "VmSize",
                    1024.0,
                    "process_virtual_memory_bytes",
                    "Virtual memory, in bytes.",
                ),
                ("Threads", 1.0, "process_threads", "Threads."),
            ] {
                if let Some(figure) = status_figure(&status, key) {
                    gauge(&mut encoder, name, help, figure * unit)?;
                }
            }
        }
        if let Ok(fds) = fs::read_dir("/proc/self/fd") {
            // Less the one this very reading holds.
            let open = fds.count().saturating_sub(1);
            gauge(
                &mut encoder,
                "process_open_fds",
                "Open file descriptors.",
                open as f64,
            )?;
        }
        if let Some(most) = getrlimit(Resource::Nofile).current {
            gauge(
                &mut encoder,
                "process_max_fds",
                "The most file descriptors the process may open.",
                most as f64,
            )?;
        }
        gauge(
            &mut encoder,
            "process_start_time_seconds",
            "When the process started, in seconds since 1970-01-01 UTC.",
            self.started_unix_s,
        )
    }
}

fn gauge(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let gauge = ConstGauge::new(value);
    gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let counter = ConstCounter::new(value);
    counter.encode(encoder.encode_descriptor(name, help, None, counter.metric_type())?)
}

/// What is needed of `/proc/self/stat`, in clock ticks.
#[derive(Debug, PartialEq)]
struct Stat {
    cpu_ticks: f64,
    start_ticks: f64,
}

fn read_stat() -> Option<Stat> {
    stat(&fs::read_to_string("/proc/self/stat").ok()?)
}

fn stat(text: &str) -> Option<Stat> {
    // The second field is the program's name in brackets, and may itself hold spaces and brackets.
    let after_name = text.get(text.rfind(')')? + 1..)?;
    let fields: Vec<&str> = after_name.split_ascii_whitespace().collect();
    // proc(5) counts from 1; the first field after the name is number 3.
    let number = |at: usize| fields.get(at - 3)?.parse::<f64>().ok();
    Some(Stat {
        cpu_ticks: number(14)? + number(15)?,
        start_ticks: number(22)?,
    })
}

/// When the system booted, from `/proc/stat`.
fn boot_unix_s(text: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

/// One number of `/proc/self/status`, in the unit it has there.
fn status_figure(text: &str, key: &str) -> Option<f64> {
    text.lines()
        .find_map(|line| line.strip_prefix(key)?.strip_prefix(':'))?
        .split_ascii_whitespace()
        .next()?
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_name_with_brackets_does_not_shift_the_fields() {
        let text = "42 (a) b (c)) S 1 2 3 4 5 6 7 8 9 10 700 30 16 17 18 19 20 21 9000 23";
        assert_eq!(
            stat(text),
            Some(Stat {
                cpu_ticks: 730.0,
                start_ticks: 9000.0
            })
        );
        assert_eq!(stat("garbage"), None);
    }

    #[test]
    fn figures_are_found_by_their_whole_key() {
        let text = "VmRSSx:\t1 kB\nVmRSS:\t  2048 kB\nThreads:\t7\n";
        assert_eq!(status_figure(text, "VmRSS"), Some(2048.0));
        assert_eq!(status_figure(text, "Threads"), Some(7.0));
        assert_eq!(status_figure(text, "VmSize"), None);
    }

    #[test]
    fn the_boot_time_is_read() {
        assert_eq!(
            boot_unix_s("cpu 1 2\nbtime 1764000000\n"),
            Some(1_764_000_000.0)
        );
    }

    #[test]
    fn this_process_is_measured() {
        let mut registry = prometheus_client::registry::Registry::default();
        registry.register_collector(Box::new(Process::new()));
        let mut text = String::new();
        assert!(prometheus_client::encoding::text::encode(&mut text, &registry).is_ok());
        let figure = |name: &str| -> Option<f64> {
            text.lines()
                .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))?
                .parse()
                .ok()
        };
        for name in [
            "process_cpu_seconds_total",
            "process_resident_memory_bytes",
            "process_virtual_memory_bytes",
            "process_threads",
            "process_open_fds",
            "process_max_fds",
            "process_start_time_seconds",
        ] {
            assert!(figure(name).is_some(), "{name} is missing");
        }
        assert!(figure("process_resident_memory_bytes") > Some(100_000.0));
        assert!(figure("process_threads") >= Some(2.0));
        // A misread boot time or tick rate would be off by far more than a day.
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0.0, |since| since.as_secs_f64());
        assert!(figure("process_start_time_seconds").is_some_and(|at| (now - at).abs() < 86_400.0));
    }
}
