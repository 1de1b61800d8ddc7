//! Where a connection stands between two looks at it, and the request that is served in one look.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use httparse::EMPTY_HEADER;

use super::exchange::Stage;
use super::framing::{Body, HEADERS_MAX, Head, HeadScan, HeadSpan, parse_head};
use super::guests::Guest;
use super::house::House;
use super::proxy::forwarded_for;
use super::refusal::Refusal;
use super::socket::{Received, receive_now};
use super::ticket::Ticket;
use super::{Peers, Request};

/// The largest request in bytes, head and body, that is waited for and served together with other connections'. What takes
/// longer to receive and to judge is not to keep others waiting; hardly a provider sends as much.
pub const TOGETHER_BYTES_MAX: usize = 64 * 1024;

/// The least room that is made for what comes next.
const ROOM_BYTES: usize = 4 * 1024;

/// Where a connection stands.
pub struct Standing {
    /// Who has connected, to us or to the proxy before us.
    pub peer: SocketAddr,
    /// It is a proxy that says in each request for whom.
    pub speaks_for_others: bool,
    /// It is known who has connected, and that they may.
    pub has_arrived: bool,
    /// What was received and not yet served. Never without spare capacity when something is received into it.
    pub input: Vec<u8>,
    /// A request was handed over: what follows is a kept connection's.
    pub is_kept: bool,
    /// When the request of which a part is in `input` must be whole; or a new connection's first, of which there is nothing.
    pub whole_by: Option<Instant>,
    /// When the answer to the last request must be there.
    pub answer_due: Instant,
    /// What is in `input` came while the answer to the last request was being sent, and is looked at once that is over.
    pub is_put_off: bool,
    /// How far the head of what is in `input` has been looked at.
    scan: HeadScan,
    /// Where it lies, and how many bytes the request has in all.
    whole: Option<(HeadSpan, usize)>,
}

/// What a look at a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// It waits: for an answer, for the next request, or for the rest of one.
    Waits,
    /// It needs a thread of its own, for a request that is large, not simply right, or not alone, or for an answer that did
    /// not go out.
    Alone,
    /// It ends: it was told to go, or its last answer has gone out and nothing came behind its request.
    Over,
}

/// Why a request was not handed over.
pub enum NotHanded {
    /// Its connection was told to go.
    Gone,
    Refused(Refusal),
}

impl Standing {
    /// Of a connection that has just come.
    pub fn new(guest: &Guest) -> Self {
        Self {
            peer: guest.peer,
            speaks_for_others: false,
            has_arrived: false,
            input: Vec::new(),
            is_kept: false,
            whole_by: None,
            answer_due: guest.since,
            is_put_off: false,
            scan: HeadScan::default(),
            whole: None,
        }
    }

    /// Learns whom it comes for: itself, or, if it is a proxy that is believed, others. `true`: it says for whom before
    /// anything else.
    pub fn introduce(&mut self, peers: &Peers) -> bool {
        let is_proxy = peers.trusted_proxies.contains(self.peer.ip());
        self.speaks_for_others = is_proxy && !peers.proxy_protocol;
        is_proxy && peers.proxy_protocol
    }

