//! The map of the house.

pub mod config;
pub mod notification;
pub mod thread;
