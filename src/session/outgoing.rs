//! What goes out on one session: the link, the MSG in flight on it, and how many more may be sent.
//!
//! It has a lock of its own, because two threads use it: the session's thread, and a thread that brings an envelope while
//! nothing waits before it. The lock is held over a write that does not block. It orders the bytes on this one socket.

use std::collections::VecDeque;
use std::io;
use std::time::{Duration, Instant};

use super::link::Link;
use crate::bus::msg_line;
use crate::envelope::{Envelope, Reply, Sent};
use crate::notification::{Notification, NotificationId, unix_ms};

/// An idle session keeps room for this many MSG in flight, of 80 bytes each.
const IN_FLIGHT_KEPT: usize = 4;

/// Room for the line of a usual MSG, in bytes.
const LINE_BYTES_USUAL: usize = 256;

/// The link with its MSG.
#[derive(Debug)]
pub struct Outgoing {
    /// Frames to be written.
    pub link: Link,
    /// How many MSG may be unanswered; 0 until OK.
    pub credit: usize,
    /// Whether MSG may be sent at all: from OK to BYE.
    pub is_open: bool,
    /// The session's number, to be seen in the timeline of a notification; 0 until OK.
    pub session: u64,
    /// The latest answer to a MSG, in Unix milliseconds; 0: none yet.
    pub answered_at_unix_ms: u64,
    /// In the order they fall due.
    in_flight: VecDeque<InFlight>,
    ack_timeout: Duration,
}

/// A MSG that the backend has and has not answered.
#[derive(Debug)]
pub struct InFlight {
    /// Tells the sender what became of it.
    pub reply: Reply,
    /// When it was written.
    pub sent: Instant,
    /// When `tcp.ack_timeout` is over.
    pub due: Instant,
}

impl Outgoing {
    /// No MSG may be sent before `is_open` and `credit` say so.
    pub fn new(link: Link, ack_timeout: Duration) -> Self {
        Self {
            link,
            credit: 0,
            is_open: false,
            session: 0,
            answered_at_unix_ms: 0,
            in_flight: VecDeque::new(),
            ack_timeout,
        }
    }

    /// Whether one more MSG may be sent.
    pub fn may_send(&self) -> bool {
        self.is_open && self.in_flight.len() < self.credit && !self.link.is_backed_up()
    }

    /// Makes `envelope` a MSG, to be flushed.
    pub fn hand_over(&mut self, envelope: Envelope, now: Instant) {
        let notification = &envelope.notification;
        self.link.frame(now, |out| line(out, notification));
        self.link.data(now, notification);
        self.is_sent(envelope.reply, now);
    }

    /// Makes `envelope` a MSG, and writes of it what the socket takes now.
    ///
    /// # Errors
    /// The connection is broken; the MSG counts as in flight all the same.
    pub fn send(&mut self, envelope: Envelope, now: Instant) -> io::Result<()> {
        let Envelope {
            notification,
            reply,
            ..
        } = envelope;
        let mut out = Vec::with_capacity(LINE_BYTES_USUAL);
        line(&mut out, &notification);
        self.is_sent(reply, now); // before it can be read
        self.link.send(now, &out, &notification)
    }

    fn is_sent(&mut self, reply: Reply, now: Instant) {
        reply.sent(Sent::now(self.session));
        if self.in_flight.capacity() == 0 {
            // Of thousands of sessions most never have more than one, and a first push would make room for four.
            self.in_flight.reserve_exact(1);
        }
        self.in_flight.push_back(InFlight {
            reply,
            sent: now,
            due: now + self.ack_timeout,
        });
    }

    /// Writes what the socket takes now.
    ///
    /// # Errors
    /// The connection is broken.
    pub fn flush(&mut self, now: Instant) -> io::Result<()> {
        if self.link.is_flushed() {
            return Ok(());
        }
        self.link.flush(now)
    }

    /// Takes the MSG called `id` out of what is in flight.
    pub fn answered(&mut self, id: NotificationId) -> Option<InFlight> {
        let flying = self.in_flight.remove(self.place(id)?);
        self.answered_at_unix_ms = unix_ms();
        self.give_memory_back();
        flying
    }

    /// Starts `tcp.ack_timeout` of the MSG called `id` again; says whether it is in flight.
    pub fn touch(&mut self, id: NotificationId, now: Instant) -> bool {
        let place = self.place(id);
        // In one go: while it is out, its place in the credit would look free to a sender.
        let Some(mut flying) = place.and_then(|place| self.in_flight.remove(place)) else {
            return false;
        };
        flying.due = now + self.ack_timeout;
        self.in_flight.push_back(flying);
        true
    }

    fn place(&self, id: NotificationId) -> Option<usize> {
        let mut flying = self.in_flight.iter();
        flying.position(|flying| flying.reply.id() == id)
    }

