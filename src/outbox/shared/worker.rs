//! The mirror's thread: connects, compares, and takes over what nodes had that are gone. It may wait for Redis; nobody waits
//! for it.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};
use redis::Value;
use rusqlite::Connection;

use super::keys::{self, Keys};
use super::state::SharedState;
use super::{MirrorEvent, SharedLink};
use crate::bus::{StoreConnection, StoreError};
use crate::heartbeat::Pulse;
use crate::outbox::ops::MirrorOp;
use crate::outbox::ops::Op;

/// How often it looks whether all is well, at least.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// The wait before another attempt to connect.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// The wait before all is compared again.
const COMPARE_AGAIN_AFTER: Duration = Duration::from_secs(2);

/// How often the server is asked for its replicas and settings.
const INFO_EVERY: Duration = Duration::from_secs(10);

/// How long the writer may take for what it is asked.
const WRITER_PATIENCE: Duration = Duration::from_secs(60);

/// The thread's own.
pub struct Worker {
    pub shared: SharedLink,
    pub keys: Keys,
    pub state: Arc<SharedState>,
    pub ops: Sender<Op>,
    pub events: Receiver<MirrorEvent>,
    pub reading: Connection,
    pub inherit_after: Duration,
    pub expire_ms: i64,
    /// The files whose node holds no lease, and since when.
    pub silent: HashMap<String, Instant>,
    /// What was said of the server's settings.
    pub advised: bool,
}

/// Why work was broken off.
#[derive(Debug)]
pub enum Interrupted {
    /// The relay stops.
    Stop,
    /// The writer has lost its connection, and has said why.
    Down,
    /// Redis is away, or something else speaks for a new connection.
    Lost(String),
}

impl From<StoreError> for Interrupted {
    fn from(error: StoreError) -> Self {
        Self::Lost(error.to_string())
    }
}

impl From<rusqlite::Error> for Interrupted {
    fn from(error: rusqlite::Error) -> Self {
        Self::Lost(format!("the outbox cannot be read: {error}"))
    }
}

impl Worker {
    /// Works until it is told to stop. It can be called again after a panic.
    pub fn run(&mut self, pulse: &Pulse) {
        loop {
            pulse.busy();
            match self.connection(pulse) {
                Err(Interrupted::Stop) => return,
                Err(Interrupted::Lost(why)) => {
                    if self.tell(MirrorOp::Disconnect(why)).is_err() {
                        return;
                    }
                }
                Err(Interrupted::Down) | Ok(()) => {}
            }
            pulse.idle();
            let until = Instant::now() + AGAIN_AFTER;
            loop {
                match self.events.recv_deadline(until) {
                    Ok(MirrorEvent::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                    Ok(MirrorEvent::Look) => {}
                    Err(RecvTimeoutError::Timeout) => break,
                }
            }
        }
    }

    /// One connection's life.
    fn connection(&mut self, pulse: &Pulse) -> Result<(), Interrupted> {
        self.keys.store = self.state.store();
        let mut link = self.shared.link.connect()?;
        self.inform(&mut link)?;
        self.silent.clear(); // they may have been unable to hold their leases too
        let for_the_writer = self.shared.link.connect()?;
        self.tell(MirrorOp::Connected(for_the_writer))?;
        let mut informed = Instant::now();
        let mut compare_after = Instant::now();
        let look_every = (self.inherit_after / 8).min(LOOK_EVERY);
        loop {
            pulse.busy();
            if !self.shared.link.is_current(&link) {
                return Err(Interrupted::Lost(
                    "another server is the primary now".into(),
                ));
            }
            if self.state.is_released() {
                self.fill_redis(&mut link, pulse)?;
                self.ask(MirrorOp::Count)?.ok_or(Interrupted::Down)?;
            } else if !self.state.is_complete() && Instant::now() >= compare_after {
                self.compare(&mut link, pulse)?;
                compare_after = Instant::now() + COMPARE_AGAIN_AFTER;
            }
            self.look_for_the_dead(&mut link, pulse)?;
            if informed.elapsed() >= INFO_EVERY {
                informed = Instant::now();
                self.inform(&mut link)?;
            }
            pulse.idle();
            match self.events.recv_timeout(look_every) {
                Ok(MirrorEvent::Stop) | Err(RecvTimeoutError::Disconnected) => {
                    return Err(Interrupted::Stop);
                }
                Ok(MirrorEvent::Look) | Err(RecvTimeoutError::Timeout) => {}
            }
            self.may_go_on(pulse)?;
        }
    }

    /// Between two pages of long work: goes on, unless there is something more important.
    pub(super) fn may_go_on(&self, pulse: &Pulse) -> Result<(), Interrupted> {
        pulse.busy();
        if let Ok(MirrorEvent::Stop) = self.events.try_recv() {
            return Err(Interrupted::Stop);
        }
        if !self.state.is_up() {
            return Err(Interrupted::Down);
        }
        if self.state.store() != self.keys.store {
            return Err(Interrupted::Lost("the file has another name now".into()));
        }
        Ok(())
    }

    /// Has the writer do something.
    pub(super) fn tell(&self, op: MirrorOp) -> Result<(), Interrupted> {
        let sent = self.ops.send(Op::Mirror(Box::new(op)));
        sent.map_err(|_| Interrupted::Stop)
    }

    /// The same, and waits for its reply.
    pub(super) fn ask<T>(&self, op: impl FnOnce(Sender<T>) -> MirrorOp) -> Result<T, Interrupted> {
        let (tell, told) = bounded(1);
        self.tell(op(tell))?;
        told.recv_timeout(WRITER_PATIENCE)
            .map_err(|_| Interrupted::Lost("the outbox's writer does not answer".into()))
    }

    /// Learns how many replicas there are, and says what is wrong with the server's settings.
    fn inform(&mut self, link: &mut StoreConnection) -> Result<(), Interrupted> {
        let (replicas, advice) = link.server()?;
        self.state.set_replicas(replicas);
        if !std::mem::replace(&mut self.advised, true) && !advice.is_empty() {
            log::warn!("the Redis of the shared outbox: {}", advice.join("; "));
        }
        Ok(())
    }

    /// A script's reply.
    pub(super) fn script(
        &self,
        link: &mut StoreConnection,
        script: &[u8],
        keys: &[impl AsRef<str>],
        arguments: &[impl AsRef<str>],
    ) -> Result<Value, Interrupted> {
        link.send(&keys::script(script, keys, arguments))?;
        Ok(link.receive()?)
    }
}
