//! What all sessions of a node share: plain data, no thread.

use std::sync::Arc;
use std::time::Duration;

use parking_lot::RwLock;

use super::newcomers::NewSessions;
use super::registry::Registry;
use super::token::Access;
use crate::bus::{Bus, Events};
use crate::config;
use crate::metrics::Metrics;
use crate::notification::IdMint;
use crate::peers::Failures;

/// What all sessions of a node share.
pub struct SessionContext {
    /// The sessions by backend id.
    pub registry: Arc<Registry>,
    /// The connections that have not said a good HELLO.
    pub newcomers: NewSessions,
    /// How other nodes learn which backends are here.
    pub bus: Arc<dyn Bus>,
    /// SUB and PUB.
    pub events: Events,
    /// Ids for messages between backends. Their process part differs from the notifications'.
    pub mint: IdMint,
    /// Who may connect; replaced on reload.
    pub access: RwLock<Arc<Access>>,
    /// The section `[tcp]`.
    pub tcp: config::TcpConfig,
    /// `delivery.ack_deadline`: no provider waits longer for an ACK.
    pub ack_deadline: Duration,
    /// How many HELLOs of each peer have failed.
    pub failures: Failures,
    /// `http.max_body`: no MSG is larger, and no data of a backend may be. In bytes.
    pub max_body: usize,
    /// The node's name and the process part, as OK shows them.
    pub instance: String,
    /// Where sessions and ACKs are counted.
    pub metrics: Arc<Metrics>,
}
