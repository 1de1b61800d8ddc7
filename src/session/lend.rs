//! When a session lends its socket's way in to the one who reads ACKs for many, and what it does when it has it back.
//!
//! A backend that says more than ACK is heard by its session's own thread until it has said nothing else for a while. So is
//! one whose connection is sealed, in its greeting, or at its end.

use std::sync::Arc;

use super::acks::{AckReader, News};
use super::mailbox::Mailbox;
use super::serve::{Phase, Session};

/// After how many ACKs in a row the reading is lent: to lend and to take back costs about as much as to be woken for two.
const ACKS_TO_LEND: u8 = 4;

/// A session's part in it.
pub(super) struct Lending {
    reader: Arc<AckReader>,
    /// The reader reads.
    is_lent: bool,
    /// What the reader gave back, `inbound`, is still to be understood.
    is_behind: bool,
    /// How many ACKs have come since the backend last said something else.
    acks: u8,
}

impl Lending {
    /// Nothing is lent, and what can be will be as soon as it may.
    pub fn new(reader: Arc<AckReader>) -> Self {
        Self {
            reader,
            is_lent: false,
            is_behind: false,
            acks: ACKS_TO_LEND,
        }
    }

    /// Whether the reader reads, or did when this thread last looked.
    pub fn is_lent(&self) -> bool {
        self.is_lent
    }

    /// Whether this thread has something to hear before it may sleep: asked after it has lain down, since the reader rings
    /// for who sleeps.
    pub fn is_due(&self, mailbox: &Mailbox) -> bool {
        self.is_behind || (self.is_lent && !mailbox.way_in().is_lent())
    }

    /// The backend has said this to the session's own thread.
    pub fn heard(&mut self, verb: &str) {
        match verb {
            "ACK" => self.acks = self.acks.saturating_add(1),
            "PING" | "PONG" => {}
            _ => self.acks = 0,
        }
    }
}

impl Session {
    fn may_lend(&self) -> bool {
        self.phase == Phase::Serving
            && self.lending.acks >= ACKS_TO_LEND
            && self.inbound.is_empty()
            && self.skip == 0
            && !self.talk.is_gathering()
            && !self.sealed
            // One that asks without reading the answers is not listened to, and an ACK of nothing asks.
            && !self.mailbox.outgoing().link.is_flooded()
    }

    /// Lends the socket's way in for as long as this thread sleeps, or keeps it.
    pub(super) fn lend_or_keep(&mut self) {
        let may = self.may_lend();
        if may == self.lending.is_lent {
            return;
        }
        if !may {
            return self.take_back();
        }
        let reader = &self.lending.reader;
        self.lending.is_lent = reader.lend(self.number, &self.mailbox);
        if !self.lending.is_lent {
            self.lending.acks = 0; // tried again after as many as usual
        }
    }

    /// From now on this thread reads, if it did not.
    pub(super) fn take_back(&mut self) {
        if self.lending.is_lent {
            let news = self.lending.reader.take_back(&self.mailbox);
            self.hear_news(news);
        }
    }

    /// Learns what the reader has heard, and sees to what it has given back.
    pub(super) fn look_at_loan(&mut self) {
        if self.lending.is_lent {
            let news = self.mailbox.way_in().news();
            self.hear_news(news);
        }
        if std::mem::take(&mut self.lending.is_behind) {
            self.consume_rest();
        }
    }

    fn hear_news(&mut self, news: News) {
        if let Some(heard) = news.heard {
            self.heard = heard;
            self.pings = 0;
        }
        if let Some(rest) = news.back {
            self.lending.is_lent = false;
            self.lending.is_behind = !rest.is_empty();
            self.lending.acks = 0; // it has said something else, or come to its end
            self.inbound = rest; // nothing lay there while it was lent
        }
    }
}
