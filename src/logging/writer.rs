//! The thread that writes the log. It may hang as long as its file or its reader does: no other thread waits for it.

use std::time::Instant;

use log::Level;

use super::line::{Formatter, LogLine};
use super::output::{Output, Stopped};
use super::queue::{Queue, Target, Task};
use crate::config::LogFormat;
use crate::heartbeat::Pulse;
use crate::log_once;

/// The thread's name, in its own lines too.
pub(super) const NAME: &str = "log";

/// What the thread works with.
pub(super) struct LogWriter {
    output: Output,
    formatter: Formatter,
    /// Lines lost since the last that could be written.
    lost: u64,
    /// Why the last write failed.
    error: Option<std::io::Error>,
    bytes: Vec<u8>,
}

impl LogWriter {
    pub(super) fn new(output: Output) -> Self {
        Self {
            output,
            formatter: Formatter::default(),
            lost: 0,
            error: None,
            bytes: Vec::new(),
        }
    }

    /// Writes what comes until the queue is closed. Fit to be called again after a panic.
    pub(super) fn run(&mut self, queue: &Queue, pulse: &Pulse) {
        self.lost += queue.recover();
        loop {
            pulse.idle();
            let task = queue.take(log_once::next_due());
            pulse.busy();
            match task {
                Task::Write(lines, lost_before) => {
                    self.lost += lost_before;
                    if self.write(queue, &lines) {
                        return;
                    }
                }
                Task::Open(target) => self.open(target),
                Task::Due => tell_repeated(),
                Task::End => return,
            }
        }
    }

    /// Writes `lines`, before them how many were lost. Whether the end has come meanwhile.
    fn write(&mut self, queue: &Queue, lines: &[LogLine]) -> bool {
        let mut rest = lines;
        loop {
            let lost = self.lost;
            self.format(rest, queue.format());
            let (written, result) = self.output.write(&self.bytes, || queue.interrupts());
            let out = self.bytes[..written].iter().filter(|&&byte| byte == b'\n');
            let mut out = out.count();
            if lost > 0 && out > 0 {
                self.lost -= lost; // the first line has told of them
                out -= 1;
            }
            let (done, left) = rest.split_at(out);
            dispose(queue, done);
            rest = left;
            match result {
                Ok(()) => {
                    self.error = None;
                    return false;
                }
                Err(Stopped::Error(error)) => {
                    self.error = Some(error);
                    self.lose(queue, rest);
                    return false;
                }
                // What is left goes to the other file.
                Err(Stopped::Interrupted) => match queue.take_interrupt() {
                    Some(Task::Open(target)) => self.open(target),
                    Some(_) => {
                        self.lose(queue, rest);
                        return true;
                    }
                    None => {}
                },
            }
        }
    }

    /// Makes bytes of `lines`, before them of how many were lost.
    fn format(&mut self, lines: &[LogLine], format: LogFormat) {
        self.bytes.clear();
        if self.lost > 0 {
            let (lost, reason) = (self.lost, self.reason());
            let told = format_args!("{lost} lines of the log before this one were lost: {reason}");
            let note = LogLine::of(NAME, Level::Warn, "", told);
            self.formatter.add(&note, format, &mut self.bytes);
        }
        for line in lines {
            self.formatter.add(line, format, &mut self.bytes);
        }
    }

    fn reason(&self) -> String {
        match &self.error {
            Some(error) => error.to_string(),
            None => "its reader or its disk was too slow".to_owned(),
        }
    }

    fn lose(&mut self, queue: &Queue, lines: &[LogLine]) {
        self.lost += lines.len() as u64;
        queue.add_lost(lines.len() as u64);
        dispose(queue, lines);
    }

    /// Goes over to `target`, or stays.
    fn open(&mut self, target: Target) {
        match Output::open(target) {
            Ok(fresh) => {
                self.output = fresh;
                log::info!("log opened");
            }
            Err(error) => log::error!("{error}; logging goes on where it was"),
        }
    }
}

/// Tells how often something was repeated that has a line only now and then.
fn tell_repeated() {
    for repeated in log_once::take_due(Instant::now()) {
        log::log!(repeated.level, "{}", repeated.text);
    }
}

fn dispose(queue: &Queue, lines: &[LogLine]) {
    queue.dispose(lines.len(), lines.iter().map(LogLine::size).sum());
}
