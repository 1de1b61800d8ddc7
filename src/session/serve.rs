//! The loop of a session's thread: write, sleep on the socket and the waker, do what has come.
//!
//! It never blocks on anything but `poll`.

use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::end::End;
use super::mailbox::Command;
use super::outgoing::Outgoing;
use super::registry::Registered;
use super::state::{LINGER, Phase, Session};
use crate::notification::Receipt;
use crate::wire;

/// How long a session that drains may wait for ACKs: the listener says Close earlier, when the drain is over.
const DRAIN_MAX: Duration = Duration::from_secs(3600);

/// What the thread sleeps for.
struct Sleep {
    interest: PollFlags,
    /// When a deadline is next due.
    due: Instant,
    /// There is work already: look at the socket, and do not sleep.
    is_busy: bool,
}

impl Session {
    /// Lives until the connection is over.
    pub fn run(mut self: Box<Self>) {
        while self.turn().is_some() {}
    }

    /// Lives until a TLS handshake is over; `false`: so is the connection.
    pub fn shake_hands(&mut self) -> bool {
        while self.mailbox.outgoing().link.is_handshaking() {
            if self.turn().is_none() {
                return false;
            }
        }
        true
    }

    /// One round. `None`: the connection is over.
    fn turn(&mut self) -> Option<()> {
        let Some(sleep) = self.write() else {
            self.consume_rest();
            self.read_after_break();
            return None;
        };
        let is_readable = self.sleep(&sleep)?;
        self.now = Instant::now();
        self.obey_commands()?;
        if is_readable {
            self.read()?;
        }
        // Here and not where the HELLO is read: formatting needs a deep stack, and a stack keeps every page that it once used.
        if let Some(registered) = self.unannounced.take() {
            self.announce(registered);
        }
        // Everything that is due was so when the thread went to sleep.
        if self.now >= sleep.due {
            self.check_deadlines()?;
        }
        Some(())
    }

    #[cold]
    fn announce(&self, registered: Registered) {
        let Some(id) = &self.backend else { return };
        let peer = self.peer;
        match registered {
            Registered::New => log::info!("{id} connected from {peer}"),
            Registered::TookOver => log::info!("{id} taken over from {peer}"),
            Registered::Superseded => {
                log::info!("{id} from {peer} refused: a later connection has this id");
            }
        }
    }

    // ---- write and sleep -------------------------------------------------------------------------------------------

    /// Turns waiting envelopes into MSG as far as the credit goes, writes what the socket takes, and prepares to sleep.
    /// `None`: the connection is broken.
    fn write(&mut self) -> Option<Sleep> {
        let mut outgoing = self.mailbox.outgoing();
        let waiting = self.mailbox.hand_over_waiting(&mut outgoing, self.now);
        let written = outgoing
            .flush(self.now)
            .and_then(|()| self.subscriptions.report_lost(&mut outgoing, self.now));
        if written.is_ok()
            && let Phase::Leaving(leaving) = &mut self.phase
        {
            let is_done = outgoing.in_flight() == 0 && outgoing.link.is_flushed();
            if is_done && !leaving.is_half_closed {
                leaving.is_half_closed = true;
                // An answer could no longer be sent, and trying would cut the peer off from what it has not read.
                leaving.is_listening = false;
                leaving.until = leaving.until.min(self.now + LINGER);
                outgoing.link.half_close();
            }
        }
        self.mailbox.prepare_sleep(&outgoing);
        let mut sleep = Sleep {
            interest: self.interest(&outgoing),
            due: self.next_due(&outgoing),
            is_busy: false,
        };
        drop(outgoing);
        if let Some(deadline) = waiting.next_deadline {
            sleep.due = sleep.due.min(deadline);
        }
        sleep.is_busy = !self.mailbox.may_sleep(&waiting);
        for envelope in waiting.expired {
            envelope.settle(Receipt::Expired);
        }
        written.is_ok().then_some(sleep)
    }

    fn interest(&self, outgoing: &Outgoing) -> PollFlags {
        let mut interest = PollFlags::empty();
        // A peer that asks without reading the answers is not read from until it has read some. Nor is one that waits for
        // OK: it has nothing to say yet.
        let is_attaching = matches!(self.phase, Phase::Attaching { .. });
        if !outgoing.link.is_flooded() && !is_attaching {
            interest |= PollFlags::IN;
        }
        if outgoing.link.wants_write() {
            interest |= PollFlags::OUT;
        }
        interest
    }

    /// Sleeps. Returns whether there is something to read, or the end of the connection.
    fn sleep(&mut self, sleep: &Sleep) -> Option<bool> {
        let patience = match sleep.is_busy {
            true => Duration::ZERO,
            false => sleep.due.saturating_duration_since(Instant::now()),
        };
        let timeout = Timespec {
            tv_sec: patience.as_secs() as _,
            tv_nsec: patience.subsec_nanos() as _,
        };
        let waker = self.mailbox.waker();
        let mut polled = [
            PollFd::new(&self.socket, sleep.interest),
            PollFd::from_borrowed_fd(waker.fd(), PollFlags::IN),
        ];
        let (events, was_woken) = match poll(&mut polled, Some(&timeout)) {
            Ok(_) => (polled[0].revents(), !polled[1].revents().is_empty()),
            Err(Errno::INTR) => (PollFlags::empty(), false),
            Err(error) => {
                log::error!("poll: {error}");
                return None;
            }
        };
        waker.awake(was_woken);
        Some(events.intersects(PollFlags::IN | PollFlags::HUP | PollFlags::ERR))
    }

