//! `[delivery]`, `[outbox]` and `[log]`.

use std::path::PathBuf;
use std::time::Duration;

use log::LevelFilter;

use super::declare::{live, restart, section};
use super::reader::Section;
use super::units::{DAY, GIB, HOUR, MIB, MINUTE, SECOND};
use super::values::{count, duration, file_name, one_of, size, some};

section! {
    /// `[delivery]`
    pub struct DeliveryConfig in "delivery" {
        /// How long the provider's answer may wait for the backend's ACK.
        ack_deadline: Duration = Duration::from_secs(4), duration(50..=MINUTE), restart;
        /// What to do with what was not acknowledged in time.
        undelivered: UndeliveredPolicy = UndeliveredPolicy::Store, one_of(UNDELIVERED), restart;
        /// How long an event that was delivered or stored is known, so that a provider's retry is answered ok at once.
        dedupe_window: Duration = Duration::from_millis(DAY), duration(MINUTE..=30 * DAY), restart;
    }
}

/// What to do with what was not acknowledged in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UndeliveredPolicy {
    /// Keep it on disk, answer ok, deliver it later.
    Store,
    /// Answer fail: the provider keeps it and tries again.
    Refuse,
}

const UNDELIVERED: &[(&str, UndeliveredPolicy)] = &[
    ("store", UndeliveredPolicy::Store),
    ("refuse", UndeliveredPolicy::Refuse),
];

/// Above this, providers such as WeChat Pay (5 s) may have given up before the answer comes.
const ACK_DEADLINE_ADVISED: Duration = Duration::from_millis(4500);

/// Reads `[delivery]`.
pub fn delivery(mut s: Section<'_>) -> DeliveryConfig {
    let delivery = DeliveryConfig::read(&mut s);
    let is_late = delivery.ack_deadline > ACK_DEADLINE_ADVISED;
    if let (true, Some(deadline)) = (is_late, s.field("ack_deadline")) {
        deadline.warn(
            "above 4.5s some providers (WeChat Pay: 5 s) give up before the answer comes and send again",
        );
    }
    s.close();
    delivery
}

section! {
    /// `[outbox]`
    pub struct OutboxConfig in "outbox" {
        /// The database file; relative to the working directory.
        path: PathBuf = "data/outbox.db".into(), file_name, restart;
        /// The wait before the first redelivery; it doubles with each further one.
        retry_first: Duration = Duration::from_secs(1), duration(100..=HOUR), restart;
        /// The longest wait between two redeliveries.
        retry_max: Duration = Duration::from_secs(300), duration(SECOND..=DAY), restart;
        /// What was sent to a backend this often and never acknowledged goes to the dead letters.
        max_tries: u32 = 100, count(1..=1_000_000), restart;
        /// The most redeliveries offered in a second, to all backends together.
        redelivery_rate: u32 = 6_000, count(1..=1_000_000), restart;
        /// What was stored this long ago and is not acknowledged goes to the dead letters.
        expire: Duration = Duration::from_millis(7 * DAY), duration(MINUTE..=365 * DAY), restart;
        /// How long an acknowledged notification stays to be looked at.
        keep: Duration = Duration::from_millis(HOUR), duration(0..=30 * DAY), restart;
        /// The most notifications kept.
        max_messages: u64 = 1_000_000, count(1..=100_000_000), restart;
        /// The most bytes the database may take.
        max_bytes: u64 = 4 * GIB, size(MIB..=1024 * GIB), restart;
        /// The most bytes its write-ahead log may take while a reader keeps it from being moved into the database.
        max_log_bytes: u64 = 256 * MIB, size(32 * MIB..=64 * GIB), restart;
        /// Whether it is mirrored in Redis.
        shared: SharedOutbox = SharedOutbox::Off, one_of(SHARED), restart;
        /// A node of which nothing was heard for so long is gone, and the other nodes take over what it had.
        inherit_after: Duration = Duration::from_millis(MINUTE), duration(2 * SECOND..=DAY), restart;
    }
}

/// Whether what is stored is mirrored in Redis too, so that it outlives the node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SharedOutbox {
    /// It lies on the node's own disk alone.
    Off,
    /// In Redis too; while Redis is away, on the disk alone.
    Prefer,
    /// In Redis too; while Redis is away, nothing is stored.
    Require,
}

const SHARED: &[(&str, SharedOutbox)] = &[
    ("off", SharedOutbox::Off),
    ("prefer", SharedOutbox::Prefer),
    ("require", SharedOutbox::Require),
];

/// Reads `[outbox]`.
pub fn outbox(mut s: Section<'_>, has_redis: bool) -> OutboxConfig {
    let outbox = OutboxConfig::read(&mut s);
    let is_shared = outbox.shared != SharedOutbox::Off;
    if let (true, false, Some(field)) = (is_shared, has_redis, s.field("shared")) {
        field.refuse(
            "the outbox is shared through Redis, and there is no [redis]; add it, or leave shared out",
        );
    }
    let field = s.field("retry_max").or(s.field("retry_first"));
    if let (true, Some(field)) = (outbox.retry_first > outbox.retry_max, field) {
        field.refuse(
            "outbox.retry_first (default 1s) must not be above outbox.retry_max (default 5m)",
        );
    }
    s.close();
    outbox
}

section! {
    /// `[log]`
    pub struct LogConfig in "log" {
        /// The least severe level that is written.
        level: LevelFilter = LevelFilter::Info, one_of(LEVELS), live;
        /// The file to append to; `None`: standard error.
        file: Option<PathBuf> = None, some(file_name), live;
        /// What a line looks like.
        format: LogFormat = LogFormat::Text, one_of(LOG_FORMATS), live;
    }
}

/// What a line of the log looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// `TIME [LEVEL] (thread) message`, for people.
    Text,
    /// A JSON object, for programs.
    Json,
}

const LOG_FORMATS: &[(&str, LogFormat)] = &[("text", LogFormat::Text), ("json", LogFormat::Json)];

const LEVELS: &[(&str, LevelFilter)] = &[
    ("off", LevelFilter::Off),
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];

/// Reads `[log]`.
pub fn log(mut s: Section<'_>) -> LogConfig {
    let log = LogConfig::read(&mut s);
    s.close();
    log
}
