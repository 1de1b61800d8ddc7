//! The map of the house.

pub mod config;
pub mod logging;
pub mod metrics;
pub mod notification;
pub mod session;
pub mod thread;
