//! What the threads of the bus share.

use std::sync::Arc;

use super::health::Health;
use super::router::Router;
use crate::bus::hub::Hub;
use crate::bus::presence::PresenceQueries;
use crate::bus::remote_pending::RemotePending;
use crate::bus::verbs::{Arrivals, Sessions};
use crate::metrics::BusMetrics;

/// What the publishers and subscribers of all links work with, and who asks the bus for something.
pub struct BusParts {
    pub router: Arc<Router>,
    pub health: Arc<Health>,
    pub pending: RemotePending,
    pub queries: PresenceQueries,
    pub sessions: Arc<dyn Sessions>,
    pub arrivals: Arc<dyn Arrivals>,
    pub hub: Arc<Hub>,
    pub metrics: BusMetrics,
}
