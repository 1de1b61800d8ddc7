//! The shared outbox: a mirror in Redis of what a node has stored, so that it outlives the node and its disk.
//!
//! Two independent places: the file, and Redis. What is lost in one is put back from the other; only what both lose is lost.
//!
//! - *Mirror* (`mirror`): the writer's part. It changes the records of its own file, and nobody else does.
//! - *Compare* (`compare`): at each new connection, and when Redis has more or less than it should have, the file and the
//!   records are compared, a page at a time, beside the work.
//! - *Inherit* (`inherit`): a node whose lease has run out is gone. Another one stores what it had in its own file first, then
//!   takes it out of the dead node's records, and remembers there that it has; a node that comes back drops what others have.
//! - *Hand over*: a node that is to be removed gives up its lease itself. Others inherit, and it drops what they have.
//!
//! A crash at any step leaves a notification in one place too many, never in none: it is delivered twice then.

mod compare;
mod inherit;
mod keys;
mod mirror;
mod record;
mod state;
mod worker;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Sender, bounded};

use self::keys::Keys;
pub use self::mirror::Mirror;
pub use self::state::{Gone, NoHandOver, SharedState};
pub use self::worker::Worker;
use crate::bus::StoreLink;
use crate::config;
use crate::outbox::ops::Op;
use crate::outbox::store::{by_id, file};

/// How long a node's file remembers in Redis what others have taken over: a node that comes back later delivers it again.
const MOVED_KEPT: Duration = Duration::from_secs(30 * 24 * 3600);

/// The way to the shared outbox, and by what name other nodes know this one.
#[derive(Clone, Debug)]
pub struct SharedLink {
    pub link: Arc<StoreLink>,
    pub node: String,
}

/// What the mirror's thread is told.
#[derive(Debug)]
pub enum MirrorEvent {
    /// There may be something to be done: the state says what.
    Look,
    /// End.
    Stop,
}

/// What mirrors `store` in Redis: for the writer, with what tells the thread to end, and for the thread.
pub fn share(
    shared: SharedLink,
    config: &config::OutboxConfig,
    store: &file::Store,
    ops: Sender<Op>,
) -> rusqlite::Result<((Mirror, Sender<MirrorEvent>), Worker)> {
    let keys = Keys::new(shared.link.prefix(), by_id::store_id(&store.writing)?);
    let state = Arc::new(SharedState::new(config.shared, &keys.store));
    let (tell, events) = bounded(64);
    let mirror = Mirror::new(
        keys.clone(),
        &shared,
        config.inherit_after / 2,
        Arc::clone(&state),
        tell.clone(),
    );
    let worker = Worker {
        shared,
        keys,
        state,
        ops,
        events,
        reading: file::reading(&store.path)?,
        inherit_after: config.inherit_after,
        expire_ms: i64::try_from(config.expire.as_millis()).unwrap_or(i64::MAX),
        silent: Default::default(),
        advised: false,
    };
    Ok(((mirror, tell), worker))
}
