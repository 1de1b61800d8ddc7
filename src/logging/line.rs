//! A log line: what a thread says, how it becomes one line of bounded length, and how that line is written out.

use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::sync::Arc;

use log::{Level, LevelFilter, Log, Record};
use parking_lot::Mutex;
use serde::Serialize;
use simplelog::{ConfigBuilder, WriteLogger};

use crate::config::LogFormat;
use crate::notification::unix_ms;

/// A line longer than this is cut, so that one record cannot fill the disk. In bytes.
pub(super) const LINE_BYTES_MAX: usize = 16 * 1024;

/// What a thread has said.
#[derive(Debug)]
pub(super) struct LogLine {
    unix_ms: u64,
    level: Level,
    /// `(thread) message`, control characters escaped.
    text: String,
    /// Where the message begins in it.
    message_at: usize,
}

impl LogLine {
    /// `message` of this thread, now. `speaker` is the dependency that speaks; empty for the relay itself.
    pub(super) fn new(level: Level, speaker: &str, message: fmt::Arguments<'_>) -> Self {
        let thread = std::thread::current();
        Self::of(thread.name().unwrap_or("?"), level, speaker, message)
    }

    /// The same in the name of `thread`.
    pub(super) fn of(
        thread: &str,
        level: Level,
        speaker: &str,
        message: fmt::Arguments<'_>,
    ) -> Self {
        let mut text = String::new();
        let mut line = Escaping {
            out: &mut text,
            left: LINE_BYTES_MAX,
        };
        // A String takes everything; what fails is the Display of a message, whose line ends there.
        let _ = write!(line, "({thread}) ");
        let message_at = line.out.len();
        let _ = match speaker {
            "" => write!(line, "{message}"),
            _ => write!(line, "{speaker}: {message}"),
        };
        Self {
            unix_ms: unix_ms(),
            level,
            text,
            message_at,
        }
    }

    fn add_json(&self, out: &mut Vec<u8>) {
        #[derive(Serialize)]
        struct Json<'a> {
            time: String,
            level: String,
            thread: &'a str,
            message: &'a str,
        }
        let (thread, message) = self.text.split_at(self.message_at);
        let thread = thread.trim_end().trim_matches(['(', ')']);
        let level = self.level.as_str().to_ascii_lowercase();
        let time = Utc(self.unix_ms).to_string();
        let json = Json {
            time,
            level,
            thread,
            message,
        };
        // Texts alone have a form in JSON.
        let _ = serde_json::to_writer(&mut *out, &json);
        out.push(b'\n');
    }

    pub(super) fn level(&self) -> Level {
        self.level
    }

    /// In bytes, as far as it counts for the queue's bound.
    pub(super) fn size(&self) -> usize {
        self.text.len()
    }
}

/// Writes control characters as `\n`, `\t`, `\u{1b}`, and nothing once the line is full.
struct Escaping<'a> {
    out: &'a mut String,
    left: usize,
}

impl fmt::Write for Escaping<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for c in text.chars() {
            let bytes = if c.is_control() {
                c.escape_default().len()
            } else {
                c.len_utf8()
            };
            if self.left == 0 {
                return Ok(());
            }
            if bytes > self.left {
                self.left = 0;
                self.out.push('…');
                return Ok(());
            }
            self.left -= bytes;
            if c.is_control() {
                self.out.extend(c.escape_default());
            } else {
                self.out.push(c);
            }
        }
        Ok(())
    }
}

/// Makes bytes of lines: simplelog, with a time of one width before it.
pub(super) struct Formatter {
    simplelog: Box<WriteLogger<Buffer>>,
    buffer: Buffer,
}

/// Where simplelog writes to.
#[derive(Clone, Default)]
struct Buffer(Arc<Mutex<Vec<u8>>>);

impl Write for Buffer {
    fn write(&mut self, piece: &[u8]) -> io::Result<usize> {
        self.0.lock().write(piece)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Default for Formatter {
    fn default() -> Self {
        let format = ConfigBuilder::new()
            .set_time_level(LevelFilter::Off) // simplelog's RFC 3339 varies in width
            .set_thread_level(LevelFilter::Off) // it would name the thread that formats
            .set_target_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off)
            .build();
        let buffer = Buffer::default();
        Self {
            simplelog: WriteLogger::new(LevelFilter::Trace, format, buffer.clone()),
            buffer,
        }
    }
}

impl Formatter {
    /// Adds `line` to `out`, its line feed too.
    pub(super) fn add(&self, line: &LogLine, format: LogFormat, out: &mut Vec<u8>) {
        match format {
            LogFormat::Text => self.add_text(line, out),
            LogFormat::Json => line.add_json(out),
        }
    }

    fn add_text(&self, line: &LogLine, out: &mut Vec<u8>) {
        let text = &line.text;
        {
            let mut buffer = self.buffer.0.lock();
            buffer.clear();
            // A Vec takes everything.
            let _ = write!(buffer, "{} ", Utc(line.unix_ms));
        }
        self.simplelog.log(
            &Record::builder()
                .level(line.level)
                .args(format_args!("{text}"))
                .build(),
        );
        out.extend_from_slice(&self.buffer.0.lock());
    }
}

/// Unix milliseconds, shown as `2026-03-01T12:00:00.123Z`.
#[derive(Clone, Copy, Debug)]
pub struct Utc(pub u64);

impl fmt::Display for Utc {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (seconds, ms) = (self.0 / 1000, self.0 % 1000);
        let (days, second) = (seconds / 86_400, seconds % 86_400);
        // Howard Hinnant's civil_from_days, for days since 1970: years begin in March, so a leap day comes last.
        let days = days + 719_468;
        let (era, day_of_era) = (days / 146_097, days % 146_097);
        let year_of_era =
            (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let march_month = (5 * day_of_year + 2) / 153;
        let day = day_of_year - (153 * march_month + 2) / 5 + 1;
        let month = if march_month < 10 {
            march_month + 3
        } else {
            march_month - 9
        };
        let year = era * 400 + year_of_era + u64::from(month <= 2);
        write!(
            f,
            "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}.{ms:03}Z",
            second / 3600,
            second / 60 % 60,
            second % 60
        )
    }
}
