//! The thread that writes the log. It may hang as long as its file or its reader does: no other thread waits for it.

use std::time::Instant;

use log::Level;

use super::line::{Formatter, Line};
use super::output::{Output, Stopped};
use super::queue::{Queue, Target, Task};
use crate::log_once;

/// The thread's name, in its own lines too.
pub(super) const NAME: &str = "log";

/// What the thread works with.
pub(super) struct Writer<'a> {
    queue: &'a Queue,
    output: Output,
    formatter: Formatter,
    /// Lines lost since the last that could be written.
    lost: u64,
    /// Why the last write failed.
    error: Option<std::io::Error>,
    bytes: Vec<u8>,
}

/// Writes what comes until the queue is closed.
pub(super) fn work(queue: &Queue, output: Output) {
    let mut writer = Writer {
        queue,
        output,
        formatter: Formatter::default(),
        lost: 0,
        error: None,
        bytes: Vec::new(),
    };
    loop {
        match queue.take(log_once::next_due()) {
            Task::Write(lines, lost_before) => {
                writer.lost += lost_before;
                if writer.write(&lines) {
                    return;
                }
            }
            Task::Open(target) => writer.open(target),
            Task::Due => tell_repeated(),
            Task::End => return,
        }
    }
}

impl Writer<'_> {
    /// Writes `lines`, before them how many were lost. Whether the end has come meanwhile.
    fn write(&mut self, lines: &[Line]) -> bool {
        let mut rest = lines;
        loop {
            self.bytes.clear();
            let (lost, has_note) = (self.lost, self.lost > 0);
            if has_note {
                let note = self.note(lost);
                self.formatter.add(&note, &mut self.bytes);
            }
            for line in rest {
                self.formatter.add(line, &mut self.bytes);
            }
            let queue = self.queue;
            let (written, result) = self.output.write(&self.bytes, || queue.interrupts());
            let out = self.bytes[..written].iter().filter(|&&byte| byte == b'\n');
            let mut out = out.count();
            if has_note && out > 0 {
                self.lost -= lost;
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
                    self.lose(rest);
                    return false;
                }
                // What is left goes to the other file.
                Err(Stopped::Interrupted) => match queue.take_interrupt() {
                    Some(Task::Open(target)) => self.open(target),
                    Some(_) => {
                        self.lose(rest);
                        return true;
                    }
                    None => {}
                },
            }
        }
    }

    fn lose(&mut self, lines: &[Line]) {
        self.lost += lines.len() as u64;
        self.queue.add_lost(lines.len() as u64);
        dispose(self.queue, lines);
    }

    /// Tells of `lost` lines.
    fn note(&self, lost: u64) -> Line {
        let reason = match &self.error {
            Some(error) => error.to_string(),
            None => "its reader or its disk was too slow".to_owned(),
        };
        let message = format_args!("{lost} lines of the log before this one were lost: {reason}");
        Line::of(NAME, Level::Warn, "", message)
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

fn dispose(queue: &Queue, lines: &[Line]) {
    queue.dispose(lines.len(), lines.iter().map(Line::size).sum());
}
