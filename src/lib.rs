//! The map of the house.

pub mod accept;
pub mod bus;
pub mod config;
pub mod delivery;
pub mod fds;
pub mod http;
pub mod logging;
pub mod metrics;
pub mod notification;
pub mod parcel;
pub mod session;
pub mod thread;