    // ---- commands --------------------------------------------------------------------------------------------------

    #[inline(never)] // keeps its stack out of the frames beneath an ACK
    fn obey_commands(&mut self) -> Option<()> {
        let commands = self.mailbox.commands();
        if commands.has(Command::Close) {
            return None;
        }
        if commands.has(Command::MakeRoom) && matches!(self.phase, Phase::Greeting { .. }) {
            self.make_room();
            self.write(); // what the socket does not take at once is not waited for
            return None;
        }
        if commands.has(Command::TakenOver) {
            // No provider waits longer for what is in flight.
            self.leave(End::Takeover, self.context.ack_deadline);
        }
        if commands.has(Command::Disconnect) {
            self.leave(End::Operator, LINGER);
        }
        if commands.has(Command::Reachable)
            && let Phase::Attaching { credit, .. } = self.phase
        {
            self.open(credit);
            self.consume_rest();
        }
        if commands.has(Command::Drain) {
            match self.phase {
                Phase::Serving => self.leave(End::Drain, DRAIN_MAX),
                Phase::Greeting { .. } | Phase::Attaching { .. } => self.leave(End::Drain, LINGER),
                Phase::Leaving(_) => {}
            }
        }
        Some(())
    }

    // ---- deadlines -------------------------------------------------------------------------------------------------

    /// When a deadline is next due.
    fn next_due(&self, outgoing: &Outgoing) -> Instant {
        let due = match self.phase {
            Phase::Greeting { until } | Phase::Attaching { until, .. } => until,
            Phase::Leaving(leaving) => leaving.until,
            Phase::Serving => {
                let due = self.next_ping().min(outgoing.next_due(self.now));
                match outgoing.in_flight() {
                    0 => due.min(self.idle_at()),
                    _ => due,
                }
            }
        };
        match outgoing.link.stalled_since() {
            Some(since) => due.min(since + self.context.tcp.write_deadline),
            None => due,
        }
    }

    #[inline(never)] // keeps its stack out of the frames beneath an ACK
    fn check_deadlines(&mut self) -> Option<()> {
        if self.is_stalled()? {
            if self.end == End::Peer {
                self.end = End::Slow;
            }
            return None; // it takes no byte, so there is no way to say BYE
        }
        match self.phase {
            Phase::Greeting { until } if self.now >= until => {
                self.break_off("bad-hello", "no HELLO within tcp.hello_deadline");
            }
            Phase::Attaching { until, credit } if self.now >= until => {
                log::warn!("the bus does not say whether other nodes are reached; serving without");
                self.open(credit);
                self.consume_rest();
            }
            Phase::Leaving(leaving) if self.now >= leaving.until => return None,
            Phase::Greeting { .. } | Phase::Attaching { .. } | Phase::Leaving(_) => {}
            Phase::Serving => {
                self.expire_unanswered();
                let is_idle = self.mailbox.outgoing().in_flight() == 0;
                if is_idle && self.now >= self.idle_at() {
                    self.leave(End::Idle, LINGER);
                } else if self.now >= self.next_ping() {
                    self.pings += 1;
                    self.say(|out| wire::line(out, "PING").end());
                }
            }
        }
        Some(())
    }

    /// Whether the peer has taken no byte for `tcp.write_deadline`. `None`: the connection is broken.
    fn is_stalled(&self) -> Option<bool> {
        let mut outgoing = self.mailbox.outgoing();
        let is_stalled = |outgoing: &Outgoing| {
            let since = outgoing.link.stalled_since();
            since.is_some_and(|since| self.now >= since + self.context.tcp.write_deadline)
        };
        if !is_stalled(&outgoing) {
            return Some(false);
        }
        // Tried once more: `poll` calls a socket writable only when a third of its buffer is free, and a peer that reads
        // slowly may not have come that far.
        outgoing.flush(self.now).ok()?;
        Some(is_stalled(&outgoing))
    }

    /// A MSG that was not answered within `tcp.ack_timeout` no longer counts against the credit.
    fn expire_unanswered(&mut self) {
        loop {
            // The lock is released before the sender is told.
            let Some(unanswered) = self.mailbox.outgoing().overdue(self.now) else {
                return;
            };
            log::debug!("{} not answered within ack_timeout", unanswered.reply.id());
            unanswered.reply.settle(Receipt::Expired);
        }
    }

    fn next_ping(&self) -> Instant {
        self.heard + self.context.tcp.heartbeat * (self.pings + 1)
    }

    fn idle_at(&self) -> Instant {
        self.heard + self.context.tcp.heartbeat * 5 / 2
    }
}
