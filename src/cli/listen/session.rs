//! One connection of `payrelay listen`, from HELLO to its end.

use std::collections::VecDeque;
use std::fmt::Display;
use std::time::{Duration, Instant};

use crossbeam_channel::{select, tick};
use payrelay::backoff::Backoff;

use super::acknowledgement::Acknowledgement;
use super::ended::{Ended, PendingEnd};
use super::worker::{Done, Job, title};
use super::{CREDIT_MAX, Identity, ListenState};
use crate::cli::say;
use crate::cli::stop::Stop;
use crate::cli::text::one_line;
use crate::client::frames::{Accepted, ErrFrame, FrameReadError, Message, RelayFrame};
use crate::client::link::RelayConnection;

/// How long the relay may take to answer the HELLO.
const OK_DEADLINE: Duration = Duration::from_secs(10);

/// What is held unacknowledged is TOUCHed this often; a sixth of the relay's default `tcp.ack_timeout`.
const TOUCH_EVERY: Duration = Duration::from_secs(10);

/// How often the clocks are looked at.
const TICK: Duration = Duration::from_secs(1);

/// If the relay does not say how often it PINGs.
const HEARTBEAT: Duration = Duration::from_secs(20);

/// How long a PING of ours may stay without any answer.
const PONG_DEADLINE: Duration = Duration::from_secs(10);

/// After a signal, what the command in hand has to finish.
const LEAVE_DEADLINE: Duration = Duration::from_secs(5);

/// After the relay's BYE, what it may take to close: it gives 2 s, and 10 s when it is stopping. Longer than both, for it is
/// the relay that knows when the time is up.
const BYE_DEADLINE: Duration = Duration::from_secs(12);

/// After BYE, with nothing in hand, what the relay has to close.
const CLOSE_DEADLINE: Duration = Duration::from_secs(2);

/// One connection.
#[derive(Debug)]
pub struct ListenSession<'a> {
    identity: &'a Identity,
    state: &'a mut ListenState,
    backoff: &'a mut Backoff,
    link: RelayConnection,
    /// `None` until the HELLO is answered.
    heartbeat: Option<Duration>,
    credit: u32,
    /// What came and is not with the worker yet.
    waiting: VecDeque<Message>,
    /// The one of this connection that is with the worker.
    in_hand: Option<String>,
    heard_at: Instant,
    touched_at: Instant,
    /// Set by a PING of ours until anything is heard.
    pinged_at: Option<Instant>,
    leaving: Option<PendingEnd>,
}

impl<'a> ListenSession<'a> {
    /// Connects, and stays until it ends.
    pub fn run(
        identity: &'a Identity,
        state: &'a mut ListenState,
        stop: &Stop,
        backoff: &'a mut Backoff,
    ) -> Ended {
        state.connections += 1;
        let credit = match state.left {
            Some(left) => u32::try_from(left).map_or(state.max, |left| left.min(state.max)),
            None => state.max,
        };
        let link = match RelayConnection::connect(&identity.place, identity.trust.as_ref()) {
            Ok(link) => link,
            Err(error) => {
                return Ended::lost(format_args!(
                    "cannot connect to {}: {error}",
                    identity.place
                ));
            }
        };
        let now = Instant::now();
        let mut session = ListenSession {
            identity,
            state,
            backoff,
            link,
            heartbeat: None,
            credit,
            waiting: VecDeque::new(),
            in_hand: None,
            heard_at: now,
            touched_at: now,
            pinged_at: None,
            leaving: None,
        };
        match session.talk(stop) {
            Ok(ended) | Err(ended) => ended,
        }
    }

