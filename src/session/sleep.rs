//! How a session sleeps: on its socket and its bell, until one of them or the clock wakes it.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::outgoing::Outgoing;
use super::serve::{Phase, Session};
use crate::notification::Receipt;

/// What woke it, but for the bell and the clock, which are looked at in any case.
pub struct Woken {
    pub readable: bool,
}

impl Session {
    #[inline(never)] // its stack is not needed beneath an ACK
    pub(super) fn sleep(&mut self) -> Option<Woken> {
        self.lend_or_keep();
        let mut interest = PollFlags::empty();
        let due;
        let hungry;
        {
            let outgoing = self.mailbox.lie_down();
            // A peer that asks without reading the answers is not listened to until it has read some.
            // Nor is one that waits for OK: it has nothing to say yet.
            let attaching = matches!(self.phase, Phase::Attaching { .. });
            if !self.lending.is_lent() && !outgoing.link.is_flooded() && !attaching {
                interest |= PollFlags::IN;
            }
            if outgoing.link.wants_write() {
                interest |= PollFlags::OUT;
            }
            hungry = outgoing.may_take();
            due = self.next_due(&outgoing);
        }
        let due = due.min(self.stuck_envelope_due(hungry).unwrap_or(due));
        let patience = if self.mailbox.may_sleep(hungry) && !self.lending.is_due(&self.mailbox) {
            due.saturating_duration_since(Instant::now())
        } else {
            Duration::ZERO
        };
        let mut both = [
            PollFd::from_borrowed_fd(self.mailbox.bell(), PollFlags::IN),
            PollFd::new(&self.socket, interest),
        ];
        // Whoever reads hears of the end.
        let watched = match self.lending.is_lent() && interest.is_empty() {
            true => &mut both[..1],
            false => &mut both[..],
        };
        let timeout = Timespec {
            tv_sec: patience.as_secs() as _,
            tv_nsec: patience.subsec_nanos() as _,
        };
        let slept = poll(watched, Some(&timeout));
        let (readable, rung) = match slept {
            Ok(_) => (
                both[1]
                    .revents()
                    .intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR),
                !both[0].revents().is_empty(),
            ),
            Err(Errno::INTR) => (false, false),
            Err(error) => {
                log::error!("poll: {error}");
                return None;
            }
        };
        self.mailbox.awake(rung);
        Some(Woken { readable })
    }

    /// When the clock next matters.
    fn next_due(&self, outgoing: &Outgoing) -> Instant {
        let phase = match self.phase {
            Phase::Greeting { until } | Phase::Attaching { until, .. } => until,
            Phase::Leaving(leaving) => leaving.until,
            Phase::Serving => {
                let mut due = self.next_ping().min(outgoing.next_due(self.now));
                if outgoing.in_flight() == 0 {
                    due = due.min(self.idle_at());
                }
                due
            }
        };
        match outgoing.link.stalled_since() {
            Some(since) => phase.min(since + self.house.tcp.write_deadline),
            None => phase,
        }
    }

    /// When the oldest envelope that cannot be taken expires.
    fn stuck_envelope_due(&self, hungry: bool) -> Option<Instant> {
        if hungry || self.mailbox.waiting() == 0 {
            return None;
        }
        let (expired, next) = self.mailbox.expire(self.now);
        for envelope in expired {
            envelope.settle(Receipt::Expired);
        }
        next
    }

    pub(super) fn next_ping(&self) -> Instant {
        self.heard + self.house.tcp.heartbeat * (self.pings + 1)
    }

    pub(super) fn idle_at(&self) -> Instant {
        self.heard + self.house.tcp.heartbeat * 5 / 2
    }
}