    /// Whether `peer` may come, by today's list.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub fn admit(house: &House, peers: &Peers, peer: SocketAddr) -> Result<(), Refusal> {
        if peers.allow.admit(peer.ip()) {
            return Ok(());
        }
        log::debug!("{0}: {1} is not in {0}.allow", house.name, peer.ip());
        Err(Refusal::Forbidden)
    }

    /// Who says this, and whether they may: asked for each request, for a list may have changed.
    ///
    /// # Errors
    /// [`Refusal::Forbidden`].
    pub fn speaker(&self, house: &House, head: &Head<'_, '_>) -> Result<SocketAddr, Refusal> {
        let peers = house.peers();
        let mut speaker = self.peer;
        if self.speaks_for_others {
            let hop = self.peer.ip();
            let ip = forwarded_for(head.headers, hop, &peers.trusted_proxies);
            if ip != hop {
                speaker = SocketAddr::new(ip, 0);
            }
        }
        Self::admit(house, &peers, speaker)?;
        Ok(speaker)
    }

    /// Serves the request that is in `input`, if it is small, whole and as it should be, and its answer does not have to wait
    /// for another.
    pub fn serve_at_once(&mut self, guest: &Arc<Guest>, house: &Arc<House>) -> Look {
        if house.guests.is_closing() {
            return Look::Alone;
        }
        let (span, end) = match self.whole {
            Some(whole) => whole,
            None => match self.scan.go_on(&self.input) {
                Err(_) => return Look::Alone,
                Ok(None) => return self.wait_for_more(guest, house),
                Ok(Some(span)) => (span, span.end),
            },
        };
        if self.input.len() < end {
            return self.wait_for_more(guest, house);
        }
        let mut slots = [EMPTY_HEADER; HEADERS_MAX];
        let head = &self.input[span.start..span.end];
        let Ok(head) = parse_head(head, &mut slots, house.limits.max_body) else {
            return Look::Alone;
        };
        let end = match head.shape.body {
            Body::Length(length) => span.end.saturating_add(length),
            Body::Chunked => return Look::Alone,
        };
        if end > TOGETHER_BYTES_MAX {
            return Look::Alone;
        }
        if end > self.input.len() {
            if head.shape.expects_continue {
                return Look::Alone;
            }
            self.whole = Some((span, end));
            return self.wait_for_more(guest, house);
        }
        let Ok(speaker) = self.speaker(house, &head) else {
            return Look::Alone;
        };
        match self.hand_over(guest, house, &head, speaker, span.end, end) {
            Ok(due) => self.answer_due = due,
            Err(NotHanded::Gone) => return Look::Over,
            Err(NotHanded::Refused(_)) => return Look::Alone,
        }
        self.forget(end);
        if !self.input.is_empty() {
            return Look::Alone;
        }
        if guest.exchange.may_wait_for_peer() {
            return Look::Waits;
        }
        self.end_at_once(guest)
    }

    /// Ends a connection that goes on no longer, unless somebody must stay with it.
    fn end_at_once(&mut self, guest: &Guest) -> Look {
        if guest.exchange.stage() != Stage::Last {
            return Look::Alone; // some of the answer is still to be sent
        }
        match receive_now(guest.channel.stream(), &mut self.input) {
            // Closing over it would be a reset, and could destroy the answer.
            Some(Received::Bytes(_)) => Look::Alone,
            Some(Received::End | Received::TimedOut | Received::Broken) | None => Look::Over,
        }
    }

    fn wait_for_more(&mut self, guest: &Guest, house: &House) -> Look {
        guest.has_begun();
        if self.whole_by.is_none() {
            self.whole_by = Some(Instant::now() + house.limits.request_deadline);
        }
        Look::Waits
    }

    /// As it is kept while nothing of a next request has come: without a buffer.
    pub fn at_rest(self) -> Self {
        Self {
            input: Vec::new(),
            is_put_off: false,
            ..self
        }
    }

    /// Makes room for what comes next; doubling, so that memory follows what was really sent and not what was announced.
    /// `false`: there is no memory for it.
    pub fn make_room(&mut self) -> bool {
        let (len, capacity) = (self.input.len(), self.input.capacity());
        if capacity > len {
            return true;
        }
        let more = len.clamp(ROOM_BYTES, TOGETHER_BYTES_MAX);
        self.input.try_reserve_exact(more).is_ok()
    }

    /// Hands the whole request over; the body lies between `body` and `end` of the input. Returns when the answer is due.
    ///
    /// # Errors
    /// The connection was told to go, or the front closes.
    pub fn hand_over(
        &self,
        guest: &Arc<Guest>,
        house: &Arc<House>,
        head: &Head<'_, '_>,
        peer: SocketAddr,
        body: usize,
        end: usize,
    ) -> Result<Instant, NotHanded> {
        let is_ours = guest.is_whole();
        if house.guests.is_closing() {
            return Err(NotHanded::Refused(Refusal::Draining));
        }
        if !is_ours {
            return Err(NotHanded::Gone);
        }
        let due = Instant::now() + house.limits.answer_deadline;
        guest.exchange.begin();
        let request = Request {
            method: head.method,
            target: &head.target,
            headers: head.headers,
            body: &self.input[body..end],
            peer,
        };
        let ticket = Ticket::new(Arc::clone(guest), Arc::clone(house), head.shape);
        house.handler.handle(&request, ticket);
        Ok(due)
    }

    /// Forgets the request that ended at `end` of the input.
    pub fn forget(&mut self, end: usize) {
        self.input.drain(..end);
        self.is_kept = true;
        self.whole_by = None;
        self.whole = None;
        self.scan = HeadScan::default();
    }
}
