//! The sessions of a node: backends that answer by their behavior.

use std::collections::HashMap;

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;

use super::node::PATIENCE;
use crate::bus::{Data, Sessions, Stamp};
use crate::envelope::{Envelope, Reply};
use crate::notification::{BackendId, Receipt, unix_us};

/// What a backend does with what it gets.
#[derive(Clone, Debug)]
pub enum Behavior {
    Says(Receipt),
    /// Keeps it until the test takes it.
    Keeps,
}

/// The sessions of a node.
pub struct TestSessions {
    seats: Mutex<BackendTable>,
    got: Sender<Box<Envelope>>,
    envelopes: Receiver<Box<Envelope>>,
    told: Sender<Data>,
    pub data: Receiver<Data>,
}

#[derive(Default)]
struct BackendTable {
    by_id: HashMap<BackendId, (Stamp, Behavior)>,
    newest: Stamp,
}

impl TestSessions {
    pub fn new() -> Self {
        let (got, envelopes) = unbounded();
        let (told, data) = unbounded();
        Self {
            seats: Mutex::default(),
            got,
            envelopes,
            told,
            data,
        }
    }

    /// The next envelope that came for somebody who keeps them.
    pub fn envelope(&self) -> Box<Envelope> {
        self.envelopes.recv_timeout(PATIENCE).expect("an envelope")
    }

    pub fn seat(&self, id: &BackendId, behavior: Behavior) {
        let mut seats = self.seats.lock();
        seats.newest = unix_us().max(seats.newest + 1);
        let stamp = seats.newest;
        seats.by_id.insert(id.clone(), (stamp, behavior));
    }

    pub fn unseat(&self, id: &BackendId) {
        self.seats.lock().by_id.remove(id);
    }

    pub fn behavior(&self, id: &BackendId) -> Option<Behavior> {
        let seats = self.seats.lock();
        seats.by_id.get(id).map(|(_, behavior)| behavior.clone())
    }
}

impl Sessions for TestSessions {
    fn hand_over(&self, envelope: Box<Envelope>) -> bool {
        match self.behavior(&envelope.notification.backend) {
            Some(Behavior::Says(receipt)) => envelope.settle(receipt),
            Some(Behavior::Keeps) => self.got.send(envelope).expect("the test is there"),
            None => {
                envelope.settle(Receipt::Gone);
                return false;
            }
        }
        true
    }

    fn pass_on(&self, data: &Data, reply: Reply) -> bool {
        let Some(behavior) = self.behavior(&data.to) else {
            reply.settle(Receipt::Gone);
            return false;
        };
        let (from, to, bytes) = (data.from.clone(), data.to.clone(), data.bytes.clone());
        self.told
            .send(Data { from, to, bytes })
            .expect("the test is there");
        reply.settle(match behavior {
            Behavior::Says(receipt) => receipt,
            Behavior::Keeps => Receipt::Ack,
        });
        true
    }

    fn stamp(&self, backend: &BackendId) -> Option<Stamp> {
        let seats = self.seats.lock();
        seats.by_id.get(backend).map(|(stamp, _)| *stamp)
    }

    fn stamps(&self) -> Vec<(BackendId, Stamp)> {
        let seats = self.seats.lock();
        let all = seats.by_id.iter();
        all.map(|(id, (stamp, _))| (id.clone(), *stamp)).collect()
    }

    fn witness(&self, stamp: Stamp) {
        let mut seats = self.seats.lock();
        seats.newest = seats.newest.max(stamp);
    }

    fn yield_to_newer(&self, backend: &BackendId, stamp: Stamp) -> Vec<Box<Envelope>> {
        let mut seats = self.seats.lock();
        if seats.by_id.get(backend).map(|(stamp, _)| *stamp) == Some(stamp) {
            seats.by_id.remove(backend);
        }
        Vec::new()
    }
}