    /// Takes out the oldest MSG if its `tcp.ack_timeout` is over.
    pub fn overdue(&mut self, now: Instant) -> Option<InFlight> {
        if self.in_flight.front()?.due > now {
            return None;
        }
        let flying = self.in_flight.pop_front();
        self.give_memory_back();
        flying
    }

    /// When the next MSG in flight falls due, or one that is sent a moment later.
    pub fn next_due(&self, now: Instant) -> Instant {
        self.in_flight
            .front()
            .map_or_else(|| now + self.ack_timeout, |first| first.due)
    }

    /// How many MSG are unanswered.
    pub fn in_flight(&self) -> usize {
        self.in_flight.len()
    }

    /// Takes out everything in flight; dropping it tells the senders.
    pub fn take_in_flight(&mut self) -> VecDeque<InFlight> {
        std::mem::take(&mut self.in_flight)
    }

    fn give_memory_back(&mut self) {
        // Thousands of sessions are idle most of the time, and were busy once.
        if self.in_flight.is_empty() && self.in_flight.capacity() > IN_FLIGHT_KEPT {
            self.in_flight = VecDeque::new();
        }
    }
}

/// Writes the line of a MSG.
fn line(out: &mut Vec<u8>, notification: &Notification) {
    msg_line(out, notification).end_with_data(notification.head.len() + notification.body.len());
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::os::fd::OwnedFd;
    use std::os::unix::net::UnixStream;
    use std::sync::Arc;

    use super::*;
    use crate::envelope::Receipts;
    use crate::notification::{BackendId, IdMint, Receipt};
    use crate::wire;

    struct Nobody;

    impl Receipts for Nobody {
        fn receipt(&self, _id: NotificationId, _receipt: Receipt) {}
    }

    fn outgoing(now: Instant) -> (Outgoing, UnixStream) {
        let (ours, theirs) = UnixStream::pair().expect("a socket");
        let socket = Arc::new(OwnedFd::from(ours));
        let link = Link::new(socket, None, now);
        (Outgoing::new(link, Duration::from_secs(1)), theirs)
    }

    fn envelope(route: &str, now: Instant) -> Envelope {
        let notification = Notification {
            id: IdMint::new(u64::MAX).mint(u64::MAX),
            backend: BackendId::parse("a").expect("an id"),
            route: route.into(),
            verified: "a-preset-of-a-later-version-with-a-very-long-name".into(),
            event: Some("\u{7f}".repeat(128).into()),
            event_proven: false,
            at_unix_ms: u64::MAX,
            tries: u32::MAX,
            head: vec![b'h'; 32 * 1024],
            body: Vec::new(),
        };
        Envelope::new(Arc::new(notification), now, Arc::new(Nobody))
    }

    #[test]
    fn what_is_touched_falls_due_later_and_is_in_flight_all_the_time() {
        let start = Instant::now();
        let at = |ms| start + Duration::from_millis(ms);
        let (mut outgoing, _theirs) = outgoing(start);
        outgoing.hand_over(envelope("r", start), start);
        let id = outgoing.in_flight[0].reply.id();
        assert!(outgoing.touch(id, at(900)));
        assert_eq!(
            (outgoing.in_flight(), outgoing.next_due(start)),
            (1, at(1900))
        );
        assert!(outgoing.overdue(at(1899)).is_none());
        assert!(outgoing.overdue(at(1900)).is_some());
        assert!(!outgoing.touch(id, at(1900)), "forgotten");
    }

    #[test]
    fn an_idle_session_keeps_little_room_for_what_is_in_flight() {
        let now = Instant::now();
        let (mut outgoing, _theirs) = outgoing(now);
        outgoing.hand_over(envelope("r", now), now);
        assert_eq!(outgoing.in_flight.capacity(), 1);
        for _ in 0..20 {
            outgoing.hand_over(envelope("r", now), now);
        }
        while outgoing.overdue(now + Duration::from_secs(1)).is_some() {}
        assert_eq!(outgoing.in_flight(), 0);
        assert!(outgoing.in_flight.capacity() <= IN_FLIGHT_KEPT);
    }

    #[test]
    fn the_longest_msg_line_keeps_within_the_limit() {
        let now = Instant::now();
        let (mut outgoing, mut theirs) = outgoing(now);
        // The limits of config::route, http::route and of the numbers; every byte that is escaped is three.
        outgoing.hand_over(envelope(&"{".repeat(64), now), now);
        outgoing.flush(now).expect("an open socket");
        let mut bytes = vec![0; wire::LINE_BYTES_MAX + 1];
        theirs.read_exact(&mut bytes).expect("line and data");
        let (line, used) = wire::Line::find(&bytes)
            .expect("well-formed")
            .expect("whole");
        assert_eq!(line.text("event").map(|event| event.len()), Some(128));
        // Room for the longest length there is (10 digits; here 5) and a key or two of later versions.
        assert!(used + 100 < wire::LINE_BYTES_MAX, "{used} bytes");
    }
}