    /// The loop: one thing at a time, whoever it comes from. Both sides of the result are an end.
    fn talk(&mut self, stop: &Stop) -> Result<Ended, Ended> {
        let Identity { id, token, .. } = self.identity;
        self.link.hello(id, token.as_deref(), self.credit)?;
        let clock = tick(TICK);
        let heard = self.link.heard().clone();
        let done = self.state.worker.done().clone();
        loop {
            select! {
                recv(heard) -> heard => match heard {
                    Ok(Ok(heard)) => self.on_heard(heard)?,
                    Ok(Err(error)) => return Ok(self.on_closed(&error)),
                    Err(_) => return Ok(self.on_closed(&FrameReadError::Closed)),
                },
                recv(done) -> done => match done {
                    Ok(done) => self.on_done(done)?,
                    Err(_) => return Ok(Ended::lost("the worker has stopped")),
                },
                recv(stop.asked()) -> _ => self.on_stop()?,
                recv(clock) -> _ => self.on_tick(Instant::now())?,
            }
            if self.is_idle() && self.relay_said_bye() {
                return Ok(self.on_closed(&FrameReadError::Closed));
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.waiting.is_empty() && self.in_hand.is_none()
    }

    fn relay_said_bye(&self) -> bool {
        self.leaving.as_ref().is_some_and(|end| !end.is_ours())
    }

    fn on_heard(&mut self, heard: RelayFrame) -> Result<(), Ended> {
        self.heard_at = Instant::now();
        self.pinged_at = None;
        match heard {
            RelayFrame::Ok(accepted) => self.on_ok(&accepted),
            RelayFrame::Msg(message) => return self.on_message(*message),
            RelayFrame::Ping => self.link.pong()?,
            RelayFrame::Pong | RelayFrame::Other(_) => {}
            RelayFrame::Err(refusal) => return self.on_refusal(refusal),
            RelayFrame::Bye { reason, retry } => {
                if self.leaving.is_none() {
                    self.leave(Ended::by_relay(&reason, retry), BYE_DEADLINE);
                }
            }
        }
        Ok(())
    }

    fn on_ok(&mut self, accepted: &Accepted) {
        self.heartbeat = Some(accepted.heartbeat.unwrap_or(HEARTBEAT));
        self.backoff.reset();
        self.tell(format_args!(
            "connected to {} as {} (session {} on {})",
            self.identity.place,
            self.identity.id,
            one_line(&accepted.session),
            one_line(&accepted.node)
        ));
    }

    fn on_message(&mut self, message: Message) -> Result<(), Ended> {
        if self.waiting.len() as i64 >= CREDIT_MAX {
            return Err(Ended::lost("the relay sends more than it may"));
        }
        if self.leaving.as_ref().is_some_and(PendingEnd::is_ours) {
            // It crossed the BYE: refused, so that its provider hears at once.
            self.link.nack(&message.id, "stopping")?;
            return Ok(());
        }
        self.waiting.push_back(message);
        self.hand_over();
        Ok(())
    }

    fn on_refusal(&mut self, refusal: ErrFrame) -> Result<(), Ended> {
        let ErrFrame { code, msg, fatal } = &refusal;
        if *fatal && code != "limit" {
            return Err(Ended::Refused(refusal));
        }
        let words = format!("the relay says: {} ({})", one_line(msg), one_line(code));
        if *fatal {
            return Err(Ended::lost(words));
        }
        self.tell(words);
        Ok(())
    }

    /// Gives the worker the next one, if it has none.
    fn hand_over(&mut self) {
        if self.state.working.is_some() {
            return;
        }
        let Some(message) = self.waiting.pop_front() else {
            return;
        };
        if self.state.announce {
            say(title(&message));
        }
        self.in_hand = Some(message.id.clone());
        self.state.working = Some(self.state.connections);
        self.state.worker.take(Job {
            connection: self.state.connections,
            message,
        });
    }

    fn on_done(&mut self, done: Done) -> Result<(), Ended> {
        self.state.working = None;
        let acknowledgement = done.acknowledgement.map_err(Ended::CannotPrint)?;
        if done.connection == self.state.connections {
            self.in_hand = None;
            self.conclude(&done.id, &acknowledgement)?;
        } else {
            self.tell(format_args!(
                "{} was handled too late, the connection it came by is gone; it may come again",
                one_line(&done.id)
            ));
        }
        self.hand_over();
        Ok(())
    }

    /// Tells the relay what came of it, and with `--count` that this was the last.
    fn conclude(&mut self, id: &str, acknowledgement: &Acknowledgement) -> Result<(), Ended> {
        let last = match &mut self.state.left {
            Some(left) => {
                *left = left.saturating_sub(1);
                let left = *left;
                if left < u64::from(self.credit) {
                    // Before the acknowledgement, which would bring one more than is wanted.
                    self.credit = u32::try_from(left).unwrap_or(self.credit);
                    self.link.ready(self.credit)?;
                }
                left == 0
            }
            None => false,
        };
        match acknowledgement {
            Acknowledgement::Ack => self.link.ack(id)?,
            Acknowledgement::Nack(reason) => {
                self.link.nack(id, reason)?;
                self.tell(format_args!("{} NACK: {reason}", one_line(id)));
            }
        }
        if last && self.leaving.is_none() {
            self.link.bye()?;
            self.leave(Ended::Finished, CLOSE_DEADLINE);
        } else if self.is_idle() && !self.relay_said_bye() {
            // The last one in hand after a signal: what remains is the relay's close.
            if let Some(leaving) = &mut self.leaving {
                leaving.until = Instant::now() + CLOSE_DEADLINE;
            }
        }
        Ok(())
    }

    fn on_stop(&mut self) -> Result<(), Ended> {
        if self.heartbeat.is_none() {
            return Err(Ended::Finished);
        }
        for message in std::mem::take(&mut self.waiting) {
            self.link.nack(&message.id, "stopping")?;
        }
        self.link.bye()?;
        let deadline = if self.in_hand.is_some() {
            LEAVE_DEADLINE
        } else {
            CLOSE_DEADLINE
        };
        self.leave(Ended::Finished, deadline);
        Ok(())
    }

    fn leave(&mut self, ended: Ended, deadline: Duration) {
        self.leaving = Some(PendingEnd {
            ended,
            until: Instant::now() + deadline,
        });
    }

    fn on_tick(&mut self, now: Instant) -> Result<(), Ended> {
        if self.leaving.as_ref().is_some_and(|l| now >= l.until) {
            return Err(self.on_closed(&FrameReadError::Closed));
        }
        let silent = now.duration_since(self.heard_at);
        let Some(heartbeat) = self.heartbeat else {
            return if silent >= OK_DEADLINE {
                Err(Ended::lost(format_args!(
                    "{} does not answer the HELLO",
                    self.identity.place
                )))
            } else {
                Ok(())
            };
        };
        match self.pinged_at {
            // The relay PINGs by itself, but not while a MSG is in flight.
            None if silent >= heartbeat => {
                self.pinged_at = Some(now);
                self.link.ping()?;
            }
            Some(at) if now.duration_since(at) >= PONG_DEADLINE => {
                return Err(Ended::lost("the relay has gone silent"));
            }
            None | Some(_) => {}
        }
        if now.duration_since(self.touched_at) >= TOUCH_EVERY {
            self.touched_at = now;
            let held = self.waiting.iter().map(|message| message.id.as_str());
            self.link
                .touch(self.in_hand.as_deref().into_iter().chain(held))?;
        }
        Ok(())
    }

    /// The connection is closed, or as good as.
    fn on_closed(&mut self, error: &FrameReadError) -> Ended {
        match self.leaving.take() {
            None => Ended::lost(error),
            Some(leaving) => leaving.ended,
        }
    }

    fn tell(&self, words: impl Display) {
        if self.state.talkative {
            say(words);
        }
    }
}
