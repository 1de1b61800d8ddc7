//! The threads that serve everybody: whether each turns, and how often each was started again.

use std::sync::atomic::Ordering;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::registered;
use crate::heartbeat::ThreadReading;

/// The series.
pub(super) struct Threads {
    up: Family<ThreadLabels, Gauge>,
    restarts: Family<ThreadLabels, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ThreadLabels {
    thread: String,
}

impl Threads {
    pub(super) fn register(registry: &mut Registry) -> Self {
        Self {
            up: registered(
                registry,
                "payrelay_thread_up",
                "1 while a thread that serves everybody turns, 0 if it hangs or has just panicked",
            ),
            restarts: registered(
                registry,
                "payrelay_thread_restarts",
                "How often a thread that serves everybody panicked and was started again",
            ),
        }
    }

    pub(super) fn set(&self, readings: &[ThreadReading]) {
        for thread in readings {
            let labels = ThreadLabels {
                thread: thread.name.clone(),
            };
            let up = self.up.get_or_create(&labels);
            up.set(i64::from(thread.is_well));
            let restarts = self.restarts.get_or_create(&labels);
            restarts
                .inner()
                .fetch_max(thread.restarts, Ordering::Relaxed);
        }
    }
}
