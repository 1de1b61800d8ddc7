//! The bus of a node that is alone: there is nobody else to ask.

use super::Bus;
use crate::notification::{BackendId, Receipt};
use crate::parcel::Parcel;

/// One node, no Redis.
#[derive(Clone, Copy, Debug, Default)]
pub struct MemoryBus;

impl Bus for MemoryBus {
    fn forward(&self, parcel: Box<Parcel>) {
        // A parcel comes here when its backend is not on this node, and there is no other.
        parcel.settle(Receipt::Gone);
    }

    fn attach(&self, _backend: &BackendId) {}

    fn detach(&self, _backend: &BackendId) {}

    fn unwell(&self) -> Option<String> {
        None
    }
}
