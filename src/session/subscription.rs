//! What a session hears of channels (SUB), and how much it may say (SEND, PUB): data that the session's thread and the
//! threads of the bus share.

use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use super::mailbox::Mailbox;
use super::outgoing::Outgoing;
use crate::bus::ListenerId;
use crate::bus::{Channel, Event, Events};
use crate::metrics::BusMetrics;
use crate::wire;

/// The subscriptions of one session; most have none.
#[derive(Default)]
pub struct Subscriptions(Vec<Subscription>);

struct Subscription {
    channel: Channel,
    listener: ListenerId,
    state: Arc<SubscriptionState>,
}

/// What a listener on the bus and its session both know.
#[derive(Default)]
pub struct SubscriptionState {
    /// It was for one event, which has come.
    is_spent: AtomicBool,
    /// Events that found no room since the backend was last told of such.
    lost: AtomicU32,
}

impl Subscriptions {
    /// How many channels there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Adds one.
    pub fn add(&mut self, channel: Channel, listener: ListenerId, state: Arc<SubscriptionState>) {
        self.0.push(Subscription {
            channel,
            listener,
            state,
        });
    }

    /// Ends the subscription to `channel`, and clears those that were for one event and have had it.
    pub fn remove(&mut self, channel: &Channel, events: &Events) {
        self.0.retain(|subscription| {
            if subscription.channel == *channel {
                events.remove_listener(subscription.listener.clone());
                return false;
            }
            let state = &subscription.state;
            !state.is_spent.load(Ordering::Relaxed) || state.lost.load(Ordering::Relaxed) > 0
        });
    }

    /// Ends all.
    pub fn clear(&mut self, events: &Events) {
        for subscription in self.0.drain(..) {
            events.remove_listener(subscription.listener);
        }
    }

    /// Writes which channels have lost events, if there is room for it.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn report_lost(&self, outgoing: &mut Outgoing, now: Instant) -> io::Result<()> {
        let has_lost = |one: &Subscription| one.state.lost.load(Ordering::Relaxed) > 0;
        let has_room = outgoing.is_open && !outgoing.link.is_backed_up();
        if has_room && self.0.iter().any(has_lost) {
            outgoing.link.frame(now, |out| {
                for subscription in &self.0 {
                    subscription.state.report_lost(&subscription.channel, out);
                }
            });
            outgoing.flush(now)?;
        }
        Ok(())
    }
}

impl SubscriptionState {
    fn report_lost(&self, channel: &Channel, out: &mut Vec<u8>) {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        if lost > 0 {
            let words = format!("{lost} events were not read in time and are lost");
            wire::line(out, "ERR")
                .arg("code", "busy")
                .arg("ch", channel.as_str())
                .arg("msg", &words)
                .end();
        }
    }
}

/// Writes the events of one channel to one session. Called by threads of the bus and of other sessions.
pub struct EventWriter {
    /// Weak: the listener must not keep a session's socket open.
    pub mailbox: Weak<Mailbox>,
    /// The channel.
    pub channel: Channel,
    /// It ends with its first event.
    pub once: bool,
    /// Shared with the session.
    pub state: Arc<SubscriptionState>,
    /// Where events are counted.
    pub metrics: BusMetrics,
}

impl EventWriter {
    /// Writes `event`, or counts it as lost.
    pub fn write(&self, event: Event<'_>) {
        let Some(mailbox) = self.mailbox.upgrade() else {
            return;
        };
        let channel = self.channel.as_str();
        match event {
            Event::Message(payload) => self.write_message(&mailbox, payload.bytes()),
            Event::Down(why) => {
                let words = format!("{why}; events of other nodes are not heard");
                mailbox.answer(|out| {
                    wire::line(out, "ERR")
                        .arg("code", "offline")
                        .arg("ch", channel)
                        .arg("msg", &words)
                        .end();
                });
            }
            Event::Up => {
                mailbox.answer(|out| wire::line(out, "OK").arg("ch", channel).end());
            }
        }
    }

    fn write_message(&self, mailbox: &Mailbox, payload: &[u8]) {
        self.state.is_spent.fetch_or(self.once, Ordering::Relaxed);
        let told = mailbox.tell(|out| {
            self.state.report_lost(&self.channel, out);
            wire::line(out, "EVENT")
                .arg("ch", self.channel.as_str())
                .end_with_data(payload.len());
            out.extend_from_slice(payload);
            out.push(b'\n');
        });
        if told {
            return self.metrics.event_sent();
        }
        self.metrics.event_lost();
        if self.state.lost.fetch_add(1, Ordering::Relaxed) == 0 {
            mailbox.wake(); // there may be room by now; the session's thread reports the loss when there is
        }
    }
}

/// How many bytes a session may still say now; refilled at `tcp.data_rate`.
pub struct TokenBucket {
    bytes: usize,
    filled: Instant,
}

impl TokenBucket {
    /// A full bucket of `most` bytes.
    pub fn full(most: usize, now: Instant) -> Self {
        Self {
            bytes: most,
            filled: now,
        }
    }

    /// Takes `bytes` out of the bucket, which holds `most` and gets `rate` a second. `false`: there are not enough.
    pub fn take(&mut self, bytes: usize, rate: usize, most: usize, now: Instant) -> bool {
        let since = now.saturating_duration_since(self.filled).as_secs_f64();
        let earned = (since * rate as f64) as usize;
        // Steps of less than a byte would be rounded away.
        if earned > 0 {
            self.bytes = most.min(self.bytes.saturating_add(earned));
            self.filled = now;
        }
        let is_enough = bytes <= self.bytes;
        if is_enough {
            self.bytes -= bytes;
        }
        is_enough
    }
}
